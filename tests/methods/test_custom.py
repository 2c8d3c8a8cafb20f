"""Networks that users bring, and where trunks compute."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from retrieval import index as indexes
from retrieval import methods
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError
from retrieval.networks import trunks
from retrieval.ranking.search import rank_picture


@pytest.fixture(scope="module")
def picture():
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((128, 96), Image.BICUBIC)


class Colours(nn.Module):
    """Feature map of the colours themselves, at stride 8."""

    def forward(self, x):
        return nn.functional.avg_pool2d(x, 8)


def test_own_module_by_hand(picture):
    own = methods.custom("colours", Colours(), pooling="spoc", mean=(0, 0, 0), std=(1, 1, 1))
    expected = np.asarray(picture, np.float64).mean((0, 1))
    np.testing.assert_allclose(
        own.describe(picture), expected / np.linalg.norm(expected), atol=1e-5
    )
    assert own.settings == {"size": 1024, "enlarge": False, "scales": [1.0]}
    assert own.checkpoint.id == "colours"
    box = (0, 0, 64, 48)
    crop = np.asarray(picture.crop(box), np.float64).mean((0, 1))
    np.testing.assert_allclose(own.describe(picture, box), crop / np.linalg.norm(crop), atol=1e-5)


def test_own_transform_and_vector(picture):
    seen = []

    def transform(one):
        seen.append(one.size)
        return torch.full((3, 224, 224), 0.5)

    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    own = methods.custom("vector", model, transform, method="sir")
    vector = own.describe(picture, (10, 10, 60, 50))
    assert seen == [(50, 40)]
    expected = model(torch.full((1, 3, 4, 4), 0.5))[0].detach().numpy()
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("mobilenet_v3_small", 576), ("regnet_y_400mf", 440), ("densenet121", 1024)],
)
def test_torchvision_classifiers_are_cut_before_their_pooling(picture, name, channels):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)
    own = methods.custom(name, model, method="sir", size=128)
    seen = []
    last = model.classifier if hasattr(model, "classifier") else model.fc
    last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.inference_mode():
        model(own._input(picture, None))
    pooled = seen[0][0].numpy()
    assert pooled.shape == (channels,)
    ours = own.describe(picture)
    ours /= np.linalg.norm(ours)  # features of random weights may be as small as L2's epsilon
    np.testing.assert_allclose(ours, pooled / np.linalg.norm(pooled), atol=1e-5)


def test_forward_features_as_in_timm(picture):
    class Timm(nn.Module):
        def forward_features(self, x):
            return nn.functional.avg_pool2d(x, 16).abs()

        def forward(self, x):
            raise AssertionError("the classifier is not wanted")

    own = methods.custom("timm", Timm(), scales=[1.0, 0.5])
    assert own.describe(picture).shape == (3,)


def test_index_and_search(picture, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("red", "green", "blue"):
        Image.new("RGB", (64, 64), name).save(folder / f"{name}.png")
    plain = dict(pooling="spoc", mean=(0, 0, 0), std=(1, 1, 1))
    own = methods.custom("colours", Colours(), **plain)
    index = indexes.build(open_collection(folder), own, tmp_path / "index")
    ranking = rank_picture(index, own, Image.new("RGB", (50, 50), (10, 200, 0)))
    assert ranking.names[0] == "green.png"
    other = methods.custom("colours", nn.Sequential(Colours(), nn.Conv2d(3, 3, 1)), **plain)
    with pytest.raises(RetrievalError, match="was made with checkpoint colours"):
        rank_picture(index, other, picture)


def test_what_cannot_be_used(picture):
    with pytest.raises(RetrievalError, match=r"gives \(1, 3, 50176\); it must give a feature map"):
        methods.custom("flat", nn.Flatten(2))
    with pytest.raises(RetrievalError, match="gl18-resnet152 is a registered checkpoint"):
        methods.custom("gl18-resnet152", Colours())
    with pytest.raises(RetrievalError, match="sir and cnn-irwnha"):
        methods.custom("colours", Colours(), method="delf")
    with pytest.raises(RetrievalError, match="Unknown pooling 'median'"):
        methods.custom("colours", Colours(), pooling="median")


@pytest.mark.parametrize("method", ["sir", "cnn-irwnha", "delf"])
def test_half_precision_gives_the_same_descriptors(picture, monkeypatch, method):
    """What a GPU would run, here on the CPU and in bfloat16, which is coarser than half."""
    single = methods.load(method).describe(picture)
    monkeypatch.setattr(trunks, "placement", lambda: (torch.device("cpu"), torch.bfloat16))
    reduced = methods.load(method)
    assert next(reduced.trunk.parameters()).dtype == torch.bfloat16
    found = reduced.describe(picture)
    if method != "delf":
        assert found.dtype == np.float32
        assert found @ single > 0.99
        return
    # The same places with the same descriptors, but for some that are near the last in attention.
    places, again = (
        dict(zip(map(tuple, one.keypoints.round().tolist()), one.descriptors, strict=True))
        for one in (single, found)
    )
    both = places.keys() & again.keys()
    assert len(both) > 0.75 * len(places)
    assert np.median([places[point] @ again[point] for point in both]) > 0.99
