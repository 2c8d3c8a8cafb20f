"""The search page with indexes and pictures that are gone, changed or hostile."""

import dataclasses
import hashlib
import shutil

import pytest
from attack.indexes import edited
from search_app import GREEN, RED, Colours, encoded, go, hits, picture, start, text

from pages.parts import loaders, notices
from retrieval import index
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.networks import checkpoints


def test_what_others_wrote_is_no_markdown(little):
    """A link, or a file name, that would make the browser ask another host for a picture."""
    picture_elsewhere = "![x](https://evil.example/a.png)"
    app = start(then=picture_elsewhere)
    assert r"\!\[x\]\(https" in app.warning[0].value
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload(f"{picture_elsewhere}.png", b"?", "image/png").run()
    assert r"\!\[x\]\(https" in app.error[0].value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>404</html>",
        encoded(picture(RED), "JPEG")[:300],
        encoded(picture(RED, size=(1, 1))),
    ],
    ids=["empty", "html", "half a JPEG", "1x1"],
)
def test_an_unreadable_upload_is_explained(little, data):
    app = start()
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("mine.jpg", data, "image/jpeg").run()
    assert len(app.error) == 1
    assert r"mine\.jpg" in app.error[0].value
    assert not app.exception


def test_an_index_deleted_while_running(little):
    app = go(start())
    (little.indexes["cnn-irwnha"] / "manifest.json").unlink()
    app.selectbox(key="prepared").set_value(1).run()
    assert r"manifest\.json" in app.error[0].value
    assert not app.exception


def test_an_index_of_another_list_of_pictures(little, monkeypatch):
    fewer = dataclasses.replace(little.collection, names=little.collection.names[:5], queries=())
    monkeypatch.setattr(loaders, "collection", lambda name: fewer)
    app = go(start())
    assert "another list of pictures" in app.error[0].value


def test_an_edited_index_is_refused(little, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path))
    path = little.indexes["cnn-irwnha"] / "descriptors.npy"
    path.write_bytes(path.read_bytes()[:-10] + b"0123456789")
    said = go(start()).error[0].value.replace("\\", "")
    assert said.startswith(
        "descriptors.npy in the index indexes/cnn-irwnha does not have the checks"
    )


def test_an_index_names_no_file_of_weights(little, tmp_path):
    """Whatever lies there would be loaded, and run where it is a SavedModel."""
    theirs = shutil.copy(checkpoints.REGISTRY["gem-lite0"].path, tmp_path / "theirs.pth")
    named = {"id": str(theirs), "sha256": hashlib.sha256(theirs.read_bytes()).hexdigest()}
    edited(little.indexes["cnn-irwnha"], lambda m: m.update(checkpoint=named))
    assert "is no registered checkpoint" in go(start()).error[0].value


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (collections.PRECOMPUTED / "town" / "sir", "precomputed/town/sir"),
        ("/tmp/retrieval-own-42-x7/pictures", "pictures"),
        ("a name of a picture", "a name of a picture"),
    ],
)
def test_visitors_are_not_told_where_files_are(path, shown):
    said = notices.sentence(RetrievalError(f"The index {path} is damaged."))
    assert said.replace("\\", "") == f"The index {shown} is damaged."


@pytest.fixture
def show_names(stand_in, tmp_path, monkeypatch):
    """``show_names(*names)``: the page has one indexed collection, of pictures with these names."""

    def call(*names):
        folder = tmp_path / "odd"
        folder.mkdir()
        for n, name in enumerate(names):
            picture((60 * n + 40, 90, 30)).save(folder / name)
        opened = dataclasses.replace(collections.open_collection(folder), name="odd", title="Odd")
        index.build(opened, Colours("cnn-irwnha"), tmp_path / "index")
        monkeypatch.setattr(loaders, "collection_titles", lambda: {"odd": "Odd"})
        monkeypatch.setattr(loaders, "collection", lambda name: opened)
        monkeypatch.setattr(index, "find", lambda name: {"cnn-irwnha": tmp_path / "index"})

    return call


def test_names_are_text_not_markup(show_names):
    show_names(":red[x] **b**.png", "$x^2$ <script>.png", "[a](http:b).png")
    app = go(start())
    assert r"\$x\^2\$ \<script\>\.png" in text(start())
    assert r"\:red\[x\] \*\*b\*\*\.png" in text(app)


def test_why_this_result_of_names_with_two_underscores(show_names):
    """'Why this result?' ended in a traceback: __ separates parts of the names of components."""
    show_names("photo__0.png", "photo__1.png", "photo__2.png")
    app = go(start())
    app.button(key="open-cnn-irwnha-0").click().run()
    assert not app.exception, app.exception


def test_pictures_that_are_not_here(little, monkeypatch, tmp_path):
    away = dataclasses.replace(little.collection, root=tmp_path / "gone")
    monkeypatch.setattr(loaders, "collection", lambda name: away)
    app = start()
    assert "not on this machine" in app.info[0].value
    app.file_uploader(key="upload").upload("mine.png", encoded(picture(GREEN)), "image/png").run()
    assert hits(go(app))[0] == "1: green_0.png"


def test_an_index_that_is_deleted_while_a_result_is_open(little, monkeypatch):
    app = go(start())
    app.button(key="open-cnn-irwnha-4").click().run()
    monkeypatch.setattr(index, "find", lambda name: {})
    app.button(key="step-Next").click().run()
    assert not app.exception, app.exception
    assert "There is no CNN-IRwNHA index" in app.info[-1].value


def test_an_index_that_is_replaced_between_the_search_and_its_pictures(little, monkeypatch):
    def pair_cosines(path, collection):
        raise RetrievalError("It was made of another list of pictures.")

    monkeypatch.setattr(loaders, "pair_cosines", pair_cosines)
    assert "another list of pictures" in go(start(fold="yes")).error[0].value
