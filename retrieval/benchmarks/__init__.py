"""``python -m retrieval bench``: every claim of speed, for anyone to repeat on their machine."""

from __future__ import annotations

from pathlib import Path

from retrieval import index as indexes
from retrieval.errors import RetrievalError


def index_of_town(method: str) -> Path:
    """The folder of town's index with a method. Raises RetrievalError where there is none."""
    found = indexes.find("town")
    if method not in found:
        raise RetrievalError(
            f"There is no index of town: python -m retrieval index town --method {method}"
        )
    return found[method]
