"""Pairs from geometry, and the siamese training of CNN-IRwNHA on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from retrieval import images, methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints
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


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, drawn):
    """Seven scenes, four overlapping views of each, and a file that is no picture."""
    root = tmp_path_factory.mktemp("scenes")
    for seed in range(7):
        scene = drawn(seed + 70, (360, 300))
        for n in range(4):
            scene.crop((15 * n, 8 * n, 300 + 15 * n, 270 + 8 * n)).save(root / f"{seed}_{n}.png")
    (root / "broken.png").write_bytes(b"no picture")
    names = sorted(path.name for path in root.iterdir())
    return Collection("scenes", "Scenes", root, tuple(names))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(siamese, "SIZE", 128)
    monkeypatch.setattr(siamese, "TUPLES", 8)
    monkeypatch.setattr(siamese, "VIEWS", 2)
    monkeypatch.setattr(siamese, "GROUPED", 25)  # drawn shapes are much alike


def test_a_trained_network_is_used_like_any_other(scenes, quick, tmp_path, monkeypatch):
    said, out = [], tmp_path / "trained.pth"
    assert siamese.train(scenes, out, epochs=2, say=said.append) == out
    assert said[0].endswith("matching pairs of 28 pictures, in 7 groups")
    assert [text.partition(":")[0] for text in said[1:]] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert [path.name for path in tmp_path.iterdir()] == ["trained.pth"]
    method = methods.load("cnn-irwnha", out)
    assert method.settings["size"] == 128
    assert method.settings["scales"] == pytest.approx([1, 2**0.5, 2**-0.5])
    assert method.checkpoint.trained_on == "scenes without labels, starting from gem-lite0-imagenet"
    made = checkpoints.load(method.checkpoint).meta["trained"]
    assert made["command"] == "python -m retrieval train scenes --epochs 2"
    assert (made["pictures"], made["groups"], made["labels"]) == (28, 7, "none")
    # Another view of a scene is nearer than any other scene, but for one that is much alike.
    vectors = np.stack([method.describe(images.read(scenes.path(f"{s}_{n}.png")))
                        for s in range(7) for n in (0, 3)])  # fmt: skip
    likeness = vectors @ vectors.T - 2 * np.eye(14)
    assert (likeness.argmax(axis=1) == np.arange(14) ^ 1).sum() >= 12


def test_training_brings_matching_pictures_together(scenes, monkeypatch):
    monkeypatch.setattr(siamese, "RATE", 1e-3)
    monkeypatch.setattr(siamese, "TUPLES", 10)
    record = checkpoints.REGISTRY["gem-lite0-imagenet"]
    network = siamese.Network(record)
    method = methods.load("cnn-irwnha", record.id, size=96, scales=[1.0])
    pictures = [images.read(scenes.path(f"{s}_{n}.png")) for s in range(6) for n in (0, 2)]
    positives = [(n, n ^ 1) for n in range(12)]
    groups = np.arange(12) // 2
    optimiser = torch.optim.Adam(network.parameters())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    losses = [
        siamese.run_epoch(
            network, optimiser, pictures, lambda one: method._input(one, None), positives, groups,
            96, number,
        ).loss
        for number in range(4)
    ]  # fmt: skip
    assert losses[-1] < 0.8 * losses[0]
    after = network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert "p" in changed
    assert "features._conv_stem.weight" in changed
    assert not [key for key in changed if "running" in key], "norms stay as they are"


def test_a_stopped_training_goes_on(scenes, quick, tmp_path, monkeypatch):
    whole = siamese.train(scenes, tmp_path / "whole.pth", epochs=2)
    out, real = tmp_path / "stopped.pth", siamese.run_epoch

    def stop(*args, **options):
        if args[7] == 1:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(siamese, "run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        siamese.train(scenes, out, epochs=2)
    assert not out.exists()
    ran = []
    monkeypatch.setattr(siamese, "run_epoch", lambda *a, **o: (ran.append(a[7]), real(*a, **o))[1])
    monkeypatch.setattr(siamese, "agreeing", None)  # the pairs are kept as well
    siamese.train(scenes, out, epochs=2)
    assert ran == [1]
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in (whole, out))
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped.pth", "whole.pth"]


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_state_is_begun_anew_or_explained(scenes, quick, tmp_path, damage):
    out = tmp_path / "out.pth"
    state = siamese._State(out, scenes, checkpoints.REGISTRY["gem-lite0-imagenet"])
    if damage is not None:
        state.path.write_bytes(damage)
        assert siamese._State(out, scenes, checkpoints.REGISTRY["gem-lite0-imagenet"]).kept == {}
        return
    torch.save({"identity": state.identity, "pairs": torch.tensor([[0, 1, 30]])}, state.path)
    again = siamese._State(out, scenes, checkpoints.REGISTRY["gem-lite0-imagenet"])
    network = siamese.Network(checkpoints.REGISTRY["gem-lite0-imagenet"])
    with pytest.raises(RetrievalError, match="damaged; delete it"):
        again.restore(network, torch.optim.Adam(network.parameters()))


def test_pictures_with_nothing_in_common(scenes, quick, tmp_path):
    alone = replace(scenes, names=tuple(f"{s}_{n}.png" for s in range(5) for n in range(4)))
    with pytest.raises(RetrievalError, match=r"Too few pictures of Scenes match .* in 5 groups"):
        siamese.train(alone, tmp_path / "out.pth")
    with pytest.raises(RetrievalError, match="at least 20 pictures"):
        siamese.train(replace(scenes, names=scenes.names[:19]), tmp_path / "out.pth")


def test_places_and_networks_that_are_refused(scenes, tmp_path):
    with pytest.raises(RetrievalError, match="no folder"):
        siamese.train(scenes, tmp_path / "nowhere" / "out.pth")
    with pytest.raises(RetrievalError, match="is a folder"):
        siamese.train(scenes, tmp_path)
    with pytest.raises(RetrievalError, match="is for sir, not for cnn-irwnha"):
        siamese.train(scenes, tmp_path / "out.pth", "sir-lite0")
