"""DELF: the trunk, the attention and the PCA, from landmarks, correspondences or geometry."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from retrieval import images, methods
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints
from retrieval.networks.records import SETTINGS
from retrieval.training import delf, pairs, photographs

QUICK = {"epochs": 1, "rate": 1e-3, "steps": 3}


@pytest.fixture(scope="module")
def verified():
    """Pairs by the digest of the pictures: to find them takes longer than the trainings here."""
    return {}


@pytest.fixture
def quick(monkeypatch, small, verified):
    verify = pairs.verified_pairs

    def verified_pairs(photos, progress=None):
        if photos.digest() not in verified:
            verified[photos.digest()] = verify(photos, progress)
        return {name: one.clone() for name, one in verified[photos.digest()].items()}

    monkeypatch.setattr(pairs, "verified_pairs", verified_pairs)
    monkeypatch.setitem(SETTINGS["delf"], "size", 192)
    monkeypatch.setattr(pairs, "SIZE", 64)
    monkeypatch.setattr(delf, "SIZE", 96)
    monkeypatch.setattr(delf, "MAX_SIZE", 96)
    monkeypatch.setattr(delf, "PCA_SIZES", (96, 128))
    monkeypatch.setattr(delf, "HIDDEN_UNITS", 16)


def trunk_of(landmarks, **options):
    photos = photographs.labelled(landmarks)
    checkpoint = checkpoints.find("delf", "efficientnet-lite0")
    matches = pairs.Matches(pairs.verified_pairs(photos), len(photos), photos.landmarks)
    return delf.Trunk(checkpoint, photos, matches, delf.Settings(**QUICK, **options))


@pytest.mark.parametrize(
    ("trunk", "attention"),
    [("landmarks", "landmarks"), ("correspondences", "geometry"), ("frozen", "norm")],
)
def test_a_trained_file_loads_with_its_best_epoch(landmarks, quick, tmp_path, trunk, attention):
    out = tmp_path / "delf.pth"
    settings = delf.Settings(**QUICK, trunk=trunk, attention=attention)
    delf.train(landmarks, out, settings=settings)
    method = methods.load("delf", out)
    weights = checkpoints.load(method.checkpoint)
    before = checkpoints.load(checkpoints.find("delf", "efficientnet-lite0")).trunk
    name = "_blocks.10._project_conv.weight"
    trained = weights.trunk.get(f"features.{name}", before[name].half())
    rows = weights.meta["trained"]["epochs"]
    measured = [row["validation"] for row in rows if row["stage"] == "trunk"]
    best = max(range(len(measured)), key=measured.__getitem__) if measured else 0
    assert torch.equal(trained, before[name].half()) == (best == 0), "the best epoch is kept"
    stages = [row["stage"] for row in rows]
    assert stages == ["trunk"] * 2 * (trunk != "frozen") + ["attention"] * 2 * (attention != "norm")
    features = method.describe(images.read(landmarks.path(landmarks.names[1])))
    assert features.descriptors.shape[1] == 40
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-4)
    assert (method.attention_layers is None) == (attention == "norm")
    again = tmp_path / "again.pth"
    delf.train(landmarks, again, settings=settings)
    assert again.read_bytes() == out.read_bytes()


def test_correspondences_without_held_out_pairs_are_refused(
    landmarks, quick, tmp_path, monkeypatch
):
    """It was a ValueError of NumPy after all pairs had been compared."""
    _, held_out = photographs.labelled(landmarks).split()
    photos = photographs.labelled(landmarks)
    photos.landmarks[held_out] = photographs.NO_LANDMARK
    without = pairs.Matches(pairs.verified_pairs(photos), len(photos), photos.landmarks)
    monkeypatch.setattr(pairs, "Matches", lambda *arguments: without)
    settings = delf.Settings(**QUICK, trunk="correspondences")
    with pytest.raises(RetrievalError, match="held out to validate on match"):
        delf.train(landmarks, tmp_path / "delf.pth", settings=settings)


@pytest.mark.parametrize("kind", ["landmarks", "correspondences"])
def test_the_loss_of_the_trunk_falls(landmarks, quick, half_precision, kind):
    stage = trunk_of(landmarks, trunk=kind)
    half_precision(stage)
    optimiser = torch.optim.Adam(
        [{**one, "lr": 1e-3} for one in map(dropped, stage.parameter_groups())]
    )
    assert fall(stage, optimiser) < 0.8


@pytest.mark.parametrize("kind", ["landmarks", "geometry"])
def test_the_loss_of_the_attention_falls(landmarks, quick, half_precision, kind):
    stage = delf.Attention(trunk_of(landmarks, attention=kind))
    half_precision(stage)
    optimiser = torch.optim.Adam(stage.module.parameters(), 1e-2)
    frozen = {key: value.clone() for key, value in stage.features.state_dict().items()}
    assert fall(stage, optimiser) < 0.9
    assert all(
        torch.equal(frozen[key], value) for key, value in stage.features.state_dict().items()
    )


def dropped(group):
    return {key: value for key, value in group.items() if key != "factor"}


def fall(stage, optimiser):
    """Last loss by first, on the same examples again and again."""
    means = []
    for _ in range(6):
        stage.begin(1)
        values = []
        for step in range(stage.steps):
            loss = stage.loss(step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(float(loss.detach()))
        means.append(np.mean(values))
    return means[-1] / means[0]


def test_gradients_of_the_attention_are_those_of_the_paper():
    """y = W Σ α f: ∂L/∂θ = Σ_n (∂L/∂y) W f_n ∂α_n/∂θ (Noh et al., equations 2 to 4)."""
    generator = torch.Generator().manual_seed(0)
    f = torch.rand(1, 6, 3, 4, generator=generator, dtype=torch.float64)
    attention = delf.Attention.__new__(delf.Attention)
    conv1, conv2 = torch.nn.Conv2d(6, 5, 1).double(), torch.nn.Conv2d(5, 1, 1).double()
    w = torch.rand(7, 6, generator=generator, dtype=torch.float64)
    attention.conv1, attention.conv2 = conv1, conv2
    alpha = F.softplus(attention.logits(f))
    y = F.linear((alpha * f).mean(dim=(-2, -1)), w)
    F.cross_entropy(y, torch.tensor([2])).backward()
    with torch.no_grad():
        towards = y.softmax(dim=1)[0]
        towards[2] -= 1  # ∂L/∂y
        expected = torch.zeros_like(conv2.weight)
        for row in range(3):
            for column in range(4):
                place = f[0, :, row, column]
                hidden = (conv1.weight[:, :, 0, 0] @ place + conv1.bias).clamp(min=0)
                z = conv2.weight[0, :, 0, 0] @ hidden + conv2.bias
                slope = 1 / (1 + torch.exp(-z))  # of softplus
                expected[0, :, 0, 0] += (towards @ w @ place) * slope * hidden / 12
    torch.testing.assert_close(conv2.weight.grad, expected)


def test_each_point_of_a_copy_is_most_similar_to_itself(landmarks, quick):
    stage = trunk_of(landmarks, trunk="correspondences")
    a = int(stage.pairs[stage.rows[0], 0])
    points = np.random.default_rng(0).uniform(20, 250, (30, 2)).astype(np.float32)
    stage.pairs, stage.points = np.array([[a, a]]), [np.hstack([points, points])]
    width, height = stage.photos.read(a).size
    maps, _ = stage._feature_maps(np.array([0]), np.random.default_rng(0))
    same = torch.cat([maps[:1], maps[:1]])
    boxes = [(0.0, 0.0, float(width), float(height))] * 2
    similarities = stage._similarities(same, np.array([0]), boxes, np.random.default_rng(0))
    assert similarities.shape == (30, 30)
    torch.testing.assert_close(similarities.diagonal(), torch.ones(30))
    assert torch.isneginf(similarities).any(), "points that are near are no negatives"
    assert (similarities.argmax(dim=1) == torch.arange(30)).all()
