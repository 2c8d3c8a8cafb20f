"""Cosines between pictures of the same landmark, and between others, in a labelled collection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.collections.ground_truth import Query, by_landmark, right_pictures
from retrieval.index import Index

MAX_PICTURES = 2000  # pictures that are compared with each other: 16 MB of cosines


def pair_cosines(
    index: Index, names: Sequence[str], queries: Sequence[Query]
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of all pairs of pictures of the same landmark, and of pairs of different places.

    index: of a global method. names: of the collection, to whose positions the labels of the
    queries refer. Returns two arrays (n,) float32, empty where nothing is labelled. Pairs in which
    neither picture has a landmark are left out: they may show the same thing. So are pairs of
    which one is right for a landmark and the other its query or left out of the score.
    """
    index = index.first(MAX_PICTURES)
    rows = {name: row for row, name in enumerate(index.names[:MAX_PICTURES])}
    row_of = np.array([rows.get(name, -1) for name in names], np.int64)
    vectors = index.arrays["descriptors"][:MAX_PICTURES].astype(np.float32)
    same, related = np.zeros((2, len(rows), len(rows)), bool)
    labelled = np.zeros(len(rows), bool)
    for landmark in by_landmark(queries).values():
        right = row_of[right_pictures(landmark)]
        right = right[right >= 0]
        junk = row_of[np.concatenate([query.labels.get("junk", right[:0]) for query in landmark])]
        asked = [rows.get(query.name, -1) for query in landmark]
        shown = np.unique(np.concatenate([right, junk, np.array(asked, np.int64)]))
        shown = shown[shown >= 0]
        same[np.ix_(right, right)] = True
        related[np.ix_(shown, shown)] = True
        labelled[right] = True
    once = np.triu(np.ones_like(same), 1)
    others = once & ~related & (labelled | labelled[:, None])
    cosines = vectors @ vectors.T
    return cosines[once & same], cosines[others]
