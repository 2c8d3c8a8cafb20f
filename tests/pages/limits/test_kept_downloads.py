"""How long a file that was made to be downloaded is kept."""

from types import SimpleNamespace

from streamlit.runtime.media_file_manager import MediaFileManager, MediaFileMetadata
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage

from pages.parts.limits import downloads


def test_pages_of_others_delete_no_file_before_it_is_fetched(monkeypatch):
    """While one tab asked for its page again and again, all downloads of others failed."""
    times = iter((0.0, 0.1, downloads.KEPT - 1, downloads.KEPT, downloads.KEPT + 0.1))
    monkeypatch.setattr(downloads, "time", SimpleNamespace(monotonic=times.__next__))
    monkeypatch.setattr(MediaFileMetadata, "mark_for_delete", downloads.mark)  # undone later
    downloads.keep_a_while()
    manager = MediaFileManager(MemoryMediaFileStorage("/media"))
    deferred = manager.add_deferred(lambda: b"a,b", "text/csv", "1.1", "a.csv")
    file = manager.execute_deferred(deferred).removeprefix("/media/")
    for _ in range(3):
        manager.remove_orphaned_files()  # a page ends
    assert manager.read_file(file)
    for _ in range(2):
        manager.remove_orphaned_files()
    assert not manager.read_file(file)
