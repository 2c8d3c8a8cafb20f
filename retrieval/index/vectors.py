"""Nearest neighbours of global descriptors by inner product, exactly. FAISS, imported late."""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCK = 65_536  # descriptors that become float32 at once


class ExactSearcher:
    """Exact inner product; milliseconds up to a hundred thousand pictures."""

    def __init__(self, descriptors: np.ndarray):
        """descriptors: (N, D), unit length; kept in memory as float32."""
        import faiss

        self.flat = faiss.IndexFlatIP(descriptors.shape[1])
        fill(self.flat, descriptors, np.float32)

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``count`` best for each of (n, D) float32: cosines and positions, (n, count)."""
        return self.flat.search(np.ascontiguousarray(queries, np.float32), count)

    def rank(self, descriptor: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``top`` best for descriptor (D,): positions (top,) int64, cosines (top,) float32."""
        scores, positions = self.search(descriptor[None], top)
        # FAISS leaves equal scores in any order.
        order = np.lexsort((positions[0], -scores[0]))
        return positions[0][order], scores[0][order]


def fill(
    flat: Any, rows: np.ndarray, dtype: type[np.floating], order: np.ndarray | None = None
) -> None:
    """Put rows (n, D) into an empty index of FAISS that keeps them as ``dtype``, without a copy.

    ``add`` takes float32 only, and twice the memory while it works. order: of the rows, (m,).
    """
    import faiss

    order = np.arange(len(rows)) if order is None else order
    flat.codes.resize(len(order) * rows.shape[1] * np.dtype(dtype).itemsize)
    place = faiss.rev_swig_ptr(flat.codes.data(), flat.codes.size()).view(dtype)
    place = place.reshape(len(order), -1)
    for start in range(0, len(order), BLOCK):
        place[start : start + BLOCK] = rows[order[start : start + BLOCK]]
    flat.ntotal = len(order)


def nearest(
    descriptors: np.ndarray, queries: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` best for each of (n, D) float32: cosines and positions (n, count), best first.

    Exact, and block by block, so that descriptors (N, D) may stay on disk. count is at most N.
    """
    import faiss

    scores = np.empty((len(queries), 0), np.float32)
    positions = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(descriptors), BLOCK):
        block = np.ascontiguousarray(descriptors[start : start + BLOCK], np.float32)
        best = min(count, len(block))
        new_scores, new = faiss.knn(queries, block, best, metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([scores, new_scores], axis=1)
        positions = np.concatenate([positions, new + start], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores = np.take_along_axis(scores, order, axis=1)
        positions = np.take_along_axis(positions, order, axis=1)
    return scores, positions
