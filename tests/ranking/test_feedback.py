"""Rocchio's formula, worked out by hand."""

import numpy as np
import pytest

from retrieval.ranking.feedback import rocchio

X, Y, Z = np.eye(3, dtype=np.float32)
NONE = np.empty((0, 3), np.float32)


def test_towards_the_right_and_away_from_the_wrong():
    # x + 0.75 (y + z) / 2 - 0.15 z
    expected = np.array([1, 0.375, 0.225])
    found = rocchio(X, np.stack([Y, Z]), Z[None])
    assert found == pytest.approx(expected / np.linalg.norm(expected))
    assert np.linalg.norm(found) == pytest.approx(1)


def test_nothing_marked_changes_nothing():
    assert rocchio(X, NONE, NONE) == pytest.approx(X)


def test_only_wrong_ones():
    assert rocchio(X, NONE, Y[None]) @ Y < 0
