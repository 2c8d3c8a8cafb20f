"""Pictures on their way into an index."""

import weakref
from types import SimpleNamespace

import pytest
from PIL import Image

from retrieval import images
from retrieval.index import describing


@pytest.mark.parametrize(("side", "read"), [(100, 3), (2100, 1)])
def test_large_pictures_are_not_read_ahead(monkeypatch, side, read):
    """Six visitors who brought pictures of 25 megapixels took 4 GB while they waited."""
    started = []

    def reading(data, name, most):
        started.append(name)
        return Image.new("L", (side, side))

    monkeypatch.setattr(images, "read", reading)
    collection = SimpleNamespace(read_bytes=str.encode)
    names = [f"{n}.jpg" for n in range(9)]
    known = describing.Known({}, [])
    found = describing._pictures(collection, names, known, 25_000_000)
    for count, (name, _, picture) in enumerate(found, 1):
        assert name == names[count - 1]
        assert picture.size == (side, side)
        assert len(started) <= count - 1 + read
    assert started == names


def test_a_described_picture_is_gone_when_the_next_waits_for_its_turn(monkeypatch):
    pictures_read = []
    together = []

    def reading(data, name, most):
        picture = Image.new("L", (2100, 2100))
        pictures_read.append(weakref.ref(picture))
        return picture

    def describe_batch(pictures):
        together.append(sum(one() is not None for one in pictures_read))
        return [None for _ in pictures]

    monkeypatch.setattr(images, "read", reading)
    collection = SimpleNamespace(read_bytes=str.encode)
    method = SimpleNamespace(batch=1, describe_batch=describe_batch)
    known = describing.Known({}, [])
    for _ in describing.describe(collection, method, ["a", "b", "c"], known, 25_000_000):
        pass
    assert together == [1, 1, 1]
