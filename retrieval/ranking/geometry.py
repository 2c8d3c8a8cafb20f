"""Putative matches between two sets of local features, and their geometric verification.

Pure functions of arrays. Coordinates are (x, y) in pixels of each original picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from retrieval.images import Box
from retrieval.methods.base import LocalFeatures

SEED = 0
# Fewer inliers are no evidence that two pictures show the same thing: a few matches of unrelated
# pictures agree by chance, and repeated windows give a few more. Of the values from 6 to 30, ten
# ranked best on town and on real photographs.
NOISE_FLOOR = 10
# For DELF's features:
MIN_SIMILARITY = 0.6  # cosine from which mutual nearest neighbours are a putative match
TOLERANCE = 0.015  # distance from the map within which a match is an inlier, in longer sides of b
Model = Literal["affine", "homography"]
MIN_MATCHES: dict[Model, int] = {"affine": 3, "homography": 4}
# Times, in pixels or in widths of both pictures; a map that stretches more is no view of one thing.
MAX_STRETCH = 8.0
CELLS = 32  # along the longer side; all inliers in one cell count as one
BLOCK = 1 << 23  # similarities in one block: 32 MB


@dataclass(frozen=True)
class Verification:
    """The map that most of M matches between two pictures a and b agree with.

    matrix: from pixels of a to pixels of b, float64: (2, 3) of an affine map or (3, 3) of a
    homography, see ``project``. None where no map was found.
    inliers: (M,) bool, which matches agree with it; all False without a map.
    """

    matrix: np.ndarray | None
    inliers: np.ndarray

    @property
    def count(self) -> int:
        return int(self.inliers.sum())


def mutual_matches(a: np.ndarray, b: np.ndarray, min_similarity: float = 0.0) -> np.ndarray:
    """Mutual nearest neighbours by cosine.

    a: (N, d), b: (M, d) float32, unit length. Returns (K, 2) int64 rows (index in a, index in b),
    ordered by the index in a; (0, 2) where either side is empty. Memory does not grow with N × M.
    """
    if len(a) == 0 or len(b) == 0:
        return np.empty((0, 2), np.int64)
    nearest, similarity = _nearest(a, b)
    rows = np.flatnonzero(similarity >= min_similarity)
    # Only rows of b that are nearest to some row of a are compared with a in turn. Between
    # unrelated pictures these are few.
    nearest_in_b, inverse = np.unique(nearest[rows], return_inverse=True)
    mutual = _nearest(b[nearest_in_b], a)[0][inverse] == rows
    return np.stack([rows[mutual], nearest[rows[mutual]]], axis=1)


def similarities(a: LocalFeatures, b: LocalFeatures, matches: np.ndarray) -> np.ndarray:
    """Cosine of the descriptors of each match: (K,) float32. matches: (K, 2), rows of a and b."""
    if not len(matches):  # an index without any keypoint has descriptors without a width
        return np.empty(0, np.float32)
    rows_a, rows_b = matches.T
    return (a.descriptors[rows_a] * b.descriptors[rows_b]).sum(axis=1)


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of a (N, d), its nearest row of b (M, d) by inner product.

    Returns the rows of b (N,) int64 and the inner products (N,) float32.
    """
    nearest, similarity = np.empty(len(a), np.int64), np.empty(len(a), np.float32)
    step = max(1, BLOCK // len(b))
    for start in range(0, len(a), step):
        products = a[start : start + step] @ b.T
        best = products.argmax(axis=1)
        nearest[start : start + step] = best
        similarity[start : start + step] = products[np.arange(len(best)), best]
    return nearest, similarity


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (M, 2) mapped by an affine map (2, 3) or a homography (3, 3): (M, 2) float64."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped if len(matrix) == 2 else mapped[:, :2] / mapped[:, 2:]


def outlines(box: Box, verified: Verification) -> tuple[np.ndarray, np.ndarray | None]:
    """Corners (4, 2) of a box in a, and of its image (4, 2) in b.

    The second is None where there is no map, or where the horizon of a homography cuts the box.
    """
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)
    if verified.matrix is None:
        return corners, None
    if len(verified.matrix) == 3:
        depth = corners @ verified.matrix[2, :2] + verified.matrix[2, 2]
        if (depth * depth[0] <= 0).any():  # the horizon goes through the box
            return corners, None
    return corners, project(verified.matrix, corners)


def verify(
    points_a: np.ndarray,
    points_b: np.ndarray,
    tolerance: float,
    model: Model = "affine",
    enlarged: float = 1.0,
) -> Verification:
    """Fit a map from a to b that most matches agree with (USAC with MAGSAC++ scoring).

    points_a, points_b: (M, 2), x and y in pixels, one row a match. tolerance: distance in pixels
    of b within which a match is an inlier. enlarged: size of b, divided by that of a. A photograph
    of 6000 pixels shrinks nine times to fit one of 640, and is a plausible view of the same thing.
    The same input gives the same answer: the seed is fixed.
    There is no matrix and no inlier where too few matches agree, where the inliers lie on one line,
    and where the map is not plausible for two views of one thing.
    Source: Baráth et al., MAGSAC++, CVPR 2020, as in OpenCV.
    """
    import cv2

    nothing = Verification(None, np.zeros(len(points_a), bool))
    # Several keypoints at one place, from several pyramid levels, count as one.
    needed = MIN_MATCHES[model]
    if any(len(set(map(tuple, points.tolist()))) < needed for points in (points_a, points_b)):
        return nothing
    params = cv2.UsacParams()
    params.threshold = tolerance
    params.confidence = 0.999
    params.maxIterations = 2000
    params.sampler = cv2.SAMPLING_UNIFORM
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_INNER_AND_ITER_LO
    params.randomGeneratorState = SEED
    a = np.ascontiguousarray(points_a, np.float32)
    b = np.ascontiguousarray(points_b, np.float32)
    try:
        estimate = cv2.estimateAffine2D if model == "affine" else cv2.findHomography
        matrix, mask = estimate(a, b, params)
    except cv2.error:  # some versions of OpenCV raise for degenerate input, others do not
        return nothing
    if matrix is None or not np.isfinite(matrix).all():
        return nothing
    inliers = mask.ravel().astype(bool)
    if inliers.sum() < needed or _on_one_line(a[inliers]) or _on_one_line(b[inliers]):
        return nothing
    if model == "affine":
        plausible = _plausible(matrix[:, :2], enlarged)
    else:
        plausible = _plausible_homography(matrix, a[inliers], enlarged)
    return Verification(matrix, inliers) if plausible else nothing


def one_inlier_per_cell(
    verified: Verification, points_a: np.ndarray, points_b: np.ndarray, side_a: float, side_b: float
) -> Verification:
    """The verification with at most one inlier in each cell of a and of b, the first of them.

    Dense keypoints on one window or on grass agree with each other under any map.
    points_a, points_b: (M, 2), one row a match. side_a, side_b: longer sides in pixels; a cell is
    a square of 1/32 of it.
    """
    rows = np.flatnonzero(verified.inliers)
    for points, side in ((points_a, side_a), (points_b, side_b)):
        cells = np.floor(points[rows] * (CELLS / side)).astype(np.int64)
        rows = rows[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
    inliers = np.zeros_like(verified.inliers)
    inliers[rows] = True
    return Verification(verified.matrix, inliers)


def _on_one_line(points: np.ndarray) -> bool:
    """Whether points (M, 2) lie on a line: they spread a thousand times less across it."""
    large, small = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return small <= 1e-3 * large


def _plausible(linear: np.ndarray, enlarged: float) -> bool:
    """Whether a linear map (2, 2) is possible between two views of one thing.

    It must keep orientation. It must not stretch or shrink a direction MAX_STRETCH times or more,
    both in pixels and as a share of each picture, nor stretch one direction MAX_STRETCH times as
    much as another. enlarged: as for ``verify``.
    """
    if np.linalg.det(linear) <= 0:
        return False
    large, small = np.linalg.svd(linear, compute_uv=False)
    most, least = MAX_STRETCH * max(1, enlarged), min(1, enlarged) / MAX_STRETCH
    return large < most and small > least and large / small < MAX_STRETCH


def _plausible_homography(matrix: np.ndarray, points: np.ndarray, enlarged: float) -> bool:
    """Whether a homography is close to a plausible affine map at each of these points (M, 2) of a.

    All points must lie on one side of the horizon, where the denominator changes its sign.
    """
    depth = points @ matrix[2, :2] + matrix[2, 2]
    if (depth * depth[0] <= 0).any():
        return False
    mapped = project(matrix, points)
    # Derivative of (n / d): (n' - mapped · d') / d
    linear = (matrix[None, :2, :2] - mapped[:, :, None] * matrix[2, :2]) / depth[:, None, None]
    return all(_plausible(at_point, enlarged) for at_point in linear)


def verify_features(
    a: LocalFeatures,
    b: LocalFeatures,
    size_b: tuple[int, int],
    min_similarity: float = MIN_SIMILARITY,
    tolerance: float = TOLERANCE,
    model: Model = "affine",
) -> tuple[np.ndarray, Verification]:
    """Match the features of two pictures and verify the matches; by default as DELF's search does.

    size_b: (width, height) of b in pixels. tolerance: as a share of its longer side.
    Returns the matches (K, 2) int64, index in a and index in b, and their verification.
    """
    matches = mutual_matches(a.descriptors, b.descriptors, min_similarity)
    points_a, points_b = a.keypoints[matches[:, 0]], b.keypoints[matches[:, 1]]
    # The size of a is not known here, but its keypoints lie all over it.
    enlarged = max(size_b) / float(a.keypoints.max(initial=1.0))
    return matches, verify(points_a, points_b, tolerance * max(size_b), model, enlarged)
