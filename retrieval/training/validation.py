"""How good descriptors are on landmarks that were held out."""

from __future__ import annotations

import numpy as np

from retrieval.evaluation.protocols import average_precision


def mean_average_precision(vectors: np.ndarray, landmarks: np.ndarray) -> float:
    """Every picture asks for the others of its landmark among all others: mAP, 0 to 1.

    vectors: (n, D) of unit length. landmarks: (n,), each at least twice.
    """
    likeness = vectors @ vectors.T
    found = []
    for query, row in enumerate(likeness):
        order = np.argsort(-row, kind="stable")
        order = order[order != query]
        ranks = np.flatnonzero(landmarks[order] == landmarks[query])
        found.append(average_precision(ranks, len(ranks)))
    return float(np.mean(found))
