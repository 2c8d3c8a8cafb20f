"""Pictures of a collection are described by workers of Ray, on this machine or on many.

The build runs on the machine where it was started: it hands out names of pictures and keeps the
results in its journal, as if it had described the pictures itself. So it can go on after a stop of
any kind. The index equals that of one machine, byte for byte: workers use the same number of
threads as a build here ($OMP_NUM_THREADS), on which the last digits depend.

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
from retrieval.threads import usable_cores

LOCAL = "local"
MAX_AT_ONCE = 32  # pictures that are handed out together
IN_HAND = 2  # groups of pictures at each worker: the next one is sent while one is described
PATIENCE = 10  # s to wait for a cluster
TRIES = 3  # further tries with pictures whose worker has died

KEPT = "What is finished is kept: run the same command again."


class Station:
    """What a worker does: it loads a method once and describes the pictures that it is told."""

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
        found = describing.describe(self.collection, self.method, names, known, self.max_pixels)
        return list(found)

    def _loaded(self) -> Method:
        root = self.collection.root  # None: in a zip or object storage, which says what it lacks
        if root is not None and not root.is_dir():  # else every picture would be unreadable
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
    """``describe`` of a build, by the workers of a cluster.

    address: 'local' starts Ray on this machine, for this build; 'auto' or host:port is a cluster
    that this machine belongs to. load: gives the method of the build.
    Raises RetrievalError for the address of a client of Ray's, which is outside of the cluster.
    """
    if "://" in address:
        raise RetrievalError(
            f"{address} is for clients outside of a cluster: run this command on a machine of the "
            "cluster, with --ray auto."
        )

    def describe(
        collection, method, names: Sequence[str], known: Known, max_pixels: int
    ) -> Iterator[Described]:
        threads = int(os.environ["OMP_NUM_THREADS"].split(",")[0])
        identity = layout.identity(method)
        with _connected(address) as ray:
            packed = ray.cloudpickle.dumps((load, identity, collection, max_pixels, threads))
            shared = ray.put(packed)  # kept here: a worker that died starts again with it
            workers = _workers(ray, shared, threads)
            try:
                yield from _handed_out(ray, workers, names, known, max(method.batch, 1))
            finally:
                for worker in workers:
                    ray.kill(worker)

    return describe


def _handed_out(
    ray: Any, workers: Sequence[Any], names: Sequence[str], known: Known, batch: int
) -> Iterator[Described]:
    """Hand out all names, a few at a time, and pass on what comes back, in any order."""
    size = min(MAX_AT_ONCE, len(names) // (len(workers) * IN_HAND * 2))
    size = max(size // batch, 1) * batch  # whole batches of the method
    pieces = iter([names[start : start + size] for start in range(0, len(names), size)])
    everything = ray.put(known)
    waiting = {}

    def hand_out(worker: Any, piece: Sequence[str]) -> None:
        waiting[worker.describe.remote(piece, everything)] = worker

    for worker, piece in zip(cycle(workers), islice(pieces, len(workers) * IN_HAND), strict=False):
        hand_out(worker, piece)
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        worker = waiting.pop(done)
        try:
            found = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RetrievalError):
                raise RetrievalError(str(error.cause)) from error
            raise
        except ray.exceptions.RayError as error:
            raise RetrievalError(
                f"A worker of Ray died {TRIES + 1} times at the same pictures; it may lack memory. "
                f"{KEPT}"
            ) from error
        for piece in islice(pieces, 1):
            hand_out(worker, piece)
        yield from found


def _workers(ray: Any, shared: Any, threads: int) -> list[Any]:
    """One worker a GPU, or as many as have ``threads`` cores each where there is none."""

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
    gpus = sum(int(one.get("GPU", 0)) for one in resources)
    count = gpus or sum(int(one.get("CPU", 0)) // threads for one in resources)
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
    if address == LOCAL and [int(one) for one in ray.__version__.split(".")[:2]] < [2, 59]:
        raise RetrievalError('This Ray lets everybody in: pip install "ray>=2.59,<3"')
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address == LOCAL:
            ray.init(LOCAL, num_cpus=usable_cores(), include_dashboard=False, **quiet)
        else:
            if place := re.fullmatch(r"(.+):(\d{1,5})", address):
                # Ray itself tries for two minutes.
                socket.create_connection((place[1], int(place[2])), PATIENCE).close()
            ray.init(address, **quiet)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise RetrievalError(
            f"Ray cannot be reached at {address}: see that it runs, that the address is right and "
            "that RAY_AUTH_MODE=token is set if it asks for a token."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
