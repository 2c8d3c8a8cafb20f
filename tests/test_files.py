"""Files are written as a whole or not at all, and arrays of strangers are read safely."""

import hashlib
import json
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from retrieval import files
from retrieval.errors import RetrievalError


def test_a_file_takes_the_place_of_another_when_it_is_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")
    with files.replacing(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert files.digest(path) == hashlib.sha256(b"after").hexdigest()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_leaves_the_one_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")

    def half():
        with files.replacing(path) as file:
            file.write(b"half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        half()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_is_deleted_by_the_next_day(tmp_path):
    for name in ("a.txt.12.new", "a.txt.13.new", "b.txt.12.new", "a.txt.old.new"):
        (tmp_path / name).write_bytes(b"half")
        if name != "a.txt.13.new":
            os.utime(tmp_path / name, (1e9, 1e9))
    with files.replacing(tmp_path / "a.txt") as file:
        file.write(b"whole")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["a.txt", "a.txt.13.new", "a.txt.old.new", "b.txt.12.new"]


def test_two_threads_write_one_file(tmp_path):
    """They took the same name beside it: half of one was read, and the other one failed."""
    path = tmp_path / "a.txt"
    with files.replacing(path) as one:
        one.write(b"one")
        with files.replacing(path) as two:
            two.write(b"another")
        assert path.read_bytes() == b"another"
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_the_new_file_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "randbelow", lambda below: 12)  # guessed
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a.txt.12.new").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError), files.replacing(tmp_path / "a.txt") as file:
        file.write(b"whole")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "a.txt").exists()
    with files.replacing(tmp_path / "a.txt") as file:
        file.write(b"whole")
    assert not (tmp_path / "a.txt").is_symlink()


def test_a_pipe_and_a_gigabyte_of_nothing(tmp_path):
    """A pipe was waited for; of the other, some kilobytes of archive fill the memory."""
    path = tmp_path / "a.npz"
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is no file"):
        files.read(path)
    with pytest.raises(RetrievalError, match="not a readable"):
        files.read_array(path)
    path.unlink()
    np.save(tmp_path / "a.npy", np.arange(100))
    path = (tmp_path / "a.npy").rename(path)
    assert len(files.read_array(path, max_bytes=1000)) == 100
    os.truncate(path, 2000)
    with pytest.raises(OSError, match="more than 0 MB"):
        files.read(path, 1000)
    with pytest.raises(RetrievalError, match="larger than"):
        files.read_array(path, max_bytes=1000)


@pytest.mark.skipif(not os.access("/proc/self/pagemap", os.R_OK), reason="has no such file")
def test_a_file_that_states_no_bytes_and_never_ends(tmp_path):
    """Its 256 GB were digested for an index, and for a SavedModel, that had a link to it."""
    path = tmp_path / "images.json"
    path.symlink_to("/proc/self/pagemap")
    assert files.digest(path) == hashlib.sha256().hexdigest()
    assert files.read(path) == b""


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    stated = path.stat()
    path.write_bytes(b"abcdef")
    monkeypatch.setattr(Path, "stat", lambda self: stated)
    monkeypatch.setattr(os, "fstat", lambda number: stated)
    assert files.read(path, 3) == b"abc"
    assert files.digest(path) == hashlib.sha256(b"abc").hexdigest()


def test_folders_in_folders(tmp_path):
    """Of a thousand, Python 3.11 made a traceback."""
    (tmp_path / Path(*["a"] * files.DEEPEST)).mkdir(parents=True)
    assert len(list(files.walk(tmp_path))) == files.DEEPEST + 1
    (tmp_path / Path(*["a"] * (files.DEEPEST + 1))).mkdir()
    with pytest.raises(RetrievalError, match="more than 200 folders inside each other"):
        list(files.walk(tmp_path))


def test_json_that_is_hardly_more_than_brackets(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"name": "a, b [c]", "sizes": [10, 20]}] * 5000))
    assert len(files.read_json(path)) == 5000
    deep = " " * 6_000_000 + "[" * 500_000 + "]" * 500_000  # Python 3.14 reads 50,000 of them
    objects = "[" + '{"":1},     ' * 5000 + "0]"  # 240 bytes each
    for text in ("[" + "[]," * 5000 + "[]]", objects, "[NaN]", deep, "[1", "\0"):
        path.write_text(text)
        with pytest.raises(ValueError):  # noqa: PT011  of several kinds
            files.read_json(path)


def test_memory_of_a_json_file(tmp_path):
    """It was said to be 15 times its size. Each key is in two tables: the object, and all keys."""
    path = tmp_path / "a.json"
    keys = [f'"{chr(256 + number // 4096)}{number % 4096:03x}":1' for number in range(87_383)]
    path.write_text('{"\U0001f642":1,' + ",".join(keys) + "}", encoding="utf-8")
    tracemalloc.start()
    try:
        assert len(files.read_json(path)) == 87_384
        assert tracemalloc.get_traced_memory()[1] < 30 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_holes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(21_000_000))  # zeros that were written
    assert not files.has_holes(path)
    os.truncate(path, 40_000_000)  # a copy may leave out some
    assert not files.has_holes(path)
    os.truncate(path, 42_000_000)
    assert files.has_holes(path)
    with open(path, "ab") as file:
        file.write(b"end")
    assert files.has_holes(path)


def test_read_array(tmp_path):
    ranks = np.arange(6, dtype=np.int16).reshape(3, 2)
    np.savez(tmp_path / "one.npz", ranks)
    np.savez(tmp_path / "two.npz", a=ranks, b=ranks + 1)
    np.save(tmp_path / "plain.npy", ranks)
    assert np.array_equal(files.read_array(tmp_path / "one.npz"), ranks)
    assert np.array_equal(files.read_array(tmp_path / "plain.npy"), ranks)
    assert np.array_equal(files.read_array(tmp_path / "two.npz", "b"), ranks + 1)
    with open(tmp_path / "one.npz", "rb") as file:
        assert np.array_equal(files.read_array(file), ranks)
    with pytest.raises(RetrievalError, match=r"one of: a, b, as .*two.npz:NAME"):
        files.read_array(tmp_path / "two.npz")
    with pytest.raises(RetrievalError, match="no array 'c'"):
        files.read_array(tmp_path / "two.npz", "c")
    with pytest.raises(RetrievalError, match="There is no file"):
        files.read_array(tmp_path / "nope.npz")


def header(shape):
    return (
        b"\x93NUMPY\x01\x00v\x00"
        + f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode()
        + b"\n"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"text", b"\x93NUMPY", header("(3, 2)"), header("(10000000000, 1000)")],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_read_array_refuses_other_files(content, zipped, tmp_path):
    path = tmp_path / "ranks.npz"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ranks.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(RetrievalError, match="not a readable"):
        files.read_array(path)


def test_read_array_runs_no_pickle(tmp_path):
    np.savez(tmp_path / "a.npz", ranks=np.array([{}, []], object))
    with pytest.raises(RetrievalError, match="plain numbers"):
        files.read_array(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "array",
    [
        np.array([0x7FFFFFFF], np.uint32).view("U1"),
        np.array([(0x7FFFFFFF,)], [("text", np.uint32)]).view([("text", "U1")]),
        np.array(["2026-11-28"], "M8[D]"),
        # To look at a gigabyte of letters took another 1.2 GB.
        np.array(["x" * 300_000]),
    ],
)
def test_read_array_refuses_what_is_no_text(array, tmp_path):
    """A letter that is none ended "Groups" and "How it works" with a SystemError of NumPy."""
    np.savez(tmp_path / "a.npz", text=array)
    with pytest.raises(RetrievalError, match="not a readable"):
        files.read_array(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", text=np.array("Sacré-Cœur 🗼"))
    assert str(files.read_array(tmp_path / "a.npz")) == "Sacré-Cœur 🗼"


def test_read_array_is_limited(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", ranks=np.zeros((1000, 1000), int))
    monkeypatch.setattr(files, "MAX_ARRAYS", 1_000_000)
    with pytest.raises(RetrievalError, match="larger than 1 MB"):
        files.read_array(tmp_path / "a.npz")
