"""Descriptors projected to two dimensions, to be drawn as a map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from retrieval import workers

MAX_PICTURES = 2000  # on a map: the first of a collection
PERPLEXITY = 15.0  # about how many neighbours of each picture t-SNE keeps near


class Directions(NamedTuple):
    """The first two principal components of descriptors.

    mean: (D,). directions: (2, D), unit length. share: of the variance along these two, 0 to 1.
    """

    mean: np.ndarray
    directions: np.ndarray
    share: float

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates (N, 2) of descriptors (N, D) along the two directions."""
        return (vectors - self.mean) @ self.directions.T


def pca(vectors: np.ndarray) -> Directions:
    """The first two principal components of descriptors (N, D); N is at least 2."""
    mean = vectors.mean(axis=0)
    _, lengths, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    total = float((lengths**2).sum()) or 1.0
    return Directions(mean, directions[:2], float((lengths[:2] ** 2).sum()) / total)


def tsne(vectors: np.ndarray) -> np.ndarray:
    """Coordinates (N, 2) by t-SNE (van der Maaten and Hinton, JMLR 2008): neighbours stay near.

    vectors: (N, D) of unit length, N from 4 to MAX_PICTURES. The result is deterministic.
    """
    if (vectors == vectors[0]).all():
        # scikit-learn would divide by their variance, and its C code then ends the whole process.
        return np.zeros((len(vectors), 2), np.float32)
    workers.move_to_slow_workers()  # 2000 pictures take 5 s and more
    from sklearn.manifold import TSNE  # takes a second

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    return TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=0).fit_transform(
        vectors.astype(np.float32)
    )
