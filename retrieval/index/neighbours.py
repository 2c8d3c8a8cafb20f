"""The nearest pictures of every picture of an index: made once, and kept beside it.

``neighbours.npz`` holds what ``Neighbours`` does and the checksum of the manifest that it belongs
to. A file that is damaged or of another index is made again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval import files
from retrieval.errors import RetrievalError
from retrieval.methods.base import LocalFeatures

if TYPE_CHECKING:
    from retrieval.index.loading import Index

COUNT = 20  # neighbours of each picture, where there are so many
BLOCK = 1024  # pictures searched at a time
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
        # A folder that cannot be written costs time only.
        with contextlib.suppress(OSError), files.replacing(path) as file:
            np.savez(
                file,
                positions=neighbours.positions,
                similarity=neighbours.similarity,
                index=np.frombuffer(bytes.fromhex(index.manifest["sha256"]), np.uint8),
            )
    return neighbours


def find(index: Index) -> Neighbours:
    """The nearest pictures of each picture, computed from the features."""
    return _local(index) if index.kind == "local" else _global(index)


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
    others, scores = index.searcher.rank(query, count + 1)
    return _without(row, others, scores, count)


def _global(index: Index) -> Neighbours:
    vectors = np.asarray(index.arrays["descriptors"])
    count = min(COUNT, len(vectors) - 1)
    positions = np.empty((len(vectors), count), np.int32)
    similarity = np.empty((len(vectors), count), np.float32)
    for start in range(0, len(vectors), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(vectors)))
        results = index.searcher.search(vectors[rows].astype(np.float32), count + 1)
        for row, scores, others in zip(rows, *results, strict=True):
            positions[row], similarity[row] = _without(row, others, scores, count)
    return Neighbours(positions, similarity)


def _local(index: Index) -> Neighbours:
    count = min(COUNT, len(index) - 1)
    positions = np.empty((len(index), count), np.int32)
    similarity = np.empty((len(index), count), np.float32)
    for row in range(len(index)):
        positions[row], similarity[row] = _nearest(index, row, count)
    return Neighbours(positions, similarity)


def _without(
    row: int, others: np.ndarray, scores: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` best of the others, best first, without the picture ``row`` itself.

    others: (m,) positions. scores: (m,). Equal scores are in the order of the positions.
    """
    order = np.lexsort((others, -scores))
    order = order[others[order] != row][:count]
    return others[order], scores[order]


def _read(path: Path, index: Index) -> Neighbours | None:
    count = min(COUNT, len(index) - 1)
    most = len(index) * count * 8 + 10_000
    try:
        positions, similarity, stated = (
            files.read_array(path, key, most) for key in ("positions", "similarity", "index")
        )
    except RetrievalError:
        return None
    shape = len(index), count
    fine = (
        stated.tobytes().hex() == index.manifest["sha256"]
        and positions.shape == similarity.shape == shape
        and positions.dtype == np.int32
        and similarity.dtype == np.float32
        and np.isfinite(similarity).all()
        and (count == 0 or 0 <= positions.min() <= positions.max() < len(index))
        and not (positions == np.arange(len(index))[:, None]).any()
    )
    return Neighbours(positions, similarity) if fine else None
