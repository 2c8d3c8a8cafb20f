"""Describe the pictures of a collection with workers of Ray, on one machine or several.

The build runs on the machine where it was started. It sends names of pictures to the workers and
writes the results to its journal, so that it can be stopped and continued. The index is equal, byte
for byte, to that of one machine: workers use as many threads as a build without Ray
($OMP_NUM_THREADS), because the last digits depend on that number.

Every machine has this checkout, the weights and the pictures in the same places, or reads the
pictures from the same object storage. All machines are trusted: a client that reaches a cluster of
Ray can run any program on it.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import Any

from retrieval.errors import RetrievalError
from retrieval.index import describing, layout
from retrieval.index.describing import Described, Known
from retrieval.methods.base import Method
from retrieval.threads import stated_threads, usable_cores

LOCAL = "local"
MAX_PIECE = 32  # pictures that are sent to a worker together
IN_HAND = 2  # pieces at each worker: one is described, the next has arrived
PATIENCE = 10  # s to wait for a cluster
TRIES = 3  # further tries with pictures whose worker has died


class Station:
    """The work of one worker: load a method once, then describe pictures by name."""

    def __init__(
        self,
        load: Callable[[], Method],
        identity: dict[str, Any],
        collection,
        max_pixels: int,
        threads: int,
    ):
        self.load, self.identity, self.threads = load, identity, threads
        self.collection, self.max_pixels = collection, max_pixels
        self.method: Method | None = None

    def describe(self, names: Sequence[str], known: Known) -> list[Described]:
        if self.method is None:
            self.method = self._loaded()
        return list(
            describing.describe(self.collection, self.method, names, known, self.max_pixels)
        )

    def _loaded(self) -> Method:
        root = self.collection.root  # None for a zip or object storage
        if root is not None and not root.is_dir():  # otherwise each picture would be left out
            raise RetrievalError(
                f"A worker of Ray does not find {root}: bring the pictures to the "
                "same place on all machines."
            )
        method = self.load()
        if layout.identity(method) != self.identity:
            raise RetrievalError(
                "A worker of Ray has other weights or settings than this machine: bring the same "
                "checkout and the same files to all."
            )
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(self.threads)
        return method


def describer(address: str, load: Callable[[], Method]) -> Callable[..., Iterator[Described]]:
    """A ``describe`` for a build that uses the workers of a cluster.

    address: 'local' starts Ray on this machine, for this build; 'auto' or host:port is a cluster
    that this machine belongs to. load: returns the method of the build.
    Raises RetrievalError for an address with ``://``, which is for clients outside of the cluster.
    """
    if "://" in address:
        raise RetrievalError(
            f"{address} is for clients outside of a cluster: run this command on a machine of the "
            "cluster, with --ray auto."
        )

    def describe(
        collection, method, names: Sequence[str], known: Known, max_pixels: int
    ) -> Iterator[Described]:
        threads = stated_threads()
        identity = layout.identity(method)
        with _connected(address) as ray:
            packed = ray.cloudpickle.dumps((load, identity, collection, max_pixels, threads))
            shared = ray.put(packed)  # kept here: a worker that died starts again with it
            workers = _workers(ray, shared, threads)
            try:
                yield from _distribute(ray, workers, names, known, max(method.batch, 1))
            finally:
                for worker in workers:
                    ray.kill(worker)

    return describe


def _distribute(
    ray: Any, workers: Sequence[Any], names: Sequence[str], known: Known, batch: int
) -> Iterator[Described]:
    """Send all names to the workers, a few at a time; yields the results in any order."""
    size = min(MAX_PIECE, len(names) // (len(workers) * IN_HAND * 2))
    size = max(size // batch, 1) * batch  # whole batches of the method
    pieces = iter([names[start : start + size] for start in range(0, len(names), size)])
    shared_known = ray.put(known)
    worker_of = {}  # unfinished result → its worker

    def send(worker: Any, piece: Sequence[str]) -> None:
        worker_of[worker.describe.remote(piece, shared_known)] = worker

    for worker, piece in zip(cycle(workers), islice(pieces, len(workers) * IN_HAND), strict=False):
        send(worker, piece)
    while worker_of:
        (done,), _ = ray.wait(list(worker_of), num_returns=1)
        worker = worker_of.pop(done)
        try:
            described = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RetrievalError):
                raise RetrievalError(str(error.cause)) from error
            raise
        except ray.exceptions.RayError as error:
            raise RetrievalError(
                f"A worker of Ray died {TRIES + 1} times at the same pictures; it may lack memory. "
                "Finished pictures are kept: run the same command again."
            ) from error
        for piece in islice(pieces, 1):
            send(worker, piece)
        yield from described


def _workers(ray: Any, shared: Any, threads: int) -> list[Any]:
    """One worker for each GPU; without GPUs, one for each ``threads`` cores of a machine."""

    class Worker:
        """Ray sends this class as a whole. It imports our modules once it has set the path."""

        def __init__(self, path: list[str], packed: bytes):
            import sys

            sys.path.extend(place for place in path if place not in sys.path)
            from ray import cloudpickle

            from retrieval.index.cluster import Station

            self.station = Station(*cloudpickle.loads(packed))

        def describe(self, names, known):
            return self.station.describe(names, known)

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in resources)
    count = gpus or sum(int(node.get("CPU", 0)) // threads for node in resources)
    if not count:
        raise RetrievalError(
            f"No machine of the cluster has {threads} cores for a worker; set OMP_NUM_THREADS=1."
        )
    options = {"num_gpus": 1} if gpus else {"num_cpus": threads}
    remote = ray.remote(Worker).options(**options, max_restarts=-1, max_task_retries=TRIES)
    path = [os.path.abspath(place) for place in sys.path]
    return [remote.remote(path, shared) for _ in range(count)]


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster. A connection that is made here is closed here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError as error:
        raise RetrievalError('Ray is not installed: pip install "ray>=2.59,<3"') from error
    # Ray listens to other machines too; since 2.59 it asks them for a token.
    if address == LOCAL and [int(part) for part in ray.__version__.split(".")[:2]] < [2, 59]:
        raise RetrievalError('This Ray lets everybody in: pip install "ray>=2.59,<3"')
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address == LOCAL:
            here = quiet | {"num_cpus": usable_cores(), "include_dashboard": False}
            try:
                ray.init(LOCAL, **here)
            except Exception:  # it gives up after half a minute, as on a busy machine
                ray.init(LOCAL, **here)
        else:
            if place := re.fullmatch(r"(.+):(\d{1,5})", address):
                # Ray itself tries for two minutes.
                socket.create_connection((place[1], int(place[2])), PATIENCE).close()
            ray.init(address, **quiet)
    except Exception as error:  # Ray raises Exception itself where it does not start in time
        raise RetrievalError(
            "Ray does not start on this machine: run the same command again when it has less to "
            "do, or without --ray."
            if address == LOCAL
            else f"Ray cannot be reached at {address}: see that it runs, that the address is right "
            "and that RAY_AUTH_MODE=token is set if it asks for a token."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
