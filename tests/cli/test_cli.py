import io
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval import cli, images, methods
from retrieval import index as indexes_module
from retrieval.networks import checkpoints
from retrieval.ranking import search

REPOSITORY = Path(__file__).parents[2]
REFERENCE = REPOSITORY.parent / "shared" / "reference"


@pytest.fixture
def run(capsys):
    """``run(*words)``: exit code, standard output, standard error."""

    def call(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def refused(run):
    """The command must end with code 1 and one sentence on standard error."""

    def call(words, *command):
        code, out, error = run(*command)
        assert (code, out) == (1, "")
        (line,) = error.splitlines()
        assert line.startswith("error: ")
        assert words in line

    return call


# index


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
    for name in ("evaluation-geometry.json", "ablation.npz"):
        (tmp_path / "index" / name).write_text("{}")
    assert run(*command)[2] == ""  # nothing has changed
    (pictures / "a.png").unlink()
    code, _, error = run(*command)
    assert code == 0
    assert "deleted: ablation.npz, evaluation-geometry.json. Compute them again" in error
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
    assert indexes_module.load(out).settings == {"size": 64, "scales": [1.0, 0.5]}


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


# search


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


# describe


def test_describe_writes_what_the_method_gives(run, folder, load, tmp_path):
    out = tmp_path / "descriptors.npz"
    names = [folder / "c.png", folder / "a.png", folder / "c.png"]
    code, text, _ = run("describe", *names, "--method", "sir", "--size", 128, "--out", out)
    assert code == 0
    assert text == f"3 × 1024 descriptors of sir-lite0 in {out}\n"
    with np.load(out) as arrays:
        assert arrays["names"].tolist() == [str(name) for name in names]
        for name, row in zip(names, arrays["descriptors"], strict=True):
            np.testing.assert_allclose(
                row, load("sir", size=128).describe(images.read(name)), atol=1e-6
            )


def test_describe_local(run, folder, tmp_path):
    out = tmp_path / "any name"
    pictures = folder / "a.png", folder / "b.png"
    command = ["describe", *pictures, "--method", "delf", "--size", 96, "--out", out]
    code, _, _ = run(*command, "--box", "0,0,240,180", "--box", "20,30,200,170")
    assert code == 0
    with np.load(out) as arrays:
        offsets = arrays["offsets"]
        assert offsets[0] == 0
        assert len(offsets) == 3
        assert len(arrays["keypoints"]) == len(arrays["descriptors"]) == offsets[-1]
        second = arrays["keypoints"][offsets[1] :]
    assert (second >= [20, 30]).all()
    assert (second <= [200, 170]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["any name"], "under the name given"


@pytest.mark.skipif(not (REFERENCE / "cirtorch.npz").is_file(), reason="no reference numbers here")
def test_describe_with_a_network_of_ones_own(run, tmp_path):
    with np.load(REFERENCE / "cirtorch.npz") as arrays:
        expected, names, boxes = arrays["gem_w_ms_bbx"][:2], arrays["images"][:2], arrays["bbx"][:2]
    paths = [next((REFERENCE / "images").glob(f"{Path(str(name)).stem}.*")) for name in names]
    words = [word for box in boxes for word in ("--box", ",".join(map(str, box)))]
    out = tmp_path / "d.npz"
    code, text, _ = run(
        "describe", *paths, "--method", "cnn-irwnha",
        "--checkpoint", REFERENCE / "cirtorch-resnet18-gem-w.pth",
        "--size", "1024", "--scales", "1,1.4142,0.7071", *words, "--out", out,
    )  # fmt: skip
    assert code == 0
    assert text.startswith("2 × 512 descriptors of cirtorch-resnet18-gem-w")
    with np.load(out) as arrays:
        found = arrays["descriptors"]
    assert (np.sum(found * expected, axis=1) > 0.99999).all()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_describe_that_fails(refused, folder, tmp_path):
    a, b, c = (folder / name for name in ("a.png", "b.png", "c.png"))
    sir = ("--method", "sir")
    out = tmp_path / "d.npz"
    refused("no folder", "describe", a, *sir, "--out", tmp_path / "no" / "d.npz")
    before = (folder / "b.png").read_bytes()
    refused("would be replaced by features", "describe", a, *sir, "--out", folder / "b.png")
    refused(
        "replaced by its figure", "plot", "keypoints", folder / "b.png", "--out", folder / "b.png"
    )
    assert (folder / "b.png").read_bytes() == before
    refused("cannot be written: Is a directory", "describe", a, *sir, "--out", tmp_path)
    refused("is a folder; name a file", "describe", a, *sir, "--out", ".")
    refused("2 boxes, 3 pictures", "describe", a, b, c, *sir, "--out", out,
            "--box", "0,0,99,99", "--box", "0,0,99,99")  # fmt: skip
    refused("gone.png cannot be read", "describe", a, folder / "gone.png", *sir, "--out", out)
    refused("from 32 to 4096", "describe", a, *sir, "--size", 7, "--out", out)
    refused("SIR has no setting scales", "describe", a, *sir, "--scales", "1,2", "--out", out)
    refused("from 0.1 to 4", "describe", a, "--method", "cnn-irwnha", "--scales", "1,99",
            "--out", out)  # fmt: skip
    refused("is for cnn-irwnha, not for sir", "describe", a, *sir, "--checkpoint", "gem-lite0",
            "--out", out)  # fmt: skip
    refused("The box", "describe", a, *sir, "--box", "500,500,600,600", "--out", out)
    assert list(tmp_path.iterdir()) == []


# info, methods, train


def test_names_are_shown_and_not_obeyed(run, refused, tmp_path, drawn):
    folder = tmp_path / "pictures\x1b[1m"
    folder.mkdir()
    name = "\x1b[2Jclear\x9b1m.png"
    drawn(1, (64, 64)).save(folder / name)
    (folder / "\x1b]0;bad.png").write_bytes(b"no picture")
    out = tmp_path / "index"
    for command in (
        ("index", folder, "--method", "sir", "--out", out),
        ("search", out, folder / name),
        ("info", out),
        ("ablate", out),
        ("search", out, folder / "\x1b]0;bad.png"),
    ):
        _, text, said = run(*command)
        assert "\x1b" not in text + said
        assert "\x9b" not in text + said
    assert "\\x1b]0;bad.png" in said


def test_info_says_what_an_index_is_and_checks_it(run, refused, indexes, tmp_path):
    for method, loaded in indexes.items():
        code, text, _ = run("info", loaded.path)
        assert code == 0
        rows = dict(line.split(None, 1) for line in text.splitlines())
        assert rows["pictures"] == "6"
        assert rows["checksums"] == "all match"
        assert rows["checkpoint"].startswith(methods.METHODS[method].default)
        assert json.loads(rows["settings"]) == loaded.settings
    copy = tmp_path / "copy"
    shutil.copytree(indexes["sir"].path, copy)
    data = bytearray((copy / "descriptors.npy").read_bytes())
    data[-1] ^= 1
    (copy / "descriptors.npy").write_bytes(data)
    refused("does not have the checksum", "info", copy)
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": 99}), "utf-8")
    refused("has format version 99", "info", copy)
    refused("There is no index in", "info", tmp_path / "nowhere")


def test_methods_names_every_method_and_checkpoint(run):
    code, text, _ = run("methods")
    assert code == 0
    for name, entry in methods.METHODS.items():
        assert f"{name}: {entry.title}. {entry.summary}" in text
        assert f"{entry.default} (default)" in text
        assert checkpoints.REGISTRY[entry.default].stands_in_for in text
    for record in checkpoints.REGISTRY.values():
        assert record.id in text


def test_train_refuses_what_the_method_does_not_have(refused, folder, tmp_path):
    out = ("--out", tmp_path / "net.pth")
    refused("--pairs is no option of sir", "train", "sir", folder, *out,
            "--pairs", "labels")  # fmt: skip
    refused("at least 20 pictures", "train", "sir", folder, *out)
    assert list(tmp_path.iterdir()) == []


def test_train_does_not_write_among_the_pictures(refused, folder, monkeypatch):
    """The curves became a picture, so that a stopped training did not go on: "pictures differ"."""
    before = sorted(folder.rglob("*"))
    refused("is in the folder of the pictures", "train", "sir", folder,
            "--out", folder / "sub" / "net.pth")  # fmt: skip
    monkeypatch.chdir(folder)
    refused("is in the folder of the pictures", "train", "sir", ".", "--out", "net.pth")
    assert sorted(folder.rglob("*")) == before


# The door itself


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["index"],
        ["index", "x", "--method", "sir"],
        ["index", "x", "--out", "y"],
        ["index", "x", "--method", "surf", "--out", "y"],
        ["search", "x"],
        ["search", "x", "y", "--top", "0"],
        ["search", "x", "y", "--top", "many"],
        ["search", "x", "y", "--box", "1,2,3"],
        ["search", "x", "y", "--box", "a,b,c,d"],
        ["search", "x", "y", "--box"],
        ["describe", "x", "--method", "sir", "--size", "-5", "--out", "y"],
        ["describe", "x", "--method", "sir", "--scales", "1,,2", "--out", "y"],
        ["describe", "--method", "sir", "--out", "y"],
    ],
)
def test_wrong_usage(run, words):
    code, out, error = run(*words)
    assert (code, out) == (2, "")
    assert error.startswith("usage: python -m retrieval")
    assert "Traceback" not in error


def python(*words, **options):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, **options)


HEAVY = ("torch", "torchvision", "tensorflow", "faiss", "cv2", "scipy", "matplotlib", "streamlit")


@pytest.mark.parametrize("words", [["--help"], ["methods"], ["search", "--help"]])
def test_help_and_methods_are_quick(words):
    code = (
        "import sys\nfrom retrieval.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        f"sys.exit(repr([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = python("-c", code)
    assert done.stderr.strip() == "[]"
    assert done.stdout


@pytest.mark.parametrize("option", ["--epochs", "--seed", "--batch"])
@pytest.mark.parametrize("number", ["-1", "1" * 20, "1" * 5000])
def test_numbers_that_libraries_do_not_take(run, option, number):
    code, _, error = run("train", "delf", "somewhere", "--out", "a.pth", f"{option}={number}")
    assert code == 2
    assert "is not a whole number from " in error


def test_help_states_the_true_defaults(monkeypatch, capsys):
    from retrieval.ranking import groups
    from retrieval.training import delf, siamese, sir

    monkeypatch.setenv("COLUMNS", "500")  # no line is broken

    def told(command):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        return capsys.readouterr().out

    first, second, third = every = [module.Settings() for module in (sir, delf, siamese)]
    assert len({(one.rate, one.optimiser, one.patience, one.seed) for one in every}) == 1
    text = told("train")
    for stated in (
        f"at most (sir {first.epochs}, delf {second.epochs}, cnn-irwnha {third.epochs})",
        f"learning rate ({first.rate:g})",
        f"default: {first.optimiser}",
        f"after which it stops ({first.patience})",
        f"random ({first.seed})",
        f"of cnn-irwnha ({third.tuples})",
        f"tuples of cnn-irwnha ({third.batch}), pairs of pictures of delf ({second.batch})",
        f"default {third.pairs}",
        f"default {third.loss}",
        f"what fine-tunes the trunk: delf, default {second.trunk}",
        f"what the attention learns from: delf, default {second.attention}",
    ):
        assert stated in text
    assert f"connect two pictures ({groups.CONNECTED})" in told("groups")


def test_help_lists_the_commands():
    done = python("-m", "retrieval", "--help")
    assert done.returncode == 0
    for command in ("index", "search", "describe", "info", "methods", "train", "evaluate"):
        assert f"\n    {command} " in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text(run, folder, tmp_path, monkeypatch):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in (b"\xff.png", "é.png".encode()):
        shutil.copy(folder / "a.png", os.path.join(os.fsencode(pictures), name))
    (pictures / os.fsdecode(b"\xfe.png")).write_bytes(b"")
    out = tmp_path / "index"
    sir = ("--method", "sir", "--size", "32")
    code, text, error = run("index", pictures, *sir, "--out", out)
    assert code == 0
    assert text.startswith("2 pictures")
    assert "skipped \\udcfe.png" in error
    command = ["search", str(out), os.fsdecode(os.path.join(os.fsencode(pictures), b"\xff.png"))]
    assert "é.png" in run(*command)[1]
    for encoding in ("utf-8", "ascii"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main([*command, "--json"]) == 0
        stream.flush()
        answer = json.loads(stream.buffer.getvalue())
        assert {result["name"] for result in answer["results"]} == {"\udcff.png", "é.png"}
        assert cli.main(command) == 0


def test_a_reader_that_goes_away(indexes, folder):
    command = f"{sys.executable} -m retrieval methods | head -c 10"
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert len(done.stdout) == 10


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


@pytest.mark.parametrize("labelled", [False, True])
def test_ablate_without_labels_for_medium(run, folder, tmp_path, labelled):
    """Of Oxford5k, whose labels are classic, it said that there are no labelled queries."""
    out, photos = tmp_path / "index", tmp_path / "photos"
    photos.mkdir()
    names = ["a.png", "b.png"]
    for name in names:
        shutil.copy(folder / name, photos)
    if labelled:
        truth = {"imlist": names, "qimlist": names[:1], "gnd": [{"ok": [1], "junk": []}]}
        (photos / "ground_truth.json").write_text(json.dumps(truth))
    assert run("index", photos, "--method", "sir", "--size", 64, "--out", out)[0] == 0
    code, text, error = run("ablate", out)
    assert (code, "nan" in text) == (0, False)
    assert "photos has no labels for medium: only the page How it works uses this" in text
    assert f"kept in {out / 'ablation.npz'}" in error


def test_groups_of_pictures_that_were_moved(refused, run, folder, tmp_path):
    moved, out = tmp_path / "moved", tmp_path / "index"
    moved.mkdir()
    for name in "abc":
        shutil.copy(folder / f"{name}.png", moved)
    assert run("index", moved, "--method", "sir", "--size", 64, "--out", out)[0] == 0
    moved.rename(tmp_path / "elsewhere")
    refused("Some pictures, as a.png, could not be compared: their features", "groups", out)


def test_a_port_in_use(run, refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, error = run("serve", "--port", port)
    assert code == 1
    assert f"error: The service cannot listen at 127.0.0.1, port {port}" in error
    assert "Traceback" not in error
    refused("A port is a number from 1 to 65535.", "serve", "--port", 70000)


# re-rankers


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


def test_keypoints_beside_an_index_that_are_a_link(refused, folder, tmp_path):
    """A stranger's index may come with one, and what it leads to was made or replaced."""
    (tmp_path / "index.xfeat").symlink_to(tmp_path / "elsewhere")
    command = ["index", folder, "--method", "sir", "--out", tmp_path / "index"]
    refused("index.xfeat is a link", *command, "--verifier", "xfeat")
    assert not (tmp_path / "elsewhere").exists()


def test_bad_chains(run, refused, folder, tmp_path):
    out = tmp_path / "index"
    run("index", folder, "--method", "delf", "--size", 96, "--out", out)
    code, _, error = run("search", out, folder / "a.png", "--then", "magic")
    assert code == 2
    assert "There is no re-ranker 'magic'" in error
    refused(
        "needs an index with one vector", "search", out, folder / "a.png", "--then", "expansion"
    )


def test_evaluate_then(run, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "pictures")
    truth = {
        "imlist": ["a.png", "b.png", "c.png"],
        "qimlist": ["a.png"],
        "gnd": [{"easy": [1], "hard": [2], "junk": [0], "bbx": None}],
    }
    (tmp_path / "pictures" / "ground_truth.json").write_text(json.dumps(truth))
    out = tmp_path / "index"
    run("index", tmp_path / "pictures", "--method", "sir", "--size", 96, "--out", out)
    code, text, error = run("evaluate", out, "--then", "diffusion")
    assert (code, "diffusion " in error) == (0, True)
    assert ", then diffusion" in text
    assert "mAP against the method alone: easy +" in text or "alone: easy -" in text
    assert {path.name for path in out.glob("evaluation*")} == {
        "evaluation.npz", "evaluation.json",
        "evaluation-diffusion.npz", "evaluation-diffusion.json",
    }  # fmt: skip


def test_groups_of_an_index(run, refused, indexes, tmp_path):
    refused("12 or more", "groups", indexes["sir"].path, "--inliers", 5)
    lost = tmp_path / "missing" / "g.csv"
    with pytest.MonkeyPatch.context() as patch:  # before the pictures are compared
        patch.setattr("retrieval.ranking.groups.pairs_of", None)
        refused("nothing can be written there", "groups", indexes["sir"].path, "--csv", lost)
    code, text, _ = run("groups", indexes["sir"].path, "--inliers", 20, "--csv", tmp_path / "g.csv")
    assert code == 0
    assert text.splitlines()[-1].endswith(f"of {len(indexes['sir'])} pictures")
    assert (tmp_path / "g.csv").read_text("utf-8-sig").startswith("group,picture,inliers")
    with pytest.MonkeyPatch.context() as patch:  # the second time nothing is compared
        patch.setattr("retrieval.ranking.groups.pairs_of", None)
        assert run("groups", indexes["sir"].path, "--inliers", 20)[1] == text


def test_stopped_while_modules_are_loaded():
    code = (
        "import runpy, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *more):\n"
        "        if name == 'retrieval.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "runpy.run_module('retrieval', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (130, "Stopped.\n")
