"""The page "How it works": the steps can be changed, and the ranking follows."""

import dataclasses
import gc
import io
import itertools
import json
import re
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from attack.indexes import edited
from PIL import Image
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.runtime.fragment import MemoryFragmentStorage
from streamlit.runtime.scriptrunner_utils.script_run_context import in_cached_function
from streamlit.testing.v1 import AppTest

from pages.parts import loaders, turns
from pages.parts.about import collection_map, steps
from pages.parts.about.followed_query import FollowedQuery
from pages.parts.address import OWN_PICTURES
from pages.parts.cache import Cache
from pages.parts.query import QueryPicture
from retrieval import index
from retrieval.cli.parser import _parser
from retrieval.collections import PRECOMPUTED, open_collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import ablation, runs
from retrieval.figures.style import DARK_BACKGROUND
from retrieval.methods.delf import DELF
from retrieval.networks.records import HEADS

ROOT = Path(__file__).parents[2]
TOWN = PRECOMPUTED / "town"
pytestmark = pytest.mark.skipif(
    not (TOWN / "gem-lite0" / ablation.FILE).is_file(), reason="the embedded collection is not here"
)


def page(**link):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params.update({"collection": "town", "query": "hall_004.jpg", **link})
    app.switch_page("pages/about.py").run()
    assert not app.exception, app.exception
    return app


def test_a_small_box_in_a_large_picture(tmp_path):
    picture = Image.new("RGB", (3000, 2000), "blue")
    picture.paste("red", (2990, 0, 3000, 10))
    picture.save(tmp_path / "large.png")
    box = (2990.0, 0.0, 3000.0, 10.0)
    query_picture = QueryPicture("large.png", tmp_path / "large.png")
    followed = FollowedQuery(open_collection("town"), query_picture, box, "")
    cut = steps.cut(followed, 300)
    assert cut.size == (4, 4)
    assert cut.getpixel((3, 0))[0] > 150


def first(app, key):
    """The pictures of a strip, best first."""
    found = [one for one in app.button if re.fullmatch(rf"open-about-{key}-\d+-\w+", one.key or "")]
    return [re.sub(r"\\", "", one.label.split(": ")[1].split(",")[0]) for one in found]


def scores(app):
    """Average precision of every strip of the page, from the top."""
    text = " ".join(one.value for one in app.markdown)
    return [float(value) for value in re.findall(r"average precision \*\*([\d.]+)\*\*", text)]


def test_a_link_to_an_unknown_picture_says_so():
    app = page(part="sir", query="nobody.jpg")
    assert "nobody" in app.warning[0].value
    app.run()
    assert not app.warning


def test_a_link_to_an_unknown_part_says_so():
    app = page(part="cnn")
    assert "asks for the part cnn, which is unknown" in app.warning[0].value
    assert app.query_params["part"] == "sir"
    app.run()
    assert not app.warning


def test_own_pictures_are_followed_one_by_one():
    app = page(part="sir")
    assert not any("A picture of yours" in one.value for one in app.caption)
    app.session_state["collection"] = OWN_PICTURES
    app.run()
    assert any("A picture of yours" in one.value for one in app.caption)


def test_a_collection_without_its_pictures_says_what_to_do(monkeypatch, tmp_path):
    names_only = dataclasses.replace(open_collection("town"), root=tmp_path / "gone")
    monkeypatch.setattr(loaders, "collection", lambda name: names_only)
    app = page(part="map")
    assert "Choose another collection" in app.info[0].value
    assert not app.error


def test_sir_with_and_without_its_layer():
    app = page(part="sir")
    assert [one.value for one in app.subheader] == [
        "1 · Input",
        "2 · Feature map",
        "3 · Average pooling",
        "4 · Fully connected layer of 1024 units",
        "5 · Nearest neighbours",
    ]
    on, value = first(app, "sir"), scores(app)
    assert len(on) == 10
    app.toggle(key="about-layer").set_value(False).run()
    assert not app.exception
    assert first(app, "sir") != on
    assert scores(app) != value
    app.toggle(key="about-layer").set_value(True).run()
    assert first(app, "sir") == on
    # A result becomes the picture that is followed, and the link says so.
    [card] = [one for one in app.button if (one.key or "").startswith("open-about-sir-0-")]
    card.click().run()
    assert not app.exception
    assert app.selectbox(key="about-query").value == on[0]
    assert app.query_params["query"] == on[0]
    assert on[0] not in first(app, "sir")


@pytest.fixture
def altered(monkeypatch, tmp_path):
    """``altered(part, name, change)``: a method has this index of the town, so changed."""

    def alter(part, name, change):
        shutil.copytree(TOWN / name, tmp_path / name)
        edited(tmp_path / name, change)
        monkeypatch.setattr(index, "find", lambda collection: {part: tmp_path / name})

    return alter


def test_an_index_that_leaves_out_a_setting(altered):
    """It has the default. The page ended in a traceback where it names the value."""
    altered("delf", "delf-lite0", lambda manifest: manifest["settings"].pop("scales") and None)
    sizes = len(DELF.defaults["scales"])
    said = " ".join(one.value for one in page(part="delf").markdown)
    assert f"DELF looks at the picture in {sizes} sizes" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda manifest: manifest["checkpoint"].update(sha256="0" * 64), "checkpoint sir-lite0"),
        (lambda manifest: manifest["settings"].pop("size") and None, "size"),
    ],
)
def test_an_index_of_other_weights_or_settings_is_refused(altered, change, said):
    """Its neighbours were shown with cosines to what this network makes of the picture."""
    altered("sir", "sir-lite0", change)
    app = page(part="sir")
    assert f"was made with {said}" in app.error[0].value.replace("\\", "")
    assert not app.subheader


def test_gem_from_the_average_to_the_maximum_and_back_to_the_index():
    app = page(part="cnn-irwnha")
    learned, whole = first(app, "gem"), first(app, "scales")
    assert first(app, "marked") == whole
    assert len(scores(app)) == 4
    # All scales are the method itself: what the evaluation of the index found.
    town = open_collection("town")
    run = runs.load_run(index.load(TOWN / "gem-lite0"), town)
    number = [query.name for query in town.queries].index("hall_004.jpg")
    assert whole == [town.names[n] for n in run.ranks[:10, number]]
    app.select_slider(key="about-p").set_value(float("inf")).run()
    assert not app.exception
    assert first(app, "gem") != learned
    app.toggle(key="about-whitening").set_value(False).run()
    assert first(app, "whitening") == first(app, "gem")  # both without whitening now
    app.segmented_control(key="about-scales").set_value(1).run()
    assert not app.exception
    assert first(app, "scales") != whole


@pytest.mark.parametrize("part", ["sir", "cnn-irwnha"])
def test_an_open_tab_does_not_keep_the_feature_maps(monkeypatch, part):
    """They were 1.7 MB of each tab, as its fragments were given them."""
    kept, made = [], []
    keep, take = MemoryFragmentStorage.register, ablation.take_steps

    def taken(*arguments):
        steps = take(*arguments)
        made.append(weakref.ref(steps))
        return steps

    def registered(*some, **more):
        kept.append(some)
        keep(*some, **more)

    monkeypatch.setattr(MemoryFragmentStorage, "register", registered)
    monkeypatch.setattr(ablation, "take_steps", taken)
    monkeypatch.setattr(loaders, "CACHE", Cache(1))
    assert not page(part=part).exception
    gc.collect()
    assert kept
    assert made
    assert [steps() for steps in made] == [None] * len(made)


def test_the_network_that_is_named_is_that_of_the_index(monkeypatch):
    found = {"cnn-irwnha": TOWN / "gem-lite0-imagenet"}
    monkeypatch.setattr(index, "find", lambda name: found)
    app = page(part="cnn-irwnha")
    assert "(gem-lite0-imagenet)" in app.caption[-1].value


def test_the_training_is_shown_as_it_was():
    app = page(part="training")
    made = json.loads((HEADS / "gem-lite0.json").read_text("utf-8"))
    text = " ".join(one.value for one in app.markdown)
    values = [row["validation"] for row in made["epochs"]]
    assert f"**{values[0]:.1%}** before, **{max(values):.1%}** after" in text
    # They were shown without --out, and so ended with an error for those who copied them.
    commands = [one.value for one in app.code]
    assert commands[0] == f"{made['command']} --out gem-lite0.pth"
    for command in commands:
        _parser().parse_args(command.split()[3:])
    before, after = first(app, "gem-lite0-imagenet"), first(app, "gem-lite0")
    assert len(before) == 10
    assert before != after


def test_a_collection_without_an_index_says_how_to_make_one(monkeypatch):
    monkeypatch.setattr(index, "find", lambda name: {})
    app = page(part="delf")
    assert "python -m retrieval index town --method delf" in app.info[0].value


def drawn(app):
    """The rows of each map of the page."""
    charts = app.get("vega_lite_chart")
    assert len(charts) == 2
    for chart in charts:
        data = chart.proto.data.data or chart.proto.datasets[0].data.data
        yield convert_arrow_bytes_to_pandas_df(data).to_dict("records")


@pytest.mark.parametrize("part", ["sir", "delf", "cnn-irwnha"])
def test_an_index_that_is_replaced_while_its_steps_are_drawn(monkeypatch, part):
    """It was looked for again below them: a search may have waited for seconds until then."""
    found = [index.find("town")]
    monkeypatch.setattr(index, "find", lambda name: found.pop() if found else {})
    assert "Paper: " in page(part=part).caption[-1].value


def test_the_map_says_what_a_query_finds():
    app = page(part="map")
    opened = index.load(TOWN / "gem-lite0")
    for rows in drawn(app):
        assert [row["Picture"] for row in rows] == list(opened.names)
        assert sum(row["ring"] for row in rows) == 10
        assert rows[0]["image"].endswith(".jpg")  # fetched when the mouse is there
        assert sum(len(row["image"]) for row in rows) < 100 * len(rows)
        assert {row["value"] for row in rows if row["value"]} >= {"hall", "museum"}
    # The colour can say what the table beside the pictures knows, numbers on a scale.
    known = open_collection("town").metadata
    colour = app.selectbox(key="map-colour-town")
    assert {"Light", "Distance in metres"} < set(colour.options)
    for column in ("light", "distance_in_metres"):
        app.selectbox(key="map-colour-town").set_value(column).run()
        assert not app.exception
        for rows in drawn(app):
            told = {row["Picture"]: row["value"] for row in rows if column in known[row["Picture"]]}
            assert told == {name: known[name][column] for name in told} != {}
    app.segmented_control(key="map-kind").set_value("pca").run()
    assert not app.exception
    assert "of all differences" in " ".join(one.value for one in app.markdown)
    assert app.query_params["map"] in ("pca", ["pca"])


@pytest.mark.parametrize(("linked", "shown"), [("pca", "pca"), ("umap", "tsne")])
def test_a_link_brings_the_kind_of_map(linked, shown):
    app = page(part="map", map=linked)
    assert not app.exception
    assert app.segmented_control(key="map-kind").value == shown
    assert app.query_params["map"] == shown


def test_a_map_is_not_kept_for_the_index_that_replaces_its_own(monkeypatch):
    search, keys = loaders.search, []

    def replaced(*asked):
        found = search(*asked)
        monkeypatch.setattr(loaders, "file_key", lambda path: (str(path), 7))
        return found

    def cached(source, key, work, message):
        keys.append(key)
        return work()

    monkeypatch.setattr(loaders, "search", replaced)
    monkeypatch.setattr(loaders, "cached", cached)
    page(part="map", map="pca")
    _, (_, changed), _ = next(key for key in keys if key[0] == "map")
    assert changed != 7


def test_nobody_waits_for_the_turn_of_another_who_asked_for_the_same_map(monkeypatch):
    """Streamlit keeps all waiting for the first who asks: one with many searches in the queue."""
    locked, run = [], turns.WORKERS.run

    def asked(*work):
        locked.append(in_cached_function.get())
        return run(*work)

    monkeypatch.setattr(turns.WORKERS, "run", asked)
    monkeypatch.setattr(loaders, "CACHE", Cache(1 << 20))
    page(part="map", map="tsne")
    assert len(locked) > 1  # the search, and the map
    assert not any(locked)


def test_marked_results_are_left_out_and_move_the_others():
    app = page(part="cnn-irwnha")
    assert not first(app, "again")
    shown = first(app, "scales")
    app.button(key="about-labelled").click().run()
    assert not app.exception
    before, again = first(app, "before"), first(app, "again")
    assert not set(shown) & {*before, *again}
    assert len(again) == 10
    assert before != again
    values = scores(app)
    assert values[-1] > values[-2]


def test_variants_of_an_earlier_index_stop_nothing_else(monkeypatch):
    def stale(path, collection):
        raise RetrievalError("The ablation is of an earlier index; run: python -m retrieval ablate")

    monkeypatch.setattr(loaders, "variants", stale)
    app = page(part="sir")
    assert "earlier index" in app.warning[0].value
    assert [one.value for one in app.subheader][-1] == "3 · Average pooling"


def test_variants_that_cannot_be_used_are_named_without_the_path_of_the_checkout(monkeypatch):
    monkeypatch.setattr(ablation, "MAX_PICTURES", 10)
    loaders._variants.clear()
    warned = page(part="sir").warning[0].value.replace("\\", "")
    loaders._variants.clear()
    assert str(TOWN.parent) not in warned
    assert "town/sir-lite0: it is for up to 10 pictures" in warned


def test_a_picture_of_ones_own_is_followed():
    app = page(part="sir")
    picture = Image.effect_mandelbrot((320, 240), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    out = io.BytesIO()
    picture.save(out, "PNG")
    app.file_uploader(key="about-upload").upload("mine.png", out.getvalue(), "image/png").run()
    assert not app.exception
    assert len(first(app, "sir")) == 10
    assert "query" not in app.query_params
    app.file_uploader(key="about-upload").upload("mine.png", b"not a picture", "image/png").run()
    assert not app.exception
    assert app.error


def uploaded(app, name, seed):
    """Follow a picture of one's own."""
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((320, 240)).save(out, "PNG")
    app.file_uploader(key="about-upload").upload(name, out.getvalue(), "image/png").run()
    assert not app.exception


def test_a_picture_of_ones_own_is_not_the_one_of_the_same_name():
    """The map marked the picture of the collection with a cross, as if that were followed."""
    opened = index.load(TOWN / "gem-lite0")
    app = page(part="map", map="pca")
    uploaded(app, opened.names[0], 1)
    for rows in drawn(app):
        assert not any(row["query"] for row in rows)


def test_marks_are_those_of_one_picture():
    """The next picture of the same name had the marks of the one before, at other results."""
    app = page(part="cnn-irwnha")
    uploaded(app, "mine.png", 1)
    next(one for one in app.get("button_group") if one.label == "Right").set_value([0]).run()
    assert first(app, "again")
    uploaded(app, "mine.png", 2)
    assert not first(app, "again")


def test_no_browser_is_told_where_the_pictures_are():
    """The identifier of a control had the path of the query picture in it."""
    keys = [one.key or "" for one in page(part="delf").get("button_group")]
    assert any(key.startswith("about-match-") for key in keys)
    assert not any("hall_004" in key for key in keys)


def test_a_blank_picture_has_no_keypoints_to_follow():
    app = page(part="delf")
    out = io.BytesIO()
    Image.new("RGB", (320, 240), "white").save(out, "PNG")
    app.file_uploader(key="about-upload").upload("blank.png", out.getvalue(), "image/png").run()
    assert not app.exception
    assert any("no keypoint" in one.value for one in app.info)


def test_colours_of_the_map_are_seen_on_white_and_dark_and_come_with_shapes():
    def contrast(one, other):
        low, high = sorted(
            sum(
                weight * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
                for weight, part in zip((0.2126, 0.7152, 0.0722), rgb, strict=True)
            )
            for rgb in (
                [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)] for colour in (one, other)
            )
        )
        return (high + 0.05) / (low + 0.05)

    for colour in (*collection_map.COLOURS, collection_map.UNKNOWN):
        for background in ("#ffffff", DARK_BACKGROUND):
            assert contrast(colour, background) >= 3
    chart = collection_map._chart(
        [
            {"Picture": str(n), "Landmark": f"{n:02}", "value": f"{n:02}", "x": n, "y": n}
            | {"ring": False, "query": False}
            for n in range(20)
        ],
        "landmark",
        "N",
    ).to_dict()
    encoding = chart["layer"][1]["encoding"]
    kinds = [encoding[channel]["scale"]["range"] for channel in ("fill", "shape")]
    assert len(set(zip(*kinds, strict=True))) == 20
    for ranges in kinds:  # of neighbours
        assert all(one != other for one, other in itertools.pairwise(ranges))


def test_a_map_of_more_landmarks_than_colours_and_shapes():
    """The 25th landmark ended the page in an IndexError."""
    rows = [
        {"Picture": f"{n}.jpg", "Landmark": f"{n}", "value": f"{n:02}", "x": n, "y": n}
        | {"ring": False, "query": False}
        for n in range(30)
    ]
    drawn = json.dumps(collection_map._chart(rows, "landmark", "N").to_dict())
    assert json.dumps([f"{n:02}" for n in range(30)]) in drawn, "each has its place in the legend"


def test_names_below_a_map_have_room():
    """Those of colleges of Oxford took four columns: on a telephone two of them lay outside."""

    def columns(names, width):
        terms = collection_map._legend_columns(names).expr.split(" : ")
        rooms = [re.fullmatch(r"width >= (\d+) \? (\d)", term).groups() for term in terms[:-1]]
        return next((int(count) for room, count in rooms if width >= int(room)), int(terms[-1]))

    phone, half_a_page = 358, 600
    colleges = [f"{name} College, Oxford" for name in ("Keble", "Balliol", "Magdalen", "Exeter")]
    assert columns(colleges, phone) == 2
    assert columns(colleges, half_a_page) == 3
    assert columns(["x" * 300] * 20, phone) == 2, "a long name is cut"
    assert columns(["bridge", "chapel", "market", "museum", "observatory"], phone) == 4
    assert columns(["1"], 10) == 1


def test_a_collection_of_one_picture(monkeypatch):
    """DELF ended in a traceback: it offers to match the query with a result."""
    search = loaders.search
    monkeypatch.setattr(loaders, "search", lambda *args: search(*args).best(0))
    app = page(part="delf")
    assert [one.value for one in app.info] == ["There is no other picture to find."]
