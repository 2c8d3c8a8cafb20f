import numpy as np
import pytest

from retrieval.errors import RetrievalError
from retrieval.training import whitening


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
    weight, bias = whitening.learn(x, groups, 6, shrinkage=0.0)
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


def test_full_shrinkage_is_a_plain_pca():
    x, groups = groups_of()
    weight, _ = whitening.learn(x, groups, 3, shrinkage=1.0)
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

    weight, bias = whitening.learn(x, groups, 6, shrinkage=0.1)
    assert right(new @ weight.T + bias) > right(new) + 0.3


def test_whitening_needs_two_of_a_kind():
    x, _ = groups_of()
    for groups in (np.arange(len(x)), np.full(len(x), -1)):
        with pytest.raises(RetrievalError, match="of the same thing"):
            whitening.learn(x, groups, 3, 0.1)


def test_pca_is_that_of_the_singular_value_decomposition():
    x = np.random.default_rng(0).normal(size=(50, 5)) * [5, 1, 3, 0.5, 2] + 7
    weight, bias = whitening.pca(x, 3)
    _, _, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(weight * axes[:3], axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(x @ weight.T + bias, (x - x.mean(axis=0)) @ weight.T, atol=1e-9)
