"""What the owner of the app allows each visitor to bring."""

import io
import itertools
import json
import tempfile
import zipfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from pages.parts import loaders, own_pictures, own_uploads, turns
from retrieval import images
from retrieval.errors import RetrievalError


def upload(name, padding=0):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "PNG")
    data = buffer.getvalue() + bytes(padding)
    return SimpleNamespace(name=name, size=len(data), getvalue=lambda: data)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RETRIEVAL_OWN_FILES", "1", "more than 1 files"),
        ("RETRIEVAL_OWN_MB", "1", "more than 1 MB together"),
        ("RETRIEVAL_OWN_MB", "plenty", "RETRIEVAL_OWN_MB is a whole number from 1"),
    ],
)
def test_more_than_the_owner_allows_is_refused(monkeypatch, variable, value, words):
    files = [upload("a.png", 600_000), upload("b.png", 600_000)]
    assert own_pictures._bring_uploads(files).collection.names == ("a.png", "b.png")
    monkeypatch.setenv(variable, value)
    with pytest.raises(RetrievalError, match=words):
        own_pictures._bring_uploads(files)


def test_several_zips_are_counted_together(monkeypatch):
    """Each was allowed all the files: a hundred zips of 200 kB were 200,000 pictures."""
    zips = []
    for name in ("a.zip", "b.zip"):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for picture in ("1.png", "2.png"):
                archive.writestr(picture, upload(picture).getvalue())
        file.name, file.size = name, len(file.getvalue())
        zips.append(file)
    monkeypatch.setenv("RETRIEVAL_OWN_FILES", "4")
    assert len(own_pictures._bring_uploads(zips).collection.names) == 4
    monkeypatch.setenv("RETRIEVAL_OWN_FILES", "3")
    with pytest.raises(RetrievalError, match="more than 3 files"):
        own_pictures._bring_uploads(zips)


def test_nothing_is_unpacked_after_the_app_has_ended(monkeypatch, tmp_path):
    """After Ctrl+C and SIGTERM up to 85 pictures of a visitor stayed on the disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    class Zip(io.BytesIO):
        name = "mine.zip"
        ended = False

        def read(self, size=-1):
            if sum(path.is_file() for path in tmp_path.rglob("*")) == 3:
                own_uploads.delete_all()
                self.ended = True
            return super().read(size)

    file = Zip()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(10):
            archive.writestr(f"{number % 2}/{number}.png", upload("a").getvalue())
    file.size = len(file.getvalue())
    with pytest.raises(RetrievalError, match=r"mine\.zip could not be unpacked"):
        own_pictures._bring_uploads([file])
    assert file.ended
    assert not list(tmp_path.iterdir())


def test_several_zips_have_the_time_of_one(monkeypatch):
    """Zips of files that share a megabyte: twenty of 5 s each kept others waiting for 100 s."""
    zips = []
    for name in ("a.zip", "b.zip", "c.zip"):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("1.png", upload("1.png").getvalue())
        file.name, file.size = name, len(file.getvalue())
        zips.append(file)
    clock = itertools.count(0, 2)
    monkeypatch.setattr(own_uploads, "thread_time", lambda: next(clock))
    assert len(own_pictures._bring_uploads(zips[:2]).collection.names) == 2
    with pytest.raises(RetrievalError, match="zips take too long to unpack"):
        own_pictures._bring_uploads(zips)


@pytest.mark.parametrize("text", ["~nobody-of-this-name/x", "a\0b", "/etc"])
def test_a_folder_that_is_none(monkeypatch, tmp_path, text):
    monkeypatch.setenv("RETRIEVAL_ALLOW_FOLDERS", str(tmp_path))
    with pytest.raises(RetrievalError, match="may not read the folder"):
        own_pictures._bring_folder(text)


def test_names_that_no_browser_can_show(monkeypatch, tmp_path):
    """Each page ended in a traceback, as long as the session lasted."""
    monkeypatch.setenv("RETRIEVAL_ALLOW_FOLDERS", str(tmp_path))
    (tmp_path / "a.png").write_bytes(upload("a.png").getvalue())
    truth = {"imlist": ["a.png"], "qimlist": ["\udce9.png"], "gnd": [{"ok": [0]}]}
    (tmp_path / "ground_truth.json").write_text(json.dumps(truth))
    with pytest.raises(RetrievalError, match="is not in UTF-8"):
        own_pictures._bring_folder(str(tmp_path))
    (tmp_path / "ground_truth.json").unlink()
    assert own_pictures._bring_folder(str(tmp_path)).collection.names == ("a.png",)


def test_names_that_no_browser_can_show_in_an_installed_collection(monkeypatch, tmp_path):
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path))
    file = tmp_path / "oxford-commons" / "ground_truth.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"database": ["\udce9.png"]}))
    with pytest.raises(RetrievalError, match="is not in UTF-8"):
        loaders.collection("oxford-commons")
    file.write_text(json.dumps({"database": ["é.png"]}))
    assert loaders.collection("oxford-commons").names == ("é.png",)


def test_large_tables_are_refused():
    """16 MB of brackets kept everybody waiting for a second."""
    table = b'[{"name": "a.png", "year": 1900}]'
    files = [upload("a.png"), SimpleNamespace(name="t.json", size=len(table))]
    files[1].getvalue = lambda: table
    assert own_pictures._bring_uploads(files).collection.metadata == {"a.png": {"year": 1900}}
    files[1].size = own_uploads.MAX_TABLE_BYTES + 1
    with pytest.raises(RetrievalError, match="has more than 4 MB"):
        own_pictures._bring_uploads(files)


def test_pictures_have_the_pixels_that_the_owner_allows(monkeypatch, tmp_path):
    """To search with, to be shown, and to be indexed."""
    monkeypatch.setenv(images.MEGAPIXELS, "1")
    large = tmp_path / "large.png"
    Image.new("RGB", (1200, 900)).save(large)
    for read in (loaders.decoded, lambda path: loaders.view(path, 100)):
        with pytest.raises(RetrievalError, match="more than the 1 megapixels allowed"):
            read(large)


@pytest.mark.parametrize(
    ("free", "total", "enough"),
    [(2e9, 1e12, True), (1e9, 1e12, False), (9e8, 1e9, True), (9e7, 1e9, False)],
)
def test_some_of_the_disk_stays_free(monkeypatch, free, total, enough):
    """Forty small zips of one client took 23 GB in a minute. In Docker, /tmp has 1 GB."""
    disk = SimpleNamespace(free=free, total=total)
    monkeypatch.setattr(own_uploads.shutil, "disk_usage", lambda folder: disk)
    refused = pytest.raises(RetrievalError, match="no room for more pictures")
    with nullcontext() if enough else refused:
        assert own_pictures._bring_uploads([upload("a.png")]).collection.names == ("a.png",)


def test_a_client_leaves_as_much_of_the_disk_as_it_takes(monkeypatch):
    """Ten tabs with a zip of 0.6 MB each filled a disk of 5 GB for everybody."""
    client = "192.0.2.1"
    monkeypatch.setattr(own_uploads.turns, "client", lambda: client)
    disk = SimpleNamespace(free=2_000_000_000, total=1e12)
    monkeypatch.setattr(own_uploads.shutil, "disk_usage", lambda folder: disk)
    tabs = [own_pictures._bring_uploads([upload("a.png")]) for _ in range(2)]
    with open(Path(tabs[1].folder.name) / "index", "wb") as index:
        index.truncate(600_000_000)  # without a byte on the disk
    with pytest.raises(RetrievalError, match="no room for more pictures"):
        own_pictures._bring_uploads([upload("b.png")])
    client = "192.0.2.2"
    own_pictures._bring_uploads([upload("b.png")])
    client = "192.0.2.1"
    tabs[1].folder.cleanup()
    own_pictures._bring_uploads([upload("b.png")])


def test_large_tables_are_read_one_at_a_time(monkeypatch):
    """Twelve clients that brought 4 MB each kept another visitor's page waiting for 54 s."""
    opened, at_work = own_pictures._open_folder, []

    def opening(folder):
        at_work.append(turns.READERS._at_work.total())
        return opened(folder)

    monkeypatch.setattr(own_pictures, "_open_folder", opening)
    table = b"name,year\na.png,1900\n"
    files = [upload("a.png"), SimpleNamespace(name="t.csv", size=len(table))]
    files[1].getvalue = lambda: table
    own_pictures._bring_uploads(files)
    monkeypatch.setattr(own_pictures, "LARGE_TABLE", 10)
    assert own_pictures._bring_uploads(files).collection.metadata == {"a.png": {"year": 1900}}
    assert at_work == [0, 1]
