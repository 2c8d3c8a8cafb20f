"""What the owner of the app allows each visitor to bring."""

import io
from types import SimpleNamespace

import pytest
from PIL import Image

from pages.parts import own_pictures
from retrieval.errors import RetrievalError


def upload(name, padding=0):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "PNG")
    data = buffer.getvalue() + bytes(padding)
    return SimpleNamespace(name=name, size=len(data), getbuffer=lambda: data)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RETRIEVAL_OWN_FILES", "1", "more than 1 files"),
        ("RETRIEVAL_OWN_MB", "1", "more than 1 MB together"),
        ("RETRIEVAL_OWN_MB", "plenty", "RETRIEVAL_OWN_MB is a whole number from 1"),
    ],
)
def test_more_than_the_owner_allows_is_refused(monkeypatch, variable, value, words):
    files = [upload("a.png", 600_000), upload("b.png", 600_000)]
    assert own_pictures._bring(files).collection.names == ("a.png", "b.png")
    monkeypatch.setenv(variable, value)
    with pytest.raises(RetrievalError, match=words):
        own_pictures._bring(files)
