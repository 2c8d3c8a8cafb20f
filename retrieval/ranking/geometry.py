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
# Two unrelated pictures agree on a few matches by chance, and repeated windows on a few more:
# fewer than this says nothing. Of 6 to 30, ten ranked best on town and on real photographs.
NOISE_FLOOR = 10
# Of DELF: cosine from which mutual nearest neighbours are a putative match, and the share of the
# longer side within which a match agrees with the map.
MIN_SIMILARITY = 0.6
TOLERANCE = 0.015
Model = Literal["affine", "homography"]
LEAST_PAIRS: dict[Model, int] = {"affine": 3, "homography": 4}
MOST_STRETCHED = 8.0  # times; a map beyond that is no view of the same thing
PLACES = 32  # of the longer side: inliers in one of 32 × 32 places are one piece of evidence
BLOCK = 1 << 23  # similarities in one block: 32 MB


@dataclass(frozen=True)
class Verification:
    """matrix: from a's pixels to b's, or None; inliers: (M,) bool over the pairs.

    matrix is float64, (2, 3) of an affine map or (3, 3) of a homography: see ``project``.
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
    # Only rows of b that are the nearest of some row of a are compared back: few, between
    # unrelated pictures.
    chosen, which = np.unique(nearest[rows], return_inverse=True)
    mutual = _nearest(b[chosen], a)[0][which] == rows
    return np.stack([rows[mutual], nearest[rows[mutual]]], axis=1)


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row of b (M, d) most like each of a (N, d), and how like: (N,) int64, (N,) float32."""
    nearest, similarity = np.empty(len(a), np.int64), np.empty(len(a), np.float32)
    step = max(1, BLOCK // len(b))
    for start in range(0, len(a), step):
        products = a[start : start + step] @ b.T
        found = products.argmax(axis=1)
        nearest[start : start + step] = found
        similarity[start : start + step] = products[np.arange(len(found)), found]
    return nearest, similarity


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (M, 2) carried over by an affine map (2, 3) or a homography (3, 3): (M, 2) float64."""
    carried = points @ matrix[:, :2].T + matrix[:, 2]
    return carried if len(matrix) == 2 else carried[:, :2] / carried[:, 2:]


def outlines(box: Box, found: Verification) -> tuple[np.ndarray, np.ndarray | None]:
    """Corners (4, 2) of a box of a, and of where the map puts it in b, or None without a map."""
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)
    if found.matrix is None:
        return corners, None
    if len(found.matrix) == 3:
        depth = corners @ found.matrix[2, :2] + found.matrix[2, 2]
        if (depth * depth[0] <= 0).any():  # the horizon goes through the box
            return corners, None
    return corners, project(found.matrix, corners)


def verify(
    points_a: np.ndarray,
    points_b: np.ndarray,
    tolerance: float,
    model: Model = "affine",
) -> Verification:
    """Fit a map from a to b that most pairs agree with (USAC with MAGSAC++ scoring).

    points_a, points_b: (M, 2), pair by pair. tolerance: pixels of b within which a pair counts as
    an inlier. The same input gives the same answer: the sampler's seed is fixed.
    Fewer than three pairs (homography: four), or pairs on one line, determine nothing: no matrix
    and no inliers.
    Source: Baráth et al., MAGSAC++, CVPR 2020, as in OpenCV.
    """
    import cv2

    nothing = Verification(None, np.zeros(len(points_a), bool))
    # Several keypoints at one place (pyramid levels) are one piece of evidence.
    least = LEAST_PAIRS[model]
    if any(len(set(map(tuple, points.tolist()))) < least for points in (points_a, points_b)):
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
    except cv2.error:  # what OpenCV says to degenerate input differs by version
        return nothing
    if matrix is None or not np.isfinite(matrix).all():
        return nothing
    inliers = mask.ravel().astype(bool)
    if inliers.sum() < least or _on_one_line(a[inliers]) or _on_one_line(b[inliers]):
        return nothing
    if model == "affine":
        plausible = _plausible(matrix[:, :2])
    else:
        plausible = _plausible_homography(matrix, a[inliers])
    return Verification(matrix, inliers) if plausible else nothing


def distinct(
    found: Verification, points_a: np.ndarray, points_b: np.ndarray, side_a: float, side_b: float
) -> Verification:
    """The same with one inlier a place: of those that share one in a or in b, the first.

    Dense keypoints on one window or on grass agree with each other whatever the map is.
    points_a, points_b: (M, 2), pair by pair. side_a, side_b: longer sides in pixels; a place is
    1/32 of it wide and high.
    """
    rows = np.flatnonzero(found.inliers)
    for points, side in ((points_a, side_a), (points_b, side_b)):
        cells = np.floor(points[rows] * (PLACES / side)).astype(np.int64)
        rows = rows[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
    inliers = np.zeros_like(found.inliers)
    inliers[rows] = True
    return Verification(found.matrix, inliers)


def _on_one_line(points: np.ndarray) -> bool:
    """Whether (M, 2) points spread a thousand times as far in one direction as across it."""
    large, small = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return small <= 1e-3 * large


def _plausible(linear: np.ndarray) -> bool:
    """Whether a (2, 2) map keeps orientation and stretches no direction more than MOST_STRETCHED.

    Nor may it shrink one further, or stretch one more than that against the other.
    """
    if np.linalg.det(linear) <= 0:
        return False
    large, small = np.linalg.svd(linear, compute_uv=False)
    return large < MOST_STRETCHED and small > 1 / MOST_STRETCHED and large / small < MOST_STRETCHED


def _plausible_homography(matrix: np.ndarray, points: np.ndarray) -> bool:
    """Whether a homography is like a plausible affine map near every one of its inliers (M, 2).

    All of them are on one side of the horizon, where the denominator changes its sign.
    """
    depth = points @ matrix[2, :2] + matrix[2, 2]
    if (depth * depth[0] <= 0).any():
        return False
    carried = project(matrix, points)
    # Derivative of (n / d): (n' - carried · d') / d
    linear = (matrix[None, :2, :2] - carried[:, :, None] * matrix[2, :2]) / depth[:, None, None]
    return all(map(_plausible, linear))


def verify_features(
    a: LocalFeatures,
    b: LocalFeatures,
    size_b: tuple[int, int],
    min_similarity: float = MIN_SIMILARITY,
    tolerance: float = TOLERANCE,
    model: Model = "affine",
) -> tuple[np.ndarray, Verification]:
    """Match two pictures and verify the matches; by default as DELF's search does.

    size_b: (width, height) of b in pixels; tolerance: share of its longer side.
    Returns the pairs (K, 2) and their verification.
    """
    pairs = mutual_matches(a.descriptors, b.descriptors, min_similarity)
    points_a, points_b = a.keypoints[pairs[:, 0]], b.keypoints[pairs[:, 1]]
    found = verify(points_a, points_b, tolerance * max(size_b), model)
    return pairs, found
