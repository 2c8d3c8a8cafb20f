"""How Wikimedia Commons is asked, and what becomes of its answers."""

import json

import pytest
from commons_download import describe, run

from retrieval.collections import transfer
from retrieval.collections.commons import Order, download
from retrieval.collections.commons import site as site_module
from retrieval.errors import RetrievalError


def test_etiquette(two, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(transfer.time, "sleep", waited.append)
    monkeypatch.setattr(site_module, "PAUSE", 0.5)
    monkeypatch.setattr(site_module, "LAG", 5.0)
    lagging = {"error": {"code": "maxlag", "info": "Waiting for db: 7 seconds lagged", "lag": 7}}
    two.answers["/w/api.php"] = [
        (429, {"Retry-After": "17"}, b""),
        (200, {"Retry-After": "5"}, json.dumps(lagging).encode()),
    ]
    two.answers["/thumb/1001.jpg"] = [(429, {"Retry-After": "23"}, b"")]
    run(tmp_path / "out")
    assert waited.count(17) == 1
    assert waited.count(5.0) == 1
    assert waited.count(23) == 1
    assert waited.count(0.5) == len(two.asked) - 3 + 1  # before each; the lagging answer twice


def test_server_that_asks_to_wait_for_long(two, tmp_path):
    two.answers["/thumb/1001.jpg"] = [(429, {"Retry-After": "7200"}, b"")]
    with pytest.raises(RetrievalError, match="asks to wait 120 minutes"):
        run(tmp_path / "out")


def test_refusal_is_passed_on(two, tmp_path):
    refusal = {"error": {"code": "badvalue", "info": "<b>no</b>\x1b[31m such thing"}}
    two.answers["/w/api.php"] = [(200, {}, json.dumps(refusal).encode())]
    with pytest.raises(RetrievalError, match=r"Commons refuses: <b>no</b>\[31m such thing"):
        run(tmp_path / "out")


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"[]", b"", b"\xff", b"[" * 99999])
def test_log_in_page_in_between(two, tmp_path, body):
    two.answers["/w/api.php"] = [(200, {}, body)]
    with pytest.raises(RetrievalError, match="is there a log-in page"):
        run(tmp_path / "out")
    assert len(run(tmp_path / "out")) == 20


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"query": None},
        {"query": {"pages": {"1": {}}}},
        {"query": {"pages": [1, None, {}, {"title": 3}, {"title": "x", "imageinfo": {}}]}},
        {"query": {"pages": [{"title": "File:x.jpg", "imageinfo": [{"mime": "image/jpeg"}]}]}},
        {"error": "no"},
        {"continue": 3, "query": []},
        {"continue": {"self": 1, "gcmtitle": "x"}, "query": {"pages": [{"pageid": {}}]}},
        {"continue": {"gcmcontinue": "\udcff"}, "query": {"pages": [{"pageid": [1]}]}},
    ],
)
def test_answers_of_any_shape_are_survived(site, tmp_path, answer):
    site.query = lambda question: answer
    with pytest.raises(RetrievalError, match="Commons"):
        run(tmp_path / "out")


def test_endless_continuation_ends(site, tmp_path):
    count = iter(range(10**9))
    site.query = lambda question: {"continue": {"gcmcontinue": f"file|{next(count)}"}}
    with pytest.raises(RetrievalError, match="how Commons spells"):
        run(tmp_path / "out", ["Tower"])


def test_contact_is_needed_and_cannot_smuggle_a_header(tmp_path):
    for contact in ("", "me", "a@b\r\nX: 1", "a@b c", "http://x.org/", "a@(b)", "é@x.org"):
        with pytest.raises(RetrievalError, match="whom to write to"):
            download(Order(("Tower",)), tmp_path / "out", contact, describe)
    assert not (tmp_path / "out").exists()


def test_subcategories_to_a_depth(site, tmp_path):
    for category in ("Tower", "Tower at night", "Door", "Interior of Tower", "Views from Tower"):
        site.add(category)
    for _ in range(3):
        site.add("Tower")
    site.categories["Tower"]["subcats"] = [
        "Tower at night",
        "Interior of Tower",
        "Views from Tower",
    ]
    site.categories["Tower at night"]["subcats"] = ["Tower", "Door"]  # a circle
    counts = []
    for depth in range(3):
        found = run(tmp_path / str(depth), ["Tower"], depth=depth)
        counts.append(len(found) + len(found.queries))
    assert counts == [4, 5, 6]


def test_category_that_moved_and_one_that_is_unknown(site, tmp_path):
    for _ in range(4):
        site.add("Tour")
    site.moved["Tower"] = "Tour"
    said = []
    found = run(tmp_path / "out", ["Tower", "Atlantis"], say=said.append)
    assert "Tower is called Tour on Commons." in said
    assert "Atlantis: 0 pictures" in said
    assert {query.landmark for query in found.queries} == {"Tower"}
    with pytest.raises(RetrievalError, match="how Commons spells"):
        run(tmp_path / "none", ["Atlantis"])


def test_redirected_picture(two, tmp_path):
    two.media["/moved.jpg"] = two.media["/thumb/1000.jpg"]
    two.answers["/thumb/1000.jpg"] = [(301, {"Location": f"{two.root}/moved.jpg"}, b"")]
    assert len(run(tmp_path / "out")) == 20
