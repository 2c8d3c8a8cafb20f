"""Servers of the web that lie: their folders and answers may have no end, or be of other files."""

import http.server
import json
import re
import struct
import threading
import time
import tracemalloc
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
from commons_site import serving
from scipy.io import savemat
from stubs import Thumbnail, paint, refused

from retrieval.collections import transfer
from retrieval.collections.commons import Order, choice, download, work
from retrieval.collections.commons import site as site_module
from retrieval.collections.remote import folders, open_anywhere, web
from retrieval.errors import RetrievalError
from retrieval.evaluation.published_descriptors import read_mat
from retrieval.index import build

START = "https://host/photos/"


def linked(pages):
    """Names that are found below START. pages: below START → HTML."""

    def fetch(address):
        if address not in found:
            raise FileNotFoundError
        return found[address].encode()

    found = {START + name: page for name, page in pages.items()}
    missing = []
    files = web.linked(START, fetch, missing)
    return [sorted(name.removeprefix(START) for name in names) for names in (files, missing)]


def test_pages_that_list_folders():
    apache = """<a href="?C=N;O=D">Name</a> <a href="/photos/">up</a> <A HREF='sub%20d/'>
        <a href="a%20b.jpg"><a href="&#x27;.jpg"> <a href="L'A.jpg">
        <a href="https://elsewhere/x.jpg"> <a href="/photos/c.jpg"> <a href="../d.jpg">
        <a href="http://[x"> <a href="gone/">"""
    pages = {"": apache, "sub d/": "", "sub%20d/": '<a href="./e.jpg">e</a> <a href="../">'}
    found = ["'.jpg", "L'A.jpg", "a%20b.jpg", "c.jpg", "sub%20d/e.jpg"]
    assert linked(pages) == [found, ["gone/"]]


def test_folders_in_folders_for_ever(monkeypatch):
    monkeypatch.setattr(folders, "MAX_FOLDERS", 50)
    asked = []

    def fetch(address):
        asked.append(address)
        return b'<a href="a/"> <a href="b/">'

    refused("too large to be read from the web", web.linked, START, fetch, [])
    assert len(asked) < 100


def test_too_many_files_and_too_long_a_page(monkeypatch):
    monkeypatch.setattr(web, "MAX_FILES", 50)
    many = "".join(f'<a href="{number}.jpg">' for number in range(60))
    refused("too large to be read from the web", linked, {"": many})
    monkeypatch.setattr(web, "MAX_PAGE", 1000)
    refused("too large to be read from the web", linked, {"": " " * 1001})


def test_an_honest_folder_of_many_files():
    """A folder of 100,000 files of Apache was refused: 200 bytes a file were over 20 MB."""
    row = '<tr><td><a href="IMG_{0:06}.jpg">IMG_{0:06}.jpg</a></td>' + " " * 150 + "</tr>\n"
    files, _ = linked({"": "".join(row.format(number) for number in range(100_000))})
    assert len(files) == 100_000


def test_pages_without_links_have_a_limit_of_time(monkeypatch):
    monkeypatch.setattr(web, "SECONDS", 0.2)
    folders = "".join(f'<a href="{number}/">' for number in range(9000))
    empty = b" " * 2_000_000
    pages = lambda address: folders.encode() if address == START else empty  # noqa: E731
    started = time.thread_time()
    refused("too large", web.linked, START, pages, [])
    assert time.thread_time() - started < 2


@pytest.mark.parametrize("endless", [False, True])
def test_addresses_that_are_longer_in_each_folder(endless, monkeypatch):
    """3.5 MB of short links below three folders with long names took 5.5 GB."""
    monkeypatch.setattr(folders, "MAX_LIST", 30_000_000)
    monkeypatch.setattr(folders, "MAX_FOLDERS", 300)
    folder = "x" * 1900 + "\U0001f600/"
    deep = f'<a href="{folder}">'.encode()
    wide = b"".join(b'<a href="%d.jpg">' % number for number in range(24_000))
    asked = []

    def fetch(address):
        asked.append(address)
        return deep if endless or len(asked) < 4 else wide

    tracemalloc.start()
    refused("too large to be read from the web", web.linked, START, fetch, [])
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("link", [b'href="/" ', b'href="//["'])
def test_links_that_lead_nowhere_have_a_limit_of_time(link, monkeypatch):
    """A page of 20 MB of them took half a minute, and there may be 10,000 such pages."""
    monkeypatch.setattr(web, "SECONDS", 0.2)
    started = time.thread_time()
    refused("too large", web.linked, START, lambda address: link * 2_000_000, [])
    assert time.thread_time() - started < 2


@pytest.mark.parametrize("moment", ["busy", "too many", "breaks off"])
def test_a_server_that_fails_for_a_moment(moment, tmp_path, monkeypatch):
    """The build stopped, and read all pictures again when it went on: with one break in a thousand
    answers no build of 10,000 pictures ended."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(transfer, "PAUSE", 0)
    for seed in range(3):
        paint(tmp_path / f"{seed}.png", seed)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for seed in range(3):
            archive.write(tmp_path / f"{seed}.png", f"{seed}.png")
    asked = Counter()

    def answer(request):
        name = request.path.rpartition("/")[2]
        page = b"".join(b'<a href="%d.png">' % seed for seed in range(3))
        data = (tmp_path / name).read_bytes() if name else page
        first, last = re.findall(r"\d+", request.headers.get("Range", f"0-{len(data) - 1}"))
        whole, data = len(data), data[int(first) : int(last) + 1]
        asked[request.command, request.path] += 1
        # fsspec first asks for the page, and for the zip without a range, whether it is there.
        number = 1 if name.endswith(".png") else 2
        fails = asked["GET", request.path] == number and request.command == "GET"
        status = {"busy": 503, "too many": 429}.get(moment, 200) if fails else 200
        request.send_response(206 if "Range" in request.headers and status == 200 else status)
        request.send_header("Accept-Ranges", "bytes")
        if "Range" in request.headers:
            request.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
        request.send_header("Content-Length", str(len(data)))
        request.send_header("Retry-After", "0")
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data[:10] if fails else data)

    with answering(answer) as address:
        for place in (f"{address}/photos/", f"{address}/all.zip"):
            collection = open_anywhere(place)
            assert len(build(collection, Thumbnail(), tmp_path / place[-5:].strip("/"))) == 3


@pytest.mark.parametrize(
    ("statuses", "reason"),
    [
        ((404,), "There is nothing at http"),
        ((503,), "photos cannot be read: the server answers 503"),
        ((503, 503, 200), "it is empty"),  # the page has no pictures
    ],
)
def test_the_first_answer_of_a_server(statuses, reason, monkeypatch):
    """A busy server was taken for a wrong address."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(transfer, "PAUSE", 0)
    left = [*statuses]

    def answer(request):
        request.send_response(left.pop(0) if len(left) > 1 else left[0])
        request.send_header("Content-Length", "0")
        request.end_headers()

    with answering(answer) as address:
        refused(reason, open_anywhere, f"{address}/photos")


def test_a_page_of_blanks():
    """fsspec looks at every three of them: 3 kB took minutes."""
    assert linked({"": "<a" + " " * 1_000_000 + "<a href=" * 10_000}) == [[], []]


class Server(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        if "endless" not in self.path:
            return super().do_GET()
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 20))
        except OSError:
            pass


def test_a_server(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr("retrieval.images.MAX_BYTES", 5_000_000)
    for seed, name in enumerate(("a b.png", "sub/ü#.png", "endless.png")):
        paint(tmp_path / "photos" / name, seed)
    handler = partial(Server, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        found = open_anywhere(f"{address}/photos")
        assert found.names == ("a b.png", "endless.png", "sub/ü#.png")
        for name in ("a b.png", "sub/ü#.png"):
            assert found.read_bytes(name) == (tmp_path / "photos" / name).read_bytes()
        refused("endless.png is larger than 5 MB", found.read_bytes, "endless.png")
        monkeypatch.setattr(web, "MAX_PAGE", 4_000_000)
        refused("too large to be read from the web", open_anywhere, f"{address}/endless")
        server.shutdown()


@contextmanager
def answering(answer):
    """A server on this machine whose answers ``answer`` writes; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        do_GET = do_HEAD = answer

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (404, "a.png cannot be read: it is damaged or gone"),
        (403, "a.png cannot be read: it is damaged or gone"),
        (503, "/photos/ cannot be read: .* is kept"),
        (429, "/photos/ cannot be read: .* is kept"),
        (0, "/photos/ cannot be read: .* is kept"),  # breaks off
    ],
)
def test_a_server_that_goes_away_is_not_taken_for_one_without_pictures(
    status, sentence, monkeypatch
):
    """An update of an index would drop them all."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(transfer, "PAUSE", 0)

    def answer(request):
        is_picture = request.path.endswith(".png")
        if status or not is_picture:
            request.send_response(status if is_picture else 200)
            request.end_headers()
            request.wfile.write(b'<a href="a.png">')

    with answering(answer) as address:
        refused(sentence, open_anywhere(f"{address}/photos/").read_bytes, "a.png")


def test_a_server_that_refuses_all_pictures_takes_nothing_that_is_finished(tmp_path):
    """Half a build of hours was deleted when it went on and each picture was answered with 403."""
    pytest.importorskip("aiohttp")
    for seed in range(4):
        paint(tmp_path / "photos" / f"{seed}.png", seed)
    refuses = False

    def answer(request):
        is_picture = request.path.endswith(".png")
        request.send_response(403 if is_picture and refuses else 200)
        request.end_headers()
        links = b"".join(b'<a href="%d.png">' % seed for seed in range(4))
        request.wfile.write((tmp_path / request.path[1:]).read_bytes() if is_picture else links)

    def stop(done, total, name):
        if done == 3:
            raise KeyboardInterrupt

    method = Thumbnail()
    with answering(answer) as address:
        collection = open_anywhere(f"{address}/photos/")
        with pytest.raises(KeyboardInterrupt):
            build(collection, method, tmp_path / "index", stop)
        refuses = True
        refused("cannot be read any more", build, collection, method, tmp_path / "index")
        refuses = False
        assert len(build(collection, method, tmp_path / "index")) == 4
    assert len(method.described) == 4, "the finished three are not described again"


def test_a_server_that_begins_to_refuse_takes_nothing_from_an_index(tmp_path):
    """Credentials that ran out during an update: the index was left with what came before."""
    pytest.importorskip("aiohttp")
    for seed in range(4):
        paint(tmp_path / "photos" / f"{seed}.png", seed)
    gone: set[str] = set()
    left = 100

    def answer(request):
        nonlocal left
        name = request.path.rpartition("/")[2]
        if name and request.command == "GET":
            left -= 1
        request.send_response(403 if name and (left < 0 or name in gone) else 200)
        request.end_headers()
        links = b"".join(b'<a href="%d.png">' % seed for seed in range(4))
        request.wfile.write((tmp_path / request.path[1:]).read_bytes() if name else links)

    method, out = Thumbnail(), tmp_path / "index"
    with answering(answer) as address:
        collection = open_anywhere(f"{address}/photos/")
        build(collection, method, out)
        left = 2
        refused("cannot be read any more", build, collection, method, out)
        left = 100
        assert len(build(collection, method, out)) == 4
        assert len(method.described) == 4
        gone.add("0.png")  # for ever, and the others are there
        assert build(collection, method, out).names == ("1.png", "2.png", "3.png")


@pytest.mark.parametrize("moment", ["a 404", "a page that asks to log in"])
def test_a_folder_in_a_web_folder_goes_away_for_a_while(moment, tmp_path):
    """It was taken for an empty folder: an update dropped its pictures."""
    pytest.importorskip("aiohttp")
    for seed, name in enumerate(("a.png", "b.png", "c d/a.png", "c d/b.png")):
        paint(tmp_path / "photos" / name, seed)
    away, gone = False, set()

    def answer(request):
        path = unquote(request.path).removeprefix("/photos/")
        if path in gone or (away and path.startswith("c d/")):
            request.send_response(404 if moment == "a 404" else 200)
            request.end_headers()
            request.wfile.write(b"\n<html>")
            return
        request.send_response(200)
        request.end_headers()
        here = {"": ["a.png", "b.png", "c%20d/"], "c d/": ["a.png", "b.png"]}.get(path)
        if here is None:
            request.wfile.write((tmp_path / "photos" / path).read_bytes())
        else:
            listed = [name for name in here if path + name not in gone]
            request.wfile.write("".join(f'<a href="{name}">' for name in listed).encode())

    method, out = Thumbnail(), tmp_path / "index"
    with answering(answer) as address:
        build(open_anywhere(f"{address}/photos/"), method, out)
        away = True
        seen = open_anywhere(f"{address}/photos/")
        assert ("left out: c d." in seen.note) == (moment == "a 404")
        refused("c d in http.* cannot be read.* is kept", build, seen, method, out)
        away = False
        gone.add("c d/a.png")  # for ever
        made = build(open_anywhere(f"{address}/photos/"), method, out)
        assert made.names == ("a.png", "b.png", "c d/b.png")
        assert len(method.described) == 4


def test_a_page_that_names_a_picture_in_several_ways(tmp_path):
    """It was in the index twice: what took hours was refused, in the place of an index that was
    whole."""
    pytest.importorskip("aiohttp")
    paint(tmp_path / "a b.png", 1)

    def answer(request):
        request.send_response(200)
        request.end_headers()
        page = b'<a href="a b.png"><a href="a%20b.png"><a href="%61%20b.png">'
        data = (tmp_path / "a b.png").read_bytes()
        request.wfile.write(data if request.path.endswith(".png") else page)

    with answering(answer) as address:
        collection = open_anywhere(f"{address}/photos/")
        assert collection.names == ("a b.png",)
        assert len(build(collection, Thumbnail(), tmp_path / "index")) == 1


def test_a_name_that_is_no_unicode(tmp_path):
    """Names of files made in Latin-1: each was asked for under another name, and left out."""
    pytest.importorskip("aiohttp")
    paint(tmp_path / "a.png", 1)
    picture = (tmp_path / "a.png").read_bytes()

    def answer(request):
        found = request.path == "/photos/caf%E9.png"
        request.send_response(200 if found or request.path == "/photos/" else 404)
        request.end_headers()
        request.wfile.write(picture if found else b'<a href="caf%E9.png">')

    with answering(answer) as address:
        collection = open_anywhere(f"{address}/photos/")
        assert collection.names == ("caf\udce9.png",)
        assert collection.read_bytes("caf\udce9.png") == picture


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
        stopped = threading.Timer(20, over.set)
        stopped.start()
        refused("the server is too slow", transfer.fetch, f"{address}/file", tmp_path / "file")
        assert not over.is_set()
        stopped.cancel()
        over.set()


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
    started = time.process_time()
    judged(License="cc0", Artist="A", Categories="|" * 10_000_000)
    assert time.process_time() - started < 5


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


def test_an_unfinished_download_that_is_very_long(tmp_path):
    """A gigabyte, which packs into one megabyte, may take fifteen times as much as JSON."""
    path = tmp_path / "decided.json"
    path.write_text(json.dumps({"1": "!blurred"}))
    assert work.Ledger(path)
    path.write_text(" " * 20_000_001 + json.dumps({"1": "!blurred"}))
    assert not work.Ledger(path)


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


def test_published_descriptors_that_unpack_to_more_than_they_should(tmp_path):
    path, sent = tmp_path / "a.mat", np.random.default_rng(0).normal(size=(2048, 5))
    savemat(path, {"Q": sent[:, :2], "X": sent[:, 2:]}, do_compression=True)
    np.testing.assert_allclose(read_mat(path, 2, 3)[1], sent[:, 2:].T, rtol=1e-6)

    size = 20_000_000  # stated for the numbers of Q, whose shape says 2048 × 2
    head = struct.pack("<IIIIIIii", 6, 8, 6, 0, 5, 8, 2048, 2) + struct.pack("<HH4s", 1, 1, b"Q")
    head += struct.pack("<II", 9, size)
    bomb = zlib.compress(struct.pack("<II", 14, len(head) + size) + head + bytes(size))
    data = path.read_bytes()
    path.write_bytes(data[:128] + struct.pack("<II", 15, len(bomb)) + bomb + data[128:])
    with pytest.raises(RetrievalError, match=r"a\.mat is not a readable") as caught:
        read_mat(path, 2, 3)
    assert "unpacks to more" in str(caught.value.__cause__)

    small = zlib.compress(bytes(400_000))  # each is small, and all of them would take minutes
    path.write_bytes(data + 10 * (struct.pack("<II", 15, len(small)) + small))
    with pytest.raises(RetrievalError, match=r"a\.mat is not a readable") as caught:
        read_mat(path, 2, 3)
    assert "unpacks to more" in str(caught.value.__cause__)


def test_published_descriptors_that_point_back(tmp_path, monkeypatch):
    """28 bytes of MATLAB version 4: -3 numbers, so that the next variable begins here again."""
    path = tmp_path / "a.mat"
    path.write_bytes(struct.pack("<5i", 0, -3, 1, 0, 4) + b"abc\0" + bytes(4))
    monkeypatch.setattr("scipy.io.whosmat", lambda *_: pytest.fail("it would never end"))
    with pytest.raises(RetrievalError, match=r"a\.mat is not a readable"):
        read_mat(path, 2, 3)


def test_published_descriptors_with_a_type_that_does_not_exist(tmp_path):
    """scipy ended the process."""
    path = tmp_path / "a.mat"
    savemat(path, {"Q": np.ones((2048, 2), np.float32), "X": np.ones((2048, 3))})
    data = bytearray(path.read_bytes())
    data[173], data[176] = 15, 0
    path.write_bytes(data)
    refused("a.mat is refused", read_mat, path, 2, 3)


def test_published_descriptors_made_of_cells(tmp_path):
    """100 MB of those for RParis6k took 2.5 GB."""
    path, cells = tmp_path / "a.mat", np.full((2048, 3), None)
    cells[:] = [[np.zeros(1)] * 3] * 2048
    numbers = np.zeros((2048, 5))
    savemat(path, {"Q": numbers[:, :2], "X": cells})
    with pytest.raises(RetrievalError, match="'cell'"):
        read_mat(path, 2, 3)
    first = path.read_bytes()
    savemat(path, {"X": numbers[:, 2:]})
    path.write_bytes(first + path.read_bytes()[128:])  # scipy reads the cells and not these
    with pytest.raises(RetrievalError, match=r"'cell'.*'double'"):
        read_mat(path, 2, 3)


@pytest.mark.parametrize("status", [200, 206])
def test_a_server_that_sends_a_page_in_place_of_a_part(tmp_path, status):
    """Its bytes were asked for until they made a picture: of 2.4 MB 42,000 times, 183 s."""
    pytest.importorskip("aiohttp")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.png", bytes(20_000_000))
        archive.writestr("b.png", bytes(20_000_000))
    data = (tmp_path / "photos.zip").read_bytes()
    asked = []

    class Parts(SimpleHTTPRequestHandler):
        logged_in = True

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()

        def do_GET(self):
            asked.append(self.path)
            first, last = re.findall(r"\d+", self.headers.get("Range", "0-0"))
            part = data[int(first) : int(last) + 1] if self.logged_in else b"<title>Log in</title>"
            self.send_response(206 if self.logged_in else status)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

    with ThreadingHTTPServer(("127.0.0.1", 0), Parts) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        found = open_anywhere(f"http://127.0.0.1:{server.server_port}/photos.zip")
        assert len(found.read_bytes("a.png")) == 20_000_000
        Parts.logged_in = False
        asked.clear()
        refused("does not send parts of a file", found.read_bytes, "b.png")
        assert len(asked) < 5
        server.shutdown()
