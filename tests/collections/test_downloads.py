"""Whole collections, from archives of the true layout."""

import gzip
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from file_server import gnd, listing, tgz

from retrieval.collections import collection as collections
from retrieval.collections import data_folder, downloads, open_collection, transfer
from retrieval.errors import RetrievalError
from retrieval.evaluation import published_descriptors as features

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"


def test_download_roxford5k_end_to_end(server, roxford, capsys):
    server.break_after["/oxbuild_images-v1.tgz"] = [20_000]
    said = []

    def say(text):
        said.append((text, len(server.asked)))

    downloads.download("roxford5k", say=say)
    assert "takes about 0.0 GB" in said[0][0]
    assert "are free" in said[0][0]
    assert said[0][1] == 0  # before anything was fetched
    collection = open_collection("roxford5k")
    assert collection.has_pictures
    assert all(collection.path(query.name).is_file() for query in collection.queries)
    assert listing(data_folder() / "oxford5k")[:2] == ["jpg", "jpg/oxford_000000.jpg"]
    assert listing(data_folder() / "downloads") in ([], [".lock"])  # the archive is gone
    asked = len(server.asked)
    downloads.download("roxford5k")
    assert len(server.asked) == asked  # nothing to do


def test_pictures_come_encrypted():
    """No hash of the archives is known, so nothing else would notice other pictures."""
    archives = [one for source in downloads.SOURCES.values() for one in source.archives]
    assert archives
    assert all(one.startswith("https://") for one in archives)


def test_paris_lies_in_two_archives_with_folders(server, monkeypatch):
    truth = gnd(6322, 70, "paris")
    names = [*truth["imlist"], *truth["qimlist"]]
    server.files["/gnd.pkl"] = pickle.dumps(truth)
    server.files["/paris_1-v1.tgz"] = tgz([f"paris/defense/{name}.jpg" for name in names[:3000]])
    server.files["/paris_2-v1.tgz"] = tgz([f"paris/louvre/{name}.jpg" for name in names[3000:]])
    source = downloads.Source(
        (f"{server.root}/paris_1-v1.tgz", f"{server.root}/paris_2-v1.tgz"),
        f"{server.root}/gnd.pkl",
        1_000_000,
    )
    monkeypatch.setitem(downloads.SOURCES, "rparis6k", source)
    downloads.download("rparis6k")
    assert len(list((data_folder() / "paris6k" / "jpg").iterdir())) == 6392
    assert open_collection("rparis6k").has_pictures


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[: len(data) // 2], "damaged or not complete"),
        (lambda data: b"<html>Please log in</html>", "neither a zip nor a tar"),
        (lambda data: tgz(["../../evil.jpg"]), "outside the folder"),
        (lambda data: tgz(["oxford_000000.jpg"]), "lack 5062 of 5063 pictures"),
        (lambda data: tgz(["a/x.jpg", "b/x.jpg"]), r"hold x\.jpg twice"),
        (lambda data: gzip.compress(bytes(150_000_000), 1), "larger than"),
        (lambda data: tgz(["x" * 300 + ".jpg"]), "too long for this disk"),
    ],
)
def test_bad_archives_leave_no_collection(server, roxford, spoil, words):
    archive = "/oxbuild_images-v1.tgz"
    good = server.files[archive]
    server.files[archive], server.etags[archive] = spoil(good), '"bad"'
    with pytest.raises(RetrievalError, match=words):
        downloads.download("roxford5k")
    assert not any(path.suffix == ".jpg" for path in data_folder().parent.rglob("*"))
    opened = open_collection("roxford5k")
    assert not opened.has_pictures  # but it can be scored against
    server.files[archive], server.etags[archive] = good, '"good"'
    downloads.download("roxford5k")
    assert open_collection("roxford5k").has_pictures
    assert opened.has_pictures, "the app has opened it before"


def test_wrong_ground_truth(server, roxford):
    server.files["/gnd_roxford5k.pkl"] = pickle.dumps(roxford | {"imlist": roxford["imlist"][1:]})
    with pytest.raises(RetrievalError, match="4992 pictures and 70 queries instead of 4993 and 70"):
        downloads.download("roxford5k")
    server.files["/gnd_roxford5k.pkl"] = b"cos\nsystem\n(S'touch EVIL'\ntR."
    with pytest.raises(RetrievalError, match="refused"):
        downloads.download("roxford5k")
    assert not collections._ENTRIES["roxford5k"].available


def test_ground_truth_of_another_hash(server, roxford, monkeypatch):
    """The authors' files come without encryption, so what they are is compared."""
    source = replace(downloads.SOURCES["roxford5k"], ground_truth_sha256="ab" * 32)
    monkeypatch.setitem(downloads.SOURCES, "roxford5k", source)
    with pytest.raises(RetrievalError, match="instead of abababababababab"):
        downloads.download("roxford5k")
    assert not collections._ENTRIES["roxford5k"].available


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the authors' files are not here")
@pytest.mark.parametrize("name", ["oxford5k", "paris6k", "roxford5k"])
def test_hashes_are_those_of_the_authors_files(name):
    data = (REFERENCE / f"gnd_{name}.pkl").read_bytes()
    assert hashlib.sha256(data).hexdigest() == downloads.SOURCES[name].ground_truth_sha256


def test_no_room_for_the_collection(server, roxford, monkeypatch):
    usage = type("Usage", (), {"free": 1_500_000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        RetrievalError, match=r"ROxford5k needs 2 MB .* 1\.5 MB are free; make room"
    ):
        downloads.download("roxford5k")
    assert server.asked == []


def test_full_disk_while_unpacking_keeps_the_archive(server, roxford, monkeypatch):
    def full(*args, **options):
        raise RetrievalError("No room.") from OSError(28, "No space left on device")

    monkeypatch.setattr(downloads, "unpack", full)
    with pytest.raises(RetrievalError, match="No room"):
        downloads.download("roxford5k")
    assert (data_folder() / "downloads" / "oxbuild_images-v1.tgz").is_file()


def test_unknown_download():
    with pytest.raises(RetrievalError, match="There is no download 'nope'; there are oxford5k"):
        downloads.download("nope")
    with pytest.raises(RetrievalError, match="There is no download 'town'"):
        downloads.download("town")


def test_every_source_has_a_collection_and_an_address():
    entries = {entry.name: entry for entry in collections.registered()}
    for name, source in downloads.SOURCES.items():
        assert entries[name].images
        for address in (*source.archives, source.ground_truth):
            transfer.check_address(address)
    for one in features.FEATURES.values():
        assert one.collection in entries
        transfer.check_address(one.address)
