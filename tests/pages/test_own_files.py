"""File names of uploads: every one is kept, under a name that the file system takes."""

import io
import zipfile
from types import SimpleNamespace

import pytest
from PIL import Image

from pages.parts import own_pictures
from retrieval.errors import RetrievalError


def upload(name, colour="red"):
    data = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(data, "PNG")
    return SimpleNamespace(name=name, size=data.tell(), getvalue=data.getvalue)


def brought(*files):
    own = own_pictures._bring_uploads(list(files))
    kept = {name: (own.collection.root / name).read_bytes() for name in own.collection.names}
    own.folder.cleanup()
    return kept


@pytest.mark.parametrize("name", ["山" * 88 + ".png", "é" * 300 + ".png", "a" * 5000 + ".png"])
def test_long_names(name):
    (kept,) = brought(upload(name))
    assert kept.endswith(".png")
    assert kept[:20] == name[:20]


@pytest.mark.parametrize("name", [".png", "..png", "...a.png"])
def test_names_with_dots_before_them(name):
    """Of 43 pictures, '.jpg' and '..jpg' were left out without a word."""
    (kept,) = brought(upload(name))
    assert kept == ("a.png" if "a" in name else "picture.png")


def test_the_same_name_again():
    colours = ("red", "lime", "blue", "white")
    names = ("a (3).png", "a.png", "a.png", "a.png")
    kept = brought(*map(upload, names, colours))
    assert len(kept) == 4
    assert len(set(kept.values())) == 4, "none took the place of another"


@pytest.mark.parametrize(
    "name",
    ["../../x.png", "/etc/x.png", "a\0b.png", "-.png", "\n.png", "\udc80.png", "a\\..\\b.png"],
)
def test_odd_names(name):
    assert len(brought(upload(name))) == 1


@pytest.mark.parametrize(
    "name", ["Tom & Jerry's house, front #1.png", "Cafe\u0301.png", "ที่นี่.png", "🏰 [50%] + 1.png"]
)
def test_names_stay_as_tables_and_ground_truth_have_them(name):
    table = f'name,place\n"{name}",here\n'.encode()
    file = SimpleNamespace(name="t.csv", size=len(table), getvalue=lambda: table)
    own = own_pictures._bring_uploads([upload(name), file])
    assert own.collection.names == (name,)
    assert own.collection.metadata == {name: {"place": "here"}}
    own.folder.cleanup()


def zip_of(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"trip/{name}", content)
    data.name = "trip.zip"
    return data


def test_a_table_in_a_zip():
    """It was left out without a word."""
    picture = upload("a.png").getvalue()
    table = "name,place\na.png,here\n"
    members = {"a.png": picture, "metadata.csv": table, "other.csv": "1", "metadata.json": "{}"}
    own = own_pictures._bring_uploads([zip_of(**members)])
    assert own.collection.metadata == {"trip/trip/a.png": {"place": "here"}}
    own.folder.cleanup()
    long = members | {"metadata.csv": table + 4_000_000 * " "}
    with pytest.raises(RetrievalError, match="has more than 4 MB"):
        own_pictures._bring_uploads([zip_of(**long)])
    with pytest.raises(RetrievalError, match="Bring one table"):
        own_pictures._bring_uploads([zip_of(**members), zip_of(**members)])


def test_other_tables_in_a_zip():
    """Those of folders inside refused the zip, and others counted as files that were brought."""
    table = "name,place\na.png,{}\n"
    members = {
        "a.png": upload("a.png").getvalue(),
        "x/metadata.csv": table.format("there"),
        "metadata.csv": table.format("here"),
        "boxes.csv": "1",
    }
    own = own_pictures._bring_uploads([zip_of(**members)])
    assert own.collection.metadata == {"trip/trip/a.png": {"place": "here"}}
    assert not [*own.collection.root.rglob("boxes.csv")]


def test_a_table_of_a_zip_names_pictures_with_their_folders():
    """A table that named them so was left out without a word."""
    members = {"x/a.png": upload("a.png").getvalue(), "y/a.png": upload("a.png").getvalue()}
    table = "name,place\nx/a.png,here\ny/a.png,there\n"
    own = own_pictures._bring_uploads([zip_of(**members, **{"metadata.csv": table})])
    assert own.collection.metadata == {
        "trip/trip/x/a.png": {"place": "here"},
        "trip/trip/y/a.png": {"place": "there"},
    }
    assert not own.collection.note
    table = "name,place\na.png,here\n"  # which of the two?
    own = own_pictures._bring_uploads([zip_of(**members, **{"metadata.csv": table})])
    assert own.collection.note.startswith("The table says nothing about these")


@pytest.mark.parametrize("files", [[zip_of(**{"metadata.csv": "name\na.png\n"})], []])
def test_tables_without_pictures(files):
    """The error named the private folder on the server."""
    with pytest.raises(RetrievalError, match=r"^There is no picture in these files"):
        own_pictures._bring_uploads(files)


def test_a_zip_of_other_files_names_the_endings_of_pictures():
    """It named metadata.csv among them, as if a table alone would do."""
    with pytest.raises(RetrievalError, match=r"no files ending in .*\.webp in it"):
        own_pictures._bring_uploads([zip_of(**{"notes.avif": "x"})])


def test_a_full_disk(monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(RetrievalError, match=r"a\.png cannot be kept here: No space left"):
        brought(upload("a.png"))
