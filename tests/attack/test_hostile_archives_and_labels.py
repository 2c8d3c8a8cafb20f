"""Archives and ground truth that are small as files: what they cost is bounded."""

import io
import json
import os
import resource
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from attack import archives, pickled

from retrieval import images, text
from retrieval.collections import ground_truth_files, open_collection, read_ground_truth
from retrieval.collections.archives import names_in, unpack
from retrieval.collections.ground_truth import GroundTruth, Query
from retrieval.collections.ground_truth_files import parse_ground_truth
from retrieval.collections.metadata import read_table
from retrieval.collections.names import check_name
from retrieval.errors import RetrievalError
from retrieval.evaluation import check_ranks, evaluate
from retrieval.evaluation.submissions import read_submission
from retrieval.files import read_array
from retrieval.index.loading import _open_array
from retrieval.networks import weights

READ = """
import sys, resource
resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, 2_000_000_000))
from retrieval.collections import read_ground_truth
from retrieval.errors import RetrievalError
try:
    read_ground_truth(sys.argv[1])
except RetrievalError as error:
    print(error)
"""


def test_a_zip_with_very_many_files(tmp_path):
    data = archives.many_files(300_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RetrievalError, match="the list of its files is too long"):
        unpack(io.BytesIO(data), tmp_path / "into", max_bytes=10**9, max_files=2000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kB"
    with pytest.raises(RetrievalError, match=r"more than 2,000 files|is in it twice"):
        unpack(
            io.BytesIO(archives.many_files(3000)),
            tmp_path / "into",
            max_bytes=10**9,
            max_files=2000,
        )


@pytest.mark.parametrize("data", [archives.empty_members(4_000_000), archives.empty_blocks(10**7)])
def test_an_archive_that_computes_and_gives_nothing(tmp_path, monkeypatch, data):
    monkeypatch.setattr("retrieval.collections.archives.SECONDS", 0.05)
    with pytest.raises(RetrievalError, match="it takes too long to unpack"):
        unpack(io.BytesIO(data), tmp_path / "into", max_bytes=10**9, max_files=2000)
    assert not (tmp_path / "into").exists()


def test_a_submission_that_computes_and_gives_nothing(monkeypatch):
    """196 MB of blocks that hold nothing took 15 s; as much of numbers takes 2."""
    data = io.BytesIO(archives.empty_blocks(10**7, "ranks.npy"))
    data.name = "mine.npz"
    monkeypatch.setattr("retrieval.evaluation.submissions.SECONDS", 0.05)
    with pytest.raises(RetrievalError, match=r"mine\.npz is refused: it takes too long to unpack"):
        read_submission(data, open_collection("town"))


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([b"1" * 40_000], "no sensible numbers"),  # 165 bytes took 0.9 s, and twice as many 4 s
        ([b"2 " * 20_000 + b"="], "damaged"),  # 20,000 names of up to 40 kB
        ([b"8 ab=cd\n" * 100_000], "no sensible size"),
        ([b"8 ab=cd\n" * 200], "no sensible size"),
        ([b"8 ab=cd\n" + b"\0" * 60_000] * 150, "no sensible size"),
        ([b"19 GNU.sparse.x=a\n"], "damaged|sparse"),
        ([b"16 path=a\0b.jpg\n"], "is no file name"),
        ([b"16 path=dog.jpg\n"], ""),
    ],
)
def test_extended_headers_of_tar(records, words, tmp_path):
    """tarfile reads them with patterns that take the square of their length."""
    data = io.BytesIO(archives.extended_tar(records))
    if not words:
        found = unpack(data, tmp_path / "into", max_bytes=10**5, max_files=9)
        assert [path.name for path in found] == ["dog.jpg"]
        return
    with pytest.raises(RetrievalError, match=words):
        unpack(data, tmp_path / "into", max_bytes=10**7, max_files=2000)


@pytest.mark.parametrize(
    ("name", "read", "why"),
    [
        ("x.npz", lambda path: read_array(path, "a.jpg"), "the list of its files is too long"),
        (
            "net.pth",
            lambda path: weights.read_tensors(path, weights.digest(path)),
            "the list of its files is too long",
        ),
        ("descriptors.npy", _open_array, "the magic string is not correct"),
    ],
)
def test_arrays_and_weights_that_are_zips_with_very_many_files(name, read, why, tmp_path):
    """Their number is limited, as each becomes an object: 60 MB take 0.5 GB."""
    path = tmp_path / name
    path.write_bytes(archives.many_files(30_000))
    with pytest.raises(RetrievalError) as refused:
        read(path)
    assert why in str(refused.value.__cause__)


def packed_array(method):
    """An .npz with 1000 numbers, packed with a method of zipfile."""
    array, file = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(1000))
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("ranks.npy", array.getvalue())
    file.seek(0)
    return file


def test_an_array_packed_with_another_method_is_refused():
    """zipfile unpacks it without a limit, whatever size is stated: 1500 bytes can take 4 GB."""
    assert read_array(packed_array(zipfile.ZIP_DEFLATED), "ranks").shape == (1000,)
    with pytest.raises(RetrievalError, match="not a readable") as refused:
        read_array(packed_array(zipfile.ZIP_BZIP2), "ranks")
    assert "another method" in str(refused.value.__cause__)


def test_rankings_of_nothing():
    """A gigabyte of zeros, packed into one megabyte, took three more to be checked."""
    ranks = np.zeros((2000, 2000), np.int8)
    tracemalloc.start()
    with pytest.raises(RetrievalError, match="lists position 0 twice"):
        check_ranks(ranks, 2000, 2000)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_many_queries_of_many_pictures():
    """An array of all pictures for each query took an hour for 13 MB of ground truth."""
    names = tuple(map(str, range(1_000_000)))
    query = Query("q", labels={"ok": np.array([5])})
    truth = GroundTruth(names, (query,) * 10_000)
    started = time.thread_time()
    scores = evaluate(np.tile([[9], [5]], 10_000), truth)["classic"]
    assert time.thread_time() - started < 10
    assert scores.aps.tolist() == [0.25] * 10_000


def test_a_name_of_very_many_folders():
    """20 MB of them took 18 s and 0.6 GB before they were refused; 128 kB of a pickle a minute."""
    for name in ("a/" * 5_000_000 + "b.jpg", "a/" * 2000 + "b.jpg", "/" * 2000 + "b.jpg"):
        started = time.thread_time()
        with pytest.raises(RetrievalError, match="is no picture name"):
            check_name(name)
        assert time.thread_time() - started < 0.2
    assert check_name("a/" * 200 + "b.jpg")


def test_a_submission_with_very_many_files():
    """An archive of arrays is a zip, and its names are limited: 200 MB of them take 2 GB."""
    with pytest.raises(zipfile.BadZipFile, match="the list of its files is too long"):
        names_in(io.BytesIO(archives.many_files(100_000)))
    assert names_in(io.BytesIO(archives.many_files(3))) == ["a.jpg"] * 3
    with pytest.raises(RetrievalError, match=r"The file must be an \.npz"):
        read_submission(io.BytesIO(archives.many_files(100_000)), open_collection("town"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: pickled.copied_text(1_000_000, 5000), "more than ground truth can hold"),
        (lambda: pickled.copied_set(20_000, 10_000), "more than ground truth can hold"),
        (lambda: pickled.many_lists(30_000_000), "more than ground truth can hold"),
        (lambda: pickled.long_names(100_000, 50_000), "names in imlist are too long"),
        (lambda: pickled.shared_labels(100_000, 5000), "more than 5,000,000 labels"),
        (lambda: pickled.shared_labels(100_000, 5000, "named"), "more than 5,000,000 labels"),
        (lambda: pickled.shared_labels(5_000_000, 500, "text"), "of a query are not positions"),
        (lambda: pickled.shared_labels(30_000, 2, "nested"), "labels of a are not positions"),
        (lambda: pickled.shared_labels(900_000, 500, "box"), "box of a is not four numbers"),
    ],
)
def test_pickles_that_grow(data, words, tmp_path):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(data())
    root = Path(images.__file__).parents[1]
    command = [sys.executable, "-c", READ, path]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert words in run.stdout, run.stderr[-500:]


def test_an_array_whose_shape_is_no_shape(tmp_path):
    """Its numbers were multiplied: 180 bytes, a text and a number, took as much as there was."""
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickled.shaped_array(pickled.text("x") + b"J\0\0\0\x10\x86"))
    tracemalloc.start()
    with pytest.raises(RetrievalError, match="not a readable pickle"):
        read_ground_truth(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_names_of_very_many_digits():
    """Looked through once: with the square of them a megabyte took hours. Now a path is shorter."""
    digits = "1" * 4000
    names = [f"hall_{digits}x.jpg", f"hall_{digits}.jpg"]
    gnd = {"imlist": names, "qimlist": names, "gnd": [{"ok": [0]}, {"ok": [1]}]}
    found = parse_ground_truth(json.dumps(gnd).encode(), "x")
    assert [len(one.landmark) for one in found.queries] == [300, 4]
    names[0] = f"hall_{digits}{digits}x.jpg"
    with pytest.raises(RetrievalError, match="is no picture name"):
        parse_ground_truth(json.dumps(gnd).encode(), "x")


def test_very_many_queries():
    """They are limited: 28 MB of them take 1.6 GB and 22 s."""
    count = 100_001
    gnd = {"imlist": ["a"], "qimlist": ["a"] * count, "gnd": [{"ok": []}] * count}
    with pytest.raises(RetrievalError, match="more than 100,000 queries"):
        parse_ground_truth(json.dumps(gnd).encode(), "x")


@pytest.mark.parametrize("label", [1e19, float("inf"), -1e19, 2**63, 4])
def test_labels_beyond_all_pictures(label):
    """As whole numbers of 64 bits they are negative: a visitor's file ended in a traceback."""
    gnd = {"imlist": ["a", "b"], "qimlist": ["a"], "gnd": [{"ok": [1.0, label]}]}
    data = json.dumps(gnd).replace("Infinity", "1e999").encode()
    with pytest.raises(RetrievalError, match="is outside the 2 database pictures"):
        parse_ground_truth(data, "x")


def test_one_long_landmark_of_very_many_queries(monkeypatch):
    """Made plain again for each query, 0.7 MB of a visitor kept a worker of all busy for 23 s."""
    asked = []
    monkeypatch.setattr(
        ground_truth_files, "one_line", lambda one: asked.append(one) or text.one_line(one)
    )
    long, count = "\nhall" * 1000, 1000
    gnd = {"imlist": ["a"], "qimlist": ["a"] * count, "gnd": [{}] * count}
    for more in (
        {"landmarks": {"a": long}},
        {"imlist": [long[1:4001]], "gnd": [{"ok": [0]}] * count},
    ):
        found = parse_ground_truth(json.dumps(gnd | more).encode(), "x")
        assert {one.landmark for one in found.queries} == {text.one_line(long)} - {""}
    assert len(asked) == 2


@pytest.mark.parametrize("first", ["/etc/hall", "../hall", "a\0b"])
def test_a_text_file_that_names_a_query_elsewhere(tmp_path, first):
    """A page that opened the folder ended in a traceback, where it asked for the picture."""
    for kind in ("good", "ok", "junk"):
        (tmp_path / f"hall_1_{kind}.txt").touch()
    (tmp_path / "hall_1_query.txt").write_text(f"{first} 0 0 9 9\n")
    with pytest.raises(RetrievalError, match="is no picture name"):
        read_ground_truth(tmp_path, ["a.jpg"])


def test_text_files_that_are_large_together(tmp_path, monkeypatch):
    """Each was within the limit: three of 32 MB, packed 0.1 MB, took 2.4 GB, and others followed.

    The lines, of which each becomes a text, are not even looked at.
    """
    monkeypatch.setattr(ground_truth_files, "MAX_BYTES", 1000)
    for number in (1, 2):
        for kind in ("good", "ok", "junk"):
            (tmp_path / f"hall_{number}_{kind}.txt").write_bytes(b"a\n" * 50)
        (tmp_path / f"hall_{number}_query.txt").write_text("hall_1 0 0 9 9\n")
    assert len(read_ground_truth(tmp_path, ["a.jpg"]).queries) == 2
    (tmp_path / "hall_1_good.txt").write_bytes(b"a\n" * 300)
    with pytest.raises(RetrievalError, match="too large for ground truth"):
        read_ground_truth(tmp_path, ["a.jpg"])


def test_json_that_grows(tmp_path):
    path = tmp_path / "ground_truth.json"
    path.write_text("[" + "[]," * 11_000_000 + "[]]")
    with pytest.raises(RetrievalError, match="more than 32 MB"):
        read_ground_truth(path)
    path.write_text("[" + ("[" * 900 + "]" * 900 + ",") * 1200 + "[]]")  # fourteen times: 1.7 GB
    with pytest.raises(RetrievalError, match="too large for ground truth"):
        read_ground_truth(path)


@pytest.mark.parametrize(
    "query",
    [
        {"image": "x" * 10_000, "zz": 1},
        {"image": "a", "z" * 10_000: 1},
        {"image": "a", "ok": ["y" * 10_000]},
    ],
)
def test_errors_about_long_names_are_short(query):
    """15 MB of JSON were refused with a sentence of 15 MB."""
    data = json.dumps({"database": ["a"], "queries": [query]}).encode()
    with pytest.raises(RetrievalError, match="…") as refused:
        parse_ground_truth(data, "gnd.json")
    assert len(str(refused.value)) < 1000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_labels_that_are_a_pipe(tmp_path):
    """To open one waits for whoever writes into it, for ever."""
    (tmp_path / "a_1.jpg").write_bytes(b"x")
    for kind in ("query", "good", "ok", "junk"):
        os.mkfifo(tmp_path / f"a_1_{kind}.txt")
    with pytest.raises(RetrievalError, match="holds no <landmark>_<n>_query"):
        read_ground_truth(tmp_path, ["a_1.jpg"])
    for read, name in (
        (read_ground_truth, "gnd.pkl"),
        (read_ground_truth, "gnd.json"),
        (read_table, "metadata.csv"),
    ):
        os.mkfifo(tmp_path / name)
        with pytest.raises(RetrievalError, match=f"{name} cannot be read: it is no file"):
            read(tmp_path / name)
