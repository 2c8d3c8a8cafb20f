"""The commands that need few words, and the door itself."""

import errno
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from retrieval import cli, methods
from retrieval.networks import checkpoints

REPOSITORY = Path(__file__).parents[2]


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


def test_train_names_curves_only_where_there_are_some(run, folder, tmp_path, monkeypatch):
    """DELF with a frozen trunk and the norm as attention has no epochs."""
    from retrieval.training import delf

    out = tmp_path / "net.pth"
    monkeypatch.setattr(delf, "train", lambda collection, path, *args, **options: path)
    command = "train", "delf", folder, "--trunk", "frozen", "--attention", "norm", "--out", out
    assert "curves: " not in run(*command)[1]
    out.with_suffix(".csv").touch()
    assert f"curves: {tmp_path / 'net.csv'}, {tmp_path / 'net.png'}" in run(*command)[1]


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


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "1e6", "1e300", "fast"])
def test_rates_that_no_training_has(run, rate):
    code, _, error = run("train", "sir", "somewhere", "--out", "a.pth", f"--rate={rate}")
    assert code == 2
    assert "is not a number above 0 and below a million" in error


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


def test_help_where_the_terminal_lacks_letters(monkeypatch):
    """The help of evaluate has an ellipsis: it ended with a traceback."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["evaluate", "--help"])


def test_a_reader_that_goes_away(indexes, folder):
    command = f"{sys.executable} -m retrieval methods | head -c 10"
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert len(done.stdout) == 10


def indexed_photos(run, folder, tmp_path, truth):
    """The index of a collection of two pictures; truth: of a query with the first, or None."""
    out, photos = tmp_path / "index", tmp_path / "photos"
    photos.mkdir()
    names = ["a.png", "b.png"]
    for name in names:
        shutil.copy(folder / name, photos)
    if truth:
        whole = {"imlist": names, "qimlist": names[:1], "gnd": [truth]}
        (photos / "ground_truth.json").write_text(json.dumps(whole))
    assert run("index", photos, "--method", "sir", "--size", 64, "--out", out)[0] == 0
    return out


@pytest.mark.parametrize("junk", [[], [0, 1]])
def test_evaluate_where_no_query_has_a_right_picture(run, folder, tmp_path, junk):
    """It asked for a ground_truth.json, which was there."""
    out = indexed_photos(run, folder, tmp_path, {"easy": [], "hard": [], "junk": junk})
    code, _, error = run("evaluate", out)
    assert code == 1
    assert "No query of photos has a right picture in its ground truth" in error


@pytest.mark.parametrize("labelled", [False, True])
def test_ablate_without_labels_for_medium(run, folder, tmp_path, labelled):
    """Of Oxford5k, whose labels are classic, it said that there are no labelled queries."""
    out = indexed_photos(run, folder, tmp_path, {"ok": [1], "junk": []} if labelled else None)
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


@pytest.fixture
def labelled(run, folder, tmp_path):
    """The path of an index of ``pictures``, beside it, which have a query."""
    shutil.copytree(folder, tmp_path / "pictures")
    truth = {
        "imlist": ["a.png", "b.png", "c.png"],
        "qimlist": ["a.png"],
        "gnd": [{"easy": [1], "hard": [2], "junk": [0], "bbx": None}],
    }
    (tmp_path / "pictures" / "ground_truth.json").write_text(json.dumps(truth))
    out = tmp_path / "index"
    run("index", tmp_path / "pictures", "--method", "sir", "--size", 96, "--out", out)
    return out


def test_evaluate_then(run, labelled):
    code, text, error = run("evaluate", labelled, "--then", "diffusion")
    assert (code, "diffusion " in error) == (0, True)
    assert ", then diffusion" in text
    assert "mAP against the method alone: easy +" in text or "alone: easy -" in text
    assert {path.name for path in labelled.glob("evaluation*")} == {
        "evaluation.npz", "evaluation.json",
        "evaluation-diffusion.npz", "evaluation-diffusion.json",
    }  # fmt: skip


def test_groups_of_an_index(run, refused, indexes, tmp_path):
    refused("12 or more", "groups", indexes["sir"].path, "--inliers", 5)
    lost = tmp_path / "missing" / "g.csv"
    with pytest.MonkeyPatch.context() as patch:  # before the pictures are compared
        patch.setattr("retrieval.ranking.groups.pairs_of", None)
        refused("There is no folder", "groups", indexes["sir"].path, "--csv", lost)
    code, text, _ = run("groups", indexes["sir"].path, "--inliers", 20, "--csv", tmp_path / "g.csv")
    assert code == 0
    assert text.splitlines()[-1].endswith(f"of {len(indexes['sir'])} pictures")
    assert (tmp_path / "g.csv").read_text("utf-8-sig").startswith("group,picture,inliers")
    with pytest.MonkeyPatch.context() as patch:  # the second time nothing is compared
        patch.setattr("retrieval.ranking.groups.pairs_of", None)
        assert run("groups", indexes["sir"].path, "--inliers", 20)[1] == text


@pytest.mark.parametrize(
    "command",
    ["groups {index} --csv", "evaluate {index} --json", "describe a.png --method sir --out"],
)
def test_files_that_no_command_wrote_are_not_replaced(refused, indexes, tmp_path, command):
    """``groups INDEX --csv INDEX/images.json`` replaced a file of the index."""
    copy = tmp_path / "copy"
    shutil.copytree(indexes["sir"].path, copy)
    names = "metadata.csv", "left_out.csv", "labels.json", "a.json", "a.npz", "net.pth", "notes"
    others = [tmp_path / name for name in names]
    for other in others:
        other.write_text("kept")
    (copy / "groups.npz").write_text("kept")
    files = [copy / name for name in ("images.json", "descriptors.npy", "groups.npz")]
    before = [file.read_bytes() for file in files]
    words = command.format(index=copy).split()
    for file in files + others:
        refused("is there already, and this command did not write it: choose another name",
                *words, file)  # fmt: skip
    assert [file.read_bytes() for file in files] == before
    assert {other.read_text() for other in others} == {"kept"}
    for option in (words, ["evaluate", copy, "--ranks"]):
        refused("There is no folder", *option, tmp_path / "gone" / "file")
    refused("is a folder; name a file", *words, copy)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refused("is a device or a pipe; name a file", *words, tmp_path / "pipe")


def test_former_outputs_are_replaced(run, labelled, tmp_path):
    """Whatever their names end with."""
    pictures = labelled.parent / "pictures"
    ranks = tmp_path / "ranks.npz"
    np.savez(ranks, ranks=np.arange(3)[:, None])
    assert run("evaluate", labelled)[0] == 0
    for words in (
        ("groups", labelled, "--csv", "groups"),
        ("evaluate", labelled, "--json", "scores.json"),
        ("evaluate", "--ranks", ranks, "--collection", pictures, "--json", "scores"),
        ("describe", pictures / "a.png", "--method", "sir", "--size", 96, "--out", "features"),
        ("plot", "evaluation", labelled, "--out", "figure.svg"),
        ("plot", "keypoints", pictures / "a.png", "--out", "figure.png"),
    ):
        for _ in range(2):
            code, _, error = run(*words[:-1], tmp_path / words[-1])
            assert (code, (tmp_path / words[-1]).is_file()) == (0, True), error


def test_a_large_file_is_not_read_to_see_who_wrote_it(refused, labelled, tmp_path):
    """3 GB were, and took as much memory."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(300_000_000)  # takes no room on the disk
    tracemalloc.start()
    refused("did not write it", "groups", labelled, "--csv", large)
    refused("did not write it", "evaluate", labelled, "--json", large)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_a_folder_without_the_right_to_write_is_known_at_once(refused, labelled, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != labelled.parent)
    for words in (("groups", labelled, "--csv"), ("evaluate", labelled, "--json")):
        refused("nothing can be written there", *words, labelled.parent / "file")


def test_ground_truth_is_not_replaced_by_scores(refused, tmp_path):
    truth = tmp_path / "truth.json"
    truth.write_text("kept")
    refused("did not write it", "evaluate", "--ranks", tmp_path / "r.npz", "--ground-truth",
            truth, "--json", truth)  # fmt: skip
    assert truth.read_text() == "kept"


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


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="Path.exists hides errors: later steps meet them"
)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOTCONN, errno.ENAMETOOLONG])
def test_a_folder_in_which_nothing_can_be_looked_at(refused, tmp_path, monkeypatch, number):
    """Of somebody else, or of a disk or a network that is gone, or with a name that is too long."""
    other, stat = tmp_path / "other", os.stat

    def failing(path, *args, **options):
        if isinstance(path, Path) and path.parent == other:
            raise OSError(number, os.strerror(number), str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", failing)
    sentence = f"/other/{{}} cannot be used: {os.strerror(number)}"
    refused(sentence.format("a"), "index", "town", "--method", "sir", "--out", other / "a")
    refused(sentence.format("b"), "evaluate", "--ranks", other / "b", "--collection", "town")
