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
BUSY = 2  # processes that each use a core
ROUNDS = 3
# libgomp's own default when nothing is set; it wins over OMP_WAIT_POLICY.
SPINNING = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
WAYS: dict[str, dict[str, str]] = {
    "as the libraries come": SPINNING,
    "as we set them": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def run() -> None:
    """The command."""
    print(
        f"{PICTURES} pictures of town, CNN-IRwNHA, whole process; {threads.usable_cores()} cores; "
        f"median of {ROUNDS}, seconds"
    )
    print(f"{'':24}{'quiet':>8}{f'beside {BUSY} busy processes':>26}{'ratio':>8}")
    for way, (quiet, busy) in measure().items():
        print(f"{way:24}{quiet:8.1f}{busy:26.1f}{busy / quiet:8.1f}")


def measure(pictures: int = PICTURES, rounds: int = ROUNDS) -> dict[str, tuple[float, float]]:
    """Way of waiting → seconds of indexing when quiet, and beside ``BUSY`` busy processes."""
    town = open_collection("town")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "pictures")
        folder.mkdir()
        for name in town.names[:pictures]:
            (folder / Path(name).name).write_bytes(town.path(name).read_bytes())
        quiet = _rounds(folder, rounds)
        with _busy():
            busy = _rounds(folder, rounds)
    return {way: (quiet[way], busy[way]) for way in WAYS}


def _rounds(folder: Path, rounds: int) -> dict[str, float]:
    """Median seconds by way. The ways take turns, so that other work slows all of them."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, settings in WAYS.items():
            seconds[way].append(_seconds(folder, settings))
    return {way: statistics.median(one) for way, one in seconds.items()}


def _seconds(folder: Path, settings: dict[str, str]) -> float:
    ours = ("OMP_", "KMP_", "GOMP_", "OPENBLAS_NUM_THREADS")
    plain = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    with tempfile.TemporaryDirectory() as out:
        words = ["index", str(folder), "--method", "cnn-irwnha", "--out", f"{out}/index"]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "retrieval", *words],
            cwd=Path(__file__).parents[2],
            env=plain | settings,
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - started


@contextmanager
def _busy() -> Iterator[None]:
    loop = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(loop) for _ in range(BUSY)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
