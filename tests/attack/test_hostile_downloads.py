"""Servers that downloads come from: they may drip, break off, or send other files."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from attack.web_servers import answering
from stubs import refused

from retrieval.collections import transfer


def test_what_comes_with_a_redirect_is_not_read(tmp_path):
    sent, over = [], threading.Event()

    def answer(request):
        if request.path == "/file":
            request.send_response(200)
            request.end_headers()
            request.wfile.write(b"what was asked for")
            return
        request.send_response(302)
        request.send_header("Location", "/file")
        request.end_headers()
        try:
            while len(sent) < 60:
                request.wfile.write(bytes(1 << 20))
                sent.append(1)
        except OSError:
            pass
        over.set()

    with answering(answer) as address:
        path = transfer.fetch(f"{address}/moved", tmp_path / "file")
        assert path.read_bytes() == b"what was asked for"
        assert over.wait(60)
        assert len(sent) < 60


def test_a_part_of_another_version_is_not_appended(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0)
    new, versions = b"b" * 1000, []

    def answer(request):
        versions.append(request.headers.get("Range"))
        start = 400 if versions[-1] else 0
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", "bytes 400-999/1000")
        request.send_header("Content-Length", str(1000 - start))
        request.send_header("ETag", '"v1"' if len(versions) == 1 else '"v2"')
        request.end_headers()
        request.wfile.write(b"a" * 400 if len(versions) == 1 else new[start:])

    with answering(answer) as address:
        assert transfer.fetch(f"{address}/file", tmp_path / "file").read_bytes() == new
    assert versions == [None, "bytes=400-", None]


def test_a_server_that_begins_again_for_ever(tmp_path, monkeypatch):
    """It breaks off at the same place each time, and says that there is no more of the file."""
    monkeypatch.setattr(transfer, "PAUSE", 0)
    asked = []

    def answer(request):
        asked.append(request.headers.get("Range"))
        if len(asked) > 50:
            request.send_error(404)
        elif asked[-1]:
            request.send_response(416)
            request.send_header("Content-Range", "bytes */50")
            request.end_headers()
        else:
            request.send_response(200)
            request.send_header("Content-Length", "1000")
            request.send_header("ETag", '"v1"')
            request.end_headers()
            request.wfile.write(bytes(100))

    with answering(answer) as address:
        refused("cannot be downloaded now", transfer.fetch, f"{address}/file", tmp_path / "file")
    assert len(asked) < 20


def test_a_server_that_drips(tmp_path, monkeypatch):
    """It was followed for ever."""
    minutes = iter(range(0, 10_000, 61))
    monkeypatch.setattr(transfer, "time", SimpleNamespace(monotonic=lambda: next(minutes)))
    monkeypatch.setattr(transfer, "MAX_HEADERS", 10_000)  # which goes by the same clock

    def answer(request):
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.send_header("ETag", '"v1"')
        request.end_headers()
        request.wfile.write(b"a")

    with answering(answer) as address:
        refused("too slow: 1 bytes a minute", transfer.fetch, f"{address}/file", tmp_path / "file")
    assert (tmp_path / "file.part").read_bytes() == b"a"


def test_a_server_that_drips_in_many_answers(tmp_path, monkeypatch):
    """One byte in each: asked again and again, 20 MB would have taken months."""
    monkeypatch.setattr(transfer, "PAUSE", 0)
    asked = []

    def answer(request):
        start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        asked.append(start)
        request.send_response(206 if start else 200)
        request.send_header("Content-Range", f"bytes {start}-999/1000")
        request.send_header("Content-Length", str(1000 - start))
        request.send_header("ETag", '"v1"')
        request.end_headers()
        request.wfile.write(b"a")

    with answering(answer) as address:
        sentence = "broke off after 5 of 1,000 bytes. What has arrived is kept"
        refused(sentence, transfer.fetch, f"{address}/file", tmp_path / "file")
    assert asked == [0, 1, 2, 3, 4]


def test_a_line_that_breaks_again_and_again(tmp_path, monkeypatch):
    """Of each answer the last 256 kB were lost: one that brought 200 kB at a time never got on."""
    monkeypatch.setattr(transfer, "PAUSE", 0)
    content = np.random.default_rng(0).bytes(900_000)

    def answer(request):
        start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        request.send_response(206 if start else 200)
        request.send_header("Content-Range", f"bytes {start}-899999/900000")
        request.send_header("Transfer-Encoding", "chunked")
        request.send_header("ETag", '"v1"')
        request.end_headers()
        piece = content[start : start + 200_000]
        request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if start + len(piece) == len(content):
            request.wfile.write(b"0\r\n\r\n")

    with answering(answer) as address:
        path = transfer.fetch(f"{address}/file", tmp_path / "file")
    assert path.read_bytes() == content


@pytest.mark.parametrize("port", [70_000, 10**30, -1, 0])
def test_a_server_that_leads_to_a_port_there_is_not(tmp_path, port):
    """Of a number that C has no room for, it was a traceback."""

    def answer(request):
        request.send_response(302)
        request.send_header("Location", f"http://127.0.0.1:{port}/")
        request.end_headers()

    with answering(answer) as address:
        refused("is not an http or https address", transfer.fetch, address, tmp_path / "file")


@pytest.mark.parametrize(
    "begin", [b"X: ", b"Transfer-Encoding: chunked\r\n\r\n5;"], ids=["headers", "chunk"]
)
def test_headers_that_drip(tmp_path, monkeypatch, begin):
    """They were waited for as long as a byte came from time to time."""
    monkeypatch.setattr(transfer, "PAUSE", 0)
    monkeypatch.setattr(transfer, "RETRIES", 1)
    monkeypatch.setattr(transfer, "MAX_HEADERS", 0.2)
    over = threading.Event()

    def answer(request):
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + begin)
        try:
            while not over.wait(0.05):
                request.wfile.write(b"a")
        except OSError:
            pass

    with answering(answer) as address:
        stopped = threading.Timer(60, over.set)
        stopped.start()
        refused("the server is too slow", transfer.fetch, f"{address}/file", tmp_path / "file")
        assert not over.is_set()
        stopped.cancel()
        over.set()
