"""How good descriptors are on landmarks that were held out."""

from __future__ import annotations

import numpy as np

from retrieval.evaluation.protocols import average_precision


def mean_average_precision(vectors: np.ndarray, landmarks: np.ndarray) -> float:
    """Mean average precision, 0 to 1: each picture is a query once and searches all others.

    Positives are the other pictures of its landmark. vectors: (n, D) of unit length. landmarks:
    (n,) int, each at least twice.
    """
    similarities = vectors @ vectors.T
    precisions = []
    for query, row in enumerate(similarities):
        ranking = np.argsort(-row, kind="stable")
        ranking = ranking[ranking != query]
        ranks = np.flatnonzero(landmarks[ranking] == landmarks[query])
        precisions.append(average_precision(ranks, len(ranks)))
    return float(np.mean(precisions))
