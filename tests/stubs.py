"""Methods that need no network, and other parts that tests of several folders use."""

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrieval import methods
from retrieval.errors import RetrievalError
from retrieval.methods.base import LocalFeatures

CHECKPOINT = SimpleNamespace(id="stub", sha256="ab" * 32, trunk="efficientnet-lite0")


class OneByOne:
    """What a stub needs besides ``describe`` to be built an index with."""

    pixels = 0
    seconds = 0

    batch = 1

    def describe_batch(self, pictures):
        return [self.describe(picture) for picture in pictures]


class Registered(OneByOne):
    """A global method that is taken for one of the three, with its default checkpoint."""

    kind = "global"
    settings: dict = {}

    def __init__(self, name):
        self.name, self.title = name, methods.METHODS[name].title
        self.checkpoint = SimpleNamespace(
            id=methods.METHODS[name].default, sha256="0" * 64, trunk="efficientnet-lite0"
        )


class Thumbnail(OneByOne):
    """A global method that needs no network, and counts what it describes."""

    name, kind = "sir", "global"
    checkpoint = CHECKPOINT

    def __init__(self, **settings):
        self.settings = {"size": 4} | settings
        self.described = []

    def describe(self, picture, box=None):
        self.described.append(picture.size)
        vector = np.asarray(picture.resize((4, 4)), np.float32).ravel() + 1
        return vector / np.linalg.norm(vector)


class Grid(Thumbnail):
    """A local method: one feature a cell of 10 pixels; none where the picture is blank."""

    name, kind = "delf", "local"

    def describe(self, picture, box=None):
        self.described.append(picture.size)
        grey = np.asarray(picture.convert("L"), np.float32)
        cells = [(x, y) for y in range(0, grey.shape[0], 10) for x in range(0, grey.shape[1], 10)]
        rows = [grey[y : y + 10, x : x + 10] for x, y in cells]
        if grey.max() == grey.min():
            cells, rows = [], []
        means = np.float32([[row.mean(), row.std(), row.max(), 255] for row in rows])
        descriptors = means.reshape(-1, 4) / np.linalg.norm(means.reshape(-1, 4), axis=1)[:, None]
        ones = np.ones(len(cells), np.float32)
        points = np.float32(cells).reshape(-1, 2) + 5
        return LocalFeatures(points, ones, ones, descriptors)


def refused(words, call, *arguments, **options):
    """The call raises RetrievalError, with these words in one sentence."""
    with pytest.raises(RetrievalError, match=words) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text


def paint(path: Path, seed: int, size=(40, 30)):
    array = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def most_accepted(loop, once_listening=lambda: None):
    """The most connections that a loop accepts in one round, of 100 that wait for its server.

    once_listening: called when the server listens.
    """
    counts = [0]

    class Counted(asyncio.Protocol):
        def connection_made(self, transport):
            counts[-1] += 1

    async def serve():
        server = await loop.create_server(Counted, "127.0.0.1", 0, backlog=2048)
        once_listening()
        await asyncio.sleep(0.01)
        address = server.sockets[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(100)]
        while sum(counts) < len(clients):
            counts.append(0)
            await asyncio.sleep(0)
        for client in clients:
            client.close()
        server.close()

    loop.run_until_complete(serve())
    loop.close()
    return max(counts)
