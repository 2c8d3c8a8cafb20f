"""Pictures on their way into an index."""

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
