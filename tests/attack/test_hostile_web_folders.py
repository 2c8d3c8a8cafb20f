"""Folders on servers of the web that lie: they may have no end, go away, or be of other files."""

import gzip
import re
import threading
import time
import tracemalloc
import zipfile
from collections import Counter
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest
from attack.web_servers import answering
from stubs import Thumbnail, paint, refused

from retrieval.collections import transfer
from retrieval.collections.remote import folders, open_anywhere, web
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


@pytest.mark.parametrize("status", [404, 503])
def test_the_page_of_an_error_is_not_read(status, monkeypatch):
    """One without an end was read up to 200 MB at each attempt, and took a gigabyte."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(transfer, "PAUSE", 0)
    sent = []

    def answer(request):
        sent.append(0)
        request.send_response(status)
        request.end_headers()
        with suppress(OSError):
            while sent[-1] < 100:
                request.wfile.write(bytes(1 << 20))
                sent[-1] += 1

    with answering(answer) as address:
        refused("There is nothing at|the server answers 503", open_anywhere, f"{address}/photos")
    assert max(sent) < 50, "what fits into buffers of the system"


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


@pytest.mark.parametrize("place", ["file:///etc/passwd", "javascript:1", "http://[", "http://a:b/"])
def test_a_picture_that_leads_to_no_address_of_the_web(place, tmp_path, monkeypatch):
    """Each build stopped at it after 15 s, as if the server were away."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(transfer, "PAUSE", 0)
    paint(tmp_path / "b.png", 1)
    asked = Counter()

    def answer(request):
        name = request.path.rpartition("/")[2]
        asked[name] += 1
        request.send_response(302 if name == "a.png" else 200)
        request.send_header("Location", place)
        request.end_headers()
        links = b'<a href="a.png"><a href="b.png">'
        request.wfile.write((tmp_path / name).read_bytes() if name == "b.png" else links)

    with answering(answer) as address:
        index = build(open_anywhere(f"{address}/photos/"), Thumbnail(), tmp_path / "index")
    assert index.names == ("b.png",)
    assert [entry["name"] for entry in index.manifest["skipped"]] == ["a.png"]
    assert asked["a.png"] < 3


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


@pytest.mark.parametrize(
    ("packed", "sentence"),
    [
        (True, "the server packs what it sends"),
        (
            False,
            "sub in http.* its list has no pictures, but the server still sends them.* is kept",
        ),
    ],
)
def test_a_list_without_links_takes_no_pictures_from_an_index(packed, sentence, tmp_path):
    """A server began to pack its pages with gzip, or showed another for a while: an update dropped
    all pictures of that folder, and said nothing."""
    pytest.importorskip("aiohttp")
    for seed, name in enumerate(("a.png", "sub/a.png", "sub/b.png")):
        paint(tmp_path / "photos" / name, seed)
    away = False
    pages = {"": b'<a href="a.png"><a href="sub/">', "sub/": b'<a href="a.png"><a href="b.png">'}

    def answer(request):
        path = request.path.removeprefix("/photos/")
        data = pages.get(path) or (tmp_path / "photos" / path).read_bytes()
        request.send_response(200)
        if away and path == "sub/":
            data = gzip.compress(data) if packed else b"<html>We will be back soon."
            if packed:
                request.send_header("Content-Encoding", "gzip")
        request.end_headers()
        request.wfile.write(data)

    method, out = Thumbnail(), tmp_path / "index"
    with answering(answer) as address:
        photos = f"{address}/photos/"
        build(open_anywhere(photos), method, out)
        away = True
        refused(sentence, lambda: build(open_anywhere(photos), method, out))
        away = False
        assert len(build(open_anywhere(photos), method, out)) == 3
    assert len(method.described) == 3


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
