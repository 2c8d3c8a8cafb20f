"""The page "Groups", with pairs that are given."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.elements.lib import policies
from streamlit.testing.v1 import AppTest

from pages.parts import loaders, own_uploads
from pages.parts.cache import Cache
from retrieval import index, methods
from retrieval.collections import PRECOMPUTED, open_collection
from retrieval.errors import RetrievalError
from retrieval.ranking import groups
from retrieval.ranking.groups import Pair

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    not (PRECOMPUTED / "town" / "gem-lite0").is_dir(), reason="the embedded collection is not here"
)


@pytest.fixture
def page(monkeypatch):
    pairs = [Pair(0, 1, 25, 0.1), Pair(1, 2, 14, 0.05), Pair(30, 31, 200, 0.8)]
    monkeypatch.setattr(groups, "load", lambda index: None)
    monkeypatch.setattr(loaders, "confirmed_pairs", lambda path, collection, progress: pairs)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    app.switch_page("pages/groups.py").run()
    assert not app.exception
    return app.button(key="groups-find").click().run()


def headings(app):
    return [one.value for one in app.markdown if one.value.startswith("**Group")]


def test_groups_of_the_embedded_collection_are_there_at_once(monkeypatch):
    monkeypatch.setattr(policies, "_shown_default_value_warning", False)
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    app.switch_page("pages/groups.py").run()
    assert not app.exception
    assert "groups-find" not in [one.key for one in app.button]
    assert len(headings(app)) == 10
    said = next(one.value for one in app.markdown if one.value.startswith("By the labels"))
    same, labelled = map(int, re.findall(r"\d+", said)[:2])
    assert 100 < labelled < 1.03 * same
    assert not policies._shown_default_value_warning  # a stack in the log, at the numbers of pages


def test_nearly_equal_views_first_and_stricter_or_looser(page):
    assert not page.exception
    first, second = headings(page)
    assert "nearly the same view" in first
    assert "2 pictures" in second
    assert "nearly the same view" not in second
    page.slider[0].set_value(12).run()
    assert "3 pictures" in headings(page)[1]
    page.slider[0].set_value(60).run()
    assert len(headings(page)) == 1


@pytest.mark.parametrize("inliers", [25, None])
def test_without_groups_fewer_inliers_help_only_where_pairs_are(page, monkeypatch, inliers):
    pairs = [Pair(0, 1, inliers, 0.1)] if inliers else []
    monkeypatch.setattr(loaders, "confirmed_pairs", lambda path, collection, progress: pairs)
    page.slider[0].set_value(60).run()
    said = "No two pictures are connected."
    assert page.info[0].value == (f"{said} Fewer inliers connect some." if inliers else said)


def test_other_pictures_of_the_same_name_are_compared_when_asked(page, monkeypatch):
    """Those that a visitor brings have the name of those before: minutes of work began unasked."""
    key = loaders.file_key
    monkeypatch.setattr(loaders, "file_key", lambda path: (*key(path), "replaced"))
    page.run()
    assert not page.exception
    assert not headings(page)
    assert page.button(key="groups-find").click().run().session_state["groups-found"]
    assert len(headings(page)) == 2


def test_a_click_searches(page):
    card = next(one for one in page.button if (one.key or "").startswith("open-group-2-0"))
    name = card.label.removeprefix("Search with ").replace("\\", "")
    card.click().run()
    assert not page.exception
    assert "# Search by example" in [one.value for one in page.markdown]
    assert page.session_state["database"] == name


def test_a_collection_without_index_says_which_command_makes_one(monkeypatch):
    monkeypatch.setattr(index, "find", lambda name: {})
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    app.switch_page("pages/groups.py").run()
    assert not app.exception
    assert "`python -m retrieval index town --method cnn-irwnha`" in app.info[0].value
    assert not app.button


def test_inliers_outlive_a_visit_to_another_page(page):
    page.slider(key="groups-least").set_value(60).run()
    page.switch_page("pages/networks.py").run()
    page.switch_page("pages/groups.py").run()
    assert page.slider(key="groups-least").value == 60
    assert len(headings(page)) == 1


def test_pictures_that_were_moved_are_not_no_groups(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (64, 80, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    collection = open_collection(folder)
    path = index.build(collection, methods.load("sir", size=64), tmp_path / "index").path
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(RetrievalError, match=r"as 0\.png, could not be compared: their features"):
        loaders.confirmed_pairs(path, collection, lambda done, total: None)


def test_groups_without_some_of_the_pictures_say_so(tmp_path, drawn, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    drawn(1, (320, 240)).save(folder / "a.png")
    drawn(1, (320, 240)).save(folder / "b.jpg")
    drawn(2, (320, 240)).save(folder / "c.png")
    collection = open_collection(folder)
    built = index.build(collection, methods.load("sir", size=64), tmp_path / "index")
    (folder / "c.png").rename(tmp_path / "c.png")
    said = []
    monkeypatch.setattr(loaders.st, "warning", lambda text, icon: said.append(text))
    [pair] = loaders.confirmed_pairs(built.path, collection, lambda done, total: None)
    assert (pair.first, pair.second) == (0, 1)
    assert "could not be compared" in said[0]
    assert groups.load(built) is None  # they would stand without c.png when it is back


@pytest.mark.parametrize("parent", ["", f"{own_uploads.FOLDER_PREFIX}1-x"])
def test_pairs_are_kept_beside_the_index(tmp_path, drawn, monkeypatch, parent):
    """In memory too: those of a visitor's own pictures for that session alone."""
    caches = {"": Cache(1 << 20), "session": Cache(1 << 20)}
    monkeypatch.setattr(loaders, "CACHE", caches[""])
    monkeypatch.setattr(loaders, "_session_cache", lambda: caches["session"])
    monkeypatch.setattr(loaders, "_own_index", loaders._index)  # no session is here
    folder = tmp_path / parent / "pictures"
    folder.mkdir(parents=True)
    drawn(1, (320, 240)).save(folder / "a.png")
    drawn(1, (320, 240)).save(folder / "b.jpg")
    collection = open_collection(folder)
    built = index.build(collection, methods.load("sir", size=64), folder.parent / "index")
    pairs = loaders.confirmed_pairs(built.path, collection, lambda done, total: None)
    assert len(pairs) == 1
    assert groups.load(built) == pairs
    assert [bool(cache.bytes) for cache in caches.values()] == [not parent, bool(parent)]


def test_a_link_brings_collection_and_inliers():
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    app.switch_page("pages/groups.py")
    app.query_params["collection"], app.query_params["inliers"] = "town", "900"
    app.run()
    assert not app.exception
    assert app.slider(key="groups-least").value == 60
    assert app.query_params["inliers"] in ("60", ["60"])
    app.slider(key="groups-least").set_value(30).run()
    assert app.query_params["inliers"] in ("30", ["30"])


def test_the_address_and_the_way_back_keep_the_page_of_groups():
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    app.switch_page("pages/groups.py")
    app.query_params["collection"], app.query_params["page"] = "town", "2"
    app.run()
    assert not app.exception
    assert headings(app)[0].startswith("**Group 11**")
    app.switch_page("pages/collections.py").run()
    app.switch_page("pages/groups.py").run()
    assert headings(app)[0].startswith("**Group 11**")
    assert app.query_params["page"] in ("2", ["2"])
    app.query_params["page"] = "1e300"  # the last one
    app.run()
    assert not app.exception
    assert 1 <= len(headings(app)) <= 10
    app.slider(key="groups-least").set_value(60).run()
    assert not app.exception
    assert headings(app)[0].startswith("**Group 1**")
