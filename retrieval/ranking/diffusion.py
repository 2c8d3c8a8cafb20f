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
from retrieval.ranking.expansion import confirmed_first
from retrieval.ranking.ranking import MOST_REST, Query, Ranking, Stage, likeness

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Chosen on town and on the photographs of ../shared/photos. The paper's α of 0.99 lets likeness
# wander to the far end of a small collection.
ALPHA = 0.7
GAMMA = 3.0
SOURCES = 10  # confirmed pictures that it starts from, most inliers first
NEAREST = 5  # pictures that it starts from where geometry confirmed none
LEAST_WEIGHT = 1e-3  # of a source that the method itself finds unlike
ACCURACY = 1e-6  # relative, of the solution

SETTINGS = {
    "alpha": ALPHA,
    "gamma": GAMMA,
    "neighbours": COUNT,
    "sources": SOURCES,
    "nearest": NEAREST,
}


def diffusion(ranking: Ranking, query: Query) -> Ranking:
    """Starts from what geometry confirmed, or from the five nearest, and follows the graph.

    Confirmed pictures stay first; the others follow by how much of the likeness reaches them, and
    those that none reaches keep their order. Score: inliers + share of the largest likeness.
    """
    neighbours = query.index.neighbours
    stage = Stage("diffusion", ranking, SETTINGS)
    if not neighbours.positions.size:
        return stage.unchanged("Diffusion has no way to go in a collection of one picture.")
    sources = confirmed_first(ranking, SOURCES)
    if not len(sources):
        sources = np.arange(min(NEAREST, len(ranking)))
    y = np.zeros(len(query.index))
    weights = np.maximum(likeness(ranking)[sources], LEAST_WEIGHT) ** GAMMA
    y[ranking.positions[sources]] = weights / weights.max()
    f = solve(matrix(neighbours), y, query.own)[ranking.positions].clip(0)
    f *= MOST_REST / max(f.max(), 1e-12)
    inliers = np.zeros(len(ranking), np.int64) if ranking.inliers is None else ranking.inliers
    return stage.by_inliers(inliers, f)


@lru_cache(maxsize=4)
def matrix(neighbours: Neighbours) -> csr_array:
    """S (N, N) of the graph of mutual neighbours; rows without any are 0."""
    from scipy.sparse import coo_array, diags_array

    count, k = neighbours.positions.shape
    rows = np.repeat(np.arange(count), k)
    weights = np.maximum(neighbours.similarity.ravel().astype(np.float64), 0) ** GAMMA
    shape = count, count
    near = coo_array((weights, (rows, neighbours.positions.ravel())), shape=shape).tocsr()
    # A picture's similarity to another is that of the other to it, but for rounding.
    mutual = near.minimum(near.T)
    degree = mutual.sum(axis=1)
    scale = diags_array(np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-300)), 0))
    return (scale @ mutual @ scale).tocsr()


def solve(s: csr_array, y: np.ndarray, own: int | None = None) -> np.ndarray:
    """f (N,) of (I − αS) f = y (N,), by conjugate gradients; without the picture ``own``."""
    from scipy.sparse.linalg import LinearOperator, cg

    there = np.ones(len(y))
    if own is not None:
        there[own] = 0

    def times(x: np.ndarray) -> np.ndarray:
        return x - ALPHA * there * (s @ (there * x))

    operator = LinearOperator(s.shape, matvec=times, dtype=np.float64)
    return cg(operator, y, rtol=ACCURACY)[0]
