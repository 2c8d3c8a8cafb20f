"""SuperGlobal's re-ranking: pictures and query are refined by their neighbours, nothing learned.

Shao, Chen, Karpur, Cui, Araujo and Cao, "Global Features are All You Need for Image Retrieval and
Reranking", ICCV 2023.
"""

from __future__ import annotations

import numpy as np

from retrieval.ranking.expansion import inliers_of, vectors
from retrieval.ranking.ranking import Query, Ranking, Stage, best_first

# Chosen on town and on the photographs of ../shared/photos. The paper's 400, all of town, lose 1.2
# points of Medium there and gain 0.1 on the photographs.
FIRST, NEIGHBOURS, WEIGHT = 100, 9, 0.15

SETTINGS = {"first": FIRST, "neighbours": NEIGHBOURS, "weight": WEIGHT}


def superglobal(ranking: Ranking, query: Query) -> Ranking:
    """The first 100, refined by their nine neighbours, compared with query and refined query.

    Score: mean of both products; the pictures behind keep their order and have score 0.
    """
    stage = Stage("superglobal", ranking, SETTINGS)
    found = scores(vectors(query, ranking.positions[:FIRST]), query.vector)
    order = np.arange(len(ranking))
    order[: len(found)] = best_first(found)
    new = np.zeros(len(ranking))
    new[: len(found)] = np.maximum(found[order[: len(found)]], 0)
    return stage.ordered(order, new, inliers_of(ranking, order))


def scores(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Score (n,) of the first pictures (n, D) for a query (D,); all of unit length."""
    # In single precision copies of one picture differ by up to 2e-7, for BLAS sums rows in blocks:
    # where a sixth decimal is rounded between them, they would change places.
    vectors, query = vectors.astype(np.float64), query.astype(np.float64)
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, np.inf)  # itself first, also beside a copy of it
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, : NEIGHBOURS + 1]
    weights = WEIGHT * np.take_along_axis(similar, nearest, axis=1)
    weights[:, 0] = 1
    refined = np.einsum("nk,nkd->nd", weights, vectors[nearest])
    refined /= weights.sum(axis=1, keepdims=True)
    plain = refined @ query
    best = best_first(plain)[: NEIGHBOURS + 1]
    return (plain + refined @ refined[best].max(axis=0)) / 2
