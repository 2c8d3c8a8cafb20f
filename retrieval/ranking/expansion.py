"""Query expansion and database augmentation: re-rankers that search with averaged descriptors.

Chum, Philbin, Sivic, Isard and Zisserman, "Total Recall: Automatic Query Expansion with a
Generative Feature Model for Object Retrieval", ICCV 2007 (average, verified); α-weighted:
Radenović, Tolias and Chum, TPAMI 2018; of the database side: Arandjelović and Zisserman, CVPR 2012.
Score: the cosine of the two descriptors, of which one is such an average.
"""

from __future__ import annotations

import numpy as np

from retrieval.ranking.ranking import Query, Ranking, Stage, best_first, unit

# Chosen on town and on the photographs of ../shared/photos.
CONFIRMED = 20  # confirmed pictures that are added to the query, most inliers first
NEAREST, ALPHA = 3, 3.0  # pictures added where geometry confirmed none; weight: cosine^ALPHA
AVERAGED = 5  # pictures added to the query for the plain average
NEIGHBOURS = 3  # pictures added to each database picture
BLOCK = 4096  # pictures augmented at a time

SETTINGS = {"confirmed": CONFIRMED, "nearest": NEAREST, "alpha": ALPHA}
AVERAGE_SETTINGS = {"nearest": AVERAGED}
AUGMENTATION_SETTINGS = {"neighbours": NEIGHBOURS}


def expansion(ranking: Ranking, query: Query) -> Ranking:
    """Search with the sum of the query and the confirmed pictures, or else the three nearest.

    Confirmed pictures have equal weights (Chum et al., ICCV 2007), the nearest ones cosine^α
    (Radenović et al., TPAMI 2018).
    """
    stage = Stage("expansion", ranking, SETTINGS)
    confirmed = ranking.confirmed(CONFIRMED)
    if len(confirmed):
        others = query.vectors_of(ranking.positions[confirmed]).sum(axis=0)
    else:
        nearest = query.vectors_of(ranking.positions[:NEAREST])
        others = np.maximum(nearest @ query.vector, 0) ** ALPHA @ nearest
    return _search_again(stage, query, others)


def expansion_average(ranking: Ranking, query: Query) -> Ranking:
    """Search with the plain average of the query and the five nearest, right or wrong."""
    stage = Stage("expansion-average", ranking, AVERAGE_SETTINGS)
    return _search_again(stage, query, query.vectors_of(ranking.positions[:AVERAGED]).sum(axis=0))


def augmentation(ranking: Ranking, query: Query) -> Ranking:
    """Compare the query with the average of each database picture and its three nearest."""
    stage = Stage("augmentation", ranking, AUGMENTATION_SETTINGS)
    nearest = query.index.neighbours.positions[ranking.positions]
    scores = np.empty(len(ranking))
    for start in range(0, len(ranking), BLOCK):
        rows = slice(start, start + BLOCK)
        sums = query.vectors_of(ranking.positions[rows])
        for neighbours in _without_own(query.own, nearest[rows]).T:
            sums += query.vectors_of(neighbours)
        # In single precision, copies of a picture would get different scores: see
        # ``superglobal.scores``.
        scores[rows] = unit(sums.astype(np.float64)) @ query.vector.astype(np.float64)
    order = best_first(scores)
    return stage.ordered(order, scores[order])


def _without_own(own: int | None, nearest: np.ndarray) -> np.ndarray:
    """The first NEIGHBOURS of each row that are not the query's own picture.

    own: its position, or None. nearest: (n, k) positions. Returns (n, min(k, NEIGHBOURS)); in a
    collection of so few pictures that k ≤ NEIGHBOURS, the own picture is not left out.
    """
    if own is None:
        return nearest[:, :NEIGHBOURS]
    order = np.argsort(nearest == own, axis=1, kind="stable")  # moves the own picture to the end
    return np.take_along_axis(nearest, order, axis=1)[:, :NEIGHBOURS]


def _search_again(stage: Stage, query: Query, others: np.ndarray) -> Ranking:
    """Re-rank by the cosine to the sum of the query's vector and ``others`` (D,)."""
    before = stage.before
    positions, cosines = query.index.searcher.rank(unit(query.vector + others), len(query.index))
    ranks_before = np.full(len(query.index), -1)
    ranks_before[before.positions] = np.arange(len(before))
    ranks = ranks_before[positions]
    present = ranks >= 0  # the query's own picture is not in the ranking
    scores = np.empty(len(before), np.float32)
    scores[ranks[present]] = cosines[present]
    order = best_first(scores)
    return stage.ordered(order, scores[order])
