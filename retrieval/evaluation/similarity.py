"""Cosines between pictures of the same landmark, and between others, in a labelled collection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.collections.ground_truth import Query, landmarks
from retrieval.index import Index

MAX_PICTURES = 2000  # pictures that are compared with each other: 16 MB of cosines


def pair_cosines(
    index: Index, names: Sequence[str], queries: Sequence[Query]
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of all pairs of pictures of the same landmark, and of all other pairs.

    index: of a global method. names: of the collection, to whose positions the labels of the
    queries refer. Returns two arrays (n,) float32, empty where nothing is labelled. Pairs in which
    neither picture has a landmark are left out: they may show the same thing.
    """
    index = index.first(MAX_PICTURES)
    landmark_of = landmarks(names, queries)
    # Landmarks as numbers, 0 for none: the names of two million pairs would take gigabytes.
    numbers = {"": 0}
    names = index.names[:MAX_PICTURES]
    labels = np.array(
        [numbers.setdefault(landmark_of.get(name, ""), len(numbers)) for name in names]
    )
    vectors = index.arrays["descriptors"][:MAX_PICTURES].astype(np.float32)
    first, second = np.triu_indices(len(labels), 1)
    labelled = (labels[first] > 0) | (labels[second] > 0)
    first, second = first[labelled], second[labelled]
    cosines = (vectors @ vectors.T)[first, second]
    same = labels[first] == labels[second]
    return cosines[same], cosines[~same]
