"""Exact nearest neighbours in an index, by inner product. FAISS, imported late."""

from __future__ import annotations

import numpy as np

from retrieval.index.store import QUANTUM, Index


class GlobalSearcher:
    """Exact inner product over the global descriptors of an index."""

    def __init__(self, index: Index):
        import faiss

        vectors = np.ascontiguousarray(index.arrays["descriptors"], dtype=np.float32)
        self.flat = faiss.IndexFlatIP(vectors.shape[1])
        self.flat.add(vectors)

    def rank(self, descriptor: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``top`` best for descriptor (D,): positions (top,) int64, cosines (top,) float32."""
        scores, positions = self.flat.search(descriptor[None].astype(np.float32), top)
        return positions[0], scores[0]


class LocalSearcher:
    """Votes of exact local nearest neighbours: the shortlist of DELF.

    Each descriptor of the query gives a vote to the pictures of its ``NEIGHBOURS`` nearest
    database descriptors, weighted by (similarity − MIN_SIMILARITY)², at most one a picture.
    """

    NEIGHBOURS = 50
    MIN_SIMILARITY = 0.5

    def __init__(self, index: Index):
        import faiss

        self.pictures = len(index)
        offsets = index.arrays["offsets"]
        # picture of each database descriptor
        self.owner = np.repeat(np.arange(self.pictures), np.diff(offsets))
        descriptors = index.arrays["descriptors"]
        self.flat = faiss.IndexFlatIP(max(1, descriptors.shape[1] if descriptors.ndim == 2 else 1))
        if len(descriptors):
            self.flat.add(np.ascontiguousarray(descriptors, dtype=np.float32) / QUANTUM)

    def rank(self, descriptors: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``top`` pictures by votes for (n, d) descriptors: positions, votes in [0, 1)."""
        votes = np.zeros(self.pictures, np.float64)
        if len(descriptors) and self.flat.ntotal:
            nearest = min(self.NEIGHBOURS, self.flat.ntotal)
            similarity, rows = self.flat.search(descriptors.astype(np.float32), nearest)
            weight = np.clip(similarity - self.MIN_SIMILARITY, 0, None) ** 2
            pictures = self.owner[rows]
            # The strongest vote of each descriptor for each picture: the first, as they are sorted.
            keys = np.arange(len(descriptors))[:, None] * self.pictures + pictures
            _, first = np.unique(keys, return_index=True)
            np.add.at(votes, pictures.ravel()[first], weight.ravel()[first])
            votes /= len(descriptors)
        order = np.argsort(-votes, kind="stable")[:top]
        return order, votes[order].astype(np.float32)
