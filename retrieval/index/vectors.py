"""Exact nearest neighbours of global descriptors by inner product, with FAISS."""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCK = 65_536  # descriptors that are converted to float32 at a time


class ExactSearcher:
    """Exact inner product; milliseconds up to a hundred thousand pictures."""

    def __init__(self, descriptors: np.ndarray):
        """descriptors: (N, D), unit length; kept in memory as float32."""
        import faiss

        self.flat = faiss.IndexFlatIP(descriptors.shape[1])
        fill(self.flat, descriptors, np.float32)

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``count`` best for each query: cosines (n, count) float32 and positions (n, count).

        queries: (n, D).
        """
        return self.flat.search(np.ascontiguousarray(queries, np.float32), count)

    def rank(self, descriptor: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``top`` best for one descriptor (D,), best first; equal cosines by position.

        Returns positions (top,) int64 and cosines (top,) float32.
        """
        query = np.ascontiguousarray(descriptor[None], np.float32)
        found = self.search(query, min(top + 1, self.flat.ntotal))
        scores, positions = found[0][0], found[1][0]
        if len(scores) > top and scores[top] == scores[top - 1]:
            # FAISS keeps any pictures of this score, so all are asked for.
            below = float(np.nextafter(scores[top], np.float32(-np.inf)))
            _, scores, positions = self.flat.range_search(query, below)
        # FAISS leaves equal scores in any order.
        order = np.lexsort((positions, -scores))[:top]
        return positions[order], scores[order]


def fill(
    flat: Any, rows: np.ndarray, dtype: type[np.floating], order: np.ndarray | None = None
) -> None:
    """Put rows (n, D) into an empty FAISS index that keeps them as ``dtype``.

    order: (m,), which rows, in which order; by default all. FAISS's own ``add`` takes float32 only,
    and twice the memory while it works.
    """
    import faiss

    order = np.arange(len(rows)) if order is None else order
    flat.codes.resize(len(order) * rows.shape[1] * np.dtype(dtype).itemsize)
    codes = faiss.rev_swig_ptr(flat.codes.data(), flat.codes.size()).view(dtype)
    codes = codes.reshape(len(order), -1)
    for start in range(0, len(order), BLOCK):
        codes[start : start + BLOCK] = rows[order[start : start + BLOCK]]
    flat.ntotal = len(order)


def nearest(
    descriptors: np.ndarray, queries: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` best for each query, best first: cosines and positions, (n, count) each.

    descriptors: (N, D), read block by block, so that they may stay on disk. queries: (n, D)
    float32. count: at most N.
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
