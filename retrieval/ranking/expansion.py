"""Re-rankers that ask again, with the pictures found so far in the question.

Chum, Philbin, Sivic, Isard and Zisserman, "Total Recall: Automatic Query Expansion with a
Generative Feature Model for Object Retrieval", ICCV 2007 (average, verified); α-weighted:
Radenović, Tolias and Chum, TPAMI 2018; of the database side: Arandjelović and Zisserman, CVPR 2012.
Score: the cosine to the new question.
"""

from __future__ import annotations

import numpy as np

from retrieval.ranking.ranking import Query, Ranking, Stage, best_first

# Chosen on town and on the photographs of ../shared/photos.
CONFIRMED = 20  # pictures that ask again where geometry confirmed some
NEAREST, ALPHA = 3, 3.0  # pictures that do without geometry, weighted by cosine^ALPHA
AVERAGED = 5  # of the plain average
NEIGHBOURS = 3  # of each database picture
BLOCK = 4096  # pictures augmented at once

SETTINGS = {"confirmed": CONFIRMED, "nearest": NEAREST, "alpha": ALPHA}
AVERAGE_SETTINGS = {"nearest": AVERAGED}
AUGMENTATION_SETTINGS = {"neighbours": NEIGHBOURS}


def expansion(ranking: Ranking, query: Query) -> Ranking:
    """The query and what geometry confirmed ask together; without geometry the three nearest do.

    Verified: plain average (Chum et al., ICCV 2007). Else: cosine^α as weights (TPAMI 2018).
    """
    stage = Stage("expansion", ranking, SETTINGS)
    confirmed = confirmed_first(ranking, CONFIRMED)
    if len(confirmed):
        others = vectors(query, ranking.positions[confirmed]).sum(axis=0)
    else:
        nearest = vectors(query, ranking.positions[:NEAREST])
        others = np.maximum(nearest @ query.vector, 0) ** ALPHA @ nearest
    return _asked_again(stage, query, others)


def expansion_average(ranking: Ranking, query: Query) -> Ranking:
    """The plain average of the query and the five nearest, right or wrong."""
    stage = Stage("expansion-average", ranking, AVERAGE_SETTINGS)
    return _asked_again(stage, query, vectors(query, ranking.positions[:AVERAGED]).sum(axis=0))


def augmentation(ranking: Ranking, query: Query) -> Ranking:
    """Every database picture is searched as the average of itself and its three nearest."""
    stage = Stage("augmentation", ranking, AUGMENTATION_SETTINGS)
    nearest = query.index.neighbours.positions[ranking.positions]
    scores = np.empty(len(ranking), np.float32)
    for start in range(0, len(ranking), BLOCK):
        rows = slice(start, start + BLOCK)
        sums = vectors(query, ranking.positions[rows])
        for near in _other_than(query.own, nearest[rows]).T:
            sums += vectors(query, near)
        scores[rows] = unit(sums) @ query.vector
    order = best_first(scores)
    return stage.ordered(order, scores[order], inliers_of(ranking, order))


def _other_than(own: int | None, nearest: np.ndarray) -> np.ndarray:
    """The first neighbours (n, NEIGHBOURS) of (n, k) that are not the query's own picture."""
    last = nearest.shape[1]
    if own is None or last <= NEIGHBOURS:
        return nearest[:, :NEIGHBOURS]
    order = np.argsort(nearest == own, axis=1, kind="stable")  # it goes to the end
    return np.take_along_axis(nearest, order, axis=1)[:, :NEIGHBOURS]


def confirmed_first(ranking: Ranking, most: int) -> np.ndarray:
    """Places in the ranking of what geometry confirmed, most inliers first, at most ``most``."""
    if ranking.inliers is None:
        return np.empty(0, np.int64)
    order = np.argsort(-ranking.inliers, kind="stable")
    return order[ranking.inliers[order] > 0][:most]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of unit length; rows of nothing but 0 stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def vectors(query: Query, positions: np.ndarray) -> np.ndarray:
    """(n, D) float32, as good as of unit length: the vectors of some pictures of the index."""
    return query.index.arrays["descriptors"][positions].astype(np.float32)


def inliers_of(ranking: Ranking, order: np.ndarray) -> np.ndarray | None:
    """The inliers of a ranking in a new order, where it has some."""
    return None if ranking.inliers is None else ranking.inliers[order]


def _asked_again(stage: Stage, query: Query, others: np.ndarray) -> Ranking:
    """Search with the sum of the query and others (D,)."""
    before = stage.before
    positions, scores = query.index.searcher.rank(unit(query.vector + others), len(query.index))
    places = np.full(len(query.index), -1)
    places[before.positions] = np.arange(len(before))
    order = places[positions]
    order, scores = order[order >= 0], scores[order >= 0]  # without the query's own picture
    by_place = np.empty(len(before), np.float32)
    by_place[order] = scores
    order = best_first(by_place)
    return stage.ordered(order, by_place[order], inliers_of(before, order))
