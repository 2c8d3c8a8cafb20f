"""What the places of a picture add sums to its descriptor, whatever the pooling."""

import numpy as np
import pytest
import torch

from retrieval import methods
from retrieval.methods import places, pooling


@pytest.mark.parametrize("box", [None, (20, 30, 200, 150)])
@pytest.mark.parametrize("name", ["sir", "cnn-irwnha"])
def test_places_sum_to_the_descriptor(load, drawn, name, box):
    method, picture = load(name), drawn(3)
    found = method.places(picture, box)
    assert found.vectors.shape[0] > 1
    assert found.box == (box or (0, 0, *picture.size))
    assert found.vectors.sum(axis=(0, 1)) == pytest.approx(method.describe(picture, box), abs=2e-5)


def test_pairs_sum_to_the_cosine(load, drawn):
    method = load("cnn-irwnha")
    a, b = (method.places(drawn(seed)) for seed in (3, 4))
    cosine = method.describe(drawn(3)) @ method.describe(drawn(4))
    parts = places.pairs(a, b)
    assert parts.shape == (*a.shape, *b.shape)
    assert parts.sum() == pytest.approx(cosine, abs=1e-4)


class Flat(torch.nn.Module):
    """A feature map of pixels: eight channels, one place for sixteen pixels."""

    def forward(self, x):
        blocks = torch.nn.functional.avg_pool2d(x, 16)
        return torch.cat([blocks, -blocks, blocks[:, :2].square()], dim=1)


@pytest.mark.parametrize("pool", ["gem", "spoc"])
@pytest.mark.parametrize("scales", [[1.0], [1.0, 0.7071, 1.4142]])
def test_a_network_without_whitening_at_several_scales(drawn, pool, scales):
    method = methods.custom("flat", Flat(), pooling=pool, size=160, scales=scales)
    found = method.places(drawn(5))
    assert found.vectors.sum(axis=(0, 1)) == pytest.approx(method.describe(drawn(5)), abs=1e-4)


def test_root_of_channels_below_zero(drawn):
    """They count as zero in the descriptor, and were a million times too much in its parts."""
    method = methods.custom("flat", Flat(), method="sir", size=160, power=0.5)
    found = method.places(drawn(5))
    assert found.vectors.sum(axis=(0, 1)) == pytest.approx(method.describe(drawn(5)), abs=1e-4)


@pytest.mark.parametrize("pool", ["mac", "rmac"])
def test_poolings_that_have_no_parts(drawn, pool):
    method = methods.custom("flat", Flat(), pooling=pool, size=160)
    assert method.places(drawn(5)) is None


def test_average_pooling_gives_each_place_its_value():
    x = torch.rand(1, 3, 4, 5)
    assert torch.allclose(pooling.gem_parts(x, 1.0), x / 20, atol=1e-6)
    assert torch.allclose(pooling.gem_parts(x, 3.0).sum(dim=(-2, -1)), pooling.gem(x, 3.0))


def test_a_coarser_grid_keeps_the_sum():
    level = np.random.default_rng(0).normal(size=(40, 25, 3))
    whole = places.one_grid([level, level[:7, :9]])
    assert whole.shape == (16, 10, 3)
    expected = level.sum(axis=(0, 1)) + level[:7, :9].sum(axis=(0, 1))
    assert whole.sum(axis=(0, 1)) == pytest.approx(expected, rel=1e-4)
