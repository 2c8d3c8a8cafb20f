"""SuperGlobal's re-ranking: query and pictures are refined by their neighbours.

Shao, Chen, Karpur, Cui, Araujo and Cao, "Global Features are All You Need for Image Retrieval and
Reranking", ICCV 2023.
"""

from __future__ import annotations

import numpy as np

from retrieval.ranking.ranking import Query, Ranking, Stage, best_first

# Chosen on town and on the photographs of ../shared/photos. The paper's 400, all of town, lose 1.2
# points of Medium there and gain 0.1 on the photographs.
SHORTLIST, NEIGHBOURS, WEIGHT = 100, 9, 0.15

SETTINGS = {"first": SHORTLIST, "neighbours": NEIGHBOURS, "weight": WEIGHT}


def superglobal(ranking: Ranking, query: Query) -> Ranking:
    """Re-rank the best 100, refined by their nine nearest, against the query and the refined query.

    Score: mean of the two inner products. The pictures behind the best 100 keep their order and
    have score 0.
    """
    stage = Stage("superglobal", ranking, SETTINGS)
    if not len(ranking):  # the query is the only picture
        return stage.unchanged("There is no other picture to compare with.")
    refined = scores(query.vectors_of(ranking.positions[:SHORTLIST]), query.vector)
    count = len(refined)
    order = np.arange(len(ranking))
    order[:count] = best_first(refined)
    new_scores = np.zeros(len(ranking))
    new_scores[:count] = np.maximum(refined[order[:count]], 0)
    return stage.ordered(order, new_scores)


def scores(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The refined score (n,) float64 of the best pictures (n, D) for a query (D,).

    All of unit length.
    """
    # In double precision: BLAS sums rows in blocks, so that in single precision the scores of
    # copies of one picture differ by up to 2e-7. Rounded to six decimals, they could still differ.
    vectors, query = vectors.astype(np.float64), query.astype(np.float64)
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, np.inf)  # a picture is its own nearest, even beside a copy
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, : NEIGHBOURS + 1]
    weights = WEIGHT * np.take_along_axis(similar, nearest, axis=1)
    weights[:, 0] = 1
    refined = np.einsum("nk,nkd->nd", weights, vectors[nearest])
    refined /= weights.sum(axis=1, keepdims=True)
    plain = refined @ query
    best = best_first(plain)[: NEIGHBOURS + 1]
    return (plain + refined @ refined[best].max(axis=0)) / 2
