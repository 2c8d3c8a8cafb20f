"""The app or the service as a process of its own, for measuring it from outside."""

from __future__ import annotations

import contextlib
import math
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from retrieval import threads
from retrieval.benchmarks import process_status
from retrieval.errors import RetrievalError

ROOT = Path(__file__).parents[2]
APP = ("streamlit", "run", "app.py", "--server.headless", "true", "--server.address", "127.0.0.1")
SERVICE = ("retrieval", "serve")
START_TIMEOUT = 120.0  # s to start in


class Served:
    """A process that answers at ``address``, and those that it started.

    started: seconds from its start until it answered.
    """

    def __init__(self, process: subprocess.Popen, port: int):
        self.process, self.port = process, port
        self.address = f"http://127.0.0.1:{port}"
        self.started = 0.0

    def memory(self) -> int | None:
        """Resident bytes of all processes; None where the system has no /proc."""
        return self._sum_of_status("VmRSS")

    def peak(self) -> int | None:
        """The sum of the peaks of all processes, in bytes; None without /proc."""
        return self._sum_of_status("VmHWM")

    def processor(self) -> float:
        """Seconds of processor time of all processes so far, all threads; NaN without /proc."""
        try:
            lines = [Path(f"/proc/{process}/stat").read_text() for process in self._processes()]
        except OSError:
            return math.nan
        # utime, stime, cutime, cstime: of the process, and of its children that have ended.
        ticks = [sum(map(int, line.rpartition(")")[2].split()[11:15])) for line in lines]
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    def _sum_of_status(self, key: str) -> int | None:
        return sum(process_status(key, process) or 0 for process in self._processes()) or None

    def _processes(self) -> list[int]:
        """Ids of the process and of its children, one of which decodes pictures."""
        files = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        children = (child for file in files for child in file.read_text().split())
        return [self.process.pid, *map(int, children)]


@contextmanager
def serving(module: Sequence[str], port_option: str, health: str) -> Iterator[Served]:
    """Run ``python -m module…`` on a free port, and end it after the ``with`` block.

    port_option: of the command. health: the path that answers as soon as the process is ready.
    Raises RetrievalError where it does not start.
    """
    port = free_port()
    command = [sys.executable, "-m", *module, port_option, str(port)]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    served = Served(process, port)
    try:
        while not _answers(served.address + health):
            if process.poll() is not None or time.perf_counter() - started > START_TIMEOUT:
                raise RetrievalError(
                    f"python -m {' '.join(module)} does not start; run it to see why."
                )
            time.sleep(0.02)
        served.started = time.perf_counter() - started
        yield served
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of this machine that is free.

    Not one of those that the system gives out by itself: until it is used, another process may be
    given it.
    """
    while True:
        with socket.socket() as one, contextlib.suppress(OSError):  # it is taken
            one.bind(("127.0.0.1", random.SystemRandom().randrange(10_000, 32_768)))
            return one.getsockname()[1]


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


class PeakMemory:
    """The peak of resident memory in a ``with`` block, in ``bytes``, sampled every 0.1 s."""

    def __init__(self, served: Served):
        self.served, self.bytes = served, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        over = False
        while not over:  # also at the beginning: memory may be given back soon after
            self.bytes = max(self.bytes, self.served.memory() or 0)
            over = self._over.wait(0.1)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()


def percentile(seconds: Sequence[float], share: int) -> float:
    """The ``share``-th percentile (0 to 100); NaN without a value."""
    return float(np.percentile(seconds, share)) if seconds else math.nan


def megabytes(size: int | None) -> str:
    return f"{size / 1e6:,.0f} MB" if size else "not known here"


def machine() -> str:
    """Cores and load of this machine, for the heading of a table."""
    load = f", load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    return f"{threads.usable_cores()} cores{load}"
