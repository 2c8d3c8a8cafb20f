"""Indexes whose files were damaged or edited are refused with a sentence."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from attack.indexes import edit, forge
from index_folders import build, snapshot
from stubs import Grid, Thumbnail, paint, refused

from retrieval import index
from retrieval.index import layout


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A global and a local index of the same pictures."""
    root = tmp_path_factory.mktemp("whole")
    for seed in range(4):
        paint(root / "pictures" / f"{seed}.png", seed)
    for method in (Thumbnail(), Grid()):
        build(root / "pictures", root / method.kind, method)
    return root


@pytest.fixture
def damaged(whole, tmp_path):
    """``damaged(kind)``: the folder of a copy to be damaged."""

    def copy(kind):
        shutil.copytree(whole / kind, tmp_path / kind)
        index.load(tmp_path / kind)
        return tmp_path / kind

    return copy


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


LOCAL_FILES = ("images.json", *(f"{name}.npy" for name in layout.ARRAYS["local"]))


@pytest.mark.parametrize("name", LOCAL_FILES)
def test_every_file_is_checked(damaged, name):
    path = damaged("local")
    assert {file.name for file in path.iterdir()} == {"manifest.json", *LOCAL_FILES}
    data = (path / name).read_bytes()
    flip(path / name, -1)
    refused(f"{name} in the index .* does not have the checksum", index.load, path)
    (path / name).write_bytes(data[:-3])
    refused(f"{name} in the index .* bytes instead of {len(data)}", index.load, path)
    (path / name).write_bytes(data + b"\0")
    refused(f"{name} in the index .* bytes instead of", index.load, path)
    (path / name).unlink()
    refused(f"lacks its file {name}; delete it and index the collection again", index.load, path)
    (path / name).mkdir()
    refused(f"lacks its file {name}", index.load, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format=99), "has format version 99, this program reads"),
        (lambda m: m.update(format="1"), "has format version"),
        (lambda m: m.update(format=[[1] * 500]), "has format version"),
        (lambda m: m.pop("format") and None, "not of this program"),
        (lambda m: m.update(method="delf"), "edited or damaged"),
        (lambda m: m.update(kind="local"), "edited or damaged"),
        (lambda m: m.update(kind=["global"]), "edited or damaged"),
        (lambda m: m["settings"].update(size=320), "edited or damaged"),
        (lambda m: m.update(settings=[]), "edited or damaged"),
        (lambda m: m["checkpoint"].update(id="other"), "edited or damaged"),
        (lambda m: m["checkpoint"].update(sha256="cd" * 32), "edited or damaged"),
        (lambda m: m["collection"].update(name="other"), "edited or damaged"),
        (lambda m: m.update(pictures=3), "edited or damaged"),
        (lambda m: m.update(pictures="4"), "edited or damaged"),
        (lambda m: m.update(skipped=[{"name": "x", "reason": "y"}]), "edited or damaged"),
        (lambda m: m.pop("made") and None, "edited or damaged"),
        (lambda m: m.pop("sha256") and None, "edited or damaged"),
        (lambda m: m["files"].pop("images.json") and None, "edited or damaged"),
        (lambda m: m["files"].update({"../../etc/passwd": {}}), "edited or damaged"),
        (lambda m: [], "not of this program"),
        (lambda m: "text", "not of this program"),
        (lambda m: 5, "not of this program"),
    ],
)
def test_an_edited_manifest_is_noticed(damaged, change, words):
    path = damaged("global")
    edit(path / "manifest.json", change)
    refused(words, index.load, path)


@pytest.mark.parametrize(
    "text", ["", "{", "not JSON", "[" * 100_000, '{"format": ' * 5000, "\ufeff{}", "NaN", "null"]
)
@pytest.mark.parametrize("name", ["manifest.json", "images.json"])
def test_a_manifest_that_is_none(damaged, name, text):
    path = damaged("global")
    (path / name).write_text(text, "utf-8")
    if name == "images.json":
        forge(path)
    refused("index", index.load, path)
    (path / name).write_bytes(b"\xff\xfe\0\1")
    refused("index", index.load, path)


def replace_array(name, change):
    def damage(path):
        array = np.load(path / f"{name}.npy")
        array = array.copy()
        new = change(array)
        np.save(path / f"{name}.npy", array if new is None else new)

    return damage


def put(place, value):
    return lambda array: array.__setitem__(place, value)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("global", replace_array("descriptors", put((2, 1), np.nan))),
        ("global", replace_array("descriptors", put((0, 0), np.inf))),
        ("global", replace_array("descriptors", lambda a: a[:-1])),
        ("global", replace_array("descriptors", lambda a: a[:, :0])),
        ("global", replace_array("descriptors", lambda a: a.astype(np.float64))),
        ("global", replace_array("descriptors", lambda a: a.ravel())),
        ("global", replace_array("descriptors", lambda a: a[0, 0])),
        ("local", replace_array("offsets", lambda a: a[[0, 2, 1, 3, 4]])),
        ("local", replace_array("offsets", put(-1, 10**6))),
        ("local", replace_array("offsets", put(0, -1))),
        ("local", replace_array("offsets", lambda a: a[:-1])),
        ("local", replace_array("offsets", lambda a: a[:0])),
        ("local", replace_array("keypoints", put((0, 0), np.nan))),
        ("local", replace_array("keypoints", lambda a: a[:, :1])),
        ("local", replace_array("keypoints", lambda a: a[1:])),
        ("local", replace_array("scores", put(0, np.inf))),
        ("local", replace_array("scales", lambda a: a[:-1])),
        ("local", replace_array("descriptors", lambda a: a[:-1])),
        ("local", replace_array("codebook", put((0, 0), np.nan))),
        ("local", replace_array("codebook", lambda a: a[:-1])),
        ("local", replace_array("codebook", lambda a: a[:, :-1])),
        ("local", replace_array("word_starts", lambda a: a[::-1])),
        ("local", replace_array("word_starts", put(-1, 10**6))),
        ("local", replace_array("word_pictures", put(0, 4))),
        ("local", replace_array("word_pictures", put(0, -1))),
        ("local", replace_array("word_signs", lambda a: a[:-1])),
        ("local", replace_array("word_counts", lambda a: a[:-1])),
        ("global", lambda path: edit(path / "images.json", lambda i: i[:-1])),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(name="1.png"))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(name=7))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(width=-1))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(width=10**30))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].update(height="9"))),
        ("global", lambda path: edit(path / "images.json", lambda i: i[0].pop("sha256") and None)),
        ("global", lambda path: edit(path / "images.json", lambda i: {"images": i})),
        ("global", lambda path: edit(path / "images.json", lambda i: [])),
    ],
)
def test_contents_that_contradict_one_another(damaged, kind, damage):
    path = damaged(kind)
    damage(path)
    refused("does not have the checksum|instead of", index.load, path)
    forge(path)
    refused("contradict its manifest", index.load, path)


class Mark:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_arrays_that_are_none(damaged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = damaged("global")
    file = path / "descriptors.npy"
    np.save(file, np.array([[Mark()]], dtype=object), allow_pickle=True)
    forge(path)
    refused("descriptors.npy is not a plain numpy array", index.load, path)
    assert not Path("executed").exists()
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (99999999999, 99999999), }"
    huge = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    archive = path / "x.npz"
    np.savez(archive, a=np.zeros(3))
    for data in (b"", b"junk", b"\x93NUMPY\x01\x00", huge, archive.read_bytes()):
        file.write_bytes(data)
        forge(path)
        refused("descriptors.npy is not a plain numpy array", index.load, path)


def test_a_damaged_index_is_not_built_upon(photos, out):
    build(photos, out)
    flip(out / "descriptors.npy", -1)
    before = snapshot(out)
    refused("does not have the checksum .*delete it and index", build, photos, out)
    assert snapshot(out) == before


def test_no_index_at_all(tmp_path):
    refused("There is no index in .*nowhere: it has no manifest.json; .*makes one", index.load,
            tmp_path / "nowhere")  # fmt: skip
    refused("There is no index in", index.load, tmp_path)
