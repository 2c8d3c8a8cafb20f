"""Whitening and PCA against cirtorch's values, and by hand."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import RetrievalError
from retrieval.training import whitening

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "cirtorch.npz"


def groups_of(count=40, each=3, dimensions=6, seed=0):
    """Descriptors in groups: what differs within one lies mostly along one axis."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, 1, dimensions)) * [1, 2, 1, 1, 3, 1]
    noise = rng.normal(size=(count, each, dimensions)) * [4, 0.1, 0.2, 0.3, 0.1, 0.1]
    return (centres + noise).reshape(-1, dimensions), np.repeat(np.arange(count), each)


def within(x, groups):
    """Covariance within groups, by a plain loop."""
    total, free = np.zeros((x.shape[1], x.shape[1])), 0
    for group in set(groups.tolist()) - {-1}:
        members = x[groups == group]
        free += len(members) - 1
        for one in members:
            d = one - members.mean(axis=0)
            total += np.outer(d, d)
    return total / free


def test_whitening_evens_out_what_differs_within_a_group():
    x, groups = groups_of()
    groups[:3] = -1  # of no group
    groups[3:5] = 500, 501  # alone
    weight, bias = whitening.from_groups(x, groups, 6, shrinkage=0.0)
    found = weight @ within(x, groups) @ weight.T
    # The identity times a common factor, which L2 removes.
    np.testing.assert_allclose(found / found[0, 0], np.eye(6), atol=1e-6)
    # The mean of everything goes to zero, and the axes are those of a PCA: no correlation.
    y = x @ weight.T + bias
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)
    spread = np.cov(y.T)
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-6 * spread.max())
    assert (np.diff(np.diag(spread)) <= 1e-6).all(), "strongest first"
    assert np.linalg.norm(weight, axis=1).max() == pytest.approx(1)


def test_shrinkage_moves_the_eigenvalues_towards_their_mean():
    x, groups = groups_of()
    weight, _ = whitening.from_groups(x, groups, 6, shrinkage=0.3)
    covariance = within(x, groups)
    expected = np.linalg.inv(0.7 * covariance + 0.3 * np.trace(covariance) / 6 * np.eye(6))
    found = weight.T @ weight
    np.testing.assert_allclose(found / np.trace(found), expected / np.trace(expected), atol=1e-9)


def test_full_shrinkage_is_a_plain_pca():
    x, groups = groups_of()
    weight, _ = whitening.from_groups(x, groups, 3, shrinkage=1.0)
    plain, _ = whitening.pca(x, 3)
    np.testing.assert_allclose(np.abs(np.sum(weight * plain, axis=1)), 1, atol=1e-5)


def test_whitening_brings_a_group_together():
    x, groups = groups_of()
    new, _ = groups_of(seed=1)

    def right(y):
        """Share of descriptors whose nearest other one is of the same group."""
        y = y / np.linalg.norm(y, axis=1, keepdims=True)
        similarity = y @ y.T - 2 * np.eye(len(y))
        return (groups[similarity.argmax(axis=1)] == groups).mean()

    weight, bias = whitening.from_groups(x, groups, 6, shrinkage=0.1)
    assert right(new @ weight.T + bias) > right(new) + 0.3


def test_groups_of_one_are_refused():
    x, _ = groups_of()
    for groups in (np.arange(len(x)), np.full(len(x), -1)):
        with pytest.raises(RetrievalError, match="of the same thing"):
            whitening.from_groups(x, groups, 3, 0.1)


def test_pca_is_that_of_the_singular_value_decomposition():
    x = np.random.default_rng(0).normal(size=(50, 5)) * [5, 1, 3, 0.5, 2] + 7
    weight, bias = whitening.pca(x, 3)
    _, _, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(weight * axes[:3], axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(x @ weight.T + bias, (x - x.mean(axis=0)) @ weight.T, atol=1e-9)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def learned_whitening(x, queries, positives, dimensions):
    """cirtorch's ``Lw``, step by step: weight (d, D) and bias (d,).

    x: (n, D). queries, positives: (m,) int, rows of x that make the pairs.
    """
    mean = x[queries].mean(axis=0)
    differences = x[queries] - x[positives]
    factor = np.linalg.inv(np.linalg.cholesky(differences.T @ differences / len(differences)))
    projected = (x - mean) @ factor.T
    _, vectors = np.linalg.eigh(projected.T @ projected)
    weight = vectors[:, ::-1].T[:dimensions] @ factor
    return weight, -weight @ mean


def test_whitening_from_pairs_is_that_of_cirtorch():
    """Distances are the same but for a factor: without shrinkage, in all dimensions."""
    random = np.random.default_rng(0)
    x = random.standard_normal((400, 5))
    x[200:] = x[:200] + random.standard_normal((200, 5)) * [1, 0.5, 0.1, 2, 0.3]
    ours, _ = whitening.from_groups(x, np.tile(np.arange(200), 2), 5, shrinkage=0.0)
    theirs, _ = learned_whitening(x, np.arange(200), np.arange(200, 400), 5)
    ours, theirs = ours.T @ ours, theirs.T @ theirs
    np.testing.assert_allclose(ours / np.trace(ours), theirs / np.trace(theirs), atol=1e-9)


@pytest.mark.skipif(not REFERENCE.exists(), reason="no reference values here")
@pytest.mark.parametrize("key", ["lw", "pca"])
def test_whitening_of_cirtorch(key):
    reference = np.load(REFERENCE)
    x = reference["whiten_X"].astype(np.float64)
    if key == "lw":
        layer = learned_whitening(x, reference["whiten_q"], reference["whiten_p"], 32)
    else:
        layer = whitening.pca_whitening(x, 32)
    weight, bias = layer
    assert weight.shape == (32, 64)
    first = unit(x[:60] @ weight.T + bias)
    np.testing.assert_allclose(first @ first.T, reference[f"whiten_{key}_gram"], atol=1e-5)


def test_pca_whitening_makes_directions_equal():
    random = np.random.default_rng(0)
    x = random.standard_normal((500, 6)) @ random.standard_normal((6, 6)) + 5
    weight, bias = whitening.pca_whitening(x, 4)
    np.testing.assert_allclose(np.cov((x @ weight.T + bias).T, ddof=0), np.eye(4), atol=1e-9)
    with pytest.raises(RetrievalError, match="fewer than 4 directions"):
        whitening.pca_whitening(x[:3], 4)
