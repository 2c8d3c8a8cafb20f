"""``bench threads``: indexing on a quiet machine and beside other work, by how threads wait."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval import threads
from retrieval.collections import open_collection

PICTURES = 24
BUSY_PROCESSES = 2  # each uses a core
ROUNDS = 3
# libgomp's own default when nothing is set; it wins over OMP_WAIT_POLICY.
SPINNING = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
THREAD_SETTINGS: dict[str, dict[str, str]] = {
    "as the libraries come": SPINNING,
    "as we set them": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def run() -> None:
    """The command: print the times."""
    print(
        f"{PICTURES} pictures of town, CNN-IRwNHA, whole process; {threads.usable_cores()} cores; "
        f"median of {ROUNDS}, seconds"
    )
    print(f"{'':24}{'quiet':>8}{f'beside {BUSY_PROCESSES} busy processes':>26}{'ratio':>8}")
    for name, (quiet, busy) in measure().items():
        print(f"{name:24}{quiet:8.1f}{busy:26.1f}{busy / quiet:8.1f}")


def measure(pictures: int = PICTURES, rounds: int = ROUNDS) -> dict[str, tuple[float, float]]:
    """Name of the settings → seconds of indexing on a quiet machine, and beside busy processes."""
    town = open_collection("town")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "pictures")
        folder.mkdir()
        for name in town.names[:pictures]:
            (folder / Path(name).name).write_bytes(town.path(name).read_bytes())
        quiet = _median_seconds(folder, rounds)
        with _busy_processes():
            busy = _median_seconds(folder, rounds)
    return {name: (quiet[name], busy[name]) for name in THREAD_SETTINGS}


def _median_seconds(folder: Path, rounds: int) -> dict[str, float]:
    """Name of the settings → median seconds. They take turns, so that other work slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in THREAD_SETTINGS}
    for _ in range(rounds):
        for name, settings in THREAD_SETTINGS.items():
            seconds[name].append(_indexing_seconds(folder, settings))
    return {name: statistics.median(times) for name, times in seconds.items()}


def _indexing_seconds(folder: Path, settings: dict[str, str]) -> float:
    """Seconds of a process that indexes a folder. settings: its environment for threads."""
    thread_variables = ("OMP_", "KMP_", "GOMP_", "OPENBLAS_NUM_THREADS")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(thread_variables)
    }
    with tempfile.TemporaryDirectory() as out:
        arguments = ["index", str(folder), "--method", "cnn-irwnha", "--out", f"{out}/index"]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "retrieval", *arguments],
            cwd=Path(__file__).parents[2],
            env=environment | settings,
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - started


@contextmanager
def _busy_processes() -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(BUSY_PROCESSES)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
