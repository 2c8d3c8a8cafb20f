"""Single files: broken off, resumed, redirected, refused."""

import hashlib
import io
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from unittest.mock import Mock

import pytest
from file_server import listing

from retrieval.collections import transfer
from retrieval.collections.transfer import fetch
from retrieval.errors import RetrievalError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_file_is_fetched_once_and_verified(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    told = []
    path = fetch(
        f"{server.root}/a.bin",
        tmp_path / "sub" / "a.bin",
        sha256=SHA256,
        progress=lambda *args: told.append(args),
    )
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT), "a.bin")
    assert listing(tmp_path / "sub") == ["a.bin"]
    fetch(f"{server.root}/a.bin", path, sha256=SHA256[:7])  # the beginning will do
    assert len(server.asked) == 1  # and what is there is not fetched again
    fetch(f"{server.root}/a.bin", tmp_path / "b.bin")
    assert (tmp_path / "b.bin").read_bytes() == CONTENT


def test_broken_connection_is_resumed_where_it_broke(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    server.break_after["/a.bin"] = [300_000, 200_000]
    path = fetch(f"{server.root}/a.bin", tmp_path / "a.bin", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=500000-"]


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Length": "9" * 5000}),
        (200, {"Content-Length": "\xb2"}),  # a digit to Python, and no number
        (206, {"Content-Range": f"bytes {'9' * 5000}-1/9"}),
        (416, {"Content-Range": "bytes */0"}),
        (302, {"Location": "http://[::1"}),
        (302, {"Location": "http://a..b/"}),
        (302, {"Location": "http://\xff\xfe/"}),
        (302, {"Location": "file:///etc/hostname"}),
    ],
)
def test_answers_that_nobody_gives_by_accident(server, tmp_path, answer):
    server.answers["/a.bin"] = [answer] * 50
    server.files["/a.bin"] = b""
    try:
        fetched = fetch(f"{server.root}/a.bin", tmp_path / "a.bin")
    except RetrievalError:
        return
    assert fetched.read_bytes() == b""


def test_an_encrypted_address_leads_to_no_other():
    follow = transfer._HttpOnly().redirect_request
    request = urllib.request.Request("https://example.org/a")
    led = follow(request, io.BytesIO(), 302, "", {}, "https://example.org/b")
    assert led.full_url.endswith("/b")
    with pytest.raises(RetrievalError, match="without encryption"):
        follow(request, None, 302, "", {}, "http://example.org/b")


def test_connection_that_stays_broken_keeps_what_arrived(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    server.break_after["/a.bin"] = [300_000]
    address = f"{server.root}/a.bin"

    def stop(here, total, name):
        server.answers["/a.bin"] = [(503, {})] * 50

    with pytest.raises(RetrievalError, match=r"the server says 503 .* the same command goes on"):
        fetch(address, tmp_path / "a.bin", progress=stop)
    assert (tmp_path / "a.bin.part").stat().st_size == 300_000
    assert not (tmp_path / "a.bin").exists()
    server.answers.clear()
    server.asked.clear()
    assert fetch(address, tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.asked == [("/a.bin", "bytes=300000-")]
    assert listing(tmp_path) == ["a.bin"]


def test_interrupted_by_the_user(server, tmp_path):
    server.files["/a.bin"] = CONTENT

    def stop(here, total, name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.root}/a.bin", tmp_path / "a.bin", progress=stop)
    here = (tmp_path / "a.bin.part").stat().st_size
    assert 0 < here < len(CONTENT)
    assert fetch(f"{server.root}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.asked[-1] == ("/a.bin", f"bytes={here}-")


def test_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    server.break_after["/a.bin"] = [300_000]

    def change(here, total, name):
        server.files["/a.bin"], server.etags["/a.bin"] = CONTENT[::-1], '"v2"'

    path = fetch(f"{server.root}/a.bin", tmp_path / "a.bin", progress=change)
    assert path.read_bytes() == CONTENT[::-1]


def test_killed_when_a_file_has_changed(server, tmp_path, monkeypatch):
    """The bytes of the old version passed for the beginning of the new one."""
    server.files["/a.bin"] = bytes(400_000)
    address = f"{server.root}/a.bin"

    def killed(*args):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(address, tmp_path / "a.bin", progress=killed)
    server.files["/a.bin"], server.etags["/a.bin"] = CONTENT, '"v2"'
    write = Path.write_text

    def write_and_die(path, text):
        write(path, text)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            fetch(address, tmp_path / "a.bin")
    assert fetch(address, tmp_path / "a.bin").read_bytes() == CONTENT


def test_part_of_another_address_is_not_used(server, tmp_path):
    server.files["/a.bin"], server.files["/b.bin"] = CONTENT, CONTENT[::-1]

    def stop(here, total, name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.root}/a.bin", tmp_path / "x.bin", progress=stop)
    assert fetch(f"{server.root}/b.bin", tmp_path / "x.bin").read_bytes() == CONTENT[::-1]


def test_server_without_ranges(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    server.ranges = False
    server.break_after["/a.bin"] = [300_000]
    assert fetch(f"{server.root}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT


def test_server_without_etag_or_length(server, tmp_path):
    server.files["/a.bin"], server.etags["/a.bin"] = CONTENT, "W/weak"
    server.lengths = False
    assert fetch(f"{server.root}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT


def test_complete_part_that_was_not_renamed(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    (tmp_path / "a.bin.part.json").write_text(
        json.dumps({"address": f"{server.root}/a.bin", "validator": '"v1"'})
    )
    assert fetch(f"{server.root}/a.bin", tmp_path / "a.bin", sha256=SHA256).is_file()
    assert listing(tmp_path) == ["a.bin"]
    # A part that is too long cannot be of this file.
    (tmp_path / "b.bin.part").write_bytes(CONTENT * 2)
    (tmp_path / "b.bin.part.json").write_text(
        json.dumps({"address": f"{server.root}/a.bin", "validator": '"v1"'})
    )
    assert fetch(f"{server.root}/a.bin", tmp_path / "b.bin").read_bytes() == CONTENT


def test_temporary_errors_are_tried_again(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    server.answers["/a.bin"] = [(503, {}), (429, {}), (500, {})]
    assert fetch(f"{server.root}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT


def test_not_found_is_final(server, tmp_path):
    with pytest.raises(RetrievalError, match="the server says 404 Not Found"):
        fetch(f"{server.root}/nope", tmp_path / "a.bin")
    assert len(server.asked) == 1
    assert listing(tmp_path) == []


def test_wrong_hash_deletes_the_file(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    with pytest.raises(RetrievalError, match=f"has SHA-256 {SHA256[:16]}… instead of 000"):
        fetch(f"{server.root}/a.bin", tmp_path / "a.bin", sha256="0" * 64)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("lengths", [True, False])
def test_larger_than_it_should_be(server, tmp_path, lengths):
    server.files["/a.bin"], server.lengths = CONTENT, lengths
    with pytest.raises(RetrievalError, match="larger than 1 MB"):
        fetch(f"{server.root}/a.bin", tmp_path / "a.bin", max_bytes=1_000_000)
    assert not (tmp_path / "a.bin").exists()
    assert not (tmp_path / "a.bin.part").exists()


def test_full_disk_is_noticed_before_the_transfer(server, tmp_path, monkeypatch):
    server.files["/a.bin"] = CONTENT
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    sentence = r"needs 1\.02 MB below .*, but 1 kB are free; make room, or choose another place"
    with pytest.raises(RetrievalError, match=sentence):  # and not 0.0 GB of 0.0 GB
        fetch(f"{server.root}/a.bin", tmp_path / "a.bin")


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "gopher://x/"]
)
def test_redirects_to_other_places_are_refused(server, tmp_path, target):
    server.answers["/a.bin"] = [(302, {"Location": target})]
    with pytest.raises(RetrievalError):
        fetch(f"{server.root}/a.bin", tmp_path / "a.bin")
    assert listing(tmp_path) == []
    with pytest.raises(RetrievalError, match="not an http or https address"):
        fetch(target, tmp_path / "a.bin")


def test_redirects_within_http_are_followed(server, tmp_path):
    server.files["/b.bin"] = CONTENT
    server.answers["/a.bin"] = [(302, {"Location": f"{server.root}/b.bin"})]
    assert fetch(f"{server.root}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT
    server.answers["/loop"] = [(302, {"Location": f"{server.root}/loop"})] * 50
    with pytest.raises(RetrievalError):
        fetch(f"{server.root}/loop", tmp_path / "b.bin")


def test_the_address_of_the_user_is_sent_to_no_other_host(server, tmp_path):
    server.files["/b.bin"] = server.files["/c.bin"] = CONTENT
    elsewhere = server.root.replace("127.0.0.1", "localhost")
    server.answers["/a.bin"] = [(302, {"Location": f"{elsewhere}/b.bin"})]
    server.answers["/here"] = [(302, {"Location": f"{server.root}/c.bin"})]
    for path in ("/a.bin", "/here"):
        fetch(f"{server.root}{path}", tmp_path / path.strip("/"), agent="demo (me@example.org)")
    asked, elsewhere, here = (server.agents[path] for path in ("/a.bin", "/b.bin", "/c.bin"))
    assert (asked, elsewhere, here) == ("demo (me@example.org)", "retrieval-demo", asked)


def test_a_certificate_that_is_not_trusted_is_final(tmp_path, monkeypatch):
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    opener = Mock()
    opener.open.side_effect = urllib.error.URLError(error)
    monkeypatch.setattr(transfer, "_opener", lambda: opener)
    with pytest.raises(RetrievalError, match="cannot be trusted: self-signed certificate"):
        fetch("https://example.org/a.bin", tmp_path / "a.bin")
    assert opener.open.call_count == 1


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0)
    with pytest.raises(RetrievalError, match="cannot be downloaded now: Connection refused"):
        fetch("http://127.0.0.1:9/a.bin", tmp_path / "a.bin")
    with pytest.raises(RetrievalError, match="not an http"):
        fetch("http://[::1", tmp_path / "a.bin")
