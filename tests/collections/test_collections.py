import hashlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stubs import refused

from retrieval.collections import collection as collections
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(collections, "PRECOMPUTED", tmp_path / "precomputed")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "my pictures"
    for name in ("b.JPG", "a.png", "sub/deep/c.webp", "notes.txt", ".hidden.jpg", ".git/d.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not looked into")
    return root


def test_folder_is_scanned_sorted_and_recursively(folder):
    found = open_collection(folder)
    assert found.names == ("a.png", "b.JPG", "sub/deep/c.webp")
    assert len(found) == 3
    assert (found.name, found.title) == ("my pictures", "my pictures")
    assert found.path("sub/deep/c.webp") == folder / "sub" / "deep" / "c.webp"
    assert found.has_pictures
    assert found.queries == ()
    assert found.protocols == ()


def test_links_that_leave_the_folder_are_left_out(folder, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "e.jpg").write_bytes(b"x")
    (folder / "leak.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "leak").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(folder)
    (folder / "broken.jpg").symlink_to(folder / "gone.jpg")
    (folder / "inside.jpg").symlink_to(folder / "b.JPG")
    os.mkfifo(folder / "pipe.jpg")
    assert open_collection(folder).names == ("a.png", "b.JPG", "inside.jpg", "sub/deep/c.webp")


def test_folders_in_folders(folder):
    """Of a thousand, as tar unpacks them, Python 3.11 made a traceback."""
    (folder / Path(*["x"] * 201)).mkdir(parents=True)
    refused("more than 200 folders inside each other", open_collection, folder)


def test_one_picture_under_several_names(folder):
    """./a.png and .//a.png were described as two pictures."""
    named = {"database": ["./a.png", "sub//deep/c.webp"], "queries": [{"image": ".//a.png"}]}
    named["queries"][0]["easy"] = ["./a.png"]
    (folder / "ground_truth.json").write_text(json.dumps(named))
    found = open_collection(folder)
    assert found.names == ("a.png", "sub/deep/c.webp")
    assert found.queries[0].name == "a.png"
    assert found.queries[0].labels["easy"].tolist() == [0]
    named["database"].append("a.png")
    (folder / "ground_truth.json").write_text(json.dumps(named))
    refused("database has a.png twice", open_collection, folder)


def test_tables_beside_pictures_spell_names_as_ground_truth_does(folder):
    """./a.png in metadata.csv and credits.json belonged to no picture: its author was not shown."""
    (folder / "ground_truth.json").write_text(json.dumps({"database": ["./a.png", "./b.JPG"]}))
    (folder / "metadata.csv").write_text("name,year\n./a.png,1900\nb.JPG,1910\n")
    made_by = {"title": "", "author": "Ann", "licence": "CC0", "licence_url": "", "page": ""}
    (folder / "credits.json").write_text(json.dumps({"pictures": {"./a.png": made_by}}))

    opened = open_collection(folder)

    assert opened.metadata == {"a.png": {"year": 1900}, "b.JPG": {"year": 1910}}
    assert opened.credits["a.png"].author == "Ann"


def test_a_folder_that_cannot_be_read_is_left_out_and_named(folder, monkeypatch):
    scan = os.scandir

    def scandir(path="."):
        if str(path).endswith("/sub"):
            raise OSError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = open_collection(folder)
    assert found.names == ("a.png", "b.JPG")
    assert found.note == (
        "1 folder of this collection cannot be read, and the pictures there are left out: sub "
        "(Permission denied)."
    )


def test_a_link_to_the_folder_itself_is_fine(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(open_collection(tmp_path / "link")) == 3


def test_names_that_are_no_text(folder):
    os.rename(os.fsencode(folder / "a.png"), os.fsencode(folder) + b"/\xff:\\ \n.png")
    found = open_collection(folder)
    assert found.path(found.names[-1]).is_file()
    assert len(found.fingerprint) == 64


def test_fingerprint_is_of_the_ordered_names(folder):
    found = open_collection(folder)
    assert found.fingerprint == hashlib.sha256(b"a.png\0b.JPG\0sub/deep/c.webp").hexdigest()
    (folder / "b.JPG").rename(folder / "c.JPG")
    assert open_collection(folder).fingerprint != found.fingerprint


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "a/../../b", "x\0y"])
def test_path_stays_in_the_folder(folder, name):
    with pytest.raises(RetrievalError, match="path below the folder"):
        open_collection(folder).path(name)


def test_nothing_to_open(tmp_path):
    with pytest.raises(RetrievalError, match=r"no folder and no collection called nope; .*town"):
        open_collection("nope")
    (tmp_path / "file.jpg").write_bytes(b"x")
    with pytest.raises(RetrievalError, match="is a file"):
        open_collection(tmp_path / "file.jpg")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RetrievalError, match="it is empty"):
        open_collection(empty)
    (empty / "a.txt").write_text("x")
    with pytest.raises(RetrievalError, match=r"none of its 1 files ends in .*\.jpg"):
        open_collection(empty)


def test_folder_with_ground_truth(folder):
    (folder / "ground_truth.json").write_text(
        json.dumps(
            {
                "database": ["a.png"],
                "queries": [{"image": "b.JPG", "bbox": None, "easy": ["a.png"]}],
            }
        )
    )
    found = open_collection(folder)
    assert found.names == ("a.png",)
    assert found.queries[0].name == "b.JPG"
    assert found.protocols == ("easy", "medium")
    (folder / "ground_truth.json").write_text('{"database": []}')
    with pytest.raises(RetrievalError, match="lists no pictures"):
        open_collection(folder)


def test_folder_with_classic_text_files(folder):
    for kind, text in {"query": "a 0 0 5 5", "good": "b", "ok": "", "junk": "c"}.items():
        (folder / f"tower_1_{kind}.txt").write_text(text)
    found = open_collection(folder)
    assert found.names == ("a.png", "b.JPG", "sub/deep/c.webp")
    assert found.queries[0].name == "a.png"
    assert found.queries[0].labels["ok"].tolist() == [1]
    assert found.protocols == ("classic",)


@pytest.mark.parametrize("name", ["é" * 300, "a\0b"])
def test_a_folder_that_no_file_system_can_have(name):
    with pytest.raises(RetrievalError, match="no folder and no collection"):
        open_collection(name)


def test_embedded_collection():
    with pytest.raises(RetrievalError, match="not in this checkout"):
        open_collection("town")
    town = collections.PRECOMPUTED / "town"
    (town / "images").mkdir(parents=True)
    (town / "images" / "a.jpg").write_bytes(b"x")
    (town / "ground_truth.json").write_text(
        json.dumps(
            {
                "imlist": ["a.jpg"],
                "qimlist": ["a.jpg"],
                "landmarks": ["Gate"],
                "gnd": [{"bbx": [0, 0, 9, 9], "easy": [0], "hard": [], "junk": []}],
            }
        )
    )
    found = open_collection("town")
    assert (found.name, found.queries[0].landmark) == ("town", "Gate")
    assert found.path("a.jpg") == town / "images" / "a.jpg"
    assert found.has_pictures


def test_registered_collections():
    names = [entry.name for entry in collections.registered()]
    benchmarks = ["oxford5k", "paris6k", "roxford5k", "rparis6k"]
    photographs = ["oxford-commons", "paris-commons", "world-commons"]
    assert names == ["town", *benchmarks, *photographs]
    assert not any(entry.available for entry in collections.registered())
    with pytest.raises(RetrievalError, match="python -m retrieval download roxford5k"):
        open_collection("roxford5k")
    with pytest.raises(RetrievalError, match="download commons --preset paris"):
        open_collection("paris-commons")


def test_a_place_that_cannot_be_looked_into_holds_no_collections(folder, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_DATA", "/" + "d" * 300)  # an error, as without rights
    assert not any(entry.available for entry in collections.registered())
    with pytest.raises(RetrievalError, match="python -m retrieval download roxford5k"):
        open_collection("roxford5k")
    assert not replace(open_collection(folder), root=collections.data_folder()).has_pictures


def test_registered_collection_without_pictures():
    path = collections.data_folder() / "roxford5k" / "gnd_roxford5k.pkl"
    path.parent.mkdir(parents=True)
    gnd = {
        "imlist": [f"oxford_{i:06}" for i in range(4993)],
        "qimlist": [f"keble_{i:06}" for i in range(70)],
        "gnd": [{"bbx": [0, 0, 9, 9], "easy": [0], "hard": [], "junk": []}] * 70,
    }
    path.write_bytes(pickle.dumps(gnd))
    found = open_collection("roxford5k")
    assert found.names[0] == "oxford_000000.jpg"
    assert not found.has_pictures
    assert found.path(found.names[0]) == (
        collections.data_folder() / "oxford5k" / "jpg" / "oxford_000000.jpg"
    )
    found.path(found.names[0]).parent.mkdir(parents=True)
    found.path(found.names[0]).write_bytes(b"x")
    assert open_collection("roxford5k").has_pictures
    path.write_bytes(pickle.dumps(gnd | {"imlist": gnd["imlist"][:-1]}))
    with pytest.raises(RetrievalError, match="lists 4992 pictures and 70 queries, but ROxford5k"):
        open_collection("roxford5k")


def test_import_brings_nothing_heavy():
    code = (
        "import sys, retrieval.collections; "
        "print({'torch', 'PIL', 'scipy', 'tensorflow', 'streamlit'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="Path.exists hides errors: the folder counts as empty"
)
def test_a_folder_that_the_system_does_not_look_into(tmp_path):
    folder = tmp_path
    while len(str(folder)) < 3900:
        folder /= "d" * 180
    folder /= "d" * (4090 - len(str(folder)) - 1)
    folder.mkdir(parents=True)
    with pytest.raises(RetrievalError, match="json cannot be read: File name too"):
        open_collection(folder)


def test_a_user_without_a_home(tmp_path, monkeypatch):
    """As in containers that give each user a number: nothing started there."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("RETRIEVAL_DATA")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    monkeypatch.chdir(tmp_path)
    assert collections.data_folder() == tmp_path / ".cache" / "retrieval"
    with pytest.raises(RetrievalError, match="There is no folder"):
        open_collection("~/pictures")


def test_a_text_file_of_another_kind_beside_the_pictures(tmp_path, drawn):
    """The folder could not be opened: it was to hold the classic authors' files too."""
    drawn(1).save(tmp_path / "a.png")
    (tmp_path / "my_query.txt").write_text("select 1")
    assert open_collection(tmp_path).names == ("a.png",)
