"""The search page on an index in a store."""

import socket
import time
from pathlib import Path

import pytest
from milvus_server import only_pauses_take_time
from streamlit.testing.v1 import AppTest

from pages.parts import loaders
from retrieval import index
from retrieval.benchmarks.served import free_port
from retrieval.index import finding, store_folders, stored
from retrieval.index import milvus as milvus_module
from retrieval.index.export import export

APP = str(Path(__file__).parents[2] / "app.py")


@pytest.fixture
def app(milvus):
    """The app, opened at a search in the embedded collection."""
    loaders._index.clear()
    one = AppTest.from_file(APP, default_timeout=120)
    one.query_params.update(
        {"collection": "town", "method": "cnn-irwnha", "query": "belltower_001.jpg"}
    )
    yield one
    loaders._index.clear()


def shown(app):
    """Names of the pictures on show, best first."""
    texts = [one.value for one in app.markdown if ".jpg]" in one.value]
    return [text.rpartition(":small[")[2].rstrip("]") for text in texts]


def test_a_search_in_a_store(app, town_store, monkeypatch):
    monkeypatch.setenv(milvus_module.STORES, str(town_store))
    app.run()
    assert not app.exception
    assert not app.error
    text = "\n".join(one.value for one in app.markdown)
    assert "394 pictures" in text
    assert "by the store" in text
    assert "right · AP 0." in text
    names = shown(app)
    assert names[0].startswith("belltower")


def test_keypoints_of_the_exported_index_are_not_found_again(app, town_store, monkeypatch):
    """The page looked for them beside the folder of the store, and said that it may take long."""
    monkeypatch.setenv(milvus_module.STORES, str(town_store))
    said, spinner = [], loaders.st.spinner
    monkeypatch.setattr(
        loaders.st, "spinner", lambda text, **options: said.append(text) or spinner(text, **options)
    )
    app.query_params["then"] = "geometry"
    app.run()
    assert not app.exception
    assert "by the store" in "\n".join(one.value for one in app.markdown)
    assert "Searching" in said


def test_no_page_names_a_command_that_a_store_refuses(app, town_store, monkeypatch):
    """How it works said to run ``ablate``, which ended in a traceback; so did ``groups``."""
    monkeypatch.setenv(milvus_module.STORES, str(town_store))
    app.query_params["part"] = "cnn-irwnha"
    app.switch_page("pages/about.py").run()
    assert not app.exception
    text = "This index is in a store, so its steps cannot be changed here."
    assert [one.value for one in app.info] == [text]
    monkeypatch.setattr(stored.StoredIndex, "__len__", lambda self: 6000)
    app.switch_page("pages/groups.py").run()
    assert not app.exception
    command = f"python -m retrieval groups {town_store} --csv groups.csv"
    assert [one.value for one in app.code] == [command]


def test_keypoints_beside_a_store(app, milvus, monkeypatch):
    """The first index of the collection was asked for the names of its pictures: a traceback."""
    address = milvus.address("town_sir")
    export(index.load(index.find("town")["sir"]), address)
    monkeypatch.setenv(milvus_module.STORES, str(address))
    assert len(finding.in_stores(patience=60)) == 1
    app.query_params.update({"view": "pair", "by": "xfeat", "query": "belltower_003.jpg"})
    app.switch_page("pages/keypoints.py").run()
    assert not app.exception
    assert not app.error
    assert "inliers" in "\n".join(one.value for one in app.markdown)


def test_two_stores_with_the_same_index(app, milvus, town_store, monkeypatch):
    """Evaluation offered to evaluate both, with buttons of one name, and was a traceback."""
    again = milvus.address("town_again")
    export(index.load(index.find("town")["cnn-irwnha"]), again)
    monkeypatch.setenv(milvus_module.STORES, f"{town_store} {again}")
    assert len(finding.in_stores(patience=60)) == 2
    app.switch_page("pages/evaluation.py").run()
    assert not app.exception
    (path,) = (path for _, path in index.find_all("town") if path.name == "gem-lite0")
    assert index.load(path).address == town_store


def test_a_store_that_was_never_seen_and_is_away(app, monkeypatch):
    only_pauses_take_time(monkeypatch)
    monkeypatch.setenv(milvus_module.STORES, f"milvus://127.0.0.1:{free_port()}/town")
    app.run()
    assert not app.exception
    assert "cannot be reached" in app.error[0].value


def test_one_store_of_several_does_not_answer(app, town_store, tmp_path, monkeypatch):
    """Each page waited for it for 10 s and then ended, for all visitors and all collections."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path))
        silent = milvus_module.Address("127.0.0.1", port, "x")
        monkeypatch.setenv(milvus_module.STORES, f"{silent} {town_store}")
        end = time.monotonic() + 60
        while not finding.in_stores(patience=0.1):  # until the other one has answered
            assert time.monotonic() < end
            time.sleep(0.01)
        assert not store_folders._asked[silent][1].done()
        app.run()
    assert not app.exception
    # Later the reason, where the page takes as long as that.
    sentences = ("does not answer", "did not answer within", "cannot be reached")
    assert any(sentence in app.error[0].value for sentence in sentences)
    assert "by the store" in "\n".join(one.value for one in app.markdown)
    assert shown(app)[0].startswith("belltower")
