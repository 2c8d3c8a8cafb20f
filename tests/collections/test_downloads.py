"""Against a server on this machine that has archives of the true layout and every bad habit."""

import gzip
import hashlib
import http.server
import io
import json
import pickle
import tarfile
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from retrieval import cli
from retrieval.collections import collection as collections
from retrieval.collections import data_folder, downloads, open_collection, transfer
from retrieval.collections.transfer import fetch
from retrieval.errors import RetrievalError
from retrieval.evaluation import published_descriptors as features
from retrieval.evaluation import runs
from retrieval.index import finding

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"


class Server:
    """Files by path, with habits: how each answer is spoilt. ``asked`` lists (path, range)."""

    def __init__(self):
        self.files, self.etags, self.break_after, self.answers = {}, {}, {}, {}
        self.asked, self.agents, self.ranges, self.lengths = [], {}, True, True
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.root = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, handler):
        path = handler.path
        self.asked.append((path, handler.headers.get("Range")))
        self.agents[path] = handler.headers.get("User-Agent")
        if self.answers.get(path):
            code, headers = self.answers[path].pop(0)
            handler.send_response(code)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            return
        if path not in self.files:
            handler.send_error(404)
            return
        data, start = self.files[path], 0
        asked = handler.headers.get("Range")
        etag = self.etags.get(path, '"v1"')
        if asked and self.ranges and handler.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(data)}")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        handler.send_header("ETag", etag)
        if self.lengths:
            handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        end = len(data)
        if self.break_after.get(path):
            end = min(end, start + self.break_after[path].pop(0))
        handler.wfile.write(data[start:end])


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("RETRIEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


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
    with pytest.raises(RetrievalError, match=r"0\.0 GB are free; make room, or set RETRIEVAL_DATA"):
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


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0)
    with pytest.raises(RetrievalError, match="cannot be downloaded now: Connection refused"):
        fetch("http://127.0.0.1:9/a.bin", tmp_path / "a.bin")
    with pytest.raises(RetrievalError, match="not an http"):
        fetch("http://[::1", tmp_path / "a.bin")


# --- whole collections ---------------------------------------------------------------------


def tgz(names):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    return buffer.getvalue()


def gnd(pictures, queries, prefix):
    names = [f"{prefix}_{i:06}" for i in range(pictures + queries)]
    return {
        "imlist": names[:pictures],
        "qimlist": names[pictures:],
        "gnd": [
            {"bbx": [0, 0, 10, 10], "easy": [i, i + 1], "hard": [i + 2], "junk": [i + 3]}
            for i in range(queries)
        ],
    }


@pytest.fixture
def roxford(server, monkeypatch):
    truth = gnd(4993, 70, "oxford")
    server.files["/gnd_roxford5k.pkl"] = pickle.dumps(truth)
    names = [*truth["imlist"], *truth["qimlist"]]
    server.files["/oxbuild_images-v1.tgz"] = tgz([f"{name}.jpg" for name in sorted(names)])
    source = replace(
        downloads.SOURCES["roxford5k"],
        size=1_000_000,
        archives=(f"{server.root}/oxbuild_images-v1.tgz",),
        ground_truth=f"{server.root}/gnd_roxford5k.pkl",
        ground_truth_sha256="",
    )
    monkeypatch.setitem(downloads.SOURCES, "roxford5k", source)
    return truth


def test_download_roxford5k_end_to_end(server, roxford, capsys):
    server.break_after["/oxbuild_images-v1.tgz"] = [20_000]
    said = []

    def say(text):
        said.append((text, len(server.asked)))

    downloads.download("roxford5k", say=say)
    assert "takes about 0.0 GB" in said[0][0]
    assert "are free" in said[0][0]
    assert said[0][1] == 0  # before anything was fetched
    collection = open_collection("roxford5k")
    assert collection.has_pictures
    assert all(collection.path(query.name).is_file() for query in collection.queries)
    assert listing(data_folder() / "oxford5k")[:2] == ["jpg", "jpg/oxford_000000.jpg"]
    assert listing(data_folder() / "downloads") in ([], [".lock"])  # the archive is gone
    asked = len(server.asked)
    downloads.download("roxford5k")
    assert len(server.asked) == asked  # nothing to do


def test_paris_lies_in_two_archives_with_folders(server, monkeypatch):
    truth = gnd(6322, 70, "paris")
    names = [*truth["imlist"], *truth["qimlist"]]
    server.files["/gnd.pkl"] = pickle.dumps(truth)
    server.files["/paris_1-v1.tgz"] = tgz([f"paris/defense/{name}.jpg" for name in names[:3000]])
    server.files["/paris_2-v1.tgz"] = tgz([f"paris/louvre/{name}.jpg" for name in names[3000:]])
    source = downloads.Source(
        (f"{server.root}/paris_1-v1.tgz", f"{server.root}/paris_2-v1.tgz"),
        f"{server.root}/gnd.pkl",
        1_000_000,
    )
    monkeypatch.setitem(downloads.SOURCES, "rparis6k", source)
    downloads.download("rparis6k")
    assert len(list((data_folder() / "paris6k" / "jpg").iterdir())) == 6392
    assert open_collection("rparis6k").has_pictures


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[: len(data) // 2], "damaged or not complete"),
        (lambda data: b"<html>Please log in</html>", "neither a zip nor a tar"),
        (lambda data: tgz(["../../evil.jpg"]), "outside the folder"),
        (lambda data: tgz(["oxford_000000.jpg"]), "lack 5062 of 5063 pictures"),
        (lambda data: tgz(["a/x.jpg", "b/x.jpg"]), r"hold x\.jpg twice"),
        (lambda data: gzip.compress(bytes(150_000_000), 1), "larger than"),
        (lambda data: tgz(["x" * 300 + ".jpg"]), "could not be unpacked"),
    ],
)
def test_bad_archives_leave_no_collection(server, roxford, spoil, words):
    archive = "/oxbuild_images-v1.tgz"
    good = server.files[archive]
    server.files[archive], server.etags[archive] = spoil(good), '"bad"'
    with pytest.raises(RetrievalError, match=words):
        downloads.download("roxford5k")
    assert not any(path.suffix == ".jpg" for path in data_folder().parent.rglob("*"))
    opened = open_collection("roxford5k")
    assert not opened.has_pictures  # but it can be scored against
    server.files[archive], server.etags[archive] = good, '"good"'
    downloads.download("roxford5k")
    assert open_collection("roxford5k").has_pictures
    assert opened.has_pictures, "the app has opened it before"


def test_wrong_ground_truth(server, roxford):
    server.files["/gnd_roxford5k.pkl"] = pickle.dumps(roxford | {"imlist": roxford["imlist"][1:]})
    with pytest.raises(RetrievalError, match="4992 pictures and 70 queries instead of 4993 and 70"):
        downloads.download("roxford5k")
    server.files["/gnd_roxford5k.pkl"] = b"cos\nsystem\n(S'touch EVIL'\ntR."
    with pytest.raises(RetrievalError, match="refused"):
        downloads.download("roxford5k")
    assert not collections._ENTRIES["roxford5k"].available


def test_ground_truth_of_another_hash(server, roxford, monkeypatch):
    """The authors' files come without encryption, so what they are is compared."""
    source = replace(downloads.SOURCES["roxford5k"], ground_truth_sha256="ab" * 32)
    monkeypatch.setitem(downloads.SOURCES, "roxford5k", source)
    with pytest.raises(RetrievalError, match="instead of abababababababab"):
        downloads.download("roxford5k")
    assert not collections._ENTRIES["roxford5k"].available


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the authors' files are not here")
@pytest.mark.parametrize("name", ["oxford5k", "paris6k", "roxford5k"])
def test_hashes_are_those_of_the_authors_files(name):
    data = (REFERENCE / f"gnd_{name}.pkl").read_bytes()
    assert hashlib.sha256(data).hexdigest() == downloads.SOURCES[name].ground_truth_sha256


def test_no_room_for_the_collection(server, roxford, monkeypatch):
    usage = type("Usage", (), {"free": 1_500_000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RetrievalError, match=r"ROxford5k needs 0\.0 GB .* make room"):
        downloads.download("roxford5k")
    assert server.asked == []


def test_full_disk_while_unpacking_keeps_the_archive(server, roxford, monkeypatch):
    def full(*args, **options):
        raise RetrievalError("No room.") from OSError(28, "No space left on device")

    monkeypatch.setattr(downloads, "unpack", full)
    with pytest.raises(RetrievalError, match="No room"):
        downloads.download("roxford5k")
    assert (data_folder() / "downloads" / "oxbuild_images-v1.tgz").is_file()


def test_unknown_download():
    with pytest.raises(RetrievalError, match="There is no download 'nope'; there are oxford5k"):
        downloads.download("nope")
    with pytest.raises(RetrievalError, match="There is no download 'town'"):
        downloads.download("town")


def test_every_source_has_a_collection_and_an_address():
    entries = {entry.name: entry for entry in collections.registered()}
    for name, source in downloads.SOURCES.items():
        assert entries[name].images
        for address in (*source.archives, source.ground_truth):
            transfer.check_address(address)
    for one in features.FEATURES.values():
        assert one.collection in entries
        transfer.check_address(one.address)


# --- published descriptors -----------------------------------------------------------------


@pytest.fixture
def descriptors(server, roxford, monkeypatch, tmp_path):
    """The server that is asked for a .mat, and has none yet."""
    monkeypatch.setattr(features, "PRECOMPUTED", tmp_path / "precomputed")
    monkeypatch.setitem(
        features.FEATURES,
        "roxford5k-gem-features",
        replace(features.FEATURES["roxford5k-gem-features"], address=f"{server.root}/gem.mat"),
    )
    return server


@pytest.fixture
def published(descriptors):
    """A .mat of the true layout in which query i looks like pictures i, i + 1 and i + 2."""
    random = np.random.default_rng(0)
    database = random.standard_normal((4993, 2048))
    queries = np.stack(
        [database[i] + 0.8 * database[i + 1] + 0.6 * database[i + 2] for i in range(70)]
    )
    mat = io.BytesIO()
    savemat(mat, {"X": unit(database).T, "Q": unit(queries).T})
    descriptors.files["/gem.mat"] = mat.getvalue()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_published_descriptors_end_to_end(published, monkeypatch, capsys, tmp_path):
    perfect = dict.fromkeys(("easy", "medium", "hard"), (100.0, (100.0, 100.0, 100.0)))
    monkeypatch.setitem(
        features.FEATURES,
        "roxford5k-gem-features",
        replace(features.FEATURES["roxford5k-gem-features"], published=perfect),
    )
    assert cli.main(["download", "roxford5k-gem-features"]) == 0
    out = capsys.readouterr().out
    assert "medium      100.00     100.00  agrees" in out
    assert "The scores agree" in out

    from retrieval import index as indexes

    path = indexes.find("roxford5k", tmp_path / "precomputed")["cnn-irwnha"]
    index = indexes.load(path)
    assert index.arrays["descriptors"].shape == (4993, 2048)
    collection = finding.collection_of(index)
    assert not collection.has_pictures
    kept = runs.load_run(index, collection)
    assert {name: one.map for name, one in kept.scores.items()} == {
        "easy": 1.0,
        "medium": 1.0,
        "hard": 1.0,
    }
    assert kept.ranks[:3, 7].tolist() == [7, 8, 9]
    # The index alone gives the same, from its half-precision copy.
    again = runs.evaluate_index(index, collection, None)
    assert again.scores["medium"].map == 1.0
    assert again.record["provenance"]["checkpoint"] == features.CHECKPOINT

    (path / "queries.npy").write_bytes(b"edited")
    with pytest.raises(RetrievalError, match="was edited or damaged"):
        runs.evaluate_index(index, collection, None)


def test_scores_that_differ_from_the_published_ones_are_an_error(published, capsys):
    assert cli.main(["download", "roxford5k-gem-features"]) == 1
    said = capsys.readouterr()
    assert "do not agree" in said.err
    assert "easy        100.00      84.81  DIFFERS" in said.out


@pytest.mark.parametrize(
    "content",
    [
        {"X": np.zeros((2048, 4993)), "Q": np.zeros((2048, 69))},
        {"X": np.zeros((4993, 2048)), "Q": np.zeros((70, 2048))},
        {"X": np.zeros((2048, 4993))},
        {"X": np.full((2048, 4993), np.nan), "Q": np.zeros((2048, 70))},
        {"X": np.array([["a", "b"]], object), "Q": np.zeros((2048, 70))},
        b"",
        b"<html>",
        b"MATLAB 5.0 MAT-file" + bytes(500),
        b"\x89HDF\r\n\x1a\n" + bytes(500),
    ],
)
def test_mat_files_of_another_kind(descriptors, content, tmp_path):
    if isinstance(content, dict):
        buffer = io.BytesIO()
        savemat(buffer, content, do_compression=True)
        content = buffer.getvalue()
    descriptors.files["/gem.mat"] = content
    with pytest.raises(RetrievalError, match=r"readable \.mat|instead of|not numbers"):
        features.download("roxford5k-gem-features")
    assert not (tmp_path / "precomputed").exists()
    assert not list(data_folder().rglob("*.mat"))
