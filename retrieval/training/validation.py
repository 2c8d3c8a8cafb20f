"""Quality of descriptors on held-out landmarks."""

from __future__ import annotations

import numpy as np

from retrieval.evaluation.protocols import average_precision


def mean_average_precision(vectors: np.ndarray, landmarks: np.ndarray) -> float:
    """Mean average precision, 0 to 1, with each picture as a query over all others.

    Positives are the other pictures of the same landmark. vectors: (n, D) of unit length.
    landmarks: (n,) int, each at least twice.
    """
    similarities = vectors @ vectors.T
    precisions = []
    for query, row in enumerate(similarities):
        ranking = np.argsort(-row, kind="stable")
        ranking = ranking[ranking != query]
        ranks = np.flatnonzero(landmarks[ranking] == landmarks[query])
        precisions.append(average_precision(ranks, len(ranks)))
    return float(np.mean(precisions))
