"""A server that has Oxford's archive, and one that answers as Wikimedia Commons does."""

import pickle
from dataclasses import replace

import pytest
from commons_site import serving
from file_server import Server, gnd, tgz

from retrieval.collections import downloads, transfer


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def roxford(server, monkeypatch):
    truth = gnd(4993, 70, "oxford")
    server.files["/gnd_roxford5k.pkl"] = pickle.dumps(truth)
    names = [*truth["imlist"], *truth["qimlist"]]
    server.files["/oxbuild_images-v1.tgz"] = tgz([f"{name}.jpg" for name in sorted(names)])
    source = replace(
        downloads.SOURCES["roxford5k"],
        size=1_000_000,
        archives=(f"{server.root}/oxbuild_images-v1.tgz",),
        ground_truth=f"{server.root}/gnd_roxford5k.pkl",
        ground_truth_sha256="",
    )
    monkeypatch.setitem(downloads.SOURCES, "roxford5k", source)
    return truth


@pytest.fixture
def site(monkeypatch):
    with serving(monkeypatch) as site:
        yield site


@pytest.fixture
def two(site):
    """Twelve files in each of two categories."""
    for category in ("Tower", "Bridge"):
        for _ in range(12):
            site.add(category)
    return site
