"""The search page driven without a browser, on a small collection and a method that needs no net.

The method says how red, green and blue each quarter of a picture is: enough to know who wins.
"""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from streamlit.delta_generator import DeltaGenerator
from streamlit.testing.v1 import AppTest
from stubs import Registered

from pages.parts import cards, loaders, own_pictures, own_uploads
from pages.parts.cache import Cache
from retrieval import images, index, methods
from retrieval.collections import archives, judgements
from retrieval.collections import collection as collections
from retrieval.collections.credits import Credit
from retrieval.figures import style
from retrieval.index import describing
from retrieval.methods.places import Places
from retrieval.networks import checkpoints
from retrieval.ranking import search
from retrieval.workers import Workers

ROOT = Path(__file__).parents[2]
RED, GREEN, BLUE = (200, 30, 30), (30, 180, 40), (30, 40, 200)


class Colours(Registered):
    def places(self, picture, box=None):
        """Four places, the quarters of the picture, which sum to the descriptor."""
        vector = self.describe(picture, box)
        parts = np.zeros((2, 2, len(vector)), np.float32)
        for n in range(4):
            parts[n // 2, n % 2, 3 * n : 3 * n + 3] = vector[3 * n : 3 * n + 3]
        return Places(parts, box or (0, 0, *picture.size))

    def describe(self, picture, box=None):
        part = picture.crop([round(value) for value in box]) if box else picture
        vector = np.asarray(part.resize((2, 2), Image.Resampling.BOX), np.float32).ravel()
        return vector / np.linalg.norm(vector)


def picture(colour, right=None, size=(64, 48)):
    """A picture of one colour, or with its right half in another; a little cross in each quarter,
    as pictures of one colour are blank."""
    image = Image.new("RGB", size, colour)
    width, height = size
    if right:
        image.paste(right, (width // 2, 0, width, height))
    for x in (width // 4, 3 * width // 4):
        for y in (height // 4, 3 * height // 4):
            image.paste("black", (x - 3, y, x + 3, y + 1))
            image.paste("white", (x, y - 3, x + 1, y + 3))
    return image


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def archive(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name.replace("__", "/").replace("_png", ".png"), data)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Reds, greens, blues; the query is red with a blue right half, and means its red half."""
    folder = tmp_path / "little"
    folder.mkdir()
    shades = {"red": RED, "green": GREEN, "blue": BLUE}
    for name, colour in shades.items():
        for n in range(4):
            shade = tuple(min(255, value + 8 * n) for value in colour)
            picture(shade).save(folder / f"{name}_{n}.png")
    picture(RED, BLUE).save(folder / "ask.png")
    picture(BLUE).save(folder / "ask_blue.png")
    truth = {
        "database": [f"{name}_{n}.png" for name in shades for n in range(4)],
        "queries": [
            {
                "image": "ask.png",
                "landmark": "red_tower",
                "bbox": [0, 0, 32, 48],
                "easy": ["red_0.png", "red_1.png"],
                "hard": ["red_2.png"],
                "junk": ["red_3.png"],
            },
            {
                "image": "ask_blue.png",
                "landmark": "blue_gate",
                "bbox": None,
                "easy": ["blue_0.png"],
                "hard": [],
                "junk": [],
            },
        ],
    }
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture
def engine(monkeypatch):
    """The stand-in method instead of the networks."""
    monkeypatch.setattr(methods, "load_record", lambda record, **_: Colours(record.method))
    for cached in (loaders._method, loaders._index):
        cached.clear()
    monkeypatch.setattr(loaders, "CACHE", Cache(1 << 27))
    yield
    loaders._method.clear()


@pytest.fixture
def little(engine, folder, tmp_path, monkeypatch):
    """The collection is installed, with an index for two of the three methods."""
    opened = dataclasses.replace(
        collections.open_collection(folder), name="little", title="Little collection"
    )
    found = {}
    for name in ("sir", "cnn-irwnha"):
        found[name] = tmp_path / "indexes" / name
        index.build(opened, Colours(name), found[name])
    monkeypatch.setattr(loaders, "collection_titles", lambda: {"little": "Little collection"})
    monkeypatch.setattr(loaders, "collection", lambda name: opened)
    monkeypatch.setattr(index, "find", lambda name: found)
    monkeypatch.setattr(index, "find_all", lambda name: list(found.items()))
    return SimpleNamespace(collection=opened, indexes=found)


def start(**link):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for name, value in link.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def go(app):
    """Search with the first picture on offer; an upload is searched with by itself."""
    if any(button.key == "open-browse-0" for button in app.button):
        app.button(key="open-browse-0").click().run()
    assert not app.exception, app.exception
    return app


def hits(app, method="cnn-irwnha"):
    """What the cards of an answer say to a screen reader, in order."""
    return [
        button.label.replace("\\", "")
        for button in app.button
        if button.key.startswith(f"open-{method}-")
    ]


def text(app):
    return "\n".join(element.value for element in app.markdown)


def test_first_paint_offers_the_prepared_queries(little):
    app = start()
    assert "# Search by example" in [one.value for one in app.markdown]
    assert [button.label for button in app.button if button.key.startswith("open-browse-")] == [
        "Search with red tower · ask",
        r"Search with blue gate · ask\_blue",
    ]
    assert app.text_input(key="box").value == "0, 0, 32, 48"
    assert "query" not in app.query_params


def test_search_ranks_and_judges(little):
    app = go(start())
    assert hits(app)[:4] == [
        "1: red_0.png, same landmark",
        "2: red_1.png, same landmark",
        "3: red_2.png, same landmark",
        "4: red_3.png, left out of the score",
    ]
    assert all(hit.endswith("another place") for hit in hits(app)[4:])
    assert "3 pictures are right, by the labels of this query (protocol medium)" in captions(app)
    assert "12 pictures" in text(app)
    assert checkpoints.find("cnn-irwnha").stands_in_for in text(app)


def test_a_method_without_a_colour_of_its_own(little, monkeypatch):
    monkeypatch.delitem(style.METHOD_COLOURS, "sir")
    app = go(start(method="all"))
    assert f'<span style="color:{style.OTHER_COLOUR}">●</span> SIR' in text(app)
    assert hits(app, "sir")[0].startswith("1: red_0.png")


def test_protocol_changes_the_verdicts(little):
    app = go(start())
    app.segmented_control(key="judge").set_value("hard").run()
    assert hits(app)[0] == "1: red_0.png, left out of the score"
    assert hits(app)[2] == "3: red_2.png, same landmark"


def test_clearing_and_typing_a_box(little):
    app = go(start())
    app.button(key="clear").click().run()
    assert app.text_input(key="box").value == ""
    assert "box" not in app.query_params
    app.text_input(key="box").set_value("32 0 64 48").run()
    assert hits(app)[0].startswith("1: blue_0.png")
    assert app.query_params["box"] == "32 0 64 48"


@pytest.mark.parametrize(
    "box", ["30, 0, 10, 40", "500, 500, 600, 600", "1, 2, 3", "a b c d", "nan 0 9 9"]
)
def test_a_bad_box_is_explained(little, box):
    app = go(start())
    app.text_input(key="box").set_value(box).run()
    assert len(app.error) == 1
    assert not app.exception
    assert hits(app) == []
    app.button(key="clear").click().run()
    assert not app.error
    assert hits(app)


def test_another_query_does_not_inherit_the_box(little):
    app = go(start())
    app.selectbox(key="prepared").set_value(1).run()
    assert app.text_input(key="box").value == ""
    assert hits(app)[0] == "1: blue_0.png, same landmark"


def test_the_address_holds_the_view(little):
    app = go(start())
    app.slider(key="count").set_value(6).run()
    app.segmented_control(key="method").set_value("sir").run()
    app.text_input(key="box").set_value("32, 0, 64, 48").run()
    link = dict(app.query_params)
    assert link == {
        "collection": "little",
        "method": "sir",
        "count": "6",
        "judge": "medium",
        "query": "ask.png",
        "box": "32, 0, 64, 48",
    }
    again = start(**link)
    assert hits(again, "sir") == hits(app, "sir")
    assert len(hits(again, "sir")) == 6


def test_a_link_to_a_database_picture(little):
    app = start(collection="little", query="green_1.png")
    assert hits(app)[0] == "1: green_2.png"  # the picture that asks is left out
    assert not any("green_1.png" in hit for hit in hits(app))
    assert app.segmented_control(key="source").value == "Database"


def test_a_link_to_a_method_that_there_is_not(little):
    app = start(collection="little", query="green_1.png", method="sirr")
    assert "the method sirr, which there is not" in app.warning[0].value
    assert hits(app)[0] == "1: green_2.png"


@pytest.mark.parametrize(
    "link",
    [
        {"collection": "atlantis", "query": "x.jpg"},
        {"collection": "little", "query": "../../etc/passwd"},
        {"collection": "little", "query": "gone.png", "box": "1,2,3"},
    ],
)
def test_a_link_to_what_is_not_here(little, link):
    app = start(**link)
    assert "This link asks for" in app.warning[0].value
    assert hits(app) == []


def test_nonsense_in_a_link_is_survived(little):
    app = start(method="magic", count="-7", least="high", judge="harsh", box="]", nothing="1")
    assert app.slider(key="count").value == 12
    assert start(count="99999").slider(key="count").value == 60
    assert start(query="ask.png", box="nonsense").error


def test_least_score_and_number(little):
    app = go(start())
    app.number_input(key="least-cnn-irwnha").set_value(0.99).run()
    assert 0 < len(hits(app)) <= 4
    app.number_input(key="least-cnn-irwnha").set_value(2.0).run()
    assert hits(app) == []
    assert "No result has such a score" in app.info[0].value


def test_a_list_and_results_below_the_noise_folded_away(little, monkeypatch):
    link = {"collection": "little", "method": "sir", "query": "red_0.png"}
    plain = start(**link)
    scores = [
        float(one.value.split(" · ")[1][:5]) for one in plain.markdown if "**1**" in one.value
    ]
    assert len(hits(plain, "sir")) == 11

    def folded(unrelated):
        found = np.zeros(1, np.float32), np.full(100, unrelated, np.float32)
        monkeypatch.setattr(loaders, "pair_cosines", lambda *_: found)
        app = start(**link, fold="yes", layout="list")
        assert app.query_params["layout"] in ("list", ["list"])
        assert hits(app, "sir") == hits(plain, "sir")  # nothing is lost, the order is the same
        [fold] = [one for one in app.expander if one.label.endswith("below the noise")]
        count = sum(one.key.startswith("open-") for one in fold.button)
        assert fold.label.startswith(f"{count} result")
        return count, [one.value for one in app.info]

    assert folded(scores[0] - 1e-3)[0] == 10
    assert folded(1.0) == (11, ["No result stands out from the noise."])


def test_a_limit_belongs_to_its_method(little):
    app = go(start())
    app.number_input(key="least-cnn-irwnha").set_value(2.0).run()
    assert hits(app) == []
    app.segmented_control(key="method").set_value("sir").run()
    assert len(hits(app, "sir")) == 12
    assert "least" not in app.query_params
    app.segmented_control(key="method").set_value("cnn-irwnha").run()
    assert hits(app) == []
    app.button(key="clear-least").click().run()
    assert len(hits(app)) == 12


def test_a_database_picture_is_judged_by_its_landmark(little):
    app = start(collection="little", query="red_1.png")
    assert hits(app)[:3] == [
        "1: red_2.png, same landmark",
        "2: red_0.png, same landmark",
        "3: red_3.png, left out of the score",
    ]
    assert hits(app)[3].endswith("another place")
    assert "by landmark: every picture that the prepared queries of red tower" in captions(app)
    assert "2 pictures are right" in captions(app)
    app = start(collection="little", query="green_1.png")
    assert not any("landmark" in hit for hit in hits(app))
    assert "Nobody has said which pictures" in "".join(one.value for one in app.caption)


def captions(app):
    return "".join(element.value for element in app.caption)


def test_an_uploaded_query_outlives_a_visit_to_another_page(little):
    app = start()
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("mine.png", encoded(picture(GREEN)), "image/png").run()
    before = hits(app)
    app.switch_page("pages/about.py").run()
    app.query_params.clear()
    app.switch_page("pages/search.py").run()
    assert hits(app) == before != []
    assert "Still in use: mine" in "".join(one.value for one in app.caption)


def test_what_a_killed_server_left_is_swept(tmp_path, monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, kept, other = (
        tmp_path / name
        for name in (f"retrieval-own-{gone.pid}-x", f"retrieval-own-{os.getpid()}-x", "retrieval-x")
    )
    for folder in (left, kept, other):
        (folder / "pictures").mkdir(parents=True)
    monkeypatch.setattr(own_uploads, "gettempdir", lambda: str(tmp_path))
    own_uploads.delete_leftovers.clear()
    own_uploads.delete_leftovers()
    assert [folder.exists() for folder in (left, kept, other)] == [False, True, True]


def test_compare_all(little):
    app = start()
    app.segmented_control(key="method").set_value("all").run()
    go(app)
    headings = [one.value for one in app.markdown if one.value.startswith("#### ")]
    titles = [one.split(" · ")[0].split("> ")[1] for one in headings]  # behind its coloured dot
    assert titles == ["SIR", "DELF", "CNN-IRwNHA"]
    assert "3 of the first 10 right · AP 1.00" in headings[0]
    assert "rank · cosine" in headings[0]
    assert hits(app, "sir") == hits(app, "cnn-irwnha") != []
    assert "no DELF index" in app.info[0].value


def test_a_picture_is_described_once_for_all_chains(little, monkeypatch):
    described, describe = [], Colours.describe

    def counted(self, picture, box=None):
        described.append(box)
        return describe(self, picture, box)

    monkeypatch.setattr(Colours, "describe", counted)
    app = go(start(method="sir"))
    found = len(hits(app, "sir"))
    app.selectbox(key="then").select("expansion").run()
    assert not app.exception
    assert any("Re-ranked by" in one.value for one in app.caption)
    assert len(hits(app, "sir")) == found > 0
    assert len(described) == 1


def test_a_result_large_and_as_the_next_query(little):
    app = go(start())
    app.button(key="open-cnn-irwnha-4").click().run()
    assert "**5**" in text(app)
    name = hits(app)[4].split(": ")[1].split(",")[0]
    app.button(key="next").click().run()
    assert app.query_params["query"] == name
    assert not any(name in hit for hit in hits(app))
    assert "box" not in app.query_params


def test_large_pictures_name_their_photographers(little, folder, monkeypatch):
    entry = {
        "title": "x",
        "author": "![Eve](https://example.org/spy.png) <b>*",
        "licence": "CC BY 4.0",
        "licence_url": "https://creativecommons.org/licenses/by/4.0/",
        "page": "https://commons.wikimedia.org/wiki/File:x.jpg",
    }
    found = {
        "ask.png": Credit(**entry),
        "red_1.png": Credit(**entry | {"author": "Adam", "note": "Other restrictions: insignia"}),
    }
    credited = dataclasses.replace(little.collection, credits=found)
    monkeypatch.setattr(loaders, "collection", lambda name: credited)
    app = go(start())
    asked = (
        r"\!\[Eve\]\(https\:\/\/example\.org\/spy\.png\) \<b\>\* · "
        r"[CC BY 4\.0](<https://creativecommons.org/licenses/by/4.0/>) · "
        "[source](<https://commons.wikimedia.org/wiki/File:x.jpg>)"
    )
    assert [one.value for one in app.caption if "source" in one.value] == [asked]
    app.button(key="open-cnn-irwnha-1").click().run()
    said = [one.value for one in app.caption if "source" in one.value]
    # In the column of the query, and large beside the result.
    assert said[0] == asked
    assert said[1] == rf"Query: ask\.png · {asked}"
    assert said[2].startswith(r"Result: red\_1\.png · Adam · ")
    assert "insignia" in said[2]
    assert len(said) == 3
    app.button(key="open-cnn-irwnha-0").click().run()  # of this one nothing is known
    assert [one.value for one in app.caption if "source" in one.value] == said[:2]


def test_why_steps_to_the_results_before_and_after(little):
    app = go(start())
    app.button(key="open-cnn-irwnha-4").click().run()
    assert "**5** · CNN-IRwNHA" in text(app)
    app.button(key="step-Next").click().run()
    assert "**6** · CNN-IRwNHA" in text(app)
    app.button(key="step-Previous").click().run()
    app.button(key="step-Previous").click().run()
    assert "**4** · CNN-IRwNHA" in text(app)
    assert not app.exception


def test_what_others_wrote_is_no_markdown(little):
    """A link, or a file name, that would make the browser ask another host for a picture."""
    picture_elsewhere = "![x](https://evil.example/a.png)"
    app = start(then=picture_elsewhere)
    assert r"\!\[x\]\(https" in app.warning[0].value
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload(f"{picture_elsewhere}.png", b"?", "image/png").run()
    assert r"\!\[x\]\(https" in app.error[0].value


def test_ranking_as_csv(little):
    assert go(start()).download_button(key="csv-cnn-irwnha")
    asked = Image.open(little.collection.path("ask.png"))
    opened = index.load(little.indexes["sir"])
    ranking = search.rank_picture(opened, Colours("sir"), asked, (0, 0, 32, 48))
    truth = {"red_0.png": "positive"}
    verdict = lambda name: truth.get(name, "wrong")  # noqa: E731
    lines = cards.as_csv(ranking, verdict).decode("utf-8-sig").splitlines()
    assert lines[0] == "rank,name,score,verdict"
    assert lines[1].startswith("1,red_0.png,0.99")
    assert lines[1].endswith(",positive")
    assert lines[-1].endswith(",wrong")
    assert len(lines) == 13
    formula = dataclasses.replace(ranking, names=("=1+1", *ranking.names[1:]))
    assert cards.as_csv(formula, None).decode("utf-8-sig").splitlines()[1].startswith("1,'=1+1,")


def test_upload_as_query(little):
    app = start()
    app.segmented_control(key="source").set_value("Upload").run()
    assert "Choose a picture" in app.info[0].value
    app.file_uploader(key="upload").upload("mine.png", encoded(picture(GREEN)), "image/png").run()
    go(app)
    assert hits(app)[0] == "1: green_0.png"
    assert "query" not in app.query_params
    assert "not part of the link" in "".join(caption.value for caption in app.caption)


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


@pytest.mark.parametrize("method", ["cnn-irwnha", "all"])
def test_a_blank_picture_gets_a_sentence_and_no_cards(little, method):
    app = start(method=method)
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("sky.png", encoded(Image.new("RGB", (64, 48), "blue")))
    app.run()
    assert not app.exception
    said = {one.value for one in app.info}
    assert "The picture is blank: there is nothing to search for." in said
    assert not [one for one in app.button if one.key and one.key.startswith("open-")]


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


def test_an_edited_index_is_refused(little):
    path = little.indexes["cnn-irwnha"] / "descriptors.npy"
    path.write_bytes(path.read_bytes()[:-10] + b"0123456789")
    assert "checksum" in go(start()).error[0].value


def test_names_are_text_not_markup(engine, tmp_path, monkeypatch):
    folder = tmp_path / "odd"
    folder.mkdir()
    for n, name in enumerate([":red[x] **b**.png", "$x^2$ <script>.png", "[a](http:b).png"]):
        picture((60 * n + 40, 90, 30)).save(folder / name)
    opened = dataclasses.replace(collections.open_collection(folder), name="odd", title="Odd")
    index.build(opened, Colours("cnn-irwnha"), tmp_path / "index")
    monkeypatch.setattr(loaders, "collection_titles", lambda: {"odd": "Odd"})
    monkeypatch.setattr(loaders, "collection", lambda name: opened)
    monkeypatch.setattr(index, "find", lambda name: {"cnn-irwnha": tmp_path / "index"})
    app = go(start())
    assert r"\$x\^2\$ \<script\>\.png" in text(start())
    assert r"\:red\[x\] \*\*b\*\*\.png" in text(app)


# ---- pictures of one's own -----------------------------------------------------------------------


def bring(app, name, data, kind="application/zip"):
    app.file_uploader(key="own_files").upload(name, data, kind).run()
    app.button(key="own_index").click().run()
    assert not app.exception, app.exception
    return app


@pytest.fixture
def bare(engine, monkeypatch):
    monkeypatch.setattr(loaders, "collection_titles", dict)
    monkeypatch.delenv(own_pictures.FOLDERS_VARIABLE, raising=False)


def test_nothing_installed_explains_itself(bare):
    app = start()
    assert "No collection is installed" in app.info[0].value
    assert app.file_uploader(key="own_files")
    assert len(app.radio) == 0  # no way to name a folder


def test_own_pictures_from_a_zip(bare):
    files = {"a__red_png": picture(RED), "a__blue_png": picture(BLUE), "green_png": picture(GREEN)}
    app = bring(start(), "mine.zip", archive(**{n: encoded(p) for n, p in files.items()}))
    go(app)
    assert len(hits(app)) == 2  # the third one asks
    assert "query" not in app.query_params
    other = start()
    assert "own" not in other.session_state
    assert "No collection is installed" in other.info[0].value


def test_own_results_are_judged_and_evaluated(bare):
    shades = {f"red_{n}_png": picture((200 - 9 * n, 30, 30)) for n in range(3)}
    shades |= {"blue_png": picture(BLUE), "green_png": picture(GREEN)}
    app = bring(start(), "mine.zip", archive(**{n: encoded(p) for n, p in shades.items()}))
    app.selectbox(key="database").select("mine/red_0.png").run()
    first, second = (f"mine/{one.split(': ')[1]}" for one in hits(app)[:2])
    app.toggle(key="judging").set_value(True).run()
    assert "Judged by you: 0 queries, 0 pictures" in text(app)
    assert app.button(key="judged-evaluate").disabled

    app.segmented_control(key="mark-cnn-irwnha-0").set_value("positive").run()
    app.segmented_control(key="mark-cnn-irwnha-1").set_value("wrong").run()
    assert "Judged by you: 1 query, 2 pictures" in text(app)
    assert (
        "1 picture is right, judged by you. In the AP, pictures without a mark count as wrong."
    ) in captions(app)
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
    assert app.segmented_control(key="mark-cnn-irwnha-0").value == "positive"
    app.segmented_control(key="mark-cnn-irwnha-2").set_value("ignored").run()
    assert sorted(
        one.value for one in app.segmented_control if one.key.startswith("mark-sir-") if one.value
    ) == ["ignored", "positive", "wrong"]
    app.segmented_control(key="mark-cnn-irwnha-2").set_value(None).run()
    app.segmented_control(key="method").set_value("cnn-irwnha").run()

    # Another query has no marks yet; its buttons do not show those of the first.
    app.selectbox(key="database").select("mine/blue.png").run()
    assert app.segmented_control(key="mark-cnn-irwnha-0").value is None
    app.segmented_control(key="mark-cnn-irwnha-3").set_value("positive").run()

    app.button(key="judged-evaluate").click().run()
    assert not app.exception, app.exception
    assert "# Evaluation" in [one.value for one in app.markdown]
    assert "Judged by you: 2 queries, 3 pictures." in "".join(one.value for one in app.caption)
    scores = next(one.value for one in app.dataframe if "mAP Classic" in one.value.columns)
    # AP 1 for the first query; the second has its right picture last of four: (0 + 1/4) / 2.
    assert scores["mAP Classic"].tolist() == [56.25, 56.25]  # both methods order by colour


def test_own_ground_truth_from_a_file(bare):
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
    assert "Judged by you: 1 query, 1 picture" in text(app)


def test_own_pictures_are_unpacked_in_turn(bare, monkeypatch):
    """Forty visitors' zips at once kept others waiting for six seconds for a page."""
    threads, unpack = [], archives.unpack

    def unpacked(*arguments, **options):
        threads.append(threading.current_thread())
        return unpack(*arguments, **options)

    monkeypatch.setattr(archives, "unpack", unpacked)
    app = bring(start(), "mine.zip", archive(a_png=encoded(picture(RED))))
    assert not app.error
    assert threads == own_pictures.UNPACKER._threads


def test_own_files_of_the_same_name_are_all_kept(bare):
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


def test_an_upload_of_the_same_name_does_not_inherit_the_box(little):
    app = start()
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("photo.png", encoded(picture(RED)), "image/png").run()
    app.text_input(key="box").set_value("0, 0, 20, 20").run()
    app.file_uploader(key="upload").clear()
    app.file_uploader(key="upload").upload("photo.png", encoded(picture(BLUE)), "image/png").run()
    assert app.text_input(key="box").value == ""


def test_pictures_that_are_not_here(little, monkeypatch, tmp_path):
    away = dataclasses.replace(little.collection, root=tmp_path / "gone")
    monkeypatch.setattr(loaders, "collection", lambda name: away)
    app = start()
    assert "not on this machine" in app.info[0].value
    app.file_uploader(key="upload").upload("mine.png", encoded(picture(GREEN)), "image/png").run()
    assert hits(go(app))[0] == "1: green_0.png"


def test_own_pictures_can_be_indexed_for_another_method_later(bare):
    app = bring(start(), "red.png", encoded(picture(RED)), "image/png")
    app.segmented_control(key="method").set_value("sir").run()
    go(app)
    app.button(key="build-sir").click().run()
    assert not app.exception
    assert app.download_button(key="csv-sir")


def test_own_unreadable_pictures_are_listed(bare):
    data = archive(good_png=encoded(picture(RED)), bad_png=b"<html>not a picture</html>")
    app = bring(start(), "mine.zip", data)
    assert "1 file could not be read" in app.expander[1].label
    assert r"bad\.png" in text(app)
    assert "1 picture is in use" in text(app)
    assert hits(go(app)) == []
    assert not app.error, app.error
    assert "no other picture" in app.info[0].value


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
def test_a_bad_zip_is_refused_and_nothing_is_kept(bare, data):
    app = bring(start(), "mine.zip", data)
    assert len(app.error) == 1
    assert "own" not in app.session_state


def test_the_private_folder_goes_with_the_session(bare):
    app = bring(start(), "red.png", encoded(picture(RED)), "image/png")
    first = Path(app.session_state["own"].folder.name)
    assert first.stat().st_mode & 0o077 == 0
    bring(app, "blue.png", encoded(picture(BLUE)), "image/png")
    second = Path(app.session_state["own"].folder.name)
    assert not first.exists()
    assert second.exists()


def test_a_broken_connection_has_some_minutes_to_come_back(bare, folder, monkeypatch):
    monkeypatch.setattr(own_pictures, "DELETION_DELAY", 0.2)
    kept, dropped = (
        own_pictures.OwnPictures(collections.open_collection(folder), TemporaryDirectory())
        for _ in range(2)
    )
    kept.delete_later()
    kept.keep()
    dropped.delete_later()
    dropped.deletion.join()
    assert not Path(dropped.folder.name).exists()
    assert Path(kept.folder.name).exists()
    kept.folder.cleanup()


def test_a_folder_only_where_the_owner_allows_it(bare, folder, tmp_path, monkeypatch):
    monkeypatch.setenv(own_pictures.FOLDERS_VARIABLE, str(folder))
    app = start()
    app.radio(key="own_from").set_value("A folder on this machine").run()
    app.text_input(key="own_folder").set_value(str(tmp_path)).run()
    app.button(key="own_index").click().run()
    assert "has not opened the folder" in app.error[0].value
    app.text_input(key="own_folder").set_value(str(folder)).run()
    app.button(key="own_index").click().run()
    assert hits(go(app))[0] == "1: red_0.png, same landmark"
    assert sum(1 for _ in folder.iterdir()) == 15  # nothing was written there


def test_networks_and_indexes_and_back(little):
    app = go(start())
    app.text_input(key="box").set_value("32, 0, 64, 48").run()
    before = hits(app)
    app.switch_page("pages/networks.py").run()
    assert not app.exception
    assert list(app.dataframe[1].value["Pictures"]) == [12, 12]
    app.query_params.clear()
    app.switch_page("pages/search.py").run()
    assert hits(app) == before
    assert app.query_params["box"] == "32, 0, 64, 48"


def test_a_network_loaded_ahead_is_not_loaded_again(little, monkeypatch):
    loaded = []

    def load(record, **settings):
        loaded.append(record.id)
        return Colours(record.method)

    monkeypatch.setattr(methods, "load_record", load)
    loaders._preload([little.indexes["cnn-irwnha"]])
    assert len(loaded) == 1
    app = go(start(method="cnn-irwnha"))
    assert hits(app)
    assert len(loaded) == 1


def test_a_search_waits_for_its_turn_and_says_so(little, monkeypatch):
    workers = Workers(1, 10)
    monkeypatch.setattr(loaders, "WORKERS", workers)
    free, said = threading.Event(), []
    workers.submit("somebody else", lambda: free.wait(30))
    caption = DeltaGenerator.caption

    def listening(self, body, *args, **kwargs):
        if "in the queue" in body:
            said.append(body)
            free.set()
        return caption(self, body, *args, **kwargs)

    monkeypatch.setattr(DeltaGenerator, "caption", listening)
    app = go(start(method="cnn-irwnha"))
    assert hits(app)
    assert "number 1 in the queue" in said[0]
    assert not any("in the queue" in one.value for one in app.caption)


def test_a_build_reads_its_pictures_when_it_is_its_turn(little, monkeypatch):
    """Twenty visitors who waited with a picture of 25 megapixels each held 5 GB."""
    workers = Workers(1, 10)
    monkeypatch.setattr(loaders, "WORKERS", workers)
    monkeypatch.setattr(loaders, "_client", lambda: "me")
    free, read, pictures_read = threading.Event(), images.read, []

    def reading(data, name, most):
        pictures_read.append((name, free.is_set()))
        return read(data, name, most)

    monkeypatch.setattr(images, "read", reading)
    workers.submit("somebody else", lambda: free.wait(30))
    known, names = describing.Known({}, []), list(little.collection.names[:3])
    described = loaders.describe_in_turns(
        little.collection, Colours("sir"), names, known, images.MAX_PIXELS
    )
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, described)
        while "me" not in workers._waiting:
            time.sleep(0.01)
        assert not first.done()
        free.set()
        assert [first.result().name, *(one.name for one in described)] == names
    assert pictures_read == [(name, True) for name in names]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="time is not limited on Windows")
def test_pictures_of_a_build_that_take_long_are_read_apart(little, monkeypatch):
    workers = Workers(1, 10, slow=Workers(1, 10))
    monkeypatch.setattr(loaders, "WORKERS", workers)
    monkeypatch.setattr(loaders, "_client", lambda: "me")
    monkeypatch.setattr(images, "QUICK_SECONDS", 1e-6)
    known, names = describing.Known({}, []), list(little.collection.names[:3])
    described = loaders.describe_in_turns(
        little.collection, Colours("sir"), names, known, images.visitors_limit()
    )
    assert [(one.name, one.size) for one in described] == [
        (name, images.read(little.collection.path(name)).size) for name in names
    ]
    assert workers.slow._threads


def test_the_same_question_of_another_visitor_costs_nothing(little, monkeypatch):
    first = hits(go(start(method="cnn-irwnha")))
    monkeypatch.setattr(loaders, "WORKERS", None)  # nobody is there to search
    assert hits(go(start(method="cnn-irwnha"))) == first


# ---- metadata ------------------------------------------------------------------------------------

TABLE = "name,colour,note\nred_0.png,warm,<b>*x*</b>\nred_1.png,warm,\nblue_0.png,cold,\n"


def test_results_are_filtered_by_what_a_table_says(bare):
    pictures = {f"{name}_png": encoded(picture(colour)) for name, colour in
                (("red_0", RED), ("red_1", (190, 40, 30)), ("blue_0", BLUE))}  # fmt: skip
    app = start()
    files = app.file_uploader(key="own_files")
    files.upload("mine.zip", archive(**pictures), "application/zip")
    files.upload("what I know.csv", TABLE.encode(), "text/csv")
    app.run()
    app.button(key="own_index").click().run()
    app.selectbox(key="database").select("mine/red_0.png").run()
    assert len(hits(app)) == 2

    app.selectbox(key="where").select('colour == "cold"').run()
    assert not app.exception, app.exception
    assert hits(app) == ["1: blue_0.png"]
    assert "where" not in app.query_params  # of a visitor's own pictures
    app.button(key="clear-where").click().run()
    assert len(hits(app)) == 2

    app.selectbox(key="database").select("mine/blue_0.png").run()
    app.button(key="open-cnn-irwnha-1").click().run()
    assert any("colour **warm** · note **\\<b\\>" in one.value for one in app.caption)


def test_a_filter_comes_with_a_link(little, monkeypatch):
    table = {name: {"size": len(name)} for name in little.collection.names}
    known = dataclasses.replace(little.collection, metadata=table)
    monkeypatch.setattr(loaders, "collection", lambda name: known)
    app = go(start(collection="little", where="size < 11", method="sir", query="ask.png"))
    assert len(hits(app, "sir")) == 8  # red and blue
    assert app.query_params["where"] == "size < 11"
    assert "AP" not in next(one.value for one in app.markdown if one.value.startswith("#### SIR"))
    app = go(start(collection="little", where="gone == 1", method="sir", query="ask.png"))
    assert "There is no column gone" in app.error[0].value


def test_two_tables_are_one_too_many(bare):
    app = start()
    files = app.file_uploader(key="own_files")
    for name in ("a.csv", "b.json"):
        files.upload(name, b"name\n", "text/csv")
    app.run()
    app.button(key="own_index").click().run()
    assert "Bring one table" in app.error[0].value
