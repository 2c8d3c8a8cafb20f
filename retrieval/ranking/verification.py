"""Geometry: re-rankers that check whether two pictures show one thing from two viewpoints.

Each of the best pictures is matched to the query, and a map is fitted that most matches agree with
(``geometry.verify``). Pictures with enough inliers come first, most inliers first; all others keep
their order. Score: inliers + the score before, mapped to [0, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from retrieval import images, workers
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.methods.base import LocalFeatures, as_local
from retrieval.networks import checkpoints
from retrieval.ranking import geometry, lighterglue, verifiers
from retrieval.ranking.geometry import NOISE_FLOOR, Verification
from retrieval.ranking.ranking import Query, Ranking, Stage

# Chosen so that geometry lowers the score neither on town nor on the photographs of
# ../shared/photos.
SHORTLIST = 100
MIN_SIMILARITY = 0.81  # cosine from which mutual nearest neighbours match (XFeat's authors: 0.82)
TOLERANCE = 0.0075  # distance from the map within which a match is an inlier, in longer sides
MIN_INLIERS = 12  # inliers from which a picture is confirmed

LIGHTERGLUE_SHORTLIST = 20  # each takes 60 ms and more

XFEAT_SETTINGS = {
    "features": "xfeat",
    "enlarge": checkpoints.REGISTRY["xfeat"].settings["enlarge"],
    "shortlist": SHORTLIST,
    "min_similarity": MIN_SIMILARITY,
    "tolerance": TOLERANCE,
    "least": MIN_INLIERS,
}
LIGHTERGLUE_SETTINGS = {
    "features": "xfeat",
    "enlarge": XFEAT_SETTINGS["enlarge"],
    "matcher": "xfeat-lighterglue",
    "shortlist": LIGHTERGLUE_SHORTLIST,
    "tolerance": TOLERANCE,
    "least": MIN_INLIERS,
}
DELF_SETTINGS = {
    "features": "delf",
    "shortlist": SHORTLIST,
    "min_similarity": geometry.MIN_SIMILARITY,
    "tolerance": geometry.TOLERANCE,
    "least": NOISE_FLOOR,
}

# Position in the index → inliers with the query; None: there are no features of that picture.
CountInliers = Callable[[int], int | None]


def xfeat_pair(
    a: LocalFeatures, b: LocalFeatures, size_a: tuple[int, int], size_b: tuple[int, int]
) -> tuple[np.ndarray, Verification]:
    """Match two pictures by XFeat's descriptors and verify the matches.

    size_a, size_b: (width, height) in pixels. For a box, pass the result of ``of_box``.
    Returns the matches (K, 2) int64, index in a and index in b, and their verification, with one
    inlier a cell (``geometry.one_inlier_per_cell``).
    """
    matches = geometry.mutual_matches(a.descriptors, b.descriptors, MIN_SIMILARITY)
    return matches, verify_matches(a, b, matches, size_a, size_b)


def lighterglue_pair(
    a: LocalFeatures, b: LocalFeatures, size_a: tuple[int, int], size_b: tuple[int, int]
) -> tuple[np.ndarray, Verification]:
    """As ``xfeat_pair``, with the matches of LighterGlue, a network that sees both pictures."""
    matches = lighterglue.match(a, b, size_a, size_b)
    return matches, verify_matches(a, b, matches, size_a, size_b)


# How re-rankers by geometry match two pictures with XFeat's features.
PAIR_MATCHERS = {"geometry": xfeat_pair, "geometry-lighterglue": lighterglue_pair}


def verify_matches(
    a: LocalFeatures,
    b: LocalFeatures,
    matches: np.ndarray,
    size_a: tuple[int, int],
    size_b: tuple[int, int],
    tolerance: float = TOLERANCE,
    model: geometry.Model = "homography",
) -> Verification:
    """A map that most matches (K, 2) agree with, with one inlier a cell.

    tolerance: distance from the map within which a match is an inlier, as a share of b's longer
    side.
    """
    points_a, points_b = a.keypoints[matches[:, 0]], b.keypoints[matches[:, 1]]
    enlarged = max(size_b) / max(size_a)
    verified = geometry.verify(points_a, points_b, tolerance * max(size_b), model, enlarged)
    return geometry.one_inlier_per_cell(verified, points_a, points_b, max(size_a), max(size_b))


def geometry_xfeat(ranking: Ranking, query: Query) -> Ranking:
    """XFeat: mutual nearest neighbours, then a homography.

    Potje et al., CVPR 2024; map: Baráth et al., MAGSAC++, CVPR 2020.
    """
    return _with_xfeat("geometry", ranking, query, XFEAT_SETTINGS)


def geometry_lighterglue(ranking: Ranking, query: Query) -> Ranking:
    """XFeat matched by LighterGlue, then a homography.

    Lindenberger et al., LightGlue, ICCV 2023; the weights are those of XFeat's authors.
    """
    workers.move_to_slow_workers()  # twenty pairs take over a second
    return _with_xfeat("geometry-lighterglue", ranking, query, LIGHTERGLUE_SETTINGS)


def geometry_delf(ranking: Ranking, query: Query) -> Ranking:
    """DELF's own features, as in its search: mutual nearest neighbours, then an affine map."""
    stage = Stage("geometry-delf", ranking, DELF_SETTINGS)
    index = query.index if query.index.kind == "local" else verifiers.delf_beside(query.index.path)
    if index is None:
        raise RetrievalError(
            "geometry-delf needs a DELF index of the same pictures beside this one: index them "
            "with DELF too (--method delf)."
        )
    local = (
        query.features
        if index is query.index
        else verifiers.of_query(query, "delf", lambda: verifiers.method_of(index))
    )
    if not isinstance(local, LocalFeatures):
        return stage.unchanged("geometry-delf needs the picture that is searched with.")
    delf_positions = {digest: row for row, digest in enumerate(index.digests) if digest}

    def count_inliers(position: int) -> int | None:
        row = delf_positions.get(query.index.digests[position])
        if row is None:
            return None
        features = as_local(index.features(row))
        return geometry.verify_features(local, features, index.size(row))[1].count

    return _verified(
        stage,
        local,
        count_inliers,
        "the DELF index does not have them; index the collection again with --method delf.",
    )


def _with_xfeat(name: str, ranking: Ranking, query: Query, settings: dict[str, Any]) -> Ranking:
    """Verify a ranking with XFeat's features. name: a key of PAIR_MATCHERS."""
    stage = Stage(name, ranking, settings)
    features_of_query = verifiers.of_query(query, "xfeat", verifiers.xfeat)
    if features_of_query is None or query.picture is None:
        return stage.unchanged(f"{name} needs the picture that is searched with.")
    local, size = of_box(features_of_query, query.picture.size, query.box)
    database = verifiers.DatabaseFeatures(query.index, query.collection)
    shortlist = ranking.positions[: stage.settings["shortlist"]].tolist()

    def count_inliers(position: int) -> int | None:
        features = database.features(position, shortlist)
        if features is None:
            return None
        return PAIR_MATCHERS[name](local, features, size, query.index.size(position))[1].count

    return _verified(stage, local, count_inliers, verifiers.MISSING)


def of_box(
    features: LocalFeatures, size: tuple[int, int], box: Box | None
) -> tuple[LocalFeatures, tuple[int, int]]:
    """Features of a box as if it were a picture of its own, and that picture's (width, height).

    features: keypoints in pixels of the whole picture, of ``size`` (width, height).
    """
    if box is None:
        return features, size
    x1, y1, x2, y2 = images.cut_out(box, size)
    moved = replace(features, keypoints=features.keypoints - np.array([x1, y1], np.float32))
    return moved, (x2 - x1, y2 - y1)


def of_picture(verified: Verification, size: tuple[int, int], box: Box | None) -> Verification:
    """Undo ``of_box`` in a verification: its map then starts from pixels of the whole picture.

    size: (width, height) of the whole picture a, of which ``box`` was matched.
    """
    if box is None or verified.matrix is None:
        return verified
    x1, y1, *_ = images.cut_out(box, size)
    return replace(verified, matrix=verified.matrix @ [[1, 0, -x1], [0, 1, -y1], [0, 0, 1]])


def _verified(
    stage: Stage, local: LocalFeatures, count_inliers: CountInliers, reason: str
) -> Ranking:
    """Verify the shortlist of a ranking and put the confirmed pictures first.

    local: features of the query. reason: for the note, why pictures could not be compared and what
    to do.
    """
    before = stage.before
    inliers = np.zeros(len(before), np.int64)
    if not len(local):
        return stage.ordered(
            np.arange(len(before)),
            before.scores,
            "The picture shows nothing that could be recognised again: no keypoint was found.",
            inliers,
        )
    missing = 0
    for rank, position in enumerate(before.positions[: stage.settings["shortlist"]].tolist()):
        count = count_inliers(position)
        missing += count is None
        # Fewer inliers mean nothing: such pictures keep their order.
        if count is not None and count >= stage.settings["least"]:
            inliers[rank] = count
    checked = min(stage.settings["shortlist"], len(before))
    note = ""
    if missing:
        note = f"{missing} of {checked} pictures could not be checked: {reason}"
    if missing and missing == checked:  # no picture has a number of inliers, not even 0
        ranking = stage.unchanged(note)
    else:
        ranking = stage.by_inliers(inliers, before.scores, note)
    return replace(ranking, unchecked=before.unchecked + missing)
