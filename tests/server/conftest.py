"""A service on a port of its own, with one small collection."""

import io
import json
import threading
import time

import pytest
import requests
import uvicorn
from PIL import Image
from starlette.formparsers import FormParser

from retrieval import index, server
from retrieval.collections import collection as collections
from retrieval.index import finding

PARSE = FormParser.parse  # as it is before tests of the app have run


@pytest.fixture(autouse=True)
def forms_are_read(monkeypatch):
    """The app, which runs in this process in other tests only, refuses forms that bring no file."""
    monkeypatch.setattr(FormParser, "parse", PARSE)


@pytest.fixture(scope="session")
def precomputed(tmp_path_factory, folder, load):
    """``precomputed/`` with one small collection called town: five pictures, one query."""
    root = tmp_path_factory.mktemp("precomputed")
    names = ["a.png", "b.png", "d é.png", "sub/e.png", "sub/f.jpg"]
    truth = {"imlist": names, "qimlist": ["c.png"], "gnd": [{"easy": [0], "bbx": [5, 5, 200, 150]}]}
    town = root / "town"
    town.mkdir()
    (town / "images").symlink_to(folder)
    (town / "ground_truth.json").write_text(json.dumps(truth))
    opened = collections._with_ground_truth(town, "town", "Town", "")
    for name in ("delf", "cnn-irwnha"):
        method = load(name)
        index.build(opened, method, town / method.checkpoint.id)
    return root


class Client:
    """A service that runs in another thread, on a port of its own."""

    def __init__(self, **options):
        app = server.create(server.Options(**options))
        config = uvicorn.Config(app, port=0, log_level="warning", **server.settings())
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.root = f"http://127.0.0.1:{self.port}"

    def get(self, path, **options):
        return requests.get(self.root + path, timeout=120, **options)

    def post(self, path, **options):
        return requests.post(self.root + path, timeout=120, **options)

    def upload(self, path, data, name="mine.jpg", **form):
        return self.post(f"/indexes/{path}/search", files={"picture": (name, data)}, data=form)

    def stop(self):
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def installed(precomputed, monkeypatch):
    monkeypatch.setattr(finding, "PRECOMPUTED", precomputed)
    monkeypatch.setattr(collections, "PRECOMPUTED", precomputed)
    return precomputed


@pytest.fixture
def start(installed):
    """``start(**options)``: a running service."""
    running = []

    def starter(**options):
        running.append(Client(**options))
        return running[-1]

    yield starter
    for client in running:
        client.stop()


@pytest.fixture
def client(start):
    return start()


@pytest.fixture(scope="session")
def jpeg():
    """``jpeg(picture)``: as bytes."""

    def encode(picture):
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=95)
        return data.getvalue()

    return encode


@pytest.fixture
def picture(jpeg):
    return jpeg(Image.new("RGB", (90, 70), "red"))
