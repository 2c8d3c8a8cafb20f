"""How long files that were made to be downloaded are kept, and how many bytes of them."""

import itertools
from types import SimpleNamespace

import pytest
from streamlit.runtime.media_file_manager import MediaFileManager, MediaFileMetadata
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage

from pages.parts.limits import downloads


@pytest.fixture
def manager(monkeypatch):
    monkeypatch.setattr(MediaFileMetadata, "mark_for_delete", downloads.mark)  # undone later
    monkeypatch.setattr(MediaFileManager, "remove_orphaned_files", downloads.remove)
    downloads.keep_a_while()
    return MediaFileManager(MemoryMediaFileStorage("/media"))


def made(manager, content):
    """The address of a file that a visitor has asked to download."""
    deferred = manager.add_deferred(lambda: content, "text/csv", "1.1", "a.csv")
    return manager.execute_deferred(deferred).removeprefix("/media/")


def test_pages_of_others_delete_no_file_before_it_is_fetched(monkeypatch, manager):
    """While one tab asked for its page again and again, all downloads of others failed."""
    times = iter((0.0, 0.1, downloads.KEPT - 1, downloads.KEPT))
    monkeypatch.setattr(downloads, "time", SimpleNamespace(monotonic=times.__next__))
    file = made(manager, b"a,b")
    for _ in range(3):
        manager.remove_orphaned_files()  # a page ends
        assert manager.read_file(file)
    manager.remove_orphaned_files()
    assert not manager.read_file(file)


def test_files_are_few(monkeypatch, manager):
    """One tab that made a file of 6.7 MB again and again had 0.7 GB of them kept."""
    seconds = itertools.count()
    monkeypatch.setattr(downloads, "time", SimpleNamespace(monotonic=seconds.__next__))
    monkeypatch.setattr(downloads, "MAX_KEPT", 10)
    files = []
    for letter in (b"a", b"b", b"c"):
        files.append(made(manager, 4 * letter))
        manager.remove_orphaned_files()
    assert [bool(manager.read_file(file)) for file in files] == [False, True, True]
