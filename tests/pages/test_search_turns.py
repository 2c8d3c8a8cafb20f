"""When the search page computes: turns beside other visitors, and what is kept."""

import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from search_app import Colours, captions, go, hits, start, text
from streamlit.delta_generator import DeltaGenerator

from pages.parts import loaders, turns
from pages.parts.cache import Cache
from pages.parts.search.answer import duration_text
from retrieval import images, index, methods
from retrieval.index import describing
from retrieval.methods.xfeat import XFeat
from retrieval.networks import checkpoints
from retrieval.ranking import search, verifiers
from retrieval.workers import Workers, in_slow_workers


def test_the_time_of_an_answer_has_the_network_in_it(little, monkeypatch):
    """With another re-ranker the features come from the cache, and the page said '< 1 ms'."""
    describe = Colours.describe

    def slowly(method, picture, box=None):
        time.sleep(0.05)
        return describe(method, picture, box)

    monkeypatch.setattr(Colours, "describe", slowly)
    app = go(start())
    first = re.search(r"extraction (.+?) · search", text(app)).group(1)
    app.selectbox(key="then").set_value("expansion-average").run()
    assert "Average query expansion" in captions(app)
    assert re.search(r"extraction (.+?) · search", text(app)).group(1) == first != duration_text(0)


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


def test_a_search_that_finds_keypoints_first_says_so(little, monkeypatch):
    """With 200 thumbnails of a visitor the page said "Searching" for half a minute."""
    said, spinner = [], loaders.st.spinner

    def listening(text, **options):
        said.append(text)
        return spinner(text, **options)

    def geometry():
        app = go(start(method="cnn-irwnha"))
        del said[:]
        app.selectbox(key="then").set_value("geometry").run()
        assert not app.exception
        return [text for text in said if "keypoints of up to 100" in text]

    record = checkpoints.REGISTRY["xfeat"]
    xfeat = XFeat(record, **record.settings)
    monkeypatch.setattr(verifiers, "xfeat", lambda: xfeat)
    monkeypatch.setattr(loaders.st, "spinner", listening)
    assert geometry()
    path = verifiers.candidates(little.indexes["cnn-irwnha"])[0]
    index.build(little.collection, xfeat, path)
    assert not geometry()


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
    monkeypatch.setattr(turns, "WORKERS", workers)
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
    monkeypatch.setattr(turns, "WORKERS", workers)
    monkeypatch.setattr(turns, "client", lambda: "me")
    free, read, pictures_read = threading.Event(), images.read, []

    def reading(data, name, *rest):
        pictures_read.append((name, free.is_set()))
        return read(data, name, *rest)

    monkeypatch.setattr(images, "read", reading)
    workers.submit("somebody else", lambda: free.wait(30))
    known, names = describing.Known({}, []), list(little.collection.names[:3])
    described = turns.describe_in_turns(
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
    monkeypatch.setattr(turns, "WORKERS", workers)
    monkeypatch.setattr(turns, "client", lambda: "me")
    monkeypatch.setattr(images, "QUICK_SECONDS", 1e-6)
    known, names = describing.Known({}, []), list(little.collection.names[:3])
    described = turns.describe_in_turns(
        little.collection, Colours("sir"), names, known, images.visitors_limit()
    )
    assert [(one.name, one.size) for one in described] == [
        (name, images.read(little.collection.path(name)).size) for name in names
    ]
    assert workers.slow._threads


def test_a_build_with_a_network_that_takes_long_is_done_apart(little, monkeypatch):
    """Beside two visitors whose pictures a network of 10 s described, others waited 10 to 14 s."""
    monkeypatch.setattr(turns, "WORKERS", Workers(1, 10, slow=Workers(1, 10)))
    monkeypatch.setattr(turns, "client", lambda: "me")
    monkeypatch.setattr(images, "QUICK_SECONDS", 60)
    monkeypatch.setattr(images, "_took_long", [])  # the test above has put these pictures there
    monkeypatch.setattr(search, "QUICK_SECONDS", 0)
    method, apart = Colours("sir"), []
    describe = method.describe
    monkeypatch.setattr(
        method, "describe", lambda picture: apart.append(in_slow_workers()) or describe(picture)
    )
    known, names = describing.Known({}, []), list(little.collection.names[:3])
    assert list(turns.describe_in_turns(little.collection, method, names, known, images.MAX_PIXELS))
    assert apart == [False, True, True]  # the first one tells how long it takes


def test_a_picture_that_is_described_at_many_pixels_is_searched_with_apart(little, monkeypatch):
    workers = Workers(1, 10, slow=Workers(1, 10))
    monkeypatch.setattr(turns, "WORKERS", workers)
    monkeypatch.setattr(loaders, "CACHE", Cache(1 << 20))
    monkeypatch.setattr(search, "QUICK_SECONDS", 60)
    expected = hits(go(start(method="cnn-irwnha")))
    assert not workers.slow._threads
    monkeypatch.setattr(loaders, "CACHE", Cache(1 << 20))
    monkeypatch.setattr(search, "QUICK_PIXELS", -1)
    assert hits(go(start(method="cnn-irwnha"))) == expected
    assert workers.slow._threads


def test_the_same_question_of_another_visitor_costs_nothing(little, monkeypatch):
    first = hits(go(start(method="cnn-irwnha")))
    monkeypatch.setattr(turns, "WORKERS", None)  # nobody is there to search
    assert hits(go(start(method="cnn-irwnha"))) == first
