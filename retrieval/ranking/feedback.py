"""Relevance feedback: the query moves towards pictures marked right, away from those marked wrong.

Rocchio, "Relevance Feedback in Information Retrieval", in: Salton, The SMART Retrieval System,
1971, with the weights that Manning, Raghavan and Schütze give ("Introduction to Information
Retrieval", 2008, chapter 9).
"""

from __future__ import annotations

import numpy as np

from retrieval.ranking.ranking import unit

RIGHT, WRONG = 0.75, 0.15  # weights of the means; the query has 1


def rocchio(query: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The new query (D,) float32 of unit length.

    query: (D,). right, wrong: (n, D) and (m, D), descriptors of the marked pictures; either may be
    empty. All of unit length.
    """
    moved = query.astype(np.float64)
    for vectors, weight in ((right, RIGHT), (wrong, -WRONG)):
        if len(vectors):
            moved = moved + weight * vectors.mean(axis=0)
    return unit(moved).astype(np.float32)
