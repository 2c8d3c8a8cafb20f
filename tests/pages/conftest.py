"""What all tests of pages need, and small collections for those of search and evaluation."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_app import NAMES, QUERIES, RANKS, Grey
from PIL import Image
from search_app import BLUE, GREEN, RED, Colours, picture
from streamlit.components.v2 import manifest_scanner

from pages.parts import loaders, own_pictures
from pages.parts.cache import Cache
from retrieval import index, methods
from retrieval.collections import collection as collections
from retrieval.evaluation import runs


@pytest.fixture(scope="session", autouse=True)
def scanned_once():
    """Each AppTest looks for components in all that is installed, which stays the same."""
    with pytest.MonkeyPatch.context() as patch:
        scan = functools.cache(manifest_scanner.scan_component_manifests)
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch):
    """No network is loaded in the background, where it would meet the stand-ins of other tests."""
    monkeypatch.setattr(loaders, "preload", lambda paths: None)


@pytest.fixture
def colours_folder(tmp_path):
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
def stand_in(monkeypatch):
    """The stand-in method instead of the networks."""
    monkeypatch.setattr(methods, "load_record", lambda record, **_: Colours(record.method))
    for cached in (loaders._method, loaders._index):
        cached.clear()
    monkeypatch.setattr(loaders, "CACHE", Cache(1 << 27))
    yield
    loaders._method.clear()


@pytest.fixture
def little(stand_in, colours_folder, tmp_path, monkeypatch):
    """The collection is installed, with an index for two of the three methods."""
    opened = dataclasses.replace(
        collections.open_collection(colours_folder), name="little", title="Little collection"
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


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """A collection with an evaluated index for two of the three methods is installed."""
    folder = tmp_path / "little"
    folder.mkdir()
    for n, name in enumerate((*NAMES, "q0.png", "q1.png", "q2.png")):
        Image.new("RGB", (40, 30), (20 * n, 90, 255 - 20 * n)).save(folder / name)
    (folder / "ground_truth.json").write_text(json.dumps({"database": NAMES, "queries": QUERIES}))
    opened = dataclasses.replace(
        collections.open_collection(folder), name="little", title="Little collection"
    )
    made = SimpleNamespace(collection=opened, indexes=[], built={})
    for name, ranks in RANKS.items():
        built = index.build(opened, Grey(name), tmp_path / "indexes" / name)
        runs.record_run(built, opened, ranks, {"search": np.full(3, 0.01)})
        made.built[name] = built
        made.indexes.append((name, built.path))
    for cached in (loaders._method, loaders._index, loaders._run):
        cached.clear()
    monkeypatch.setattr(loaders, "CACHE", Cache(1 << 27))
    monkeypatch.setattr(methods, "load_record", lambda record, **_: Grey(record.method))
    monkeypatch.setattr(loaders, "collection_titles", lambda: {"little": "Little collection"})
    monkeypatch.setattr(loaders, "collection", lambda name: made.collection)
    monkeypatch.setattr(index, "find_all", lambda name: made.indexes)
    monkeypatch.setattr(index, "find", lambda name: dict(made.indexes))
    return made


@pytest.fixture
def nothing_installed(stand_in, monkeypatch):
    """No collection is installed."""
    monkeypatch.setattr(loaders, "collection_titles", dict)
    monkeypatch.delenv(own_pictures.FOLDERS_VARIABLE, raising=False)
