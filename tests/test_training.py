import json

import numpy as np
import pytest

from retrieval import checkpoints, methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.training import heads, views, whitening


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
