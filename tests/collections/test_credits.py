"""Credits: what a strange file may do, and what a spreadsheet sees."""

import csv
import io
import json
import os

import pytest

from retrieval.collections import credits
from retrieval.collections.credits import Credit, read_credits
from retrieval.errors import RetrievalError


def write(folder, pictures):
    (folder / "credits.json").write_text(json.dumps({"pictures": pictures}))


def test_absent_file_is_no_credits(tmp_path):
    assert read_credits(tmp_path) == {}


def test_credits_are_read_for_each_picture(tmp_path):
    entry = {
        "title": "Radcliffe Camera.jpg",
        "author": "A. Photographer",
        "licence": "CC BY-SA 4.0",
        "licence_url": "https://creativecommons.org/licenses/by-sa/4.0/",
        "page": "https://commons.wikimedia.org/wiki/File:Radcliffe_Camera.jpg",
    }
    write(tmp_path, {"a.jpg": entry})
    assert read_credits(tmp_path) == {"a.jpg": Credit(**entry)}
    assert read_credits(tmp_path)["a.jpg"].line == (
        "A. Photographer, CC BY-SA 4.0, "
        "https://commons.wikimedia.org/wiki/File:Radcliffe_Camera.jpg"
    )


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "http://example.org/",
        "https://example.org/a b",
        "https://example.org/)![x](https://example.com/a.png",
        "https://example.org/<b>",
        "https://example.org/\n[x](y)",
        "https://ex\u202eample.org/",
        "https://example.org/" + 2000 * "a",
    ],
)
def test_addresses_other_than_plain_https_are_dropped(tmp_path, address):
    write(tmp_path, {"a.jpg": {"author": "x", "page": address, "licence_url": address}})
    found = read_credits(tmp_path)["a.jpg"]
    assert (found.page, found.licence_url, found.author) == ("", "", "x")


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[]",
        '{"pictures": [1]}',
        '{"pictures": {"a.jpg": 3}}',
        '{"pictures": {"a.jpg": {"author": 3}}}',
        '{"pictures": {"a.jpg": {"page": ["https://"]}}}',
        "[" * 100_000,
    ],
)
def test_damaged_file_is_explained(tmp_path, text):
    (tmp_path / "credits.json").write_text(text)
    with pytest.raises(RetrievalError, match="is damaged; download the collection again"):
        read_credits(tmp_path)


def test_a_file_too_large_for_the_memory(tmp_path):
    """48 MB of nothing but names took 1.8 GB."""
    write(tmp_path, {})
    os.truncate(tmp_path / "credits.json", 33_000_000)
    with pytest.raises(RetrievalError, match="cannot be read: it has more than 32 MB"):
        read_credits(tmp_path)


def test_credits_of_very_many_pictures(tmp_path, monkeypatch):
    """2.4 million entries of nothing, 32 MB, took 1.9 GB on the page that lists them."""
    monkeypatch.setattr(credits, "MAX_PICTURES", 2)
    write(tmp_path, {"a.jpg": {}, "b.jpg": {}})
    assert len(read_credits(tmp_path)) == 2
    write(tmp_path, {"a.jpg": {}, "b.jpg": {}, "c.jpg": {}})
    with pytest.raises(RetrievalError, match="lists more than 2 pictures"):
        read_credits(tmp_path)


def test_small_print_of_a_figure():
    credit = Credit("a.jpg", "A. Photographer", "CC0 1.0", "", "https://example.org/a")
    assert credits.with_credits("a.jpg · delf", None) == "a.jpg · delf"
    assert credits.with_credits("a and b", credit, None) == (
        "Photograph: A. Photographer, CC0 1.0, https://example.org/a\na and b"
    )


def test_table_has_no_formulas():
    data = credits.as_csv({"a.jpg": Credit("=cmd|' /C calc'!A0", "+1", "@x", "", "", "-2")})
    header, row = csv.reader(io.StringIO(data.decode("utf-8-sig")))
    assert header == ["picture", "title", "author", "licence", "licence_url", "page", "note"]
    assert row == ["a.jpg", "'=cmd|' /C calc'!A0", "'+1", "'@x", "", "", "'-2"]
