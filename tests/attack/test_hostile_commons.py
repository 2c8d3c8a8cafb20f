"""Answers, descriptions and unfinished downloads of Wikimedia Commons that do harm."""

import json
import os
import time

import numpy as np
import pytest
from commons_site import serving
from stubs import refused

from retrieval import images
from retrieval.collections import transfer
from retrieval.collections.commons import Order, choice, download, work
from retrieval.collections.commons import site as site_module
from retrieval.errors import RetrievalError


def commons_download(out):
    return download(Order(("Tower",), 3, 0), out, "me@example.org", lambda picture: np.ones(1))


def test_answers_of_commons_that_are_large(tmp_path, monkeypatch):
    """All to one question were kept, each as 20 MB of brackets: 195 MB took 4.2 GB."""
    monkeypatch.setattr(site_module, "MAX_BYTES", 2000)
    with serving(monkeypatch) as site:
        page = {"pageid": 1, "title": "File:A.jpg", "imageinfo": [{"mime": "x" * 900}]}
        for number in range(9):
            page["pageid"] = number
            answer = {"query": {"pages": [page]}, "continue": {"gcmcontinue": f"file|{number}"}}
            site.answers.setdefault("/w/api.php", []).append((200, {}, json.dumps(answer).encode()))
        site.answers["/w/api.php"].insert(0, (200, {}, b"{}"))
        refused("Too few photographs", commons_download, tmp_path / "many")
        assert len(site.asked) == 1 + 2
        monkeypatch.setattr(site_module, "MAX_BYTES", 20_000)
        site.answers["/w/api.php"] = [(200, {}, b'{"query": [' + b"{}," * 3000 + b"{}]}")]
        with pytest.raises(RetrievalError, match="Wikimedia Commons did not answer"):
            commons_download(tmp_path / "brackets")


def test_bars_for_categories_of_a_file():
    """19 MB of them kept the command busy for more than half a minute."""
    started = time.thread_time()
    judged(License="cc0", Artist="A", Categories="|" * 10_000_000)
    assert time.thread_time() - started < 5


@pytest.mark.parametrize("what", ["page", "link"])
def test_an_unfinished_download_of_a_stranger(tmp_path, monkeypatch, what):
    """What it lists was written to where its page id led to, and through its links."""
    out, outside = tmp_path / "out", tmp_path / "outside.jpg"
    with serving(monkeypatch) as site:
        for _ in range(5):
            site.add("Tower")
        refused("Too few", commons_download, out)  # of photographs that all look the same
        [listed] = (out / ".commons").glob("list-*.json")
        rows = json.loads(listed.read_text())
        (out / ".commons" / "decided.json").unlink()
        for number, row in enumerate(rows["files"]):
            if what == "page":
                row["pageid"] = f"{number}/../../../outside"
            else:
                (out / ".commons" / f"{row['pageid']}.jpg.part").symlink_to(outside)
        for folder in range(5 if what == "page" else 0):
            (out / ".commons" / str(folder)).mkdir()
        listed.write_text(json.dumps(rows))
        with pytest.raises(RetrievalError):
            commons_download(out)
    assert not outside.exists()


@pytest.mark.parametrize("name", ["1000.jpg.part", "1000.jpg.part.json"])
def test_an_unfinished_download_with_a_pipe(tmp_path, name):
    """The command waited without end for somebody to read what it was about to write there."""
    folder = tmp_path / "out" / work.FOLDER
    folder.mkdir(parents=True)
    os.mkfifo(folder / name)
    refused("holds links or devices", commons_download, tmp_path / "out")


def test_an_unfinished_download_that_is_very_long(tmp_path):
    """A gigabyte, which packs into one megabyte, may take thirty times as much as JSON."""
    path = tmp_path / "decided.json"
    path.write_text(json.dumps({"1": "!blurred"}))
    assert work.Ledger(path)
    path.write_text(" " * 20_000_001 + json.dumps({"1": "!blurred"}))
    assert not work.Ledger(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("decided.json", lambda saved: dict.fromkeys(saved, 3)),
        ("list-*.json", lambda saved: _with(saved, landmarks=[["Tower"]])),
        ("list-*.json", lambda saved: _with(saved, artist=["A"])),
        ("list-*.json", lambda saved: _with(saved, size=[96])),
        ("list-*.json", lambda saved: _with(saved, size=["96", 64])),
        ("list-*.json", lambda saved: _with(saved, size=[0, 0])),
        ("list-*.json", lambda saved: saved | {"left_out": [3]}),
    ],
)
def test_an_unfinished_download_with_other_values(tmp_path, monkeypatch, name, change):
    """Each of them ended the command in a traceback."""
    with serving(monkeypatch) as site:
        for _ in range(5):
            site.add("Tower")
        refused("Too few", commons_download, tmp_path / "out")
        [path] = (tmp_path / "out" / ".commons").glob(name)
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        for picture in (tmp_path / "out").glob("*.jpg"):
            picture.unlink()  # it is fetched again
        refused("Too few", commons_download, tmp_path / "out")


def _with(saved, **values):
    return saved | {"files": [row | values for row in saved["files"]]}


def test_an_unfinished_download_with_large_files(tmp_path, monkeypatch):
    """A picture of 2 GB, and what is noted about one that was to arrive, were read as a whole."""
    monkeypatch.setattr(images, "MAX_BYTES", 5000)
    monkeypatch.setattr(transfer, "MAX_STAMP", 200)
    out, read = tmp_path / "out", []
    with serving(monkeypatch) as site:
        for _ in range(5):
            site.add("Tower")
        refused("Too few", commons_download, out)
        (out / ".commons" / "decided.json").unlink()
        for picture in out.glob("*.jpg"):
            picture.unlink()
        (out / ".commons" / "1001.jpg").write_bytes(bytes(5001))
        part = out / ".commons" / "1002.jpg.part"
        part.write_bytes(b"x")
        note = {"address": site.root + "/thumb/1002.jpg", "validator": '"' + "1" * 200 + '"'}
        part.with_name(part.name + ".json").write_text(json.dumps(note))
        ask = transfer._ask
        monkeypatch.setattr(transfer, "_ask", lambda *a: read.append(a[2]) or ask(*a))
        refused("Too few", commons_download, out)
        assert not any(read)  # nothing goes on where such a part ends
    assert "1001" not in "".join(path.name for path in out.glob("*.jpg"))
    assert "larger than" in (out / "left_out.csv").read_text()


def judged(**meta):
    """A photograph on Commons, of which strangers say this and that."""
    info = {
        "mime": "image/jpeg",
        "width": 960,
        "height": 720,
        "sha1": "0" * 40,
        "url": f"{choice.MEDIA}a.jpg",
        "thumburl": f"{choice.MEDIA}a.jpg",
        "extmetadata": {name: {"value": value} for name, value in meta.items()},
    }
    page = {"title": "File:A.jpg", "pageid": 7, "imageinfo": [info]}
    return choice.judge(page, "Tower", ("Tower",), choice.LICENCES)


@pytest.mark.parametrize("artist", ["<![x[", "<p><![foo[bar]]>"])
def test_declarations_that_html_does_not_have(artist):
    """Python 3.11 refuses them; later ones read them as comments, as browsers do."""
    try:
        outcome = judged(License="cc0", Artist=artist).credit.author
    except choice.LeftOut as why:
        outcome = str(why)
    assert outcome in ("its description on Commons is incomplete", "author unknown")


def test_restrictions_without_end_do_not_make_credits_too_large_to_be_read():
    file = judged(License="cc0", Restrictions="trademarked|" * 100_000)
    assert file.credit.note.startswith("Other restrictions: trademarked, trademarked")
    assert len(file.credit.note) <= 300


def test_tags_that_do_not_end_are_not_looked_at_again_and_again():
    """Each of them was looked for to the end of the text: 0.4 s for a name of 10,000 characters."""
    assert choice._text("<b>Tom</b> &amp; Jerry" + "<a b='" * 2000) == "Tom & Jerry"
    assert choice._text("AT&T") == "AT&T"
