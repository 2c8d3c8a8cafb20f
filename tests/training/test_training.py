import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval import images, methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints
from retrieval.training import attention, heads, views, whitening


def views_of(count=40, each=3, dimensions=6, seed=0):
    """Descriptors of several views: what differs within a picture lies mostly along one axis."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, 1, dimensions)) * [1, 2, 1, 1, 3, 1]
    noise = rng.normal(size=(count, each, dimensions)) * [4, 0.1, 0.2, 0.3, 0.1, 0.1]
    return (centres + noise).astype(np.float32)


def within(x):
    """Covariance within pictures, by a plain loop."""
    total = np.zeros((x.shape[2], x.shape[2]))
    for picture in x:
        for view in picture:
            d = (view - picture.mean(axis=0)).astype(np.float64)
            total += np.outer(d, d)
    return total / (x.shape[0] * (x.shape[1] - 1))


def test_whitening_evens_out_what_differs_within_a_picture():
    x = views_of()
    weight, bias = whitening.learn(x, 6, shrinkage=0.0)
    found = weight @ within(x) @ weight.T
    # The identity times a common factor, which L2 removes.
    np.testing.assert_allclose(found / found[0, 0], np.eye(6), atol=1e-4)
    # The mean of everything goes to zero, and the axes are those of a PCA: no correlation.
    y = x.reshape(-1, 6) @ weight.T + bias
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-4)
    spread = np.cov(y.T)
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-4 * spread.max())
    assert (np.diff(np.diag(spread)) <= 1e-6).all(), "strongest first"
    assert np.linalg.norm(weight, axis=1).max() == pytest.approx(1)


def test_full_shrinkage_is_a_plain_pca():
    x = views_of()
    weight, _ = whitening.learn(x, 3, shrinkage=1.0)
    plain, _ = whitening.pca(x.reshape(-1, 6), 3)
    assert weight.shape == (3, 6)
    np.testing.assert_allclose(np.abs(np.sum(weight * plain, axis=1)), 1, atol=1e-5)


def test_whitening_brings_views_of_one_picture_together():
    x, new = views_of(), views_of(seed=1)

    def right(y):
        """Share of views whose nearest other vector is of the same picture."""
        y = y.reshape(-1, y.shape[-1])
        y = y / np.linalg.norm(y, axis=1, keepdims=True)
        similarity = y @ y.T - 2 * np.eye(len(y))
        return (similarity.argmax(axis=1) // 3 == np.arange(len(y)) // 3).mean()

    weight, bias = whitening.learn(x, 6, shrinkage=0.1)
    assert right(new @ weight.T + bias) > right(new) + 0.3


def test_pca_is_that_of_the_singular_value_decomposition():
    x = np.random.default_rng(0).normal(size=(50, 5)) * [5, 1, 3, 0.5, 2] + 7
    weight, bias = whitening.pca(x, 3)
    _, _, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(weight * axes[:3], axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(x @ weight.T + bias, (x - x.mean(axis=0)) @ weight.T, atol=1e-9)


@pytest.mark.parametrize("size", [(240, 180), (8, 8), (8, 900), (1200, 9)])
def test_second_views(drawn, size):
    picture = drawn(1, size)
    rng = np.random.default_rng(0)
    several = [views.second_view(picture, rng, 200) for _ in range(30)]
    for view in several:
        assert view.mode == "RGB"
        assert min(view.size) >= 32
        assert max(view.size) <= 241
    assert len({view.tobytes() for view in several}) == 30
    again = np.random.default_rng(0)
    assert views.second_view(picture, again, 200).tobytes() == several[0].tobytes()
    assert picture.size == size


@pytest.fixture(scope="module")
def twenty(tmp_path_factory, drawn):
    root = tmp_path_factory.mktemp("twenty")
    names = [f"{seed:02}.png" for seed in range(20)]
    for seed, name in enumerate(names):
        drawn(seed, (120, 90)).save(root / name)
    return Collection("twenty", "Twenty", root, tuple(names))


def test_fit_writes_a_head_that_loads(twenty, drawn, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in checkpoints.HEADS.iterdir()}
    real = checkpoints.HEADS
    monkeypatch.setattr(checkpoints, "HEADS", tmp_path / "heads")
    monkeypatch.setattr(heads, "VIEWS", 2)
    calls = []
    path = heads.fit("sir", twenty, lambda *call: calls.append(call))
    assert path == tmp_path / "heads" / "sir-lite0.npz"
    assert calls[-1] == (20, 20, "19.png")
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["pictures"] == 20
    assert record["collection"]["fingerprint"] == twenty.fingerprint
    assert record["command"] == "python -m retrieval fit twenty --method sir"
    vector = methods.load("sir", size=96).describe(drawn(99))
    assert vector.shape == (1024,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    with np.load(path) as arrays, np.load(real / "sir-lite0.npz") as ours:
        assert {k: (v.shape, v.dtype) for k, v in arrays.items()} == {
            k: (v.shape, v.dtype) for k, v in ours.items()
        }
    assert {path: path.read_bytes() for path in real.iterdir()} == before


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, drawn):
    """Six scenes, four overlapping views of each: things in the upper half, a plain lower half."""
    root = tmp_path_factory.mktemp("scenes")
    for seed in range(6):
        scene = drawn(seed + 50, (360, 300))
        scene.paste(drawn(seed + 90, (360, 150)).resize((6, 2)).resize((360, 150)), (0, 150))
        for n in range(4):
            scene.crop((15 * n, 8 * n, 300 + 15 * n, 270 + 8 * n)).save(root / f"{seed}_{n}.png")
    (root / "broken.png").write_bytes(b"no picture")
    names = sorted(path.name for path in root.iterdir())
    return Collection("scenes", "Scenes", root, tuple(names))


def test_fit_learns_the_attention_of_delf(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "HEADS", tmp_path)
    path = heads.fit("delf", scenes)
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["pictures"] == 24, "the broken one is left out"
    made = record["attention"]
    assert made["pairs"] >= 24
    assert 0.02 < made["matchable"] < 0.9
    told = made["auc_held_out"]
    assert told["attention"] > max(0.6, told["feature norm"] + 0.05)
    trained = methods.load("delf", size=192)
    bare = methods.load("delf", "delf-lite0-norm", size=192)
    picture = images.read(scenes.path("5_3.png"))
    features = trained.describe(picture)
    assert (features.scores > 0).all()
    assert (np.diff(features.scores) <= 0).all()
    with np.load(path) as head:
        found = trained.dense(picture).raw[:5].double().numpy()
        hidden = found @ head["attention.conv1.weight"].T + head["attention.conv1.bias"]
        logits = hidden.clip(0) @ head["attention.conv2.weight"].T + head["attention.conv2.bias"]
    scores = trained.attention_of(torch.from_numpy(found).float())
    np.testing.assert_allclose(scores, np.log1p(np.exp(logits))[:, 0], rtol=1e-3)
    # The norm, when asked for: other keypoints, the same descriptors.
    other = bare.describe(picture)
    np.testing.assert_allclose(bare.attention_of(torch.eye(112)), np.ones(112))
    common = {
        tuple(point): descriptor
        for point, descriptor in zip(other.keypoints.tolist(), other.descriptors, strict=True)
    }
    both = [n for n, point in enumerate(features.keypoints.tolist()) if tuple(point) in common]
    assert 0 < len(both) < len(features)
    for n in both:
        np.testing.assert_array_equal(
            features.descriptors[n], common[tuple(features.keypoints[n].tolist())]
        )


def test_attention_is_not_learned_where_nothing_agrees(twenty, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "HEADS", tmp_path)
    path = heads.fit("delf", twenty)
    assert (
        "too few pictures agree" in json.loads(path.with_suffix(".json").read_text())["attention"]
    )
    with np.load(path) as arrays:
        assert set(arrays.files) == {"pca.components", "pca.bias"}
    # Then the norm is what is left.
    picture = images.read(twenty.path("03.png"))
    trained, bare = methods.load("delf", size=96), methods.load("delf", "delf-lite0-norm", size=96)
    np.testing.assert_array_equal(trained.describe(picture).scores, bare.describe(picture).scores)


def seen_of(points, descriptors, size=(100, 80)):
    places = np.arange(len(points))
    features = LocalFeatures(*(np.empty((0, 2), np.float32),) * 4)
    return attention.Seen(
        size,
        features,
        np.float32(points),
        torch.tensor(np.float32(descriptors)),
        places,
        torch.empty(0),
    )


def test_a_place_is_judged_by_where_it_matches():
    east, north, up = np.eye(3, dtype=np.float32)
    a = seen_of([[10, 10], [30, 10], [50, 10], [99, 10]], np.stack([east, north, up, east]))
    # b shows a moved by (20, 0): the last place leaves the picture.
    b = seen_of([[30, 10], [90, 70], [70, 12]], np.stack([east, north, up]))
    shown, matchable = attention.judge(a, b, np.array([[1.0, 0, 20], [0, 1, 0]]))
    assert shown.tolist() == [0, 1, 2]
    assert matchable.tolist() == [True, False, True], "2 pixels off is near, 72 is not"
    unlike = seen_of([[30, 10]], (0.5 * east + np.sqrt(0.75) * north)[None])
    _, matchable = attention.judge(a, unlike, np.array([[1.0, 0, 20], [0, 1, 0]]))
    assert matchable.tolist() == [False, False, False]


def test_auc_by_hand():
    labels = np.array([True, False, True, False])
    assert attention.auc(np.array([4.0, 3, 2, 1]), labels) == 0.75
    assert attention.auc(np.array([4.0, 1, 3, 2]), labels) == 1.0
    assert attention.auc(np.array([1.0, 3, 2, 4]), labels) == 0.0
    assert attention.auc(np.zeros(4), labels) == 0.5, "equal scores say nothing"
    assert np.isnan(attention.auc(np.zeros(4), labels | True))


def test_copies_teach_no_attention(twenty, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "HEADS", tmp_path / "heads")
    for n in range(20):
        shutil.copy(twenty.path("00.png"), tmp_path / f"{n:02}.png")
    copies = Collection("copies", "Copies", tmp_path, tuple(f"{n:02}.png" for n in range(20)))
    record = json.loads(heads.fit("delf", copies).with_suffix(".json").read_text())
    assert record["attention"].startswith("the feature norm")


@pytest.mark.parametrize("what", ["head", "record"])
def test_a_disk_that_is_full_leaves_the_head_whole(twenty, tmp_path, monkeypatch, what):
    real = checkpoints.HEADS / "sir-lite0.npz"
    for file in (real, real.with_suffix(".json")):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(checkpoints, "HEADS", tmp_path)
    monkeypatch.setattr(heads, "VIEWS", 2)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((np, "savez") if what == "head" else (heads, "write_json")), full)
    with pytest.raises(RetrievalError, match=r"sir-lite0.npz cannot be written: No space"):
        heads.fit("sir", twenty)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sir-lite0.json", "sir-lite0.npz"]
    if what == "head":
        assert (tmp_path / "sir-lite0.npz").read_bytes() == real.read_bytes()


def test_pictures_that_do_not_vary_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "HEADS", tmp_path / "heads")
    for n in range(20):
        Image.new("RGB", (64, 64), "white").save(tmp_path / f"{n:02}.png")
    blank = Collection("blank", "Blank", tmp_path, tuple(f"{n:02}.png" for n in range(20)))
    with pytest.raises(RetrievalError, match="too few keypoints in Blank"):
        heads.fit("delf", blank)


def test_fit_is_refused_for_too_few_pictures(twenty, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "HEADS", tmp_path)
    few = Collection("few", "Few", twenty.root, twenty.names[:19])
    with pytest.raises(RetrievalError, match="at least 20 pictures"):
        heads.fit("sir", few)
    assert list(tmp_path.iterdir()) == []


def test_the_heads_in_the_repository_are_those_of_their_records():
    from retrieval.index.store import file_digest

    for record in checkpoints.REGISTRY.values():
        path = checkpoints.HEADS / f"{record.head}.npz"
        if record.head is None or not path.is_file():
            continue
        stated = record.head_record
        assert stated["head_sha256"] == file_digest(path), record.id
        assert stated["trunk_sha256"] == record.file_sha256
        assert stated["labels"] == "none"


def test_the_trained_network_in_the_repository_is_that_of_its_record():
    record = checkpoints.REGISTRY["gem-lite0"]
    weights = checkpoints.load(record)  # its digest is checked
    made = weights.meta["trained"]
    assert made["labels"] == "none"
    assert made["from"] == "gem-lite0-imagenet"
    assert made["from_sha256"] == checkpoints.REGISTRY["gem-lite0-imagenet"].sha256
    assert weights.meta["settings"]["size"] == record.settings["size"]
    assert weights.meta["settings"]["scales"] == list(record.settings["scales"])
    assert list(record.mean) == weights.meta["mean"]
    assert f"--epochs {len(made['epochs'])}" in made["command"]
