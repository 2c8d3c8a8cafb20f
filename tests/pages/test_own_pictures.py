"""Pictures of one's own on the search page: brought, judged, evaluated, and deleted again."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from search_app import (
    BLUE,
    GREEN,
    RED,
    archive,
    box_field,
    bring,
    captions,
    encoded,
    go,
    hits,
    picture,
    start,
    text,
)
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.runtime.scriptrunner import StopException

from pages.parts import loaders, own_pictures, own_uploads, query, turns
from pages.parts.cache import Cache
from pages.parts.search import marking
from retrieval import images, index, methods
from retrieval.collections import archives, judgements
from retrieval.collections import collection as collections


def mark(app, place):
    """The buttons that mark a result. place: of the result, as 'sir-0'."""
    (buttons,) = (one for one in app.segmented_control if one.key.startswith(f"mark-{place}-"))
    return buttons


def end_connection():
    """What Streamlit does when the connection of a session breaks."""
    clear_session_resource_cache("test session id")  # of each AppTest


def test_what_a_killed_server_left_is_swept(tmp_path, nothing_installed, monkeypatch):
    """In a container a killed server has the process number of the next one: its folders stayed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, same, other_server, other = (
        tmp_path / name
        for name in (
            f"retrieval-own-{gone.pid}-x",
            f"retrieval-own-{os.getpid()}-x",
            f"retrieval-own-{os.getppid()}-x",
            "retrieval-x",
        )
    )
    for folder in (left, same, other_server, other):
        (folder / "pictures").mkdir(parents=True)
    kept = own_uploads.private_folder()
    own_uploads.delete_leftovers.clear()
    start()
    assert set(tmp_path.iterdir()) == {Path(kept.name), other_server, other}


def test_nothing_installed_explains_itself(nothing_installed):
    app = start()
    assert "No collection is installed" in app.info[0].value
    assert app.file_uploader(key="own_files")
    assert len(app.radio) == 0  # no way to name a folder


def test_own_pictures_from_a_zip(nothing_installed):
    files = {"a__red_png": picture(RED), "a__blue_png": picture(BLUE), "green_png": picture(GREEN)}
    app = bring(start(), "mine.zip", archive(**{n: encoded(p) for n, p in files.items()}))
    go(app)
    assert len(hits(app)) == 2  # the third one asks
    assert "query" not in app.query_params
    other = start()
    assert "own" not in other.session_state
    assert "No collection is installed" in other.info[0].value


def test_judgements_outlive_files_that_cannot_be_read(nothing_installed):
    files = {"red_png": picture(RED), "blue_png": picture(BLUE), "green_png": picture(GREEN)}
    app = go(bring(start(), "mine.zip", archive(**{n: encoded(p) for n, p in files.items()})))
    app.toggle(key="judging").set_value(True).run()
    mark(app, "cnn-irwnha-0").set_value("positive").run()
    assert "Judged by you: 1 query, 1 mark" in text(app)
    bring(app, "broken.png", b"no picture", "image/png")
    assert "could be read" in app.error[0].value
    app.run()
    assert "Judged by you: 1 query, 1 mark" in text(app)
    assert len(hits(app)) == 2


def test_marks_of_a_page_that_was_left_are_not_those_of_the_next(nothing_installed):
    """A click on the former page while the next one is on its way brings the marks of the former.

    They became marks of whatever pictures had the same places in the next.
    """
    files = {"red_png": picture(RED), "blue_png": picture(BLUE), "green_png": picture(GREEN)}
    app = go(bring(start(), "mine.zip", archive(**{n: encoded(p) for n, p in files.items()})))
    app.toggle(key="judging").set_value(True).run()
    mark(app, "cnn-irwnha-0").set_value("positive").run()
    left = mark(app, "cnn-irwnha-0")._widget_state
    names = app.session_state["own"].collection.names
    app.selectbox(key="database").select(names[-1]).run()
    late = app._tree.get_widget_states()
    late.widgets.append(left)
    app._run(late)
    assert "Judged by you: 1 query, 1 mark" in text(app)
    assert mark(app, "cnn-irwnha-0").value is None


def test_a_mark_that_comes_when_other_pictures_were_brought(colours_folder, monkeypatch):
    """It was an error, or where the names are the same, a mark of another picture."""
    collection = collections.open_collection(colours_folder)
    own = own_pictures.OwnPictures(collection, TemporaryDirectory())
    monkeypatch.setattr(own_pictures, "current", lambda: own)
    name = collection.names[0]
    marking._mark("", colours_folder / "before", name, None, name)
    marking._mark("", collection.root, name, None, "gone.png")
    assert own.collection is collection


def test_marks_are_hidden_only_where_the_option_is_drawn(nothing_installed):
    """It may be on from another collection; with wrong marks alone it could not be turned off."""
    files = {"red_png": picture(RED), "blue_png": picture(BLUE), "green_png": picture(GREEN)}
    pictures = archive(**{name: encoded(image) for name, image in files.items()})
    app = go(bring(start(hide="yes"), "mine.zip", pictures))
    app.toggle(key="judging").set_value(True).run()
    mark(app, "cnn-irwnha-0").set_value("wrong").run()
    assert not any(toggle.key == "hide" for toggle in app.toggle)
    assert hits(app)[0].endswith(", another place")


def test_own_results_are_judged_and_evaluated(nothing_installed, monkeypatch):
    # The last 24 evaluations stayed for all sessions, with the names of the pictures.
    monkeypatch.setattr(loaders, "_run", lambda *_: pytest.fail("an own evaluation"))
    shades = {f"red_{n}_png": picture((200 - 9 * n, 30, 30)) for n in range(3)}
    shades |= {"blue_png": picture(BLUE), "green_png": picture(GREEN)}
    app = bring(start(), "mine.zip", archive(**{n: encoded(p) for n, p in shades.items()}))
    app.selectbox(key="database").select("mine/red_0.png").run()
    first, second = (f"mine/{one.split(': ')[1]}" for one in hits(app)[:2])
    app.toggle(key="judging").set_value(True).run()
    assert "Judged by you: 0 queries, 0 marks" in text(app)
    assert app.button(key="judged-evaluate").disabled
    assert "as right" in app.button(key="judged-evaluate").help
    assert not any("legend" in one.value for one in app.html)

    mark(app, "cnn-irwnha-0").set_value("positive").run()
    mark(app, "cnn-irwnha-1").set_value("wrong").run()
    # It said pictures: one that is marked for several queries counted several times.
    assert "Judged by you: 1 query, 2 marks" in text(app)
    assert not app.button(key="judged-evaluate").help
    # Legend and sentence would move the results below a second quick click.
    right = "1 picture is right, judged by you. In the AP, pictures without a mark count as wrong."
    assert not any("legend" in one.value for one in app.html)
    assert right not in captions(app)
    app.toggle(key="judging").set_value(False).run()
    assert any("legend" in one.value for one in app.html)
    assert right in captions(app)
    app.toggle(key="judging").set_value(True).run()
    assert [one.split(", ")[1:] for one in hits(app)] == [
        ["same landmark"],
        ["another place"],
        [],
        [],
    ]
    first, second = (one.split(",")[0] for one in (first, second))
    mine = app.session_state["own"].collection
    assert judgements.verdicts(mine, mine.queries[0]) == {first: "positive", second: "wrong"}

    # The same marks stand in the rows of all methods, and can be given there.
    app.segmented_control(key="method").set_value("all").run()
    assert mark(app, "cnn-irwnha-0").value == "positive"
    mark(app, "cnn-irwnha-2").set_value("ignored").run()
    assert sorted(
        one.value for one in app.segmented_control if one.key.startswith("mark-sir-") if one.value
    ) == ["ignored", "positive", "wrong"]
    mark(app, "cnn-irwnha-2").set_value(None).run()
    app.segmented_control(key="method").set_value("cnn-irwnha").run()

    # Another query has no marks yet; its buttons do not show those of the first.
    app.selectbox(key="database").select("mine/blue.png").run()
    assert mark(app, "cnn-irwnha-0").value is None
    mark(app, "cnn-irwnha-3").set_value("positive").run()

    app.button(key="judged-evaluate").click().run()
    assert not app.exception, app.exception
    assert "# Evaluation" in [one.value for one in app.markdown]
    assert "Judged by you: 2 queries, 3 marks." in "".join(one.value for one in app.caption)
    scores = next(one.value for one in app.dataframe if "mAP Classic" in one.value.columns)
    # AP 1 for the first query; the second has its right picture last of four: (0 + 1/4) / 2.
    assert scores["mAP Classic"].tolist() == [56.25, 56.25]  # both methods order by colour
    assert not [key for key in loaders.CACHE._values if own_uploads.FOLDER_PREFIX in str(key)]


def test_own_ground_truth_from_a_file(nothing_installed):
    pictures = {"a_png": encoded(picture(RED)), "b_png": encoded(picture(BLUE))}
    app = go(bring(start(), "mine.zip", archive(**pictures)))
    app.toggle(key="judging").set_value(True).run()
    truth = {"imlist": ["b.png"], "qimlist": ["a.png"], "gnd": [{"ok": [0]}]}  # before the zip

    def use(content):
        app.file_uploader(key="judged-upload").upload("t.json", content, "application/json").run()
        assert not app.exception, app.exception

    use(b'{"imlist": ["<b>"], "qimlist": ["<b>"], "gnd": [{"ok": [0]}]}')
    assert "None of its queries is among these pictures" in app.error[0].value
    assert "<b>" not in app.error[0].value
    use(b" " * (9 << 20))  # the limit is for browsers: other programs can upload what they like
    assert "This file is larger than 4 MB" in app.error[0].value
    use(json.dumps(truth).encode())
    assert "Judged by you: 1 query, 1 mark" in text(app)


def test_labels_of_a_file_are_those_of_its_queries(nothing_installed):
    """Marks and AP are the same whether a box is exact or not, and with the query's own picture."""
    shades = {f"red_{n}_png": encoded(picture((200 - 9 * n, 30, 30))) for n in range(4)}
    app = go(bring(start(), "mine.zip", archive(**shades)))
    app.toggle(key="judging").set_value(True).run()
    names = [f"red_{n}.png" for n in range(4)]
    labels = {"easy": [0, 1], "hard": [2], "junk": [1]}
    boxes = [[0, 0, 33.3333333, 48], [-1, 0, 32, 48]]  # too long to be written out, and outside
    truth = {"imlist": names, "qimlist": names[:1] * 2, "gnd": [{"bbx": b} | labels for b in boxes]}
    app.file_uploader(key="judged-upload").upload(
        "t.json", json.dumps(truth).encode(), "application/json"
    ).run()
    app.segmented_control(key="source").set_value("Prepared").run()
    for number in range(2):
        app.selectbox(key="prepared").set_value(number).run()
        assert "2 of the first 3 right · AP 1.00" in text(app)
        app.toggle(key="judging").set_value(False).run()
        assert "2 of the first 3 right · AP 1.00" in text(app)
        assert "without its own picture" in captions(app)
        app.toggle(key="judging").set_value(True).run()
        mark(app, "cnn-irwnha-2").set_value("wrong").run()
        assert "Judged by you: 2 queries" in text(app)
    app.segmented_control(key="judge").set_value("hard").run()
    assert "1 of the first 3 right" in text(app)

    # Another picture of the same name is not that query.
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("red_0.png", encoded(picture(BLUE)), "image/png").run()
    box_field(app).set_value("0, 0, 33.3333333, 48").run()
    assert "of the first" not in text(app)


def test_a_box_is_not_kept_for_another_picture_of_the_same_name(nothing_installed, monkeypatch):
    """A click while pictures are indexed ends the run of the page; the others are in use then."""
    pictures = {"red_png": encoded(picture(RED)), "blue_png": encoded(picture(BLUE))}
    app = bring(start(), "mine.zip", archive(**pictures))
    go(app)
    box_field(app).set_value("1, 2, 30, 40").run()

    def clicked(*_):
        raise StopException

    built = own_pictures.build_index
    monkeypatch.setattr(own_pictures, "build_index", clicked)
    bring(app, "mine.zip", archive(**pictures))
    monkeypatch.setattr(own_pictures, "build_index", built)
    app.run()
    assert box_field(app).value == ""


def test_own_pictures_are_unpacked_in_turn(nothing_installed, monkeypatch):
    """Forty visitors' zips at once kept others waiting for six seconds for a page."""
    taken, unpack = [], archives.unpack

    def unpacked(*arguments, **options):
        taken.extend(kind for kind, _ in turns.taken)
        return unpack(*arguments, **options)

    monkeypatch.setattr(archives, "unpack", unpacked)
    app = bring(start(), "mine.zip", archive(a_png=encoded(picture(RED))))
    assert not app.error
    assert taken == ["pictures"]


def test_own_files_of_the_same_name_are_all_kept(nothing_installed):
    app = start()
    files = app.file_uploader(key="own_files")
    for colour in (RED, GREEN):
        data = encoded(picture(colour))
        files.upload("same.png", data, "image/png")
        files.upload("same.zip", archive(inside_png=data), "application/zip")
    app.run()
    app.button(key="own_index").click().run()
    assert not app.exception
    assert not app.error
    assert len(hits(go(app))) == 3  # the fourth one asks


def test_own_pictures_can_be_indexed_for_another_method_later(nothing_installed):
    files = archive(red_png=encoded(picture(RED)), blue_png=encoded(picture(BLUE)))
    app = bring(start(), "mine.zip", files)
    app.segmented_control(key="method").set_value("sir").run()
    go(app)
    app.button(key="build-sir").click().run()
    assert not app.exception
    assert app.download_button(key="csv-sir")


def test_a_picture_that_breaks_later_leaves_all_indexes(nothing_installed):
    """The index of the first method had one picture more, and could not be searched any more."""
    colours = {"red_png": RED, "blue_png": BLUE, "green_png": GREEN}
    data = archive(**{name: encoded(picture(colour)) for name, colour in colours.items()})
    app = bring(start(), "mine.zip", data)
    own = app.session_state["own"]
    own.collection.path("mine/red.png").write_bytes(b"no picture")
    for method in ("sir", "cnn-irwnha"):
        app.segmented_control(key="method").set_value(method).run()
        go(app)
        app.button(key=f"build-{method}").click().run()
        assert not app.error
        assert len(hits(app, method)) == 1  # the other one asks
    assert own.indexes.keys() == {"sir", "cnn-irwnha"}


def test_own_unreadable_pictures_are_listed(nothing_installed):
    data = archive(good_png=encoded(picture(RED)), bad_png=b"<html>not a picture</html>")
    app = bring(start(), "mine.zip", data)
    assert "1 file could not be read" in app.expander[1].label
    assert r"bad\.png" in text(app)
    assert "1 picture is in use" in text(app)
    assert hits(go(app)) == []
    assert not app.error, app.error
    assert "no other picture" in app.info[0].value


def test_own_pictures_with_too_many_pixels_are_left_out(nothing_installed, monkeypatch):
    monkeypatch.setenv(images.MEGAPIXELS, "1")
    large = encoded(picture(RED, size=(1200, 900)))
    app = bring(start(), "mine.zip", archive(a_png=encoded(picture(BLUE)), large_png=large))
    assert "1 file could not be read" in app.expander[1].label
    assert "more than the 1 megapixels allowed" in text(app)
    assert "1 picture is in use" in text(app)


@pytest.mark.parametrize(
    "data",
    [
        b"this is no zip",
        archive(notes=b"only a text file"),
        archive(**{"..__..__evil_png": encoded(picture(RED))}),
        archive(**{"inner.zip": archive(a_png=b"x")}),
        archive(bomb_png=bytes(501_000_000)),
    ],
    ids=["junk", "no pictures", "path escape", "nested", "bomb"],
)
def test_a_bad_zip_is_refused_and_nothing_is_kept(nothing_installed, data):
    app = bring(start(), "mine.zip", data)
    assert len(app.error) == 1
    assert "own" not in app.session_state


def test_the_private_folder_goes_with_the_session(nothing_installed, monkeypatch):
    monkeypatch.setattr(own_pictures, "DELETION_DELAY", 0.2)
    app = bring(start(), "red.png", encoded(picture(RED)), "image/png")
    first = Path(app.session_state["own"].folder.name)
    assert first.stat().st_mode & 0o077 == 0
    bring(app, "blue.png", encoded(picture(BLUE)), "image/png")
    own = app.session_state["own"]
    second = Path(own.folder.name)
    assert not first.exists()
    assert second.exists()
    end_connection()
    assert own.deletion
    own.deletion.join()
    assert not second.exists()


def test_reduced_copies_go_with_the_session(nothing_installed, monkeypatch):
    end_connection()  # that of the test before
    monkeypatch.setattr(loaders, "PRIVATE", Cache(1 << 24))
    files = archive(a_png=encoded(picture(RED)), b_png=encoded(picture(BLUE)))
    app = go(bring(start(), "mine.zip", files))
    assert hits(app)
    app.button(key="open-cnn-irwnha-0").click().run()
    assert not app.exception
    kept = [key for key in loaders.CACHE._values if own_uploads.FOLDER_PREFIX in str(key)]
    assert kept == []
    assert loaders.PRIVATE.bytes
    end_connection()
    assert not loaders.PRIVATE.bytes


def test_indexes_go_with_the_session(nothing_installed, monkeypatch):
    """The files of the last twelve stayed open for all sessions, and so on the disk."""
    for kept_for_everybody in ("_index", "preload"):
        monkeypatch.setattr(loaders, kept_for_everybody, lambda *_: pytest.fail("an own index"))
    files = archive(a_png=encoded(picture(RED)), b_png=encoded(picture(BLUE)))
    assert hits(go(bring(start(), "mine.zip", files)))


def test_results_about_a_folder_of_the_owner_go_with_the_index_of_the_visitor(
    tmp_path, drawn, monkeypatch
):
    """Its pictures stay where they are, but the index ends with the session."""
    caches = Cache(1 << 20), Cache(1 << 20)
    monkeypatch.setattr(loaders, "CACHE", caches[0])
    monkeypatch.setattr(loaders, "_session_cache", lambda: caches[1])
    monkeypatch.setattr(loaders, "_own_index", loaders._index)  # no session is here
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        drawn(number, (320, 240)).save(folder / f"{number}.png")
    collection = collections.open_collection(folder)
    out = tmp_path / f"{own_uploads.FOLDER_PREFIX}1-x" / "index"
    out.parent.mkdir()
    built = index.build(collection, methods.load("sir", size=64), out)
    asked = query.QueryPicture("0.png", folder / "0.png")
    assert loaders.search(built.path, "sir", collection, asked, None).names == ("1.png",)
    assert [bool(cache.bytes) for cache in caches] == [False, True]


def test_only_pictures_of_visitors_wait_for_those_of_visitors(little, tmp_path, monkeypatch):
    """Beside 25 tabs with slow PNGs, a map of 464 pictures took 157 s, now 19 s."""
    decoded = []
    for name in ("_visitors", "_collections"):
        decode = getattr(images, name).decode
        monkeypatch.setattr(
            getattr(images, name), "decode", lambda *a, n=name, d=decode: decoded.append(n) or d(*a)
        )
    monkeypatch.setenv(images.MEGAPIXELS, "999")  # as much as any picture may have

    def decoders(app):
        assert hits(app)
        used = set(decoded)
        decoded.clear()
        return used

    app = go(start())
    assert decoders(app) == {"_collections"}
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("mine.png", encoded(picture(GREEN)), "image/png").run()
    assert decoders(app) == {"_visitors"}
    files = archive(a_png=encoded(picture(RED)), b_png=encoded(picture(BLUE)))
    app = go(bring(start(collection="mine"), "mine.zip", files))
    assert decoders(app) == {"_visitors"}


def test_a_broken_connection_has_some_minutes_to_come_back(
    nothing_installed, colours_folder, monkeypatch
):
    monkeypatch.setattr(own_pictures, "DELETION_DELAY", 0.2)
    kept, dropped = (
        own_pictures.OwnPictures(collections.open_collection(colours_folder), TemporaryDirectory())
        for _ in range(2)
    )
    kept.delete_later()
    kept.keep()
    dropped.delete_later()
    dropped.deletion.join()
    assert not Path(dropped.folder.name).exists()
    assert Path(kept.folder.name).exists()
    kept.folder.cleanup()


@pytest.fixture
def server(monkeypatch):
    """A server: ``connected`` and ``away`` are its sessions, with and without a connection."""
    made = SimpleNamespace(connected=set(), away={})
    made.is_active_session = lambda session: session in made.connected
    made._session_mgr = SimpleNamespace(_session_storage=made.away)
    monkeypatch.setattr(own_pictures.runtime, "exists", lambda: True)
    monkeypatch.setattr(own_pictures.runtime, "get_instance", lambda: made)
    return made


def test_a_browser_that_is_connected_again_need_not_ask_for_the_page(
    server, colours_folder, monkeypatch
):
    """Nor one whose connection has broken again: it may come back for two minutes."""
    server.connected.add("mine")
    monkeypatch.setattr(own_pictures, "DELETION_DELAY", 0.2)
    folder = TemporaryDirectory()
    own = own_pictures.OwnPictures(
        collections.open_collection(colours_folder), folder, session="mine"
    )
    own.delete_later()
    own.deletion.join()
    server.away["mine"] = "its session"
    server.connected.clear()
    own.deletion.join()
    assert Path(folder.name).exists()
    server.away.clear()
    while Path(folder.name).exists():
        own.deletion.join()


def test_replaced_pictures_are_forgotten_while_the_visitor_is_connected(
    server, colours_folder, monkeypatch
):
    """Each time that a visitor brought other pictures, a thread and the former table stayed."""
    server.connected.add("mine")
    monkeypatch.setattr(own_pictures, "DELETION_DELAY", 0.2)
    own = own_pictures.OwnPictures(
        collections.open_collection(colours_folder), TemporaryDirectory(), session="mine"
    )
    own.delete_later()
    waiting = own.deletion
    own.folder.cleanup()
    waiting.join()
    assert own.deletion is waiting


def test_pictures_stay_where_others_cannot_be_read(nothing_installed, monkeypatch):
    """They were deleted three minutes later, with all marks: the others had taken their place."""
    monkeypatch.setattr(own_pictures, "DELETION_DELAY", 20)
    app = bring(start(), "red.png", encoded(picture(RED)), "image/png")
    app.file_uploader(key="own_files").set_value([]).run()
    own = app.session_state["own"]
    bring(app, "bad.png", b"no picture", "image/png")
    assert len(app.error) == 1
    if own.deletion:
        own.deletion.join()
    assert Path(own.folder.name).exists()


def test_a_folder_only_where_the_owner_allows_it(
    nothing_installed, colours_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv(own_pictures.FOLDERS_VARIABLE, str(colours_folder))
    taken, open_folder = [], own_pictures._open_folder

    def opened(folder):
        taken.extend(kind for kind, _ in turns.taken)
        return open_folder(folder)

    monkeypatch.setattr(own_pictures, "_open_folder", opened)
    app = start()
    app.radio(key="own_from").set_value("A folder on this machine").run()
    app.text_input(key="own_folder").set_value(str(tmp_path)).run()
    app.button(key="own_index").click().run()
    assert "may not read the folder" in app.error[0].value
    app.text_input(key="own_folder").set_value(str(colours_folder)).run()
    app.button(key="own_index").click().run()
    assert hits(go(app))[0] == "1: red_0.png, same landmark"
    assert sum(1 for _ in colours_folder.iterdir()) == 15  # nothing was written there
    # Forty tabs that named one of 150,000 pictures kept others waiting for 18 seconds.
    assert taken == ["pictures"]
