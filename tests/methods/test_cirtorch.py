"""Networks in the true format of cirtorch, made here with random weights, against plain torch.

``plain`` does what the reference does, step by step: nothing folded, nothing shared with ours but
the picture.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image

from retrieval import methods
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints, trunks

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
THREE = [1.0, 2**0.5, 2**-0.5]
P = 2.6


def network(architecture: str) -> torch.nn.Module:
    """The convolutions of a torchvision network, as cirtorch cuts them; batch norms set at random.

    The usual initial weights would make folding them invisible.
    """
    torch.manual_seed(0)
    net = getattr(torchvision.models, architecture)(weights=None)
    if architecture.startswith("vgg"):
        features = net.features[:-1]
    else:
        features = torch.nn.Sequential(*list(net.children())[:-2])
    for module in features.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(1.0, 2.0)
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.normal_(0, 0.1)
    return features.eval()


@pytest.fixture(scope="module")
def resnet18():
    return network("resnet18")


def layer(dimensions: int, name: str, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(dimensions, dimensions, generator=generator) / dimensions**0.5
    return {
        f"{name}.weight": weight,
        f"{name}.bias": 0.05 * torch.randn(dimensions, generator=generator),
    }


def save(path: Path, features, architecture: str, pooling: str, *, legacy=False, lw=(), **flags):
    """A network file; flags: regional, local_whitening, whitening. Returns its head and meta."""
    dimensions = 2048 if architecture in ("resnet50", "resnet101", "resnet152") else 512
    head = {}
    where = "pool.rpool.p" if flags.get("regional") else "pool.p"
    if pooling == "gem":
        head[where] = torch.tensor([P])
    if pooling == "gemmp":
        head[where] = torch.linspace(1.5, 4, dimensions)
    if flags.get("regional"):
        head |= layer(dimensions, "pool.whiten", 1)
    if flags.get("local_whitening"):
        head |= layer(dimensions, "lwhiten", 2)
    if flags.get("whitening"):
        head |= layer(dimensions, "whiten", 3)
    meta = {
        "architecture": architecture, "pooling": pooling, "mean": MEAN, "std": STD,
        "outputdim": dimensions, **flags,
    }  # fmt: skip
    random = np.random.default_rng(0)
    if lw:
        meta["Lw"] = {
            dataset: {
                kind: {"m": 0.02 * random.standard_normal((dimensions, 1)),
                       "P": random.standard_normal((dimensions, dimensions))}
                for kind in ("ss", "ms")
            }
            for dataset in lw
        }  # fmt: skip
    state = {f"features.{key}": value for key, value in features.state_dict().items()} | head
    torch.save(
        {"meta": meta, "state_dict": state, "epoch": 30, "min_loss": 0.5},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    return head, meta


def plain(features, head, meta, picture, size, scales, box=None) -> np.ndarray:
    largest = max(picture.size)
    if box:
        picture = picture.crop(box)
        size = size * max(picture.size) / largest
    picture = picture.copy()
    picture.thumbnail((size, size), Image.LANCZOS)
    x = torchvision.transforms.functional.to_tensor(picture)
    x = torchvision.transforms.functional.normalize(x, MEAN, STD)[None]
    total = 0
    several = len(scales) > 1
    msp = 1.0
    if several and meta["pooling"] == "gem":
        msp = 1.0 if meta.get("regional") or meta.get("whitening") else P
    with torch.no_grad():
        for scale in scales:
            scaled = x
            if scale != 1:
                scaled = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
            o = features(scaled)
            if meta.get("local_whitening"):
                o = linear(o.permute(0, 2, 3, 1), head, "lwhiten").permute(0, 3, 1, 2)
            if meta.get("regional"):
                parts = [o, *(o[..., t : t + n, m : m + n] for t, m, n in squares(*o.shape[2:]))]
                vectors = [unit(pool(part, head.get("pool.rpool.p"), meta)) for part in parts]
                vectors = [unit(linear(vector, head, "pool.whiten")) for vector in vectors]
                v = unit(sum(vectors))
            else:
                v = pool(o, head.get("pool.p"), meta)
            v = unit(v)
            if meta.get("whitening"):
                v = unit(linear(v, head, "whiten"))
            total = total + v**msp
        v = (total / len(scales)) ** (1 / msp)
    v = (v / v.norm())[0].double().numpy()
    if "Lw" in meta:
        one = meta["Lw"]["retrieval-SfM-120k"]["ms" if several else "ss"]
        v = one["P"] @ (v - one["m"][:, 0])
        v = v / (np.linalg.norm(v) + 1e-6)
    return v


def unit(v):
    return v / (v.norm(dim=-1, keepdim=True) + 1e-6)


def linear(x, head, name):
    return x @ head[f"{name}.weight"].T + head[f"{name}.bias"]


def pool(o, p, meta):
    kind = meta["pooling"]
    if kind == "mac":
        return o.flatten(2).max(dim=2).values
    if kind == "spoc":
        return o.flatten(2).mean(dim=2)
    if kind == "rmac":
        parts = [o, *(o[..., t : t + n, m : m + n] for t, m, n in squares(*o.shape[2:]))]
        return sum(unit(part.flatten(2).max(dim=2).values) for part in parts)
    p = p[:, None]
    return o.clamp(min=1e-6).flatten(2).pow(p).mean(dim=2).pow(1 / p[:, 0])


def squares(height, width):
    """(top, left, side) of R-MAC's regions at three levels, without the whole map."""
    short, rest = min(height, width), max(height, width) - min(height, width)
    extra = min(range(1, 7), key=lambda n: abs(1 - rest / n / short - 0.4))
    for level in (1, 2, 3):
        side = 2 * short // (level + 1)
        half = math.floor(side / 2 - 1)

        def starts(length, count, side=side, half=half):
            step = (length - side) / max(count - 1, 1)
            return [math.floor(half + k * step) - half for k in range(count)]

        if side:
            for top in starts(height, level + extra * (height > width)):
                for left in starts(width, level + extra * (width > height)):
                    yield top, left, side


@pytest.fixture(scope="module")
def picture():
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return small.resize((240, 180), Image.BICUBIC)


BOX = (30.0, 20.0, 190.0, 150.0)


@pytest.mark.parametrize("scales", [[1.0], THREE], ids=["one scale", "three"])
@pytest.mark.parametrize(
    ("pooling", "options"),
    [
        ("gem", {"whitening": True, "regional": False, "local_whitening": False}),
        ("gem", {}),  # what old files leave out
        ("gem", {"lw": ("retrieval-SfM-30k", "retrieval-SfM-120k"), "legacy": True}),
        ("gem", {"regional": True}),
        ("gem", {"regional": True, "whitening": True, "local_whitening": True, "legacy": True}),
        ("gem", {"local_whitening": True, "lw": ("retrieval-SfM-120k",)}),
        ("gemmp", {"lw": ("retrieval-SfM-120k",)}),
        ("gemmp", {"regional": True}),
        ("mac", {}),
        ("mac", {"regional": True}),
        ("spoc", {"whitening": True}),
        ("rmac", {"lw": ("retrieval-SfM-120k",)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value) or "plain",
)
def test_every_head(resnet18, picture, tmp_path, pooling, options, scales):
    path = tmp_path / "network.pth"
    head, meta = save(path, resnet18, "resnet18", pooling, **options)
    method = methods.load("cnn-irwnha", path, size=160, scales=scales)
    for box in (None, BOX):
        ours = method.describe(picture, box)
        expected = plain(resnet18, head, meta, picture, 160, scales, box)
        assert ours @ expected > 0.99999
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["vgg16", "resnet50"])
def test_other_architectures(picture, tmp_path, architecture):
    features = network(architecture)
    head, meta = save(tmp_path / "n.pth", features, architecture, "gem", whitening=True)
    method = methods.load("cnn-irwnha", tmp_path / "n.pth", size=128, scales=THREE)
    expected = plain(features, head, meta, picture, 128, THREE)
    np.testing.assert_allclose(method.describe(picture), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["resnet34", "resnet101", "resnet152", "vgg11"])
def test_trunks_of_every_depth(architecture):
    features = network(architecture)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    trunk = trunks.build(architecture, "final", state)
    x = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        expected, ours = features(x), trunk(x)
    assert ours.shape == expected.shape
    assert ours.shape[1] == trunk.channels
    assert F.cosine_similarity(ours.flatten(), expected.flatten(), dim=0) > 0.99999


def test_files_that_contradict_themselves_are_refused(resnet18, tmp_path):
    path = tmp_path / "n.pth"

    def refused(words, change, **options):
        save(path, resnet18, "resnet18", "gem", **options)
        data = torch.load(path, weights_only=False)
        change(data)
        torch.save(data, path)
        with pytest.raises(RetrievalError, match=words):
            methods.load("cnn-irwnha", path)

    refused("whitening layer whiten", lambda d: d["state_dict"].pop("whiten.bias"), whitening=True)
    refused("whitening layer whiten", lambda d: d["meta"].update(whitening=True))
    refused("whitening layer pool.whiten", lambda d: d["meta"].update(regional=True))
    refused("exponents", lambda d: d["state_dict"].update({"pool.p": torch.ones(7)}))
    refused("exponents", lambda d: d["state_dict"].update({"pool.p": -torch.ones(1)}))
    refused("Unknown pooling 'max'", lambda d: d["meta"].update(pooling="max"))
    refused("Unknown trunk 'alexnet'", lambda d: d["meta"].update(architecture="alexnet"))
    refused("tensors are missing", lambda d: d["meta"].update(architecture="resnet34"))
    lw = {"lw": ("retrieval-SfM-120k",)}
    refused("Lw", lambda d: d["meta"]["Lw"]["retrieval-SfM-120k"].pop("ss"), **lw)
    wrong = {"retrieval-SfM-120k": {"ss": {"m": np.zeros((7, 1)), "P": np.zeros((7, 7))}}}
    refused("Lw", lambda d: d["meta"].update(Lw=wrong))
    # Behind a layer that gives fewer numbers, and with numbers of another kind.
    fewer = {"whiten.weight": torch.ones(9, 512), "whiten.bias": torch.ones(9)}
    refused("Lw", lambda d: d["state_dict"].update(fewer), whitening=True, **lw)
    words = {"retrieval-SfM-120k": {"ss": {"m": torch.zeros(512), "P": "3"}}}
    refused("Lw", lambda d: d["meta"].update(Lw=words))
    narrow = {"lwhiten.weight": torch.ones(9, 512), "lwhiten.bias": torch.ones(9)}
    refused("layer whiten", lambda d: d["state_dict"].update(narrow), local_whitening=True,
            whitening=True)  # fmt: skip
    # At each place of a picture: 90,000 numbers took over 9 GB.
    wide = {"lwhiten.weight": torch.ones(4097, 512), "lwhiten.bias": torch.ones(4097)}
    words = "lwhiten of the weights gives 4,097 numbers"
    refused(words, lambda d: d["state_dict"].update(wide), local_whitening=True)
    empty = {"lwhiten.weight": torch.ones(0, 512), "lwhiten.bias": torch.ones(0)}
    refused("layer lwhiten", lambda d: d["state_dict"].update(empty), local_whitening=True)
    for m, p in (((512, 1), (3, 512, 512)), ((512, 1), (0, 512)), ((7, 1), (7, 7)), (9, (9, 512))):
        other = {"retrieval-SfM-120k": {"ss": {"m": np.zeros(m), "P": np.zeros(p)}}}
        refused("Lw. does not fit 512 channels", lambda d, o=other: d["meta"].update(Lw=o))
    tall = {"retrieval-SfM-120k": {"ss": {"m": np.zeros(512), "P": np.zeros((4097, 512), "i1")}}}
    refused("Lw of the weights gives 4,097 numbers", lambda d: d["meta"].update(Lw=tall))


def test_layers_of_different_widths(resnet18, picture, tmp_path):
    path = tmp_path / "n.pth"
    save(path, resnet18, "resnet18", "gem", whitening=True)
    data = torch.load(path, weights_only=False)
    data["state_dict"] |= {"whiten.weight": torch.rand(9, 512), "whiten.bias": torch.rand(9)}
    data["meta"]["Lw"] = {"retrieval-SfM-120k": {"ss": {"m": np.zeros((9, 1)), "P": np.eye(9)}}}
    torch.save(data, path)
    found = methods.load("cnn-irwnha", path, size=96).describe(picture)
    assert found.shape == (9,)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_registered_networks():
    """Facts of the records that the addresses themselves carry."""
    for checkpoint in checkpoints.REGISTRY.values():
        if checkpoint.format == "cirtorch" and checkpoint.address:
            name = checkpoint.path.stem
            assert name.endswith(checkpoint.weights_sha256)
            assert checkpoint.trunk in name
            assert checkpoint.trunk in trunks.NAMES
            assert checkpoint.published["roxford5k"]["medium"] > 60
    assert {method: checkpoints.find(method).id for method in methods.METHODS} == {
        "sir": "sir-lite0", "delf": "delf-lite0", "cnn-irwnha": "gem-lite0",
    }  # fmt: skip
    best = checkpoints.REGISTRY["gl18-resnet152"]
    assert best.published["roxford5k"] == {"medium": 68.7, "hard": 44.2}
    assert best.settings["scales"] == THREE
