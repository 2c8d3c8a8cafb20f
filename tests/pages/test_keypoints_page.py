"""The keypoint page without a browser, with a local method that needs no network.

A feature is a cell of 10 pixels; its descriptor is what the cell looks like. The query is a
database picture moved by two cells, so that the right map is known.
"""

import dataclasses
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest
from stubs import OneByOne

from pages.parts import loaders, turns
from pages.parts.cache import Cache
from pages.parts.keypoints import figures, one_picture, presets, two_pictures
from pages.parts.keypoints.matching import MATCHERS
from pages.parts.keypoints.presets import PRESETS
from retrieval import index, methods
from retrieval.collections import collection as collections
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints
from retrieval.ranking import verifiers
from retrieval.workers import Busy

ROOT = Path(__file__).parents[2]
SIZE = 160, 120


class Cells(OneByOne):
    name, title, kind = "delf", "DELF", "local"
    checkpoint = SimpleNamespace(id="delf-lite0", sha256="0" * 64, trunk="efficientnet-lite0")
    settings = {"scales": [1.0]}

    def __init__(self):
        self.described = []

    def describe(self, picture, box=None):
        self.described.append(box)
        grey = np.asarray(picture.convert("L"), np.float32)
        points, rows = [], []
        for y in range(0, grey.shape[0] - 9, 10):
            for x in range(0, grey.shape[1] - 9, 10):
                cell = grey[y : y + 10, x : x + 10].reshape(2, 5, 2, 5).mean((1, 3)).ravel()
                cell = np.concatenate([cell, grey[y : y + 10 : 5, x : x + 10].ravel()[:12]])
                inside = box is None or (box[0] <= x + 5 < box[2] and box[1] <= y + 5 < box[3])
                if inside and cell.std() > 1:
                    points.append((x + 5, y + 5))
                    rows.append((cell - cell.mean()) / np.linalg.norm(cell - cell.mean()))
        count = len(points)
        return LocalFeatures(
            np.float32(points).reshape(-1, 2),
            np.where(np.arange(count) % 2, 1, 2).astype(np.float32),
            np.linspace(90, 10, count, dtype=np.float32),
            np.float32(rows).reshape(-1, 16),
        )

    def attention(self, picture, scale=1.0):
        x, y = np.arange(5, SIZE[0], 10.0), np.arange(5, SIZE[1], 10.0)
        return SimpleNamespace(scores=np.outer(y, x).astype(np.float32), x=x, y=y)

    def field_side(self, size, box=None):
        return 40.0


def noise(seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8))


def encoded(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def little(tmp_path, monkeypatch):
    """Five noises and a blank; the query is the second one, moved."""
    folder = tmp_path / "little"
    folder.mkdir()
    for n in range(5):
        noise(n).save(folder / f"noise_{n}.png")
    Image.new("RGB", SIZE, "skyblue").save(folder / "sky.png")
    moved = noise(9)
    moved.paste(noise(1), (20, 10))
    moved.save(folder / "ask.png")
    names = [f"noise_{n}.png" for n in range(5)] + ["sky.png"]
    query = {"image": "ask.png", "landmark": "noise", "bbox": None, "junk": [], "hard": []}
    truth = {"database": names, "queries": [query | {"easy": ["noise_1.png"]}]}
    (folder / "ground_truth.json").write_text(json.dumps(truth))

    method, verifier = Cells(), Cells()
    monkeypatch.setattr(
        methods,
        "load_record",
        lambda record, **_: verifier if record.method == "xfeat" else method,
    )
    verifiers.xfeat.cache_clear()
    for cached in (loaders._method, loaders._index):
        cached.clear()
    monkeypatch.setattr(loaders, "CACHE", Cache(1 << 27))
    opened = dataclasses.replace(
        collections.open_collection(folder), name="little", title="Little collection"
    )
    path = tmp_path / "indexes" / "delf"
    index.build(opened, method, path)
    monkeypatch.setattr(loaders, "collection_titles", lambda: {"little": "Little collection"})
    monkeypatch.setattr(loaders, "collection", lambda name: opened)
    found = {"delf": path}
    monkeypatch.setattr(index, "find", lambda name: found)
    method.described.clear()
    yield SimpleNamespace(collection=opened, method=method, indexes=found)
    loaders._method.clear()
    verifiers.xfeat.cache_clear()


def start(**link):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for name, value in link.items():
        app.query_params[name] = value
    app.switch_page("pages/keypoints.py").run()
    assert not app.exception, app.exception
    return app


def result(app):
    [box] = [one for one in app.selectbox if one.key and one.key.startswith("kp-result-")]
    return box.value


def text(app):
    return "\n".join(element.value for element in (*app.markdown, *app.caption, *app.info))


def test_a_database_picture_needs_no_network(little):
    app = start(query="noise_0.png")
    assert "# Keypoints and matches" in [one.value for one in app.markdown]
    assert "192 of 192 keypoints" in text(app)
    assert little.method.described == []
    assert checkpoints.find("delf").trained_on in text(app)


def test_the_page_begins_with_the_query_that_the_other_pages_begin_with(little):
    """It began with the first database picture, in town a blurred one, and so did Search then."""
    app = start()
    assert app.segmented_control(key="source").value == "Prepared"
    assert app.query_params["query"] in ("ask.png", ["ask.png"])


def test_the_page_says_that_too_many_wait_for_drawings(little, monkeypatch):
    """It ended in a traceback where they were too many since its first drawing."""

    class Full:
        drawn = 0

        def run(self, who, do, waiting):
            self.drawn += 1
            if self.drawn > 1:
                raise Busy(5)
            return do()

    monkeypatch.setattr(turns, "DRAWERS", Full())
    app = start()
    assert ["Too many requests" in one.value for one in app.error] == [True]


def test_fewer_keypoints(little):
    app = start(count="50")
    assert "50 of 192 keypoints" in text(app)
    app.slider(key="kp-count").set_value(20).run()
    assert "20 of 192 keypoints" in text(app)
    assert app.query_params["count"] in ("20", ["20"])
    next(one for one in app.slider if one.label == "Lowest attention").set_value(89.0).run()
    assert "3 of 192 keypoints" in text(app)


@pytest.mark.parametrize("look", ["fields", "attention"])
def test_what_a_keypoint_sees(little, look):
    app = start(look=look)
    assert not app.error
    assert ("square of the picture" if look == "fields" else "every place") in text(app)


def test_receptive_fields_that_are_larger_than_the_picture(monkeypatch):
    """Seven keypoints had three squares to be seen, and nothing said where the others were."""
    said = []
    monkeypatch.setattr(one_picture, "show_figure", lambda *_: None)
    monkeypatch.setattr(one_picture, "open_picture", lambda *_: (None, (100, 60)))
    monkeypatch.setattr(one_picture.st, "caption", said.append)
    sides = np.array([30.0, 110.0, 300.0])  # the second leaves a strip at the right free
    monkeypatch.setattr(one_picture.extraction, "field_sides", lambda *_: sides)
    scales = np.array([2, 1, 0.25], np.float32)
    features = LocalFeatures(np.full((3, 2), 40.0), scales, np.ones(3), np.ones((3, 2)))
    shown = SimpleNamespace(source=None, name="picture", key="picture")
    delf = SimpleNamespace(checkpoint="delf-lite0", settings={})
    one_picture.show_receptive_fields(shown, delf, features, "note", "stem")
    assert said[0].endswith(" The whole picture lies inside 1 of the 3 squares.")


@pytest.mark.parametrize("look", ["keypoints", "attention"])
def test_two_checkpoints_side_by_side(little, look):
    app = start(look=look)
    assert "delf-lite0-norm" not in text(app)
    app.toggle(key="kp-compare").set_value(True).run()
    assert not app.exception
    assert "**delf-lite0**" in text(app)
    assert "**delf-lite0-norm**" in text(app)
    assert "attention is left out" in text(app)
    saved = [one.proto.id for one in app.get("download_button")]
    for name in ("delf-lite0", "delf-lite0-norm"):
        files = [one for one in saved if f"-{name}-{look}." in one]
        assert [one.rpartition(".")[2] for one in files] == ["csv", "png", "svg"], saved


@pytest.mark.parametrize("look", ["keypoints", "fields"])
def test_a_blank_picture_has_no_keypoints(little, look):
    app = start(query="sky.png", look=look)
    assert "no keypoint here" in text(app)


def test_an_upload_is_described(little):
    app = start(query="noise_0.png")
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("mine.png", encoded(noise(7)), "image/png").run()
    assert not app.exception
    assert len(little.method.described) == 1
    assert "192 of 192 keypoints" in text(app)
    assert "query" not in app.query_params


def test_two_pictures(little):
    app = start(view="pair", query="ask.png")
    assert result(app) == "noise_1.png"
    assert "matches are inliers" in text(app)
    assert [metric.value for metric in app.metric][::2] == ["1 of 6", "1 of 6"]
    assert int(app.metric[1].value) > 100
    assert dict(app.query_params)["result"] in ("noise_1.png", ["noise_1.png"])


def test_matches_of_an_upload_are_drawn_for_a_file(little, monkeypatch):
    """In another thread, which reaches nothing that is kept for the session."""
    drawn = []
    monkeypatch.setattr(two_pictures, "downloads", lambda name, rows, draw: drawn.append(draw))
    app = start(view="pair", query="ask.png")
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("mine.png", encoded(noise(1)), "image/png").run()
    assert not app.exception
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(drawn[-1], "png").result().startswith(b"\x89PNG")


@pytest.mark.parametrize("view", ["sees", "pair"])
def test_figures_of_an_upload_go_with_the_session(little, monkeypatch, view):
    """They show it, and were kept among what all sessions share."""
    drawn = []
    for part in (figures, two_pictures):
        monkeypatch.setattr(part, "downloads", lambda name, rows, draw: drawn.append(draw))
    app = start(view=view, query="ask.png")
    upload = encoded(noise(1))
    app.segmented_control(key="source").set_value("Upload").run()
    app.file_uploader(key="upload").upload("mine.png", upload, "image/png").run()
    looks = ["keypoints", "fields", "attention"] if view == "sees" else []
    for look in looks:
        app.segmented_control(key="kp-look").set_value(look).run()
    for draw in drawn:
        draw("svg")
    assert not app.exception
    assert len(drawn) > len(looks)
    key = hashlib.sha256(upload).hexdigest()
    assert [kept for kept in map(str, loaders.CACHE._values) if key in kept] == []
    assert any(key in kept for kept in map(str, loaders.PRIVATE._values))


def test_matches_are_drawn_as_they_are_now(little, monkeypatch):
    """After an update of the index with other settings, the file showed the matches before it."""
    drawn = []
    monkeypatch.setattr(two_pictures, "downloads", lambda name, rows, draw: drawn.append(draw))
    start(view="pair", query="ask.png")
    before = drawn[-1]("png")
    match_pictures = two_pictures.match_pictures

    def moved(*arguments):
        found = match_pictures(*arguments)
        return dataclasses.replace(found, points=(found.points[0] + 20, found.points[1]))

    monkeypatch.setattr(two_pictures, "match_pictures", moved)
    start(view="pair", query="ask.png")
    assert drawn[-1]("png") != before


def test_a_drawing_of_matches_names_the_box(little, monkeypatch):
    """The drawings for a box and for the whole picture had the same small print."""
    drawn = []
    monkeypatch.setattr(two_pictures, "downloads", lambda name, rows, draw: drawn.append(draw))
    start(view="pair", query="ask.png", box="20, 10, 150, 110", result="noise_1.png", by="xfeat")
    assert b"ask.png, box 20, 10, 150, 110, and" in drawn[-1]("svg")
    start(view="pair", query="ask.png", box="", result="noise_1.png")
    assert b"ask.png and" in drawn[-1]("svg")


def test_the_names_of_the_results_are_not_looked_through_for_each(little, monkeypatch):
    """In an index of 50,000 pictures that took 8 s, in one of 100,000 four times as long."""
    asked = []

    class Names(tuple):
        def index(self, name):
            asked.append(name)
            return super().index(name)

    def ranked(*arguments):
        ranking, votes = local_ranking(*arguments)
        return dataclasses.replace(ranking, names=Names(ranking.names)), votes

    local_ranking = loaders.local_ranking
    monkeypatch.setattr(loaders, "local_ranking", ranked)
    app = start(view="pair", query="ask.png")
    assert app.metric[1].value != "not verified"
    assert 0 < len(asked) < len(little.collection)


def test_a_pair_that_the_search_did_not_verify(little, monkeypatch):
    """It must not read as if geometry had been asked and found nothing."""
    from pages.parts.keypoints import two_pictures
    from retrieval.ranking import search

    monkeypatch.setattr(search, "SHORTLIST", 1)
    monkeypatch.setattr(search.rank_features, "__defaults__", (None, 1))
    monkeypatch.setattr(two_pictures, "SHORTLIST", 1)
    app = start(view="pair", query="noise_2.png", result="noise_1.png")
    assert app.metric[1].value == "not verified"
    assert "did not verify this picture" in text(app)
    # It is the best one by votes.
    assert "only the best 1 are verified, the query itself among them" in text(app)
    [box] = [one for one in app.selectbox if one.key.startswith("kp-result-")]
    said = [one.split(" · ")[1] for one in box.options]
    assert said == ["the query itself"] + ["not verified"] * 5


def test_the_results_of_another_query_have_labels_of_their_own(little):
    app = start(view="pair", query="ask.png", result="noise_3.png")
    [before] = [one for one in app.selectbox if one.key.startswith("kp-result-")]
    app.segmented_control(key="source").set_value("Database").run()
    app.selectbox(key="database").set_value("noise_3.png").run()
    [after] = [one for one in app.selectbox if one.key.startswith("kp-result-")]
    assert before.key != after.key
    assert after.value == "noise_3.png"
    assert "noise_3.png · the query itself" in after.options
    assert not app.metric


def test_ranks_are_those_of_the_search_which_leaves_out_the_picture_that_asks(little):
    app = start(view="pair", query="noise_2.png", result="noise_1.png")
    [box] = [one for one in app.selectbox if one.key.startswith("kp-result-")]
    [rank] = [one.split(" · ")[0] for one in box.options if one.endswith("noise_1.png")]
    assert app.metric[2].value == f"{rank} of 5"
    ranks = [one.split(" · ")[0] for one in box.options if "itself" not in one]
    assert ranks == ["1", "2", "3", "4", "5"]
    assert app.metric[0].value.endswith("of 5")


def test_settings_need_no_new_extraction(little):
    app = start(view="pair", query="ask.png")
    before = len(little.method.described)
    app.slider(key="kp-similarity").set_value(0.95).run()
    app.segmented_control(key="kp-model").set_value("homography").run()
    app.slider(key="kp-tolerance").set_value(0.5).run()
    assert not app.exception
    # What a number of inliers says was not measured with these settings.
    assert "matches fit one transformation" in text(app)
    assert text(app).count("usual settings only") == 1  # those of XFeat are as they were
    assert len(little.method.described) == before
    assert dict(app.query_params)["model"] in ("homography", ["homography"])


def test_a_link_to_a_pair(little):
    link = {"view": "pair", "query": "ask.png", "box": "20, 10, 100, 90", "result": "noise_3.png"}
    app = start(**link, model="homography", tolerance="3")
    assert result(app) == "noise_3.png"
    assert app.slider(key="kp-tolerance").value == 3
    assert little.method.described == [(20, 10, 100, 90)]
    assert "can be chance" in text(app) or "No plausible" in text(app)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({"query": "sky.png", "result": "noise_1.png"}, "DELF finds no keypoint in the first"),
        ({"query": "ask.png", "result": "sky.png"}, "XFeat finds no keypoint in the second"),
        ({"query": "noise_2.png", "result": "noise_2.png"}, "192 of 192 matches are inliers"),
    ],
)
def test_blank_and_identical_pictures(little, link, said):
    assert said in text(start(view="pair", **link))


def test_a_collection_of_blank_pictures(little, monkeypatch, tmp_path):
    """The descriptors of such an index have no width, those of the query have one."""
    blank = dataclasses.replace(little.collection, names=("sky.png",), queries=())
    little.indexes["delf"] = tmp_path / "blank"
    index.build(blank, little.method, little.indexes["delf"])
    monkeypatch.setattr(loaders, "collection", lambda name: blank)
    assert "DELF finds no keypoint" in text(start(view="pair"))


def test_without_an_index_two_pictures_are_still_compared(little):
    little.indexes.clear()
    app = start(view="pair", query="ask.png", result="noise_1.png")
    assert "matches are inliers" in text(app)
    assert not app.metric


def test_an_index_that_cannot_be_used_is_named(little):
    manifest = little.indexes["delf"] / "manifest.json"
    manifest.write_text("{}")
    app = start()
    assert app.warning
    assert "keypoints." in text(app)


@pytest.mark.parametrize("key", ["count", "similarity", "tolerance"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "x", "1e999"])
def test_links_with_numbers_that_are_none(little, key, value):
    app = start(view="pair", **{key: value})
    assert "nan" not in str(app.query_params)
    for look in (app.slider(key="kp-similarity"), app.slider(key="kp-tolerance")):
        assert look.min <= look.value <= look.max


def test_a_link_to_what_is_not_there(little):
    assert "not on this machine" in start(collection="gone").warning[0].value
    assert "until it is closed or reloaded" in start(collection="mine").warning[0].value
    assert "not in the collection" in start(query="gone.png").warning[0].value
    app = start(view="pair", query="ask.png", result="gone.png")
    assert "gone\\.png, which is not in the collection" in app.warning[0].value
    assert result(app) == "noise_1.png"


def test_delf_and_xfeat_side_by_side(little):
    app = start(features="both")
    assert {"**DELF**", "**XFeat**"} <= {one.value for one in app.markdown}
    assert text(app).count("192 of 192 keypoints") == 2
    saved = {one.proto.id.rpartition("get-")[2] for one in app.get("download_button")}
    assert {"ask-delf-keypoints.png", "ask-xfeat-keypoints.png"} <= saved


def test_scales_of_the_histogram_as_csv(monkeypatch):
    """float32 has no 0.35: a spreadsheet showed 0.3499999940395355."""
    figures = []
    monkeypatch.setattr(one_picture, "show_figure", lambda *figure: figures.append(figure))
    scales = np.array([0.35355338, 1.4142135, 0.35355338], np.float32)
    features = LocalFeatures(np.ones((3, 2)), scales, np.ones(3), np.ones((3, 2)))
    shown = SimpleNamespace(key="picture", source=Path("picture.png"))
    one_picture.show_histograms(shown, features, "note", "stem")
    rows = [{"scale": 0.35, "keypoints": 2}, {"scale": 1.41, "keypoints": 1}]
    assert figures[0][-1] == rows


def test_matchers_are_chosen_by_link_and_kept_in_it(little):
    app = start(view="pair", query="ask.png", result="noise_1.png", by="xfeat,no such")
    assert app.pills(key="kp-by").value == ["xfeat"]
    assert "#### XFeat" in text(app)
    assert "#### DELF" not in text(app)
    app.pills(key="kp-by").set_value([]).run()  # something is always compared
    assert "#### DELF" in text(app)


def test_back_brings_the_usual_settings_that_an_address_does_not_name(little, monkeypatch):
    app = start(view="pair", query="ask.png", result="noise_1.png")
    before = dict(app.query_params)
    app.pills(key="kp-by").set_value(["xfeat"]).run()
    assert app.query_params["by"] == "xfeat"
    monkeypatch.setattr("pages.parts.address.goes_back", lambda: True)
    app.query_params.clear()
    app.query_params.update(before)
    app.run()
    assert app.pills(key="kp-by").value == ["delf", "xfeat"]
    assert dict(app.query_params) == before


@pytest.mark.skipif(
    "town" not in loaders.collection_titles(), reason="the embedded collection is not here"
)
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.title)
def test_pairs_show_what_their_sentence_says(preset):
    """With the networks and the index of the day, as the page compares them."""
    app = start(**presets.link_parameters(loaders.collection("town"), preset))
    assert not app.exception
    assert preset.sentence in text(app)
    shown = text(app).split("#### ")[1:]
    agree = {name for name, part in zip(MATCHERS, shown, strict=True) if "very likely" in part}
    assert agree == preset.confirmed_by
    # Look-alikes have fewer inliers than make sure.
    assert ("check_circle" in text(app)) == (preset.title == "The same building at dusk")
    # A link to the open page does not change the address in the browser: the page has to.
    assert dict(app.query_params) != presets.link_parameters(loaders.collection("town"), preset)
    # The sentence is about the usual settings.
    app.segmented_control(key="kp-model").set_value("homography").run()
    assert preset.sentence not in text(app)


def test_pictures_that_are_not_here(little, monkeypatch, tmp_path):
    away = dataclasses.replace(little.collection, root=tmp_path / "gone")
    monkeypatch.setattr(loaders, "collection", lambda name: away)
    assert start().info[0].value.endswith("are not on this machine.")
