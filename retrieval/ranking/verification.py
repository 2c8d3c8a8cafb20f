"""Geometry: re-rankers that check whether two pictures show one thing from two viewpoints.

Each of the best pictures is matched to the query, and a map that most matches agree with is
looked for (``geometry.verify``). Pictures with enough agreeing matches come first, in the order of
their number; all others stay as they were. Score: inliers + likeness, the latter below 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from retrieval import images
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.methods.base import LocalFeatures, as_local
from retrieval.ranking import geometry, lighterglue, verifiers
from retrieval.ranking.geometry import NOISE_FLOOR, Verification
from retrieval.ranking.ranking import Query, Ranking, Stage

# Chosen on town and on the photographs of ../shared/photos, so that geometry loses on neither.
SHORTLIST = 100
MIN_SIMILARITY = 0.81  # cosine from which mutual nearest neighbours are a match (the wheel: 0.82)
TOLERANCE = 0.0075  # share of the longer side within which a match agrees with the map
LEAST = 12  # inliers from which a picture is confirmed

LIGHTERGLUE_SHORTLIST = 20  # each takes 60 ms and more

XFEAT_SETTINGS = {
    "features": "xfeat",
    "shortlist": SHORTLIST,
    "min_similarity": MIN_SIMILARITY,
    "tolerance": TOLERANCE,
    "least": LEAST,
}
LIGHTERGLUE_SETTINGS = {
    "features": "xfeat",
    "matcher": "xfeat-lighterglue",
    "shortlist": LIGHTERGLUE_SHORTLIST,
    "tolerance": TOLERANCE,
    "least": LEAST,
}
DELF_SETTINGS = {
    "features": "delf",
    "shortlist": SHORTLIST,
    "min_similarity": geometry.MIN_SIMILARITY,
    "tolerance": geometry.TOLERANCE,
    "least": NOISE_FLOOR,
}

Compare = Callable[[int], int | None]  # position → inliers; None: no features of that picture


def xfeat_pair(
    a: LocalFeatures, b: LocalFeatures, size_a: tuple[int, int], size_b: tuple[int, int]
) -> tuple[np.ndarray, Verification]:
    """Match two pictures by XFeat's descriptors and verify the matches.

    size_a, size_b: (width, height) in pixels. Features of a box are best given as those of a
    picture of its own, see ``of_box``.
    Returns the pairs (K, 2) and their verification, one inlier a place (``geometry.distinct``).
    """
    pairs = geometry.mutual_matches(a.descriptors, b.descriptors, MIN_SIMILARITY)
    return pairs, verify_pairs(a, b, pairs, size_a, size_b)


def lighterglue_pair(
    a: LocalFeatures, b: LocalFeatures, size_a: tuple[int, int], size_b: tuple[int, int]
) -> tuple[np.ndarray, Verification]:
    """The same with the matches of LighterGlue, a network that sees both pictures at once."""
    pairs = lighterglue.match(a, b, size_a, size_b)
    return pairs, verify_pairs(a, b, pairs, size_a, size_b)


def verify_pairs(
    a: LocalFeatures,
    b: LocalFeatures,
    pairs: np.ndarray,
    size_a: tuple[int, int],
    size_b: tuple[int, int],
    tolerance: float = TOLERANCE,
    model: geometry.Model = "homography",
) -> Verification:
    """A map that most pairs (K, 2) agree with; several in one place count as one.

    tolerance: share of the longer side of b within which a pair is an inlier.
    """
    points_a, points_b = a.keypoints[pairs[:, 0]], b.keypoints[pairs[:, 1]]
    found = geometry.verify(points_a, points_b, tolerance * max(size_b), model)
    return geometry.distinct(found, points_a, points_b, max(size_a), max(size_b))


def geometry_xfeat(ranking: Ranking, query: Query) -> Ranking:
    """XFeat: mutual nearest neighbours, then a homography.

    Potje et al., CVPR 2024; map: Baráth et al., MAGSAC++, CVPR 2020.
    """
    return _with_xfeat("geometry", ranking, query, xfeat_pair, XFEAT_SETTINGS)


def geometry_lighterglue(ranking: Ranking, query: Query) -> Ranking:
    """XFeat matched by LighterGlue, then a homography.

    Lindenberger et al., LightGlue, ICCV 2023; the weights are those of XFeat's authors.
    """
    return _with_xfeat(
        "geometry-lighterglue", ranking, query, lighterglue_pair, LIGHTERGLUE_SETTINGS
    )


def geometry_delf(ranking: Ranking, query: Query) -> Ranking:
    """DELF's own features, as in its search: mutual nearest neighbours, then an affine map."""
    stage = Stage("geometry-delf", ranking, DELF_SETTINGS)
    index = query.index if query.index.kind == "local" else verifiers.delf_beside(query.index.path)
    if index is None:
        raise RetrievalError(
            "geometry-delf needs a DELF index of the same pictures beside this one: index the "
            "collection with --method delf."
        )
    local = (
        query.features
        if index is query.index
        else verifiers.of_query(query, "delf", lambda: verifiers.method_of(index))
    )
    if not isinstance(local, LocalFeatures):
        return stage.unchanged("geometry-delf needs the picture that is searched with.")
    places = {digest: place for place, digest in enumerate(index.digests) if digest}

    def compare(position: int) -> int | None:
        place = places.get(query.index.digests[position])
        if place is None:
            return None
        other = as_local(index.features(place))
        return geometry.verify_features(local, other, index.size(place))[1].count

    return _verified(
        stage,
        local,
        compare,
        "the DELF index does not have them; index the collection again with --method delf.",
    )


def _with_xfeat(
    name: str, ranking: Ranking, query: Query, pair: Callable, settings: dict[str, Any]
) -> Ranking:
    stage = Stage(name, ranking, settings)
    found = verifiers.of_query(query, "xfeat", verifiers.xfeat)
    if found is None or query.picture is None:
        return stage.unchanged(f"{name} needs the picture that is searched with.")
    local, size = of_box(found, query.picture.size, query.box)
    database = verifiers.Database(query.index, query.collection)

    def compare(position: int) -> int | None:
        features = database.features(position)
        if features is None:
            return None
        return pair(local, features, size, query.index.size(position))[1].count

    return _verified(stage, local, compare, verifiers.MISSING)


def of_box(
    features: LocalFeatures, size: tuple[int, int], box: Box | None
) -> tuple[LocalFeatures, tuple[int, int]]:
    """Features of a box as those of a picture of its own, and its (width, height)."""
    if box is None:
        return features, size
    x1, y1, x2, y2 = images.cut_out(box, size)
    moved = replace(features, keypoints=features.keypoints - np.array([x1, y1], np.float32))
    return moved, (x2 - x1, y2 - y1)


def of_picture(found: Verification, size: tuple[int, int], box: Box | None) -> Verification:
    """The same with a map from pixels of the whole picture, where it was of ``of_box``."""
    if box is None or found.matrix is None:
        return found
    x1, y1, *_ = images.cut_out(box, size)
    return replace(found, matrix=found.matrix @ [[1, 0, -x1], [0, 1, -y1], [0, 0, 1]])


def _verified(stage: Stage, local: LocalFeatures, compare: Compare, reason: str) -> Ranking:
    """Compare the query with the first pictures of a ranking and put the confirmed ones first.

    reason: why pictures could not be compared, and what to do, where there are such.
    """
    before = stage.before
    inliers = np.zeros(len(before), np.int64)
    if not len(local):
        return stage.ordered(
            np.arange(len(before)),
            before.scores,
            inliers,
            "The picture shows nothing that could be recognised again: no keypoint was found.",
        )
    missing = 0
    for place, position in enumerate(before.positions[: stage.settings["shortlist"]].tolist()):
        count = compare(position)
        missing += count is None
        # Below that a count says nothing: such pictures stay as they were.
        if count is not None and count >= stage.settings["least"]:
            inliers[place] = count
    looked = min(stage.settings["shortlist"], len(before))
    note = ""
    if missing:
        note = f"{missing} of {looked} pictures could not be checked: {reason}"
    return stage.by_inliers(inliers, before.scores, note)
