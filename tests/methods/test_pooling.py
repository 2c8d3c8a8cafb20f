from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.methods import pooling

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"


@pytest.fixture(scope="module")
def reference():
    path = REFERENCE / "cirtorch.npz"
    if not path.is_file():
        pytest.skip("the reference numbers are not here")
    with np.load(path) as arrays:
        return {key: arrays[key] for key in arrays.files if key.startswith("pool_")}


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("mac", pooling.mac),
        ("spoc", pooling.spoc),
        ("gem3", lambda x: pooling.gem(x, 3)),
        ("gem282", lambda x: pooling.gem(x, 2.82)),
        ("gem282", lambda x: pooling.gem(x, torch.full((16,), 2.82))),
        ("rmac", pooling.rmac),
    ],
)
def test_pooling_is_that_of_cirtorch(reference, name, pool):
    found = pool(torch.from_numpy(reference["pool_x"]))
    np.testing.assert_allclose(found.numpy(), reference[f"pool_{name}"], rtol=1e-5, atol=1e-6)


@pytest.fixture
def x():
    """Two channels of a 2 × 2 map."""
    return torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 8.0]]]])


def test_pooling_by_hand(x):
    assert pooling.mac(x).tolist() == [[4, 8]]
    assert pooling.spoc(x).tolist() == [[2.5, 2]]
    # ((1 + 8 + 27 + 64) / 4)^(1/3), (512 / 4)^(1/3)
    torch.testing.assert_close(pooling.gem(x, 3.0), torch.tensor([[25 ** (1 / 3), 128 ** (1 / 3)]]))
    # one exponent a channel: √((1 + 4 + 9 + 16) / 4), and the mean
    torch.testing.assert_close(
        pooling.gem(x, torch.tensor([2.0, 1.0])), torch.tensor([[7.5**0.5, 2.0]])
    )
    torch.testing.assert_close(pooling.gem(x, 1.0), pooling.spoc(x))
    # (1/4)^(1/30) is 0.955: nearly the maximum
    torch.testing.assert_close(pooling.gem(x, 30.0), pooling.mac(x), rtol=0.05, atol=0)


def test_gem_keeps_nothing_below_zero():
    x = torch.tensor([[[[-5.0, 1.0]]]])
    torch.testing.assert_close(pooling.gem(x, 3.0), torch.tensor([[0.5 ** (1 / 3)]]))


def test_l2_gives_unit_length_and_leaves_zeros():
    torch.testing.assert_close(pooling.l2(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))
    assert pooling.l2(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("shape", [(6, 6), (6, 9), (9, 6), (1, 1), (1, 12), (3, 40), (13, 19)])
def test_regions_are_squares_inside_the_map(shape):
    height, width = shape
    found = pooling.regions(height, width)
    assert found
    for top, left, side in found:
        assert side >= 1
        assert 0 <= top <= height - side
        assert 0 <= left <= width - side
    # Coarse to fine, and the coarsest is as wide as the shorter side.
    sides = [side for _, _, side in found]
    assert sides == sorted(sides, reverse=True)
    assert sides[0] == min(shape)


def test_regions_by_hand():
    # Whole; then 2 × 2 of side ⌊2·6/3⌋ = 4.
    level2 = [(top, left, 4) for top in (0, 2) for left in (0, 2)]
    assert pooling.regions(6, 6, 2) == [(0, 0, 6), *level2]
    # Two squares of 6 overlap by half on 9 columns, three by 75 %: half is nearer to 40 %.
    assert pooling.regions(6, 9, 1) == [(0, 0, 6), (0, 3, 6)]
    assert pooling.regions(9, 6, 1) == [(0, 0, 6), (3, 0, 6)]
    # Five on 20 columns, 3.5 apart, overlap by 42 %; four by 22 %, six by 53 %.
    assert pooling.regions(6, 20, 1) == [(0, left, 6) for left in (0, 3, 7, 10, 14)]


def test_regional_pooling_of_one_unit_is_plain():
    one = torch.tensor([[[[3.0]], [[4.0]]]])
    same = torch.eye(2), torch.zeros(2)
    torch.testing.assert_close(pooling.regional(one, pooling.mac, same), torch.tensor([[0.6, 0.8]]))
    # The whitening is put on every region: here it swaps the channels.
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.zeros(2)
    torch.testing.assert_close(pooling.regional(one, pooling.mac, swap), torch.tensor([[0.8, 0.6]]))
