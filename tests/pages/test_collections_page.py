"""The page "Collections", against a server on this machine that answers as Commons does."""

from pathlib import Path

import numpy as np
import pytest
from commons_site import serving
from PIL import Image
from streamlit.testing.v1 import AppTest
from stubs import Registered

from pages.parts import loaders
from retrieval import index, methods
from retrieval.collections import commons, data_folder
from retrieval.errors import RetrievalError

ROOT = Path(__file__).parents[2]


class Patches(Registered):
    """Colours of 8 × 6 patches: the server's random pictures are about orthogonal."""

    def describe(self, picture, box=None):
        small = np.asarray(picture.resize((8, 6), Image.Resampling.BOX), np.float32).ravel()
        small -= small.mean()
        return small / np.linalg.norm(small)


@pytest.fixture
def site(monkeypatch, tmp_path):
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RETRIEVAL_ALLOW_DOWNLOADS", "1")
    monkeypatch.setattr(methods, "load_record", lambda record, **_: Patches(record.method))
    monkeypatch.setitem(commons.PRESETS, "oxford", ("Tower", "Bridge"))
    loaders._method.clear()
    with serving(monkeypatch) as site:
        for category in ("Tower", "Bridge"):
            for _ in range(6):
                site.add(category)
        yield site
    loaders._method.clear()


def start():
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    app = app.switch_page("pages/collections.py").run()
    assert not app.exception, app.exception
    return app


def bring(app):
    app.text_input(key="contact").input("me@example.org").run()
    app.button(key="bring").click().run()
    assert not app.exception, app.exception
    return app


def table(app, number):
    return app.dataframe[number].value


def test_only_the_owner_is_offered_a_download(site, monkeypatch):
    monkeypatch.delenv("RETRIEVAL_ALLOW_DOWNLOADS")
    app = start()
    assert not [button for button in app.button if button.key == "bring"]
    assert "RETRIEVAL_ALLOW_DOWNLOADS=1" in app.info[0].value
    assert "download commons --preset oxford" in app.code[0].value
    assert site.asked == []


def test_presets_say_their_size_first(site):
    app = start()
    assert app.radio(key="preset").options == ["Oxford", "Paris", "World"]
    captions = app.radio(key="preset").proto.captions
    assert captions[0] == "2 landmarks, up to 120 photographs: roughly 40 MB and 3 minutes"
    assert captions[2].startswith("20 landmarks, up to 1,200 photographs: roughly 360 MB")
    assert app.button(key="bring").disabled  # until there is a contact
    assert site.asked == []


def test_download_credits_and_index(site, tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.collections.PRECOMPUTED", tmp_path / "precomputed")
    find = index.find
    monkeypatch.setattr(index, "find", lambda name: find(name, tmp_path / "precomputed"))
    app = bring(start())
    assert not app.error
    here = table(app, 0).set_index("Collection")
    assert here.loc["Oxford (Wikimedia Commons)", "Pictures"] == 10
    assert here.loc["Oxford (Wikimedia Commons)", "Queries"] == 2
    credits = table(app, 1)
    assert len(credits) == 12
    assert set(credits["Author"]) == {f"P{pageid}" for pageid in site.files}
    assert set(credits["Licence"]) == {"CC BY-SA 4.0"}
    assert all(page.startswith("https://commons.wikimedia.org/") for page in credits["Source"])
    app.button(key="make-cnn-irwnha").click().run()
    assert not app.exception, app.exception
    assert not app.error
    assert find("oxford-commons", tmp_path / "precomputed").keys() == {"cnn-irwnha"}
    assert not [button for button in app.button if button.key == "make-cnn-irwnha"]


def test_no_network_says_what_to_do_and_goes_on_later(site):
    site.broken = 12
    app = bring(start())
    assert "cannot be downloaded now" in app.error[0].value
    assert "press the button again to continue" in app.info[0].value
    assert "--preset oxford --contact me@example.org" in app.code[0].value
    site.asked.clear()
    site.broken = None
    app.button(key="bring").click().run()
    assert not app.error
    assert (data_folder() / "oxford-commons" / "ground_truth.json").is_file()


def test_what_strangers_wrote_is_not_rendered(site):
    site.moved["Tower"] = "![x](https://example.org/spy.png)"
    site.broken = 1
    app = bring(start())
    assert "![x]" in "".join(element.value for element in app.text)
    assert not any("![x]" in element.value for element in app.markdown)


def test_a_collection_that_cannot_be_opened_leaves_the_others(site, monkeypatch):
    """It ended the page, also for the others and for what can be downloaded."""
    open_collection = loaders.collection

    def broken(name):
        if name == "atlas":
            raise RetrievalError("Its ground truth is damaged.")
        return open_collection(name)

    titles = {"atlas": "The atlas"} | loaders.collection_titles()
    monkeypatch.setattr(loaders, "collection_titles", lambda: titles)
    monkeypatch.setattr(loaders, "collection", broken)
    app = start()
    said = [one.value.replace("\\", "") for one in app.error]
    assert said == ["The atlas cannot be opened. Its ground truth is damaged."]
    assert "The atlas" not in set(table(app, 0)["Collection"])
    assert len(table(app, 0)) == len(titles) - 1 > 0
    assert app.radio(key="preset").options
