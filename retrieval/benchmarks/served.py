"""The app or the service as a process of its own, for measuring it from outside."""

from __future__ import annotations

import math
import os
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
PATIENCE = 120.0  # s to start in


class Served:
    """A running process that answers at ``address``. started: seconds that it took to answer."""

    def __init__(self, process: subprocess.Popen, port: int):
        self.process, self.port = process, port
        self.address = f"http://127.0.0.1:{port}"
        self.started = 0.0

    def memory(self) -> int | None:
        """Resident bytes; None where the system has no /proc."""
        return self._total("VmRSS")

    def peak(self) -> int | None:
        """The most that was resident since the start, in bytes: all peaks added."""
        return self._total("VmHWM")

    def processor(self) -> float:
        """Seconds of processor time that it took so far, all threads; NaN without /proc."""
        try:
            lines = [Path(f"/proc/{one}/stat").read_text() for one in self._processes()]
        except OSError:
            return math.nan
        # Its own, user and system, and that of processes that it started and that have ended.
        ticks = [sum(map(int, line.rpartition(")")[2].split()[11:15])) for line in lines]
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    def _total(self, key: str) -> int | None:
        return sum(process_status(key, one) or 0 for one in self._processes()) or None

    def _processes(self) -> list[int]:
        """It, and those that it started: pictures are decoded in another process."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [self.process.pid, *(int(one) for task in tasks for one in task.read_text().split())]


@contextmanager
def serving(module: Sequence[str], port_option: str, health: str) -> Iterator[Served]:
    """``python -m module…`` on a free port, once it answers at the path ``health``.

    The numbers of threads are those that the software chooses, not those of this process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *module, port_option, str(port)]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    served = Served(process, port)
    try:
        while not _answers(served.address + health):
            if process.poll() is not None or time.perf_counter() - started > PATIENCE:
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


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


class PeakMemory:
    """The most resident memory while the ``with`` block runs, looked at ten times a second."""

    def __init__(self, served: Served):
        self.served, self.bytes = served, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.bytes = max(self.bytes, self.served.memory() or 0)

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
    """The time that ``share`` per cent of the answers came in; NaN where there was none."""
    return float(np.percentile(seconds, share)) if seconds else math.nan


def megabytes(size: int | None) -> str:
    return f"{size / 1e6:,.0f} MB" if size else "not known here"


def machine() -> str:
    """What the numbers depend on."""
    load = f", load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    return f"{threads.usable_cores()} cores{load}"
