"""``index``: what it builds, says and refuses."""

import shutil

import numpy as np
import pytest

from retrieval import index as indexes_module
from retrieval import methods
from retrieval.methods import base


@pytest.mark.parametrize("method", methods.METHODS)
def test_index_builds_and_says_what_it_built(run, folder, tmp_path, method):
    out = tmp_path / "new" / "index"
    small = ["--size", 64]
    code, text, error = run("index", folder, "--method", method, *small, "--out", out)
    assert (code, error) == (0, "")
    assert text.startswith(f"6 pictures in {out} (")
    loaded = indexes_module.load(out)
    assert (loaded.method, len(loaded)) == (method, 6)
    assert loaded.settings["size"] == 64
    # Again: nothing to do, and one more picture.
    assert run("index", folder, "--method", method, *small, "--out", out)[0] == 0
    assert indexes_module.load(out).names == loaded.names


def test_index_says_which_results_are_gone(run, folder, tmp_path):
    """An evaluation may be the work of hours; it was deleted without a word."""
    pictures = shutil.copytree(folder, tmp_path / "pictures")
    command = "index", pictures, "--method", "sir", "--size", 64, "--out", tmp_path / "index"
    run(*command)
    for name in ("evaluation-geometry.json", "ablation.npz", "groups.npz"):
        (tmp_path / "index" / name).write_text("{}")
    assert run(*command)[2] == ""  # nothing has changed
    (pictures / "a.png").unlink()
    code, _, error = run(*command)
    assert code == 0
    assert "deleted: ablation.npz, evaluation-geometry.json, groups.npz. Compute them" in error
    assert not (tmp_path / "index" / "ablation.npz").exists()
    assert run(*command)[2] == ""


def test_index_with_scales_and_bad_files(run, folder, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    (mixed / "page.jpg").write_text("<html></html>")
    (mixed / "notes.txt").write_text("text")
    out = tmp_path / "index"
    code, text, error = run(
        "index", mixed, "--method", "cnn-irwnha", "--size", "64", "--scales", "1,0.5", "--out", out
    )
    assert code == 0
    assert text.startswith("6 pictures")
    assert ", 1 skipped" in text
    assert "skipped page.jpg: page.jpg is not a picture" in error
    assert indexes_module.load(out).settings == {
        "size": 64,
        "enlarge": True,
        "scales": [1.0, 0.5],
    }


def test_index_of_no_pictures(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("x")
    out = tmp_path / "index"
    tail = ("--method", "sir", "--out", out)
    refused("empty holds no pictures", "index", tmp_path / "empty", *tail)
    refused("none of its 1 files ends in", "index", tmp_path / "texts", *tail)
    refused("No picture of bad could be read, of 1.", "index", tmp_path / "bad", *tail)
    refused("There is no folder", "index", tmp_path / "nowhere", *tail)
    refused("is a file", "index", tmp_path / "texts" / "a.txt", *tail)
    assert not out.exists()


def test_index_into_a_bad_place(refused, folder, tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    refused("is not an index", "index", folder, "--method", "sir", "--out", tmp_path)
    file = tmp_path / "precious.txt"
    refused("is not an index", "index", folder, "--method", "sir", "--out", file)
    refused("cannot be written", "index", folder, "--method", "sir", "--out", file / "below")
    assert file.read_text() == "x"


def test_index_with_the_codebook_of_another(run, refused, folder, indexes, tmp_path):
    command = ["index", folder, "--method", "delf", "--size", 64, "--out", tmp_path / "own"]
    code, _, _ = run(*command, "--codebook", indexes["delf"].path)
    assert code == 0
    words = indexes["delf"].arrays["codebook"]
    assert np.array_equal(indexes_module.load(tmp_path / "own").arrays["codebook"], words)
    refused("from one DELF index to another", *command, "--codebook", indexes["sir"].path)


def test_index_of_another_method(refused, folder, indexes):
    path = indexes["sir"].path
    refused("was made with method sir, not delf", "index", folder, "--method", "delf",
            "--out", path)  # fmt: skip
    refused("was made with size 128, not size 64", "index", folder, "--method", "sir", "--size", 64,
            "--out", path)  # fmt: skip


def test_an_index_of_other_pictures_is_not_replaced(refused, run, folder, tmp_path):
    other, out = tmp_path / "other", tmp_path / "index"
    other.mkdir()
    shutil.copy(folder / "a.png", other / "z.png")
    words = ["--method", "sir", "--size", 64, "--out", out]
    assert run("index", other, *words)[0] == 0
    before = (out / "manifest.json").read_bytes()
    refused("is an index of other pictures: it has none of these", "index", folder, *words)
    assert (out / "manifest.json").read_bytes() == before
    shutil.copy(folder / "a.png", other / "y.png")
    code, text, _ = run("index", other, *words)  # an update
    assert (code, text.startswith("2 pictures in")) == (0, True)


def test_pictures_that_all_have_other_names(run, folder, tmp_path, monkeypatch):
    """Sorted into folders, they were "other pictures": all had to be described again."""
    words = ["--method", "sir", "--size", 64, "--out", tmp_path / "index"]
    shutil.copytree(folder, tmp_path / "photos")
    assert run("index", tmp_path / "photos", *words)[0] == 0
    (tmp_path / "sorted").mkdir()
    (tmp_path / "photos").rename(tmp_path / "sorted" / "2025")
    nothing = lambda self, pictures: []  # noqa: E731 - where a picture is described, it fails
    monkeypatch.setattr(base.GlobalMethod, "describe_batch", nothing)
    code, text, _ = run("index", tmp_path / "sorted", *words)
    assert (code, text.startswith("6 pictures in")) == (0, True)
    assert indexes_module.load(tmp_path / "index").names[0].startswith("2025/")


def test_keypoints_beside_an_index_that_are_a_link(refused, folder, tmp_path):
    """A stranger's index may come with one, and what it leads to was made or replaced."""
    (tmp_path / "index.xfeat").symlink_to(tmp_path / "elsewhere")
    command = ["index", folder, "--method", "sir", "--out", tmp_path / "index"]
    refused("index.xfeat is a link", *command, "--verifier", "xfeat")
    assert not (tmp_path / "elsewhere").exists()
