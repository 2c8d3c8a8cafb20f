import copy

import pytest
import torch
from torch import nn

from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints, trunks


@pytest.fixture(scope="module")
def lite0():
    """Tensors of the embedded weights."""
    return checkpoints.load(checkpoints.REGISTRY["sir-lite0"]).trunk


@pytest.fixture(scope="module")
def picture():
    return torch.rand(1, 3, 97, 130, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("tap", ["final", "stride16"])
def test_folding_the_batch_norms_changes_nothing(lite0, picture, tap):
    plain = trunks.EfficientNetLite("efficientnet-lite0", tap)
    plain.load(lite0)
    plain.eval()
    folded = trunks.build("efficientnet-lite0", tap, lite0)
    assert any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        expected, found = plain(picture), folded(picture)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # "same" padding: as many units as strides fit, rounded up
    stride = 32 if tap == "final" else 16
    assert found.shape == (1, folded.channels, -(-97 // stride), -(-130 // stride))


@pytest.mark.parametrize("numbers", [1, 40_000])
def test_a_map_in_strips_equals_the_whole_map(lite0, picture, monkeypatch, numbers):
    trunk = trunks.build("efficientnet-lite0", "final", lite0)
    with torch.no_grad():
        whole = trunk(picture)
    monkeypatch.setattr(trunks, "STRIP_VALUES", numbers)  # one row of the output at a time, or some
    with torch.inference_mode():
        torch.testing.assert_close(trunk(picture), whole, rtol=1e-5, atol=1e-5)


def test_folding_resnet(picture):
    torch.manual_seed(0)
    plain = trunks.TorchvisionTrunk("resnet18", "final")
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    folded = trunks.build("resnet18", "final", plain.state_dict())
    plain.eval()
    with torch.inference_mode():
        torch.testing.assert_close(folded(picture), plain(picture), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_torchvision_and_cirtorch_names_load_the_same(picture):
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None)
    ours = nn.Sequential(*list(net.children())[:-2])
    theirs = {f"features.{key}": value for key, value in ours.state_dict().items()}
    with torch.inference_mode():
        expected = ours.eval()(picture)
        for state in (net.state_dict(), theirs):
            found = trunks.build("resnet18", "final", state)(picture)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def averaging(trunk):
    """Every convolution an average, every maximum an average: any pixel seen has a gradient."""
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
                setattr(module, name, pool)
    return trunk.double().eval()


@pytest.fixture(scope="module")
def averages():
    made = {}

    def make(name):
        if name not in made:
            lite = name in trunks.LITE
            kind = trunks.EfficientNetLite if lite else trunks.TorchvisionTrunk
            made[name] = averaging(kind(name, "stride16"))
        return made[name]

    return make


@pytest.mark.parametrize(
    ("name", "length"),
    [
        *(("efficientnet-lite0", length) for length in (448, 449, 455, 463)),
        ("efficientnet-lite2", 640),
        ("resnet18", 320),
        ("resnet18", 321),
        ("resnet50", 400),
        ("resnet50", 407),
        ("vgg16", 290),
        ("vgg16", 291),
    ],
)
def test_receptive_field_is_what_the_gradient_sees(averages, name, length):
    trunk = averages(name)
    pixels = torch.full((1, 3, 33, length), 1e-4, dtype=torch.double, requires_grad=True)
    features = trunk(pixels)
    unit = features.shape[3] // 2
    (gradient,) = torch.autograd.grad(features[..., unit].sum(), pixels)
    seen = (gradient.sum(dim=(0, 1, 2)) > 0).nonzero().ravel()
    first, last = seen[0].item(), seen[-1].item()
    assert 0 < first < last < length - 1, "the input must be larger than the field"

    size, stride, offset = trunks.receptive_field(trunk.layers, length)
    assert stride == 16
    assert size == last + 1 - first
    assert offset + unit * stride == (first + last + 1) / 2


def test_receptive_field_by_hand():
    # 3 wide at stride 2 with one pixel before: unit 0 sees [-1, 2), around pixel 0.
    assert trunks.receptive_field([trunks.Layer(3, 2, 1)], 10) == (3, 2, 0.5)
    # "same" on an even length pads after, on an odd length on both sides.
    assert trunks.receptive_field([trunks.Layer(3, 2, "same")], 10) == (3, 2, 1.5)
    assert trunks.receptive_field([trunks.Layer(3, 2, "same")], 11) == (3, 2, 0.5)
    two = [trunks.Layer(3, 1, 1), trunks.Layer(2, 2, 0)]
    assert trunks.receptive_field(two, 10) == (4, 2, 1.0)


def test_weights_that_do_not_fit_are_refused(lite0):
    def refused(name, state, words):
        with pytest.raises(RetrievalError, match=words) as caught:
            trunks.build(name, "final", state)
        assert "\n" not in str(caught.value)

    refused("efficientnet-lite0", {}, "do not fit this network: .* the first is _conv_stem.weight")
    refused("resnet18", lite0, "do not fit this network: .* missing")
    refused("efficientnet-lite2", lite0, "do not fit this network")
    refused("alexnet", lite0, "Unknown trunk 'alexnet'; there are: efficientnet-lite0")
    other = copy.copy(lite0)
    other["_conv_stem.weight"] = torch.zeros(32, 3, 5, 5)
    refused("efficientnet-lite0", other, "do not fit this network: size mismatch")
