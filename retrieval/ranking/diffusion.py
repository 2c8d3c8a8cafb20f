"""Diffusion: likeness spreads from picture to picture through the collection.

Iscen, Tolias, Avrithis, Furon and Chum, "Efficient Diffusion on Region Manifolds: Recovering Small
Objects with Compact CNN Representations", CVPR 2017. The graph joins mutual nearest neighbours,
weighted by similarity^γ; with its normalised matrix S = D^-½ W D^-½ the scores f solve
(I − αS) f = y, where y marks the pictures that it starts from.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from retrieval.index.neighbours import COUNT, Neighbours
from retrieval.ranking.ranking import MAX_FRACTION, Query, Ranking, Stage, best_first, likeness

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Chosen on town and on the photographs of ../shared/photos. With the paper's α of 0.99 likeness
# spreads to unrelated pictures in a small collection.
ALPHA = 0.7
GAMMA = 3.0
SOURCES = 10  # confirmed pictures that diffusion starts from, most inliers first
NEAREST = 5  # pictures that diffusion starts from where geometry confirmed none
MIN_SOURCE_LIKENESS = 1e-3  # weight, at least, of a source, however unlike the query it is
RELATIVE_TOLERANCE = 1e-6  # of the conjugate gradients

SETTINGS = {
    "alpha": ALPHA,
    "gamma": GAMMA,
    "neighbours": COUNT,
    "sources": SOURCES,
    "nearest": NEAREST,
}


def diffusion(ranking: Ranking, query: Query) -> Ranking:
    """Re-rank by diffusion from the confirmed pictures, or else from the five nearest pictures.

    Confirmed pictures stay first, by inliers. The others follow by their diffusion score f; those
    that diffusion does not reach keep their order. Score: inliers + f, scaled to less than 1, or
    without geometry f alone.
    """
    neighbours = query.index.neighbours
    stage = Stage("diffusion", ranking, SETTINGS)
    if not neighbours.positions.size:
        return stage.unchanged("Diffusion needs a collection of at least two pictures.")
    sources = ranking.confirmed(SOURCES)
    if not len(sources):
        sources = np.arange(min(NEAREST, len(ranking)))
    y = np.zeros(len(query.index))
    weights = np.maximum(likeness(ranking)[sources], MIN_SOURCE_LIKENESS) ** GAMMA
    y[ranking.positions[sources]] = weights / weights.max()
    f = solve(matrix(neighbours), y, query.own)[ranking.positions].clip(0)
    f *= MAX_FRACTION / max(f.max(), 1e-12)
    if ranking.inliers is None:
        order = best_first(f)
        return stage.ordered(order, f[order])
    return stage.by_inliers(ranking.inliers, f)


@lru_cache(maxsize=4)
def matrix(neighbours: Neighbours) -> csr_array:
    """S (N, N) float64 of the graph of mutual neighbours; a picture without any has a row of 0."""
    from scipy.sparse import coo_array, diags_array

    count, k = neighbours.positions.shape
    rows = np.repeat(np.arange(count), k)
    weights = np.maximum(neighbours.similarity.ravel().astype(np.float64), 0) ** GAMMA
    shape = count, count
    near = coo_array((weights, (rows, neighbours.positions.ravel())), shape=shape).tocsr()
    # Similarity is symmetric but for rounding, so the minimum keeps it for mutual neighbours only.
    mutual = near.minimum(near.T)
    degree = mutual.sum(axis=1)
    scale = diags_array(np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-300)), 0))
    return (scale @ mutual @ scale).tocsr()


def solve(s: csr_array, y: np.ndarray, own: int | None = None) -> np.ndarray:
    """f (N,) that solves (I − αS) f = y, by conjugate gradients.

    s: (N, N). y: (N,) float64. own: position of a picture that is taken out of the graph.
    """
    from scipy.sparse.linalg import LinearOperator, cg

    mask = np.ones(len(y))
    if own is not None:
        mask[own] = 0

    def multiply(x: np.ndarray) -> np.ndarray:
        return x - ALPHA * mask * (s @ (mask * x))

    operator = LinearOperator(s.shape, matvec=multiply, dtype=np.float64)
    return cg(operator, y, rtol=RELATIVE_TOLERANCE)[0]
