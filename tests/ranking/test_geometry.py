import tracemalloc

import numpy as np
import pytest

from retrieval.methods.base import LocalFeatures
from retrieval.ranking import geometry

A = np.array([[0.9, -0.3, 40.0], [0.25, 1.1, -15.0]])


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def points(count, seed=0, size=(640, 480)):
    return np.random.default_rng(seed).uniform(0, size, (count, 2)).astype(np.float32)


def unit(count, seed=0, dimensions=8):
    x = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def local(keypoints, descriptors):
    ones = np.ones(len(keypoints), np.float32)
    return LocalFeatures(np.float32(keypoints).reshape(-1, 2), ones, ones, np.float32(descriptors))


def test_an_exact_affine_map_is_recovered():
    a = points(40)
    found = geometry.verify(a, apply(A, a), 3.0)
    assert found.count == 40
    assert found.inliers.dtype == bool
    np.testing.assert_allclose(found.matrix, A, atol=1e-2)


H = np.array([[0.9, -0.2, 40.0], [0.15, 1.1, -15.0], [4e-4, -2e-4, 1.0]])


def test_a_homography_is_recovered_and_its_outliers_told_apart():
    a = points(80)
    b = geometry.project(H, a)
    np.testing.assert_allclose(b[0] * (H[2] @ [*a[0], 1]), (H @ [*a[0], 1])[:2])
    b[60:] = points(20, seed=9)
    truth = np.hypot(*(b - geometry.project(H, a)).T) < 3
    found = geometry.verify(a, b, 3.0, "homography")
    assert (found.inliers == truth).all()
    assert found.matrix.shape == (3, 3)
    corners = np.float64([[0, 0], [640, 0], [640, 480], [0, 480]])
    np.testing.assert_allclose(
        geometry.project(found.matrix, corners), geometry.project(H, corners), atol=1
    )
    assert found.count > geometry.verify(a, b, 3.0).count  # no affine map fits perspective


def test_an_affine_map_carries_points_as_by_hand():
    found = geometry.project(np.array([[2.0, 0, 5], [0, 3, -1]]), np.float32([[1, 1], [0, 2]]))
    np.testing.assert_array_equal(found, [[7, 2], [5, 5]])


def test_a_homography_needs_four_pairs():
    a = np.float32([[0, 0], [100, 0], [0, 100], [70, 90], [20, 60]])
    for count in range(4):
        found = geometry.verify(a[:count], a[:count], 3.0, "homography")
        assert found.matrix is None
        assert found.inliers.shape == (count,)
    assert geometry.verify(a, a * 2 + 5, 3.0, "homography").count == 5


@pytest.mark.parametrize(
    "matrix",
    [
        [[-1, 0, 640], [0, 1, 0], [0, 0, 1]],  # a mirror
        [[20, 0, 0], [0, 20, 0], [0, 0, 1]],  # blown up
        [[1, 0, 0], [0, 1, 0], [-1 / 300, 0, 1]],  # the horizon goes through the picture
    ],
)
def test_absurd_homographies_are_refused(matrix):
    a = points(60)
    found = geometry.verify(a, geometry.project(np.float64(matrix), a), 3.0, "homography")
    assert found.count < 40


def test_outliers_are_told_apart():
    a = points(60)
    b = apply(A, a)
    b[40:] = points(20, seed=9)
    truth = np.hypot(*(b - apply(A, a)).T) < 3
    found = geometry.verify(a, b, 3.0)
    assert truth.sum() < 45
    assert (found.inliers == truth).all()
    np.testing.assert_allclose(found.matrix, A, atol=0.05)


def test_three_pairs_are_enough_and_two_are_not():
    a = np.float32([[0, 0], [100, 0], [0, 100], [70, 90]])
    b = a * 2 + 5
    for count in (0, 1, 2):
        found = geometry.verify(a[:count], b[:count], 3.0)
        assert found.matrix is None
        assert found.inliers.shape == (count,)
        assert found.count == 0
    found = geometry.verify(a, b, 3.0)
    assert found.count == 4
    np.testing.assert_allclose(found.matrix, [[2, 0, 5], [0, 2, 5]], atol=1e-3)


@pytest.mark.parametrize("model", ["affine", "homography"])
@pytest.mark.parametrize("count", [3, 4, 10, 100])
def test_pairs_on_one_place_or_one_line_determine_nothing(count, model):
    same = np.full((count, 2), 7, np.float32)
    line = np.stack([np.linspace(0, 300, count), np.linspace(10, 160, count)], axis=1)
    spread = points(count)
    for a, b in ((same, same), (line, line), (same, spread), (spread, same), (spread, line)):
        found = geometry.verify(np.float32(a), np.float32(b), 3.0, model)
        assert found.count <= 4, "a line or a point is no evidence for a map"
        assert found.inliers.shape == (count,)


def test_noise_agrees_by_chance_only():
    counts = [geometry.verify(points(50, s), points(50, s + 500), 5.0).count for s in range(20)]
    assert max(counts) <= 2 * geometry.NOISE_FLOOR
    assert np.median(counts) <= geometry.NOISE_FLOOR


def test_the_same_input_gives_the_same_answer():
    a, b = points(80), points(80, seed=3)
    b[:30] = apply(A, a[:30]) + np.random.default_rng(1).normal(0, 1.5, (30, 2))
    found = [geometry.verify(a, b, 4.0) for _ in range(5)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.inliers, found[0].inliers)
        np.testing.assert_array_equal(other.matrix, found[0].matrix)


def test_mirrored_and_absurd_maps_are_refused():
    a = points(30)
    for matrix in (
        [[-1, 0, 640], [0, 1, 0]],  # a mirror
        [[20, 0, 0], [0, 20, 0]],  # blown up
        [[0.02, 0, 0], [0, 0.02, 0]],  # collapsed
        [[1, 0, 0], [0, 0.05, 0]],  # flattened
    ):
        found = geometry.verify(a, apply(np.float64(matrix), a), 3.0)
        assert found.count < 15


def test_a_large_photograph_and_a_small_picture_show_the_same_thing():
    """A telephone's photograph has 6000 pixels where the collection has 500: twelve times."""
    small, descriptors = points(50), unit(50, dimensions=16)
    large = local(small * 12, descriptors)
    small = local(small, descriptors)
    for a, b, size in ((large, small, (640, 480)), (small, large, (7680, 5760))):
        for model in ("affine", "homography"):
            _, found = geometry.verify_features(a, b, size, model=model)
            assert found.count == 50, (size, model)
    absurd = local(small.keypoints * 0.02, descriptors)  # all of it in a corner of the other
    assert geometry.verify_features(small, absurd, (640, 480))[1].count == 0


def slow_matches(a, b, least):
    pairs = []
    for i in range(len(a)):
        j = max(range(len(b)), key=lambda j: a[i] @ b[j])
        back = max(range(len(a)), key=lambda k: a[k] @ b[j])
        if back == i and a[i] @ b[j] >= least:
            pairs.append((i, j))
    return pairs


@pytest.mark.parametrize("least", [-1.0, 0.0, 0.5, 0.9])
def test_mutual_matches_are_those_of_a_double_loop(least):
    a, b = unit(30, 1), unit(45, 2)
    b[:10] = a[5:15] + 0.1 * unit(10, 3)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    found = geometry.mutual_matches(a, b, least)
    assert found.dtype == np.int64
    assert [tuple(pair) for pair in found.tolist()] == slow_matches(a, b, least)


def test_blocks_give_the_same_matches(monkeypatch):
    a, b = unit(70, 1), unit(33, 2)
    a[40], a[60] = a[3], a[3]  # a tie between blocks goes to the first
    whole = geometry.mutual_matches(a, b, 0.2)
    monkeypatch.setattr(geometry, "BLOCK", 100)
    np.testing.assert_array_equal(geometry.mutual_matches(a, b, 0.2), whole)


def test_a_hundred_thousand_keypoints_fit_in_memory():
    a, b = unit(100_000, 1, 4), unit(400, 2, 4)
    tracemalloc.start()
    pairs = geometry.mutual_matches(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6  # all similarities at once would be 160 MB
    assert 0 < len(pairs) <= 400
    found = geometry.verify(a[:, :2], a[:, :2] * 2 + 1, 0.01)
    assert found.count == 100_000


def test_matches_of_nothing():
    for a, b in ((0, 5), (5, 0), (0, 0)):
        assert geometry.mutual_matches(unit(a), unit(b)).shape == (0, 2)
    # An index of blank pictures only has descriptors without a width.
    without = np.empty((0, 0), np.float32)
    matches = geometry.mutual_matches(unit(5), without)
    assert matches.shape == (0, 2)
    sides = local(points(5), unit(5)), local(points(0), without)
    assert geometry.similarities(*sides, matches).shape == (0,)


def test_duplicates_match_once():
    a = np.repeat(unit(1), 4, axis=0)
    assert geometry.mutual_matches(a, a).tolist() == [[0, 0]]


def test_two_pictures():
    keypoints, descriptors = points(50), unit(50, dimensions=16)
    a = local(keypoints, descriptors)
    order = np.random.default_rng(4).permutation(50)
    b = local(apply(A, keypoints)[order], descriptors[order])
    pairs, found = geometry.verify_features(a, b, (800, 600), 0.5, 0.01)
    assert len(pairs) == 50
    assert (order[pairs[:, 1]] == pairs[:, 0]).all()
    np.testing.assert_allclose(geometry.similarities(a, b, pairs), 1, atol=1e-6)
    assert found.count == 50
    empty = local(np.empty((0, 2)), np.empty((0, 16)))
    for one, two in ((a, empty), (empty, a), (empty, empty)):
        pairs, found = geometry.verify_features(one, two, (800, 600), 0.5, 0.01)
        assert pairs.shape == (0, 2)
        assert found.count == 0
