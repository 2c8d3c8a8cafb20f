"""``search``: as table and JSON, filtered, re-ranked, refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from retrieval import images, methods
from retrieval.networks import checkpoints
from retrieval.ranking import search


@pytest.mark.parametrize("method", methods.METHODS)
def test_search_json(run, folder, indexes, load, method):
    loaded = indexes[method]
    picture, box = folder / "sub" / "f.jpg", (10.0, 20.0, 230.0, 170.0)
    code, text, error = run(
        "search", loaded.path, picture, "--json", "--top", 3, "--box", ",".join(map(str, box))
    )
    assert (code, error) == (0, "")
    answer = json.loads(text)
    expected = search.rank_picture(loaded, load(method), images.read(picture), box, 3)
    assert [result["rank"] for result in answer["results"]] == [1, 2, 3]
    assert [result["name"] for result in answer["results"]] == list(expected.names)
    scores = [result["score"] for result in answer["results"]]
    np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
    assert answer["provenance"] == json.loads(json.dumps(expected.provenance))
    assert answer["timings"].keys() == expected.timings.keys()
    assert answer["query"] == {"picture": str(picture), "box": list(box)}
    inliers = [result.get("inliers") for result in answer["results"]]
    assert inliers == (expected.inliers.tolist() if method == "delf" else [None] * 3)


def test_search_table(run, folder, indexes):
    code, text, error = run("search", indexes["sir"].path, folder / "d é.png")
    assert code == 0
    lines = text.splitlines()
    assert len(lines) == 6
    assert lines[0].split(None, 2)[::2] == ["1", "d é.png  the query itself"]
    assert error.startswith("sir-lite0 on 6 pictures: extraction ")
    code, text, _ = run("search", indexes["delf"].path, folder / "d é.png", "--top", "1")
    assert code == 0
    assert "d é.png" in text
    assert text.strip().endswith("inliers  the query itself")


@pytest.fixture
def years(folder):
    """A table beside the pictures that two of them are in."""
    path = folder / "metadata.csv"
    path.write_text("file,year\na.png,1901\nd é.png,1950\n", "utf-8")
    yield path
    path.unlink()


@pytest.mark.parametrize("method", ["sir", "delf"])
def test_search_with_a_filter(run, refused, folder, indexes, years, method):
    command = "search", indexes[method].path, folder / "a.png", "--json", "--where"
    code, text, _ = run(*command, "year < 2000")
    assert code == 0
    answer = json.loads(text)
    assert [one["name"] for one in answer["results"]] == ["a.png", "d é.png"]
    assert answer["provenance"]["filter"] == "year < 2000"
    _, text, _ = run(*command, "year > 1901")
    assert [one["name"] for one in json.loads(text)["results"]] == ["d é.png"]
    refused("fits the filter year > 2000", *command, "year > 2000")
    refused("There is no column colour", *command, "colour == 1")


def test_search_that_fails(refused, folder, indexes, tmp_path):
    path, picture = indexes["sir"].path, folder / "a.png"
    (tmp_path / "page.jpg").write_text("<html></html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    tiny = tmp_path / "tiny.png"
    Image.new("RGB", (1, 1)).save(tiny)
    refused("There is no index in", "search", tmp_path, picture)
    refused("gone.png cannot be read", "search", path, folder / "gone.png")
    refused("page.jpg is not a picture", "search", path, tmp_path / "page.jpg")
    refused("empty.jpg is empty", "search", path, tmp_path / "empty.jpg")
    refused("tiny.png has only 1 × 1 pixels", "search", path, tiny)
    refused("cannot be read", "search", path, folder)
    for box, words in {
        "50,0,10,40": "empty or inverted",
        "10,10,10,10": "empty or inverted",
        "900,900,990,990": "covers less than",
        "-50,-50,-10,-10": "covers less than",
        "nan,0,10,10": "four finite numbers",
        "0,0,1e999,10": "four finite numbers",
    }.items():
        refused(words, "search", path, picture, "--box", box)
        refused(words, "search", path, picture, f"--box={box}")
    refused("no checkpoint", "search", path, picture, "--checkpoint", "nothing")


def test_verify_is_for_local_features(run, refused, folder, indexes):
    asked = ("search", indexes["sir"].path, folder / "a.png", "--verify", 3)
    refused("--verify is for DELF", *asked)
    code, text, _ = run("search", indexes["delf"].path, *asked[2:], "--json")
    assert code == 0
    assert sum(one["inliers"] > 0 for one in json.loads(text)["results"]) <= 3


def test_search_with_another_layer(refused, folder, indexes, monkeypatch):
    """An index made before the layer was trained anew."""
    record = replace(checkpoints.REGISTRY["sir-lite0"], weights_sha256="0" * 64)
    monkeypatch.setitem(checkpoints.REGISTRY, "sir-lite0", record)
    refused("was made with checkpoint sir-lite0", "search", indexes["sir"].path, folder / "a.png")


def test_search_marks_the_query_itself(run, folder, tmp_path):
    out = tmp_path / "index"
    assert run("index", folder, "--method", "sir", "--size", 64, "--out", out)[0] == 0
    lines = run("search", out, folder / "c.png", "--then", "diffusion")[1].splitlines()
    assert [line for line in lines if line.endswith("the query itself")] == [lines[0]]
    assert "c.png" in lines[0]


def test_search_then(run, folder, tmp_path):
    out = tmp_path / "index"
    small = ["--size", 96]
    command = ["index", folder, "--method", "sir", *small, "--out", out, "--verifier", "xfeat"]
    code, text, _ = run(*command)
    assert code == 0
    beside = out.with_name("index.xfeat")
    assert f"keypoints of 6 pictures in {beside}" in text
    assert "XFeat" in run("info", beside)[1]
    picture = tmp_path / "part.png"
    images.read(folder / "c.png").crop((10, 10, 230, 170)).save(picture)
    code, text, error = run("search", out, picture, "--then", "best", "--json")
    answer = json.loads(text)
    assert (code, error) == (0, "")
    assert answer["results"][0]["name"] == "c.png"
    assert answer["results"][0]["inliers"] >= 12
    assert "moved" in answer["results"][0]
    assert answer["confidence"]["level"] == "sure"
    assert answer["notes"] == []
    assert list(answer["timings"]) == ["extraction", "search", "geometry", "diffusion"]
    assert [one["name"] for one in answer["provenance"]["then"]] == ["geometry", "diffusion"]
    code, text, error = run("search", out, picture, "--then", "geometry")
    assert "inliers" in text.splitlines()[0]
    assert "Very likely right: " in error


def test_bad_chains(run, refused, folder, tmp_path):
    out = tmp_path / "index"
    run("index", folder, "--method", "delf", "--size", 96, "--out", out)
    code, _, error = run("search", out, folder / "a.png", "--then", "magic")
    assert code == 2
    assert "There is no re-ranker 'magic'" in error
    refused(
        "needs an index with one vector", "search", out, folder / "a.png", "--then", "expansion"
    )
