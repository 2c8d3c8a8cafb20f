"""Cosines of pictures of one landmark and of others, on descriptors worked out by hand."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval.collections.ground_truth import Query, same_landmark
from retrieval.evaluation.similarity import pair_cosines

NAMES = ("a1", "a2", "b1", "b2", "other", "strange")
QUERIES = (
    Query("qa", landmark="a", labels={"easy": np.array([0]), "hard": np.array([1])}),
    Query("qb", landmark="b", labels={"easy": np.array([2, 3]), "junk": np.array([0, 4])}),
)


def test_pairs_of_one_landmark_and_others():
    # Angles of 0, 30, 60, 90, 120 and 150 degrees.
    angles = np.radians(np.arange(0, 180, 30))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    index = SimpleNamespace(names=NAMES, arrays={"descriptors": vectors})
    index.first = lambda count: index
    same, others = pair_cosines(index, NAMES, QUERIES)
    assert same == pytest.approx([np.cos(np.radians(30))] * 2, abs=1e-3)
    # Two pictures without a landmark are not compared, nor b1 and b2 with what their query leaves
    # out, nor that with each other: a1 and other.
    assert len(others) == 15 - 2 - 1 - 5
    assert others.min() == pytest.approx(np.cos(np.radians(150)), abs=1e-3)


def test_a_query_and_what_is_left_out_are_no_other_places():
    """The query of a landmark among the pictures, its junk, and a picture of two landmarks."""
    names = ("qa", "a1", "blurred a", "a and b", "b1")
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0.8, 0.6], [0, 1]], np.float16)
    index = SimpleNamespace(names=names[::-1], arrays={"descriptors": vectors[::-1]})
    index.first = lambda count: index
    queries = (
        Query("qa", landmark="a", labels={"ok": np.array([1, 3]), "junk": np.array([2])}),
        Query("qb", landmark="b", labels={"ok": np.array([3, 4])}),
        Query("a1", labels={"ok": np.array([0, 4])}),  # of no landmark that has a name
    )
    same, others = pair_cosines(index, names, queries)
    assert sorted(same) == pytest.approx([0.6, 0.8], abs=1e-3)
    assert others == pytest.approx([0, 0, 0], abs=1e-3)  # b1 with qa, a1 and blurred a


def test_long_names_of_landmarks_cost_no_more():
    """A visitor's ground truth with four of them took 4.7 GB of the app."""
    index = SimpleNamespace(
        names=tuple(map(str, range(1000))), arrays={"descriptors": np.ones((1000, 2), np.float16)}
    )
    index.first = lambda count: index
    labels = {"ok": np.arange(1000)}
    tracemalloc.start()
    same, others = pair_cosines(index, index.names, [Query("q", landmark="x" * 300, labels=labels)])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(same) == 1000 * 999 / 2
    assert not len(others)
    assert most < 100e6


def test_same_landmark():
    landmark, right, junk = same_landmark(QUERIES, 3)
    assert landmark == "b"
    assert right.tolist() == [2]
    assert junk.tolist() == [0, 4]
    assert same_landmark(QUERIES, 4) is None
    assert same_landmark(QUERIES, 5) is None
