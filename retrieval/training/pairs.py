"""Pictures that show the same thing, found without any label: geometry is the teacher.

Radenović et al. (TPAMI 2018) take matching pairs from reconstructions by structure from motion.
Here two pictures match when their local features agree on one map by many matches, which is what
such a reconstruction starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retrieval.index.asmk import InvertedFile, codebook_size, train_codebook
from retrieval.methods.base import LocalFeatures
from retrieval.ranking import geometry

SHORTLIST = 15  # pictures by votes that geometry is asked about, for each
PARTNERS = 5  # of each picture, those it agrees with best
LEAST_INLIERS = 25  # two and a half times the noise floor


class Pair(NamedTuple):
    """Pictures ``a`` and ``b`` by number, and the map from pixels of a to pixels of b."""

    a: int
    b: int
    matrix: np.ndarray
    inliers: int


def agreeing(features: Sequence[LocalFeatures], sizes: Sequence[tuple[int, int]]) -> list[Pair]:
    """Pairs that agree by at least the noise floor, those of one picture the best first.

    sizes: (width, height) of each picture. A pair may be found from either side, or from both.
    """
    descriptors = np.concatenate([one.descriptors for one in features])
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in features])])
    codebook = train_codebook(descriptors, codebook_size(len(descriptors)))
    inverted = InvertedFile.build(codebook, descriptors, offsets)
    pairs = []
    for number, one in enumerate(features):
        candidates, _ = inverted.rank(one.descriptors, SHORTLIST + 1)
        found = []
        for other in candidates[candidates != number].tolist():
            _, verified = geometry.verify_features(
                one, features[other], sizes[other], geometry.MIN_SIMILARITY, geometry.TOLERANCE
            )
            if verified.count >= geometry.NOISE_FLOOR:
                found.append(Pair(number, other, verified.matrix, verified.count))
        pairs += sorted(found, key=lambda pair: -pair.inliers)
    return pairs


def matching(pairs: Sequence[Pair]) -> list[Pair]:
    """Those that surely show the same thing: many inliers, and a few a picture."""
    kept: dict[int, list[Pair]] = {}
    for pair in pairs:
        partners = kept.setdefault(pair.a, [])
        if pair.inliers >= LEAST_INLIERS and len(partners) < PARTNERS:
            partners.append(pair)
    return [pair for partners in kept.values() for pair in partners]


def clusters(pairs: Sequence[Pair], count: int) -> np.ndarray:
    """Number of the group of each picture (count,) int32: joined by any chain of pairs.

    Pictures of different groups have nothing in common that geometry knows of.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array([(pair.a, pair.b) for pair in pairs], np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
