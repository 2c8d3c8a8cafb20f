"""The authors' descriptors, downloaded, scored and indexed."""

import io
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from retrieval import cli
from retrieval.collections import data_folder
from retrieval.errors import RetrievalError
from retrieval.evaluation import published_descriptors as features
from retrieval.evaluation import runs
from retrieval.index import finding


@pytest.fixture
def descriptors(server, roxford, monkeypatch, tmp_path):
    """The server that is asked for a .mat, and has none yet."""
    monkeypatch.setattr(features, "PRECOMPUTED", tmp_path / "precomputed")
    monkeypatch.setitem(
        features.FEATURES,
        "roxford5k-gem-features",
        replace(features.FEATURES["roxford5k-gem-features"], address=f"{server.root}/gem.mat"),
    )
    return server


@pytest.fixture
def published(descriptors):
    """A .mat of the true layout in which query i looks like pictures i, i + 1 and i + 2."""
    random = np.random.default_rng(0)
    database = random.standard_normal((4993, 2048))
    queries = np.stack(
        [database[i] + 0.8 * database[i + 1] + 0.6 * database[i + 2] for i in range(70)]
    )
    mat = io.BytesIO()
    savemat(mat, {"X": unit(database).T, "Q": unit(queries).T})
    descriptors.files["/gem.mat"] = mat.getvalue()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_published_descriptors_end_to_end(published, monkeypatch, capsys, tmp_path):
    perfect = dict.fromkeys(("easy", "medium", "hard"), (100.0, (100.0, 100.0, 100.0)))
    monkeypatch.setitem(
        features.FEATURES,
        "roxford5k-gem-features",
        replace(features.FEATURES["roxford5k-gem-features"], published=perfect),
    )
    assert cli.main(["download", "roxford5k-gem-features"]) == 0
    out = capsys.readouterr().out
    assert "medium      100.00     100.00  agrees" in out
    assert "The scores agree" in out

    from retrieval import index as indexes

    path = indexes.find("roxford5k", tmp_path / "precomputed")["cnn-irwnha"]
    index = indexes.load(path)
    assert index.arrays["descriptors"].shape == (4993, 2048)
    collection = finding.collection_of(index)
    assert not collection.has_pictures
    kept = runs.load_run(index, collection)
    assert {name: one.map for name, one in kept.scores.items()} == {
        "easy": 1.0,
        "medium": 1.0,
        "hard": 1.0,
    }
    assert kept.ranks[:3, 7].tolist() == [7, 8, 9]
    # The index alone gives the same, from its half-precision copy.
    again = runs.evaluate_index(index, collection, None)
    assert again.scores["medium"].map == 1.0
    assert again.record["provenance"]["checkpoint"] == features.CHECKPOINT

    (path / "queries.npy").write_bytes(b"edited")
    with pytest.raises(RetrievalError, match="was edited or damaged"):
        runs.evaluate_index(index, collection, None)


def test_scores_that_differ_from_the_published_ones_are_an_error(published, capsys):
    assert cli.main(["download", "roxford5k-gem-features"]) == 1
    said = capsys.readouterr()
    assert "do not agree" in said.err
    assert "easy        100.00      84.81  DIFFERS" in said.out


@pytest.mark.parametrize(
    "content",
    [
        {"X": np.zeros((2048, 4993)), "Q": np.zeros((2048, 69))},
        {"X": np.zeros((4993, 2048)), "Q": np.zeros((70, 2048))},
        {"X": np.zeros((2048, 4993))},
        {"X": np.full((2048, 4993), np.nan), "Q": np.zeros((2048, 70))},
        {"X": np.array([["a", "b"]], object), "Q": np.zeros((2048, 70))},
        b"",
        b"<html>",
        b"MATLAB 5.0 MAT-file" + bytes(500),
        b"\x89HDF\r\n\x1a\n" + bytes(500),
    ],
)
def test_mat_files_of_another_kind(descriptors, content, tmp_path):
    if isinstance(content, dict):
        buffer = io.BytesIO()
        savemat(buffer, content, do_compression=True)
        content = buffer.getvalue()
    descriptors.files["/gem.mat"] = content
    with pytest.raises(RetrievalError, match=r"readable \.mat|instead of|not numbers"):
        features.download("roxford5k-gem-features")
    assert not (tmp_path / "precomputed").exists()
    assert not list(data_folder().rglob("*.mat"))
