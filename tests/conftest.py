"""Loaded methods and a few drawn pictures, shared by the whole run."""

import contextlib
import os

# Several threads of torch get in each other's way on a busy machine; one is as fast here.
os.environ.setdefault("OMP_NUM_THREADS", "1")

with contextlib.suppress(ImportError):
    # torch's CUDA wheel brings triton; loaded after tensorflow it crashes the process, and
    # some test may import tensorflow first.
    import triton  # noqa: F401

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from milvus_server import Server, needed
from PIL import Image, ImageDraw

from retrieval import methods
from retrieval.collections import Collection
from retrieval.networks import checkpoints

# A busy machine is no reason to fail: nothing here is about time.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def draw(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """A picture with texture and shapes, so that it has local features of its own."""
    rng = np.random.default_rng(seed)
    width, height = size
    coarse = rng.integers(40, 216, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    canvas = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(8, 50, 2)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        shape = canvas.rectangle if rng.random() < 0.6 else canvas.ellipse
        shape((x, y, x + w, y + h), fill=colour, outline=(0, 0, 0))
    return picture


@pytest.fixture(scope="session")
def drawn():
    """``drawn(seed, size)``: a textured picture, the same for the same seed."""
    return draw


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Six pictures in a folder and a subfolder, one with spaces and accents in its name."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "sub").mkdir()
    names = ("a.png", "b.png", "c.png", "d é.png", "sub/e.png", "sub/f.jpg")
    for seed, name in enumerate(names):
        draw(seed).save(root / name)
    return root


@pytest.fixture(scope="session")
def collection(folder):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    return Collection("drawn", "Drawn", folder, tuple(names))


@pytest.fixture(scope="session")
def load():
    """``load(method, **settings)``: loaded once a run, with settings that are quick."""
    quick = {
        "sir": {"size": 128},
        "delf": {"size": 192, "keypoints": 150},
        "cnn-irwnha": {"size": 128, "scales": [1.0, 0.7071]},
    }
    loaded = {}

    def loader(name: str, **settings):
        settings = quick[name] | settings
        key = name, repr(sorted(settings.items()))
        if key not in loaded:
            checkpoint = checkpoints.of_method(name)[0]
            loaded[key] = methods.load(name, checkpoint.id, **settings)
        return loaded[key]

    return loader


@pytest.fixture(scope="session")
def indexes(tmp_path_factory, collection, load):
    """Method name → loaded index of ``collection``. Read only."""
    from retrieval import index

    root = tmp_path_factory.mktemp("indexes")
    return {name: index.build(collection, load(name), root / name) for name in methods.METHODS}


@pytest.fixture(scope="session")
def milvus(tmp_path_factory):
    """One server for all tests that do not kill it."""
    needed()
    server = Server(tmp_path_factory.mktemp("milvus")).start().wait()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def cache(request, monkeypatch, tmp_path):
    """What is kept of stores goes into a folder of the test."""
    if "milvus" in request.fixturenames:
        monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def town_store(milvus):
    """The address of the embedded index of CNN-IRwNHA in a store, with its landmarks."""
    from retrieval import index
    from retrieval.collections import open_collection
    from retrieval.index.export import export, landmarks

    address = milvus.address("town")
    opened = index.load(index.find("town")["cnn-irwnha"])
    export(opened, address, landmarks(open_collection("town")))
    return address
