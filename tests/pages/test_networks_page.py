"""The page "Networks and indexes": what is installed, and what can be downloaded."""

import hashlib
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from retrieval import index
from retrieval.networks import checkpoints

ROOT = Path(__file__).parents[2]
NETWORK = "gl18-resnet50"
CONTENT = b"not a network, but whole" * 1000


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """The page, with one network to be had from a server on this machine."""
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RETRIEVAL_ALLOW_DOWNLOADS", "1")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "network.pth").write_bytes(CONTENT)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def offer(sha256):
        record = replace(
            checkpoints.REGISTRY[NETWORK],
            address=f"http://127.0.0.1:{server.server_port}/network.pth",
            weights_sha256=sha256,
        )
        monkeypatch.setitem(checkpoints.REGISTRY, NETWORK, record)
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
        return app.switch_page("pages/networks.py").run()

    yield offer
    server.shutdown()


def here(app):
    """Network → 'yes' or 'no', from the last table of the page."""
    table = app.dataframe[-1].value
    return dict(zip(table["Checkpoint"], table["On this machine"], strict=True))


def download(app):
    app.selectbox(key="network").select(NETWORK).run()
    [button] = [button for button in app.button if button.label.startswith("Download, ")]
    return button.click().run()


def test_a_network_is_downloaded_and_then_listed_as_here(networks):
    app = networks(hashlib.sha256(CONTENT).hexdigest())
    assert here(app)[NETWORK] == "no"
    app = download(app)
    assert not app.error
    assert here(app)[NETWORK] == "yes"
    assert checkpoints.REGISTRY[NETWORK].path.read_bytes() == CONTENT
    assert NETWORK not in app.selectbox(key="network").options


def test_a_network_with_another_hash_is_refused_in_a_sentence(networks):
    app = download(networks("0" * 64))
    assert len(app.error) == 1
    assert not checkpoints.REGISTRY[NETWORK].path.exists()


def test_visitors_download_nothing_unless_the_owner_allows_it(networks, monkeypatch):
    monkeypatch.delenv("RETRIEVAL_ALLOW_DOWNLOADS")
    app = networks(hashlib.sha256(CONTENT).hexdigest())
    app.selectbox(key="network").select(NETWORK).run()
    assert not [button for button in app.button if button.label.startswith("Download")]
    assert app.code[0].value == f"python -m retrieval download {NETWORK}"
    assert "RETRIEVAL_ALLOW_DOWNLOADS=1" in app.info[0].value


def test_every_checkpoint_and_index_is_named(networks):
    app = networks("0" * 64)
    for table in (app.dataframe[0], app.dataframe[1]):
        assert {"sir-lite0", "delf-lite0", "gem-lite0"} <= set(table.value["Checkpoint"])


def test_a_damaged_index_is_told_and_the_others_are_listed(networks, tmp_path, monkeypatch):
    damaged = tmp_path / "town" / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "manifest.json").write_text('{"method": "sir", "checkpoint": {"id": "x"}}')
    whole = index.find_all("town")
    monkeypatch.setattr(index, "find_all", lambda name: [*whole, ("sir", damaged)])
    app = networks("")
    assert not app.exception
    assert "manifest" in app.warning[0].value
    assert len(app.dataframe[1].value) == len(whole)


def test_it_is_said_that_a_saved_model_is_a_program(networks):
    app = networks("")
    app.selectbox(key="network").select("delf-tfhub").run()
    assert any("which is a program" in one.value for one in app.caption)
