"""Descriptors in two dimensions, to be looked at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MOST = 2000  # pictures on a map, the first of a collection
PERPLEXITY = 15.0  # about as many neighbours of each picture are kept near


class Directions(NamedTuple):
    """Principal component analysis. mean: (D,); directions: (2, D), unit length; share: of all
    variance that these two hold, 0 to 1."""

    mean: np.ndarray
    directions: np.ndarray
    share: float

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """(N, 2) of descriptors (N, D)."""
        return (vectors - self.mean) @ self.directions.T


def pca(vectors: np.ndarray) -> Directions:
    """The two directions in which descriptors (N, D), at least two of them, differ most."""
    mean = vectors.mean(axis=0)
    _, lengths, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    total = float((lengths**2).sum()) or 1.0
    return Directions(mean, directions[:2], float((lengths[:2] ** 2).sum()) / total)


def tsne(vectors: np.ndarray) -> np.ndarray:
    """Places (N, 2) that keep near what is near (t-SNE, van der Maaten and Hinton, JMLR 2008).

    vectors: (N, D) of unit length, from 4 to ``MOST`` of them. The same vectors give the same
    places.
    """
    from sklearn.manifold import TSNE  # takes a second

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    return TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=0).fit_transform(
        vectors.astype(np.float32)
    )
