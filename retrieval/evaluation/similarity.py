"""How alike pictures of a collection are that show the same landmark, and how alike the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.collections.ground_truth import Query, landmarks
from retrieval.index.store import Index

MOST = 2000  # pictures that are compared with each other: 8 MB of cosines at a time


def pair_cosines(
    index: Index, names: Sequence[str], queries: Sequence[Query]
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines between pictures of a global index: of one landmark, and of any two others.

    names: of the collection, which the labels of its queries count in. Both are (n,) float32;
    empty where nothing is labelled. Pictures without a landmark are compared with those that have
    one only: the labels do not say whether two of them show the same.
    """
    index = index.first(MOST)
    known = landmarks(names, queries)
    labels = np.array([known.get(name, "") for name in index.names[:MOST]])
    vectors = index.arrays["descriptors"][:MOST].astype(np.float32)
    first, second = np.triu_indices(len(labels), 1)
    said = (labels[first] != "") | (labels[second] != "")
    first, second = first[said], second[said]
    cosines = (vectors @ vectors.T)[first, second]
    same = labels[first] == labels[second]
    return cosines[same], cosines[~same]
