"""Submissions: rankings or descriptors that were made elsewhere, to be scored here.

A submission is an ``.npz`` from a stranger. Nothing in it is executed, sizes are checked before
anything is unpacked, and arrays that do not fit the collection are refused with the reason.
"""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np

from retrieval import files
from retrieval.collections import Collection, archives
from retrieval.errors import RetrievalError
from retrieval.evaluation import check_ranks, evaluate, rank_descriptors
from retrieval.evaluation.protocols import Truth
from retrieval.evaluation.runs import Run

# Unpacked, and as 4-byte floats; 5000 × 70 rankings as int64 are 3 MB, 5000 × 2048 floats 41 MB.
MAX_BYTES = 250_000_000
SECONDS = 10.0  # of computing to read one: MAX_BYTES of numbers take 0.6 to 1.9 on a busy machine
RANKED = 8_000_000  # scores that are sorted at a time, which takes 130 MB
FORM = (
    "The file must be an .npz with `ranks` (one column a query, best first; pictures are numbered "
    "from 0), or with `queries` and `database` (one descriptor a row)."
)


def read_rankings(path: str | Path, key: str | None, truth: Truth) -> np.ndarray:
    """Read rankings (K, Q) from a file of the machine's owner, unchecked.

    Also an ``.npz`` with ``queries`` and ``database``, as ``read_submission`` takes it. key: of
    the array, where an ``.npz`` holds several; ``ranks`` by default.
    """
    if key is None and Path(path).is_file():
        with open(path, "rb") as file:
            members = _members(file)
            if members >= {"queries", "database"} and "ranks" not in members:
                return read_submission(file, truth)
        key = "ranks" if "ranks" in members else None
    return files.read_array(path, key)


def read_submission(file: BinaryIO, truth: Truth) -> np.ndarray:
    """Read rankings (K, Q) of a collection from an ``.npz`` in one of two forms.

    Either ``ranks`` (K, Q), integers as ``evaluate`` takes them; or ``queries`` (Q, D) and
    ``database`` (N, D), numbers in the order of the collection, which are ranked by inner product.
    Raises RetrievalError for everything else.
    """
    members = _members(file)
    keys = ("ranks",) if "ranks" in members else ("queries", "database")
    if not members >= set(keys):
        raise RetrievalError(FORM)
    pictures, queries = len(truth.names), len(truth.queries)
    arrays = []
    with archives.reading_within(SECONDS, file) as timed:
        for name in keys:
            timed.seek(0)
            arrays.append(files.read_array(timed, name, MAX_BYTES))
    if len(arrays) == 1:
        return check_ranks(arrays[0], pictures, queries)
    for name, array, count in zip(keys, arrays, (queries, pictures), strict=True):
        if array.ndim != 2 or array.dtype.kind not in "fiu" or len(array) != count:
            kind = "query" if name == "queries" else "picture"
            raise RetrievalError(
                f"`{name}` must be numbers in {count} rows, one for each {kind}, not "
                f"{array.dtype} of shape {array.shape}."
            )
        if 4 * array.size > MAX_BYTES:
            raise RetrievalError(
                f"`{name}` holds more than {MAX_BYTES // 4_000_000} million numbers: bring fewer "
                "dimensions."
            )
        if not np.isfinite(array).all():
            raise RetrievalError(
                f"`{name}` holds values that are not finite numbers: replace or leave out NaN and "
                "infinite ones."
            )
    if 4 * pictures * queries > MAX_BYTES:
        raise RetrievalError(
            f"Rankings of {pictures:,} pictures for {queries:,} queries are too many: bring "
            "`ranks` with the first pictures of each ranking."
        )
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        asked, database = (array.astype(np.float32, copy=False) for array in arrays)
    ranks = np.empty((pictures, queries), np.int32)
    step = max(1, RANKED // max(1, pictures))
    for start in range(0, queries, step):
        columns = slice(start, start + step)
        ranks[:, columns] = rank_descriptors(asked[columns], database)
    return ranks


def _members(file: BinaryIO) -> set[str]:
    """Names of the arrays in an ``.npz``; empty for other files."""
    try:
        return {name.removesuffix(".npy") for name in archives.names_in(file)}
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return set()
    finally:
        file.seek(0)


def as_run(ranks: np.ndarray, collection: Collection, name: str) -> Run:
    """Score rankings (K, Q) of a submission. name: of its file, which the provenance states."""
    record = {
        "made": datetime.now(UTC).isoformat(timespec="microseconds"),
        "provenance": {"method": "upload", "checkpoint": name},
    }
    return Run(ranks, {}, evaluate(ranks, collection), record)
