"""``python -m retrieval bench``: every claim of speed, for anyone to repeat on their machine."""

from __future__ import annotations

from pathlib import Path

from retrieval import index as indexes
from retrieval.errors import RetrievalError


def process_status(key: str, process: int | str = "self") -> int | None:
    """Bytes that Linux counts for a process: VmRSS resident, VmHWM the most of it, RssAnon.

    None where the system has no /proc, or no such number.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:")), None)


def index_of_town(method: str) -> Path:
    """The folder of town's index with a method. Raises RetrievalError where there is none."""
    found = indexes.find("town")
    if method not in found:
        raise RetrievalError(
            f"There is no index of town: python -m retrieval index town --method {method}"
        )
    return found[method]
