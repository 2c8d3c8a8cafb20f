"""SIR's layer: trained on frozen features, and loaded."""

import numpy as np
import pytest
import torch

from retrieval import images, methods
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints
from retrieval.networks.records import SETTINGS
from retrieval.training import journal, photographs, sir
from retrieval.training.loop import Settings

QUICK = Settings(epochs=3, rate=1e-3)


@pytest.fixture
def tiny(monkeypatch, small):
    monkeypatch.setitem(SETTINGS["sir"], "size", 64)
    monkeypatch.setattr(sir, "DIMENSIONS", 64)
    monkeypatch.setattr(sir, "BATCH", 8)


def test_a_trained_file_loads_as_the_layer(landmarks, tiny, tmp_path):
    out, said = tmp_path / "layer.pth", []
    assert sir.train(landmarks, out, settings=QUICK, say=said.append) == out
    assert len(said) == 4
    method = methods.load("sir", out)
    assert method.settings == {"size": 64, "enlarge": True, "power": 0.5}
    assert out.stat().st_size < 300_000, "the trunk is not in it"
    assert method.checkpoint.trained_on == (
        f"{landmarks.name} (labels: landmark), starting from efficientnet-lite0"
    )
    made = checkpoints.load(method.checkpoint).meta["trained"]
    assert made["command"] == (
        f"python -m retrieval train sir {landmarks.name} --epochs 3 --rate 0.001"
    )
    assert [row["epoch"] for row in made["epochs"]] == [0, 1, 2, 3]
    # The descriptor is the plain feature through the layer of the file.
    picture = images.read(landmarks.path(landmarks.names[0]))
    plain = methods.load("sir", "efficientnet-lite0").describe(picture)
    state = torch.load(out, weights_only=True)["state_dict"]
    expected = state["weight"].float().numpy() @ plain + state["bias"].numpy()
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(method.describe(picture), expected, atol=1e-5)
    # Trained again it is the same file, to the byte.
    again = sir.train(landmarks, tmp_path / "again.pth", settings=QUICK)
    assert again.read_bytes() == out.read_bytes()


def test_cross_entropy_pulls_a_landmark_to_its_classifier(landmarks, tiny):
    photos = photographs.labelled(landmarks)
    features = torch.nn.functional.normalize(
        torch.rand(len(photos), 32, generator=torch.Generator().manual_seed(0))
    )
    stage = sir.Layer(features, photos, QUICK)
    assert len(stage.held_out) >= 6
    optimiser = torch.optim.Adam(stage.module.parameters(), 1e-2)
    losses = []
    for epoch in range(1, 6):
        stage.begin(epoch)
        for step in range(stage.steps):
            loss = stage.loss(step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_folder_without_labels_is_refused(landmarks, tiny, tmp_path):
    from dataclasses import replace

    names = tuple(name for name in landmarks.names if name.startswith("place_00")) * 7
    with pytest.raises(RetrievalError, match="no labels"):
        sir.train(replace(landmarks, names=names[:21]), tmp_path / "layer.pth")


def test_a_training_does_not_go_on_with_changed_pictures(landmarks, tiny, tmp_path):
    import shutil

    from retrieval.collections import open_collection

    root = tmp_path / "pictures"
    shutil.copytree(landmarks.root, root)
    out = tmp_path / "layer.pth"
    sir.train(open_collection(root), out, settings=Settings(epochs=1, rate=1e-3))
    shutil.copy(root / "place_01" / "0.png", root / "place_02" / "0.png")
    with pytest.raises(RetrievalError, match="another training: pictures differ"):
        sir.train(open_collection(root), out, settings=Settings(epochs=1, rate=1e-3))


@pytest.mark.parametrize(
    "stored",
    [
        3,
        torch.zeros(3),
        torch.zeros(0, 5),
        torch.zeros(40, 64, dtype=torch.complex64),
        torch.full((40, 64), float("nan")),
        torch.zeros(1).expand(40, 10**9),
    ],
)
def test_features_of_a_stranger_are_refused(landmarks, tiny, tmp_path, stored):
    """They may come with a network, and ended in a traceback."""

    def stopped(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sir.train(landmarks, tmp_path / "net.pth", settings=QUICK, progress=stopped)
    kept = journal.Journal.__new__(journal.Journal)
    kept.folder = tmp_path / "net.pth.training"
    kept._training = (kept.folder / "identity").read_bytes()[:32]
    kept._write("features", stored)
    with pytest.raises(RetrievalError, match="choose another --out to begin again"):
        sir.train(landmarks, tmp_path / "net.pth", settings=QUICK)
