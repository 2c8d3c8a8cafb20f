"""Putative matches between two sets of local features, and their geometric verification.

Pure functions of arrays. Coordinates are (x, y) in pixels of each original picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.methods.base import LocalFeatures

SEED = 0
# Two unrelated pictures agree on a few matches by chance: fewer than this says nothing.
NOISE_FLOOR = 6


@dataclass(frozen=True)
class Verification:
    """matrix: (2, 3) float64 from a's pixels to b's, or None; inliers: (M,) bool over the pairs."""

    matrix: np.ndarray | None
    inliers: np.ndarray

    @property
    def count(self) -> int:
        return int(self.inliers.sum())


def mutual_matches(a: np.ndarray, b: np.ndarray, min_similarity: float = 0.0) -> np.ndarray:
    """Mutual nearest neighbours by cosine.

    a: (N, d), b: (M, d) float32, unit length. Returns (K, 2) int64 rows (index in a, index in b),
    ordered by the index in a; (0, 2) where either side is empty.
    """
    if len(a) == 0 or len(b) == 0:
        return np.empty((0, 2), np.int64)
    similarity = a @ b.T
    best_b = similarity.argmax(axis=1)
    best_a = similarity.argmax(axis=0)
    rows = np.arange(len(a))
    keep = (best_a[best_b] == rows) & (similarity[rows, best_b] >= min_similarity)
    return np.stack([rows[keep], best_b[keep]], axis=1)


def verify(
    points_a: np.ndarray, points_b: np.ndarray, tolerance: float, seed: int = SEED
) -> Verification:
    """Fit an affine map from a to b that most pairs agree with (USAC with MAGSAC++ scoring).

    points_a, points_b: (M, 2), pair by pair. tolerance: pixels of b within which a pair counts as
    an inlier. The same input gives the same answer: the sampler's seed is fixed.
    Fewer than three pairs, or pairs on one line, determine nothing: no matrix and no inliers.
    Source: Baráth et al., MAGSAC++, CVPR 2020, as in OpenCV.
    """
    import cv2

    nothing = Verification(None, np.zeros(len(points_a), bool))
    # Several keypoints at one place (pyramid levels) are one piece of evidence.
    if len(np.unique(points_a, axis=0)) < 3 or len(np.unique(points_b, axis=0)) < 3:
        return nothing
    params = cv2.UsacParams()
    params.threshold = tolerance
    params.confidence = 0.999
    params.maxIterations = 2000
    params.sampler = cv2.SAMPLING_UNIFORM
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.randomGeneratorState = seed
    a = np.ascontiguousarray(points_a, np.float32)
    b = np.ascontiguousarray(points_b, np.float32)
    try:
        matrix, mask = cv2.estimateAffine2D(a, b, params)
    except cv2.error:  # what OpenCV says to degenerate input differs by version
        return nothing
    if matrix is None or not np.isfinite(matrix).all() or not _plausible(matrix):
        return nothing
    inliers = mask.ravel().astype(bool)
    if inliers.sum() < 3 or _on_one_line(a[inliers]) or _on_one_line(b[inliers]):
        return nothing
    return Verification(matrix, inliers)


def _on_one_line(points: np.ndarray, least: float = 1e-3) -> bool:
    """Whether (M, 2) points spread along one direction less than ``least`` of the other."""
    large, small = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return small <= least * large


def _plausible(matrix: np.ndarray, most: float = 8.0) -> bool:
    """Whether the map keeps orientation and neither flattens nor blows up the picture."""
    if np.linalg.det(matrix[:, :2]) <= 0:
        return False
    large, small = np.linalg.svd(matrix[:, :2], compute_uv=False)
    return large < most and small > 1 / most and large / small < most


def verify_features(
    a: LocalFeatures,
    b: LocalFeatures,
    size_b: tuple[int, int],
    min_similarity: float,
    tolerance: float,
) -> tuple[np.ndarray, Verification]:
    """Match two pictures and verify the matches.

    size_b: (width, height) of b in pixels; tolerance: share of its longer side.
    Returns the pairs (K, 2) and their verification.
    """
    pairs = mutual_matches(a.descriptors, b.descriptors, min_similarity)
    found = verify(a.keypoints[pairs[:, 0]], b.keypoints[pairs[:, 1]], tolerance * max(size_b))
    return pairs, found
