"""The parts of ``bench``; the times themselves are nobody's to assert."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from retrieval import cli, images, index, methods
from retrieval.benchmarks import delf, evaluation, extraction, inliers, reranking, scale
from retrieval.collections import open_collection
from retrieval.collections.ground_truth import Query
from retrieval.ranking import chain, verification


def test_plain_loop_and_ours_give_the_same_descriptors():
    data = io.BytesIO()
    images.read(extraction._jpeg(0)).resize((160, 120)).save(data, "JPEG")
    with extraction._network_file() as path:
        ours = methods.load("cnn-irwnha", path, size=extraction.SIZE, scales=[1.0])
        plain = extraction._PlainLoop(path)
    (vector,) = (ours.describe(one) for one in extraction._read_ahead([data.getvalue()]))
    assert vector @ plain.describe(data.getvalue()) > extraction.MIN_COSINE


def test_flops_of_a_resnet_are_counted():
    # torchvision states 4.09 G multiply-adds for ResNet-50 at 224 × 224.
    expected = 2 * 4.09 * 1024 * 768 / 224**2
    assert extraction._gflop("resnet50") == pytest.approx(expected, rel=0.02)


def test_evaluation_compares_equal_things():
    found = evaluation.measure(pictures=300, queries=5)
    assert found["difference"] < 1e-12
    assert set(found) == {"evaluate", "loop", "difference"}


def test_evaluation_prints_times_and_the_difference(capsys):
    assert cli.main(["bench", "evaluation"]) == 0
    assert "largest difference of an AP" in capsys.readouterr().out


@pytest.fixture
def labelled(folder, load, tmp_path):
    """A DELF index of the drawn pictures, the first two of which are queries for themselves."""
    names = ["a.png", "b.png", "c.png", "sub/e.png"]
    labels = [{"easy": [n], "hard": [], "junk": [], "bbx": [20, 20, 200, 160]} for n in range(2)]
    truth = {"imlist": names, "qimlist": names[:2], "gnd": labels}
    root = tmp_path / "labelled"
    root.mkdir()
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(folder / name)
    (root / "ground_truth.json").write_text(json.dumps(truth))
    made = index.build(open_collection(root), load("delf"), tmp_path / "index")
    return root, made


def test_delf_on_an_index_of_ones_own(labelled, monkeypatch, capsys):
    root, made = labelled
    monkeypatch.setattr(delf, "GROWTH", (1, 9))
    asked = ["bench", "delf", str(made.path)]
    assert cli.main([*asked, "--collection", str(root)]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if "100.0" in line]
    assert len(rows) == 4, "every way finds a picture by a part of it"
    assert "12 pictures (repeated 3 times with noise)" in out
    assert cli.main([*asked, "--collection", str(root / "nowhere")]) == 1


def test_delf_on_an_index_with_very_many_words_a_picture(labelled, monkeypatch, capsys):
    """Repeated for 100,000 pictures, an index of two that is 0.1 MB as a zip would take 100 GB."""
    root, made = labelled
    monkeypatch.setattr(delf, "MAX_ENTRIES", len(made.searcher.pictures) * 2)
    monkeypatch.setattr(delf, "GROWTH", (8, 9))
    delf.run(made.path, str(root))
    out = capsys.readouterr().out
    assert "8 pictures (repeated 2 times with noise)" in out
    assert "9 pictures: not measured" in out


def test_the_full_precision_index_has_the_features_of_the_method(labelled, load):
    root, made = labelled
    exact = delf._FullPrecisionIndex(made, open_collection(root), load("delf"), None)
    found = exact.features(2)
    expected = load("delf").describe(images.read(root / "c.png"))
    np.testing.assert_array_equal(found.descriptors, expected.descriptors)
    assert np.abs(made.features(2).descriptors - found.descriptors).max() <= 0.5 / 127 + 1e-6
    own = exact.searcher.scores(found.descriptors)
    assert own.argmax() == 2


def test_delf_refuses_another_index(indexes, capsys):
    assert cli.main(["bench", "delf", str(indexes["sir"].path)]) == 1
    assert "is not a DELF index" in capsys.readouterr().err


def test_threads_are_compared_quiet_and_busy():
    from retrieval.benchmarks import threads

    found = threads.measure(pictures=1, rounds=1)
    assert set(found) == set(threads.THREAD_SETTINGS)
    assert all(quiet > 0 and busy > 0 for quiet, busy in found.values())


def test_rerank_prints_a_line_for_each_re_ranker(indexes, collection, monkeypatch, capsys):
    """Every re-ranker has its line; one that the index cannot serve says why."""
    queries = tuple(Query(name, (10, 10, 200, 150), {}) for name in ("a.png", "b.png"))
    asked = replace(collection, queries=queries)
    monkeypatch.setattr(reranking.finding, "collection_of", lambda index, named: asked)
    monkeypatch.setattr(reranking, "GROWTH", (60, 200))
    monkeypatch.setattr(reranking, "SAMPLE", 20)
    reranking.run(indexes["cnn-irwnha"].path)
    text = capsys.readouterr().out
    for name in [*chain.RERANKERS, "geometry,diffusion"]:
        assert f"\n{name} " in text
    assert "geometry, best 100" in text
    assert "diffusion on 60 pictures: " in text
    assert "diffusion on 204 pictures: " in text
    assert "(extrapolated from 20)" in text
    reranking.run(indexes["delf"].path)
    assert "superglobal needs an index with one vector" in capsys.readouterr().out


@pytest.mark.parametrize("copies", [25, 60, 210])
def test_neighbours_among_copies_take_little_memory(monkeypatch, copies):
    """All copies of a picture were compared: with an index of two pictures that took 28 GB."""
    monkeypatch.setattr(reranking, "BLOCK", 50)
    vectors = np.random.default_rng(0).normal(size=(2 * copies, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = reranking._neighbours_among_copies(vectors, copies)
    rows = np.arange(2 * copies)[:, None]
    assert found.positions.shape == found.similarity.shape == (2 * copies, reranking.COUNT)
    assert not (found.positions == rows).any()
    assert np.abs(found.positions - rows).max() < 100, "of one block"
    similar = (vectors[found.positions] * vectors[:, None]).sum(axis=2)
    np.testing.assert_allclose(found.similarity, similar, atol=1e-6)


def test_scale_prints_a_line_for_each_search(indexes, monkeypatch, capsys):
    """Each way to search has its line: what it finds is compared with exact search."""
    found = {method: index.path for method, index in indexes.items()}
    monkeypatch.setattr(scale.indexes, "find", lambda name: found)
    monkeypatch.setattr(scale, "_in_process", lambda do, *arguments: do(*arguments))
    for settings in ((scale, "MIN_PICTURES", 1000), (scale, "QUERIES", 20)):
        monkeypatch.setattr(*settings)
    assert cli.main(["bench", "scale", "--count", "2000"]) == 0
    out = capsys.readouterr().out
    assert "1,000 vectors" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ")}
    assert float(rows["exact"][1]) == 1
    assert all(0.5 < float(rows[search][1]) <= 1 for search in ("hnsw", "ivfpq"))
    assert cli.main(["bench", "scale", "--method", "delf", "--count", "1000"]) == 0
    out = capsys.readouterr().out
    assert out.count("extrapolated") == 3
    assert "a query, shortlist" in out


def test_made_up_vectors_have_the_similarity_asked_for():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 16)) * np.linspace(3, 0.1, 16) + 0.5
    base = (base / np.linalg.norm(base, axis=1, keepdims=True)).astype(np.float32)
    made = scale.made_up(base, 0.9, 20_000, rng).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=2e-3)
    assert abs(np.median((made @ base.T).max(axis=1)) - 0.9) < 0.05
    spread = made.var(axis=0)
    assert np.corrcoef(spread, base.var(axis=0))[0, 1] > 0.95


def test_inliers_are_counted_by_band(monkeypatch, capsys):
    town = open_collection("town")
    few = replace(town, queries=town.queries[:3])
    monkeypatch.setattr(inliers, "open_collection", lambda name: few)
    counted = inliers.count("cnn-irwnha", ("geometry",), lambda *shown: None)
    assert counted.best.sum() == 3
    assert counted.inliers.min() >= verification.MIN_INLIERS
    assert counted.right[counted.best].all()
    by_hand = inliers.Counted(
        np.array([25, 14, 10, 30]),
        np.array([True, False, True, False]),
        np.array([True, False, False, False]),
    )
    assert by_hand.text(20, np.inf) == "1 of 2, 50.0%"
    assert by_hand.text(20, np.inf, best=True) == "1 of 1, 100.0%"
    assert by_hand.text(10, 15) == "1 of 2, 50.0%"
    assert by_hand.text(15, 20) == "–"
    monkeypatch.setattr(inliers, "SEARCHES", (("cnn-irwnha", ("geometry",)),))
    assert cli.main(["bench", "inliers"]) == 0
    assert "cnn-irwnha, then geometry" in capsys.readouterr().out
