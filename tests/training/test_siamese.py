"""CNN-IRwNHA: tuples, mining, and the training on pairs from geometry or from labels."""

import numpy as np
import pytest
import torch

from retrieval import images, methods
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints
from retrieval.networks.records import HEADS, SETTINGS
from retrieval.training import losses, pairs, photographs, siamese


def verified(*rows):
    """What ``verified_pairs`` returns for pairs (a, b, inliers)."""
    return {
        "pairs": torch.tensor([row[:2] for row in rows], dtype=torch.int64).reshape(-1, 2),
        "inliers": torch.tensor([row[2] for row in rows], dtype=torch.int64),
        "maps": torch.eye(3, dtype=torch.float64).repeat(len(rows), 1, 1),
        "points": torch.zeros(sum(row[2] for row in rows), 4),
    }


def test_without_landmarks_chains_of_matches_are_groups():
    matches = pairs.Matches(verified((0, 1, 30), (1, 2, 50), (3, 4, 29), (0, 5, 12)), 6)
    assert matches.pairs.tolist() == [[0, 1], [1, 2]]
    assert (matches.partners(1), matches.partners(3)) == ([0, 2], [])
    assert matches.with_partners().tolist() == [0, 1, 2]
    group = matches.group
    assert group[0] == group[1] == group[2], "joined by a chain"
    assert len(set(group[2:].tolist())) == 4
    assert matches.are_verified(4, 3)
    assert not matches.are_verified(0, 2)
    assert [len(points) for points in matches.points] == [30, 50]


def test_with_landmarks_matches_and_groups_are_of_one_landmark():
    landmarks = np.array([0, 0, 1, 1, photographs.NO_LANDMARK, photographs.NO_LANDMARK])
    matches = pairs.Matches(verified((0, 1, 20), (0, 2, 60), (2, 3, 19), (4, 5, 60)), 6, landmarks)
    assert matches.pairs.tolist() == [[0, 1]], "one landmark, and enough inliers"
    group = matches.group
    assert group[2] == group[3], "a landmark is a group without any match"
    assert len({int(group[n]) for n in (0, 2, 4, 5)}) == 4
    assert matches.are_verified(0, 2), "never negatives of each other"


def test_every_picture_with_a_match_is_a_query():
    rows = siamese.all_tuples(np.array([0, 0, 1, 2, 2]))
    assert rows.tolist() == [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [3, 4, 0, 1, 2], [4, 3, 0, 1, 2]]
    # One tuple of the paper, where no negative has a match.
    assert siamese.all_tuples(np.array([0, 0, 1, 2])).tolist() == [[0, 1, 2, 3], [1, 0, 2, 3]]


def test_negatives_are_the_most_similar_one_of_each_landmark():
    stage = siamese.Siamese.__new__(siamese.Siamese)
    angles = np.deg2rad([0, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80])
    stage.descriptors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    stage.training = np.arange(11)
    landmarks = np.array([0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 7])
    # 4 agrees with the query, 8 with 7: not told apart.
    stage.matches = pairs.Matches(verified((0, 1, 40), (0, 4, 12), (7, 8, 12)), 11, landmarks)
    assert stage._hard_negatives(0) == [2, 5, 7, 9, 10]


@pytest.fixture
def quick(monkeypatch, small):
    monkeypatch.setitem(SETTINGS["cnn-irwnha"], "size", 96)
    monkeypatch.setattr(pairs, "SIZE", 64)
    monkeypatch.setattr(pairs, "MATCH_INLIERS", 100)  # drawn shapes are much alike
    monkeypatch.setattr(siamese, "MIN_PAIRS", 10)
    monkeypatch.setattr(siamese, "DIMENSIONS", 16)


QUICK = {"epochs": 2, "size": 64, "tuples": 5, "batch": 2}  # the last step has one


@pytest.mark.parametrize("kind", ["geometry", "labels"])
def test_a_trained_network_is_used_like_any_other(landmarks, quick, tmp_path, kind, monkeypatch):
    out, said, better = tmp_path / "net.pth", [], iter((0.1, 0.2, 0.3))
    monkeypatch.setattr(siamese.Siamese, "validate", lambda self: next(better))
    settings = siamese.Settings(pairs=kind, **QUICK)
    siamese.train(landmarks, out, settings=settings, say=said.append)
    assert "matching pairs of" in said[0]
    assert len(said) == 3
    method = methods.load("cnn-irwnha", out)
    assert method.settings["scales"] == pytest.approx([1, 2**0.5, 2**-0.5])
    weights = checkpoints.load(method.checkpoint)
    made = weights.meta["trained"]
    assert made["labels"] == {"labels": "landmark", "geometry": "landmark, to validate only"}[kind]
    assert [row["epoch"] for row in made["epochs"]] == [0, 1, 2]
    # The first blocks stay as ImageNet made them, the last learn; norms keep their statistics.
    before = checkpoints.load(checkpoints.find("cnn-irwnha", "efficientnet-lite0")).trunk
    for name, same in (
        ("_conv_stem.weight", True),
        ("_blocks.4._project_conv.weight", True),
        ("_blocks.5._project_conv.weight", False),
        ("_conv_head.weight", False),
    ):
        trained = weights.trunk[f"features.{name}"]
        assert torch.equal(trained, before[name].to(trained.dtype)) == same, name
    name = "_blocks.9._bn1.running_var"
    assert torch.equal(weights.trunk[f"features.{name}"], before[name])
    picture = images.read(landmarks.path(landmarks.names[0]))
    vector = method.describe(picture)
    assert vector.shape == (16,)
    # Another view of a place is mostly nearer than all other places: by chance 1 of 24.
    vectors = np.stack([method.describe(images.read(landmarks.path(f"place_{s:02}/{n}.png")))
                        for s in range(12) for n in (0, 2)])  # fmt: skip
    likeness = vectors @ vectors.T - 2 * np.eye(24)
    assert (likeness.argmax(axis=1) == np.arange(24) ^ 1).sum() >= 12


def test_pictures_have_the_size_in_which_the_method_describes_them(landmarks, quick):
    """Small ones were not enlarged when the training validated and learned the whitening."""
    checkpoint = checkpoints.find("cnn-irwnha", "efficientnet-lite0")
    photos = photographs.labelled(landmarks)
    matches = pairs.Matches(verified((0, 1, 40)), 37, photos.landmarks)
    network = siamese.Network(checkpoint, 12)
    stage = siamese.Siamese(network, checkpoint, photos, matches, siamese.Settings())
    method = methods.load("cnn-irwnha", checkpoint.id, size=400, scales=[1.0])
    picture = photos.read(0)
    assert max(picture.size) < 400
    np.testing.assert_allclose(
        stage.describe(np.array([0]), 400)[0], method.describe(picture), atol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"enlarge": "yes"}, "The setting enlarge"),
        ({"size": "288"}, "The setting size"),
        ({"scales": [1.0]}, "'size': 1024, 'enlarge': False"),
    ],
)
def test_settings_of_a_file_are_checked_and_complete(
    landmarks, quick, tmp_path, settings, said, monkeypatch
):
    """A network file that states no size was a KeyError."""

    def reached(network, checkpoint, *rest):
        raise RetrievalError(str(checkpoint.settings))

    path = tmp_path / "start.pth"
    start = torch.load(HEADS / "gem-lite0-imagenet.pth", weights_only=True)
    start["meta"]["settings"] = settings
    torch.save(start, path)
    monkeypatch.setattr(siamese, "Siamese", reached)
    with pytest.raises(RetrievalError, match=said):
        siamese.train(landmarks, tmp_path / "net.pth", str(path))


@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_the_loss_falls(landmarks, quick, half_precision, loss):
    photos = photographs.labelled(landmarks)
    rows = [(a, b, 40) for a in range(37) for b in range(a + 1, 37)
            if photos.landmarks[a] == photos.landmarks[b] != photographs.NO_LANDMARK]  # fmt: skip
    matches = pairs.Matches(verified(*rows), 37, photos.landmarks)
    checkpoint = checkpoints.find("cnn-irwnha", "efficientnet-lite0")
    network = siamese.Network(checkpoint, 12)
    settings = siamese.Settings(size=64, tuples=4, loss=loss)
    stage = siamese.Siamese(network, checkpoint, photos, matches, settings)
    half_precision(stage)
    optimiser = torch.optim.Adam(stage.parameter_groups()[0]["params"], 1e-3)
    means = []
    for _ in range(5):
        stage.begin(1)  # the same tuples, but for what is hard by then
        values = []
        for step in range(stage.steps):
            value = stage.loss(step)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            values.append(float(value.detach()))
        means.append(np.mean(values))
    assert means[-1] < 0.8 * means[0]


@pytest.mark.parametrize("what", ["p", "variance", "rate"])
def test_a_training_that_diverges_leaves_the_former_network(
    landmarks, quick, tmp_path, what, monkeypatch
):
    out = tmp_path / "net.pth"
    out.write_bytes(b"the network of yesterday")
    (tmp_path / "net.pth.training").mkdir()  # its training left it
    real = siamese.Network.__init__

    def spoiled(self, checkpoint, frozen):
        real(self, checkpoint, frozen)
        with torch.no_grad():
            if what == "p":
                self.p.fill_(300.0)
            elif what == "variance":
                self.features._bn1.running_var.fill_(-1.0)

    monkeypatch.setattr(siamese.Network, "__init__", spoiled)
    settings = siamese.Settings(rate=1e18 if what == "rate" else 1e-4, **QUICK)
    with pytest.raises(RetrievalError, match="infinite or NaN"):
        siamese.train(landmarks, out, settings=settings)
    assert out.read_bytes() == b"the network of yesterday"


def test_too_few_matching_pictures_are_refused(landmarks, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(siamese, "MIN_PAIRS", 1000)
    with pytest.raises(RetrievalError, match=r"Too few pictures of .* match"):
        siamese.train(landmarks, tmp_path / "net.pth", settings=siamese.Settings(**QUICK))


def test_matches_among_held_out_pictures_only_are_refused(landmarks, quick, tmp_path, monkeypatch):
    """It was a ZeroDivisionError after all pairs had been compared."""
    _, held_out = photographs.labelled(landmarks).split()
    rows = [(a, b, 200) for a in held_out for b in held_out if a < b]
    monkeypatch.setattr(pairs, "verified_pairs", lambda photos, progress=None: verified(*rows))
    monkeypatch.setattr(siamese, "MIN_PAIRS", 1)
    with pytest.raises(RetrievalError, match="all that match are held out"):
        siamese.train(landmarks, tmp_path / "net.pth", settings=siamese.Settings(**QUICK))


def test_losses_of_the_tuples_of_a_step():
    index = siamese.all_tuples(np.array([0, 0, 1, 1, 2]))
    x = torch.nn.functional.normalize(torch.rand(5, 8, generator=torch.Generator().manual_seed(0)))
    labels = torch.zeros(index.shape)
    labels[:, 0], labels[:, 1] = -1, 1
    expected = 0.0
    for row in index.tolist():
        query, match, *others = (x[n] for n in row)
        expected += 0.5 * float((query - match + 1e-6).square().sum())
        for other in others:
            distance = float((query - other + 1e-6).square().sum().sqrt())
            expected += 0.5 * max(0.0, 0.85 - distance) ** 2
    value = losses.contrastive(x[index.flatten()], labels.flatten())
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: None,
        lambda kept: kept | {"pairs": torch.tensor([[0, 9], [1, 2]])},
        lambda kept: kept | {"pairs": torch.tensor([[0, 1], [2, 1]])},
        lambda kept: kept | {"pairs": torch.tensor([[-1, 1], [1, 2]])},
        lambda kept: kept | {"pairs": torch.tensor([0, 1])},
        lambda kept: kept | {"inliers": torch.tensor([2**63 - 1, 2**62])},
        lambda kept: kept | {"inliers": torch.tensor([20.0, 30.0])},
        lambda kept: kept | {"inliers": torch.tensor([19, 30])},
        lambda kept: kept | {"maps": torch.zeros(2, 3, 3)},
        lambda kept: kept | {"points": torch.full((50, 4), float("nan"))},
        lambda kept: {key: value for key, value in kept.items() if key != "maps"},
    ],
)
def test_pairs_of_a_stranger(change):
    """They may come with a network, and ended in a traceback."""
    kept = {
        "pairs": torch.tensor([[0, 1], [1, 2]]),
        "inliers": torch.tensor([20, 30]),
        "maps": torch.eye(3, dtype=torch.float64).repeat(2, 1, 1),
        "points": torch.zeros(50, 4),
    }
    assert pairs.are_pairs(kept, 9)
    assert not pairs.are_pairs(change(kept), 9)
