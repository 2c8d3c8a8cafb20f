"""Indexes that are replaced or gone while they are read."""

import shutil
import sys
import threading
from types import SimpleNamespace

import pytest
from index_folders import build, same
from stubs import paint, refused

from retrieval import index
from retrieval.errors import RetrievalError
from retrieval.index import loading


def test_a_reader_between_the_two_renames(photos, out, monkeypatch):
    before = build(photos, out)
    old = out.with_name("one.building") / "index.old"
    old.parent.mkdir()
    out.rename(old)
    pauses = iter([lambda: None, lambda: old.rename(out)])
    clock = SimpleNamespace(sleep=lambda seconds: next(pauses)())
    monkeypatch.setattr(loading, "time", clock)
    same(index.load(out), before)


def test_an_index_that_is_replaced_while_it_is_read(photos, out, monkeypatch):
    """Its checksums were those of the old one, its vectors those of the new."""
    before = build(photos, out)
    paint(photos / "a.png", 77)
    new = build(photos, out.with_name("two"))
    opened = loading._open_array

    def replaced(path):
        if new.path.exists():
            shutil.rmtree(out)
            new.path.rename(out)
        return opened(path)

    monkeypatch.setattr(loading, "_open_array", replaced)
    found = index.load(out)
    same(found, new)
    assert found.manifest == new.manifest != before.manifest


def test_an_index_that_is_always_replaced(photos, out, monkeypatch):
    """The last try was believed, whatever it had read."""
    build(photos, out)
    monkeypatch.setattr(loading, "version_of", lambda path: object())
    refused("is replaced all the time", index.load, out)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits to set")
@pytest.mark.parametrize("what", [index.load, loading.read_manifest])
def test_files_that_the_system_does_not_open(photos, out, what):
    """The error is a sentence, and does not advise to delete an index that is whole."""
    import resource

    build(photos, out)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(RetrievalError) as caught:
            what(out)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert str(caught.value) == f"{out / 'manifest.json'} cannot be read: Too many open files."


def test_a_file_that_vanishes_while_an_index_is_read(photos, out, monkeypatch):
    build(photos, out)
    digest = loading.files.digest

    def vanished(path):
        path.unlink()
        return digest(path)

    monkeypatch.setattr(loading.files, "digest", vanished)
    refused("cannot be read: No such file", index.load, out)


def test_a_reader_while_builds_come_and_go(tmp_path, monkeypatch):
    """A folder that goes while it is looked through is no traceback, and no 500 of the service.

    Nor is it taken for an index between its renames: the first try says that there is none.
    """
    monkeypatch.setattr(loading, "ATTEMPTS", 1)
    going = True

    def come_and_go():
        while going:
            for number in range(20):
                (tmp_path / f"one.{number}").mkdir()
            for number in range(20):
                (tmp_path / f"one.{number}").rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(300):
            with pytest.raises(RetrievalError, match="no manifest"):
                index.load(tmp_path / "one")
    finally:
        going = False
        thread.join()
