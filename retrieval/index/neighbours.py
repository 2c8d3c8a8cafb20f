"""The nearest pictures of every picture of an index: computed once, and kept beside it.

``neighbours.npz`` holds the arrays of ``Neighbours`` and the checksum of the manifest of its index.
A file that is damaged or of another index is computed again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval import files, workers
from retrieval.errors import RetrievalError
from retrieval.index.layout import EXACT
from retrieval.methods.base import LocalFeatures

if TYPE_CHECKING:
    from retrieval.index.index import Index

COUNT = 20  # neighbours of each picture, where there are so many
# So many pairs of pictures are compared at a time, which takes a third of a second; but no fewer
# pictures than have LEAST_PART numbers: FAISS is ten times slower with fewer. DELF: LOCAL_PART.
PART, LEAST_PART = 2**22, 2**17
LOCAL_PART = 4  # pictures
SAMPLE = 64  # pictures for ``nearest_sample``
FILE = "neighbours.npz"


@dataclass(frozen=True, eq=False)  # one object, one key of a cache
class Neighbours:
    """The k nearest pictures of each of N pictures, nearest first, without the picture itself.

    positions: (N, k) int32. similarity: (N, k) float32, the cosine or the votes of DELF.
    k is COUNT, or N - 1 in a smaller collection.
    """

    positions: np.ndarray
    similarity: np.ndarray


def of(index: Index) -> Neighbours:
    """The neighbours that are kept beside an index, else new ones, which are then kept there."""
    path = index.path / FILE
    neighbours = _read(path, index)
    if neighbours is None:
        neighbours = find(index)
        # Where the folder cannot be written, they are computed again next time.
        with contextlib.suppress(OSError), files.replacing(path) as file:
            np.savez(
                file,
                positions=neighbours.positions,
                similarity=neighbours.similarity,
                index=np.frombuffer(bytes.fromhex(index.manifest["sha256"]), np.uint8),
            )
    return neighbours


def find(index: Index) -> Neighbours:
    """The nearest pictures of each picture, computed from the features.

    Slow workers do it in parts: of 5000 pictures with DELF it takes minutes.
    """
    size = LOCAL_PART if index.kind == "local" else max(1, PART // max(len(index), 1))
    if index.kind == "global" and index.search == EXACT:
        size = max(size, LEAST_PART // index.width)
    starts = range(0, len(index), size)
    missing = [
        partial(_find_part, index, start, size) for start in starts if start not in index.near
    ]
    workers.do_parts("neighbours", missing)
    positions, similarity = zip(*(index.near[start] for start in starts), strict=True)
    return Neighbours(np.concatenate(positions), np.concatenate(similarity))


def _find_part(index: Index, start: int, size: int) -> None:
    """Put positions and similarity of the nearest of some pictures into ``index.near``."""
    if start in index.near:
        return
    rows, count = range(start, min(start + size, len(index))), min(COUNT, len(index) - 1)
    if index.kind == "local":
        nearest = [_nearest(index, row, count) for row in rows]
    else:
        vectors = index.arrays["descriptors"][start : rows.stop].astype(np.float32)
        scores, others = index.searcher.search(vectors, count + 1)
        nearest = [_without(row, others[at], scores[at], count) for at, row in enumerate(rows)]
    positions, similarity = zip(*nearest, strict=True)
    index.near[start] = np.array(positions, np.int32), np.array(similarity, np.float32)


def nearest_sample(index: Index) -> np.ndarray:
    """Similarity of some pictures (at most SAMPLE, evenly spread) to their nearest: (n,) float32.

    Empty in a collection of one picture.
    """
    rows = np.unique(np.linspace(0, len(index) - 1, min(SAMPLE, len(index))).astype(np.int64))
    if len(index) < 2:
        return np.empty(0, np.float32)
    similarity = [_nearest(index, row, 1)[1][0] for row in rows.tolist()]
    return np.array(similarity, np.float32)


def _nearest(index: Index, row: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` nearest of one picture, without itself: positions and similarity."""
    features = index.features(row)
    query = features.descriptors if isinstance(features, LocalFeatures) else features
    positions, scores = index.searcher.rank(query, count + 1)
    return _without(row, positions, scores, count)


def _without(
    row: int, positions: np.ndarray, scores: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` best positions and their scores, best first, without the picture ``row``.

    positions: (m,) int. scores: (m,). Equal scores are in the order of the positions.
    """
    order = np.lexsort((positions, -scores))
    order = order[positions[order] != row][:count]
    return positions[order], scores[order]


def _read(path: Path, index: Index) -> Neighbours | None:
    count = min(COUNT, len(index) - 1)
    max_bytes = len(index) * count * 8 + 10_000
    try:
        positions, similarity, stated = (
            files.read_array(path, key, max_bytes) for key in ("positions", "similarity", "index")
        )
    except RetrievalError:
        return None
    shape = len(index), count
    valid = (
        stated.tobytes().hex() == index.manifest["sha256"]
        and positions.shape == similarity.shape == shape
        and positions.dtype == np.int32
        and similarity.dtype == np.float32
        and np.isfinite(similarity).all()
        and (count == 0 or 0 <= positions.min() <= positions.max() < len(index))
        and not (positions == np.arange(len(index))[:, None]).any()
    )
    return Neighbours(positions, similarity) if valid else None
