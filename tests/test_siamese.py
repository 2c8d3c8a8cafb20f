"""Pairs from geometry, and the siamese training of CNN-IRwNHA on them."""

import numpy as np
import torch

from retrieval.training import pairs, siamese


def pair(a, b, inliers):
    return pairs.Pair(a, b, np.eye(2, 3), inliers)


def test_matching_pairs_are_sure_and_few():
    many = [pair(0, b, 60 - b) for b in range(1, 9)]
    found = pairs.matching([*many, pair(1, 0, 24), pair(2, 0, 25)])
    assert [(one.a, one.b) for one in found] == [
        (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (2, 0),
    ]  # fmt: skip


def test_groups_are_joined_by_any_chain():
    groups = pairs.clusters([pair(0, 3, 12), pair(3, 5, 40), pair(6, 1, 11)], 7)
    assert len(set(groups)) == 4
    assert groups[0] == groups[3] == groups[5]
    assert groups[1] == groups[6]
    assert len(set(pairs.clusters([], 3))) == 3


def test_negatives_are_the_most_alike_of_other_groups():
    known = torch.tensor([[1.0, 0], [0.99, 0.1], [0.9, 0.4], [0.8, 0.6], [0.7, 0.7], [0, 1]])
    groups = np.array([0, 0, 1, 1, 2, 3])
    assert siamese.hardest(known, 0, groups) == [2, 4, 5]
    assert siamese.hardest(known, 5, groups) == [4, 3, 1]
