"""``python -m retrieval bench``: measurements of speed and memory, to repeat on any machine."""

from __future__ import annotations

from pathlib import Path

from retrieval import index as indexes
from retrieval.errors import RetrievalError


def process_status(key: str, process: int | str = "self") -> int | None:
    """Bytes that Linux counts for a process; None where the system has no /proc or no such number.

    key: 'VmRSS', resident memory; 'VmHWM', its peak; 'RssAnon', without mapped files.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:")), None)


def index_of_town(method: str) -> Path:
    """The folder of town's index with a method. Raises RetrievalError where there is none."""
    folders = indexes.find("town")
    if method not in folders:
        raise RetrievalError(
            f"There is no index of town: python -m retrieval index town --method {method}"
        )
    return folders[method]
