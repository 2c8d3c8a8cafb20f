"""Files to download, and pictures of pages: how many are kept, how long, how they are sent."""

import asyncio
import itertools
from types import SimpleNamespace

import pytest
from starlette.responses import Response
from streamlit.runtime import media_file_manager, memory_media_file_storage
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.media_file_manager import MediaFileManager, MediaFileMetadata
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.web.server.starlette.starlette_gzip_middleware import SelectiveGZipMiddleware

from pages.parts.limits import downloads


@pytest.fixture
def manager(monkeypatch):
    monkeypatch.setattr(
        MediaFileMetadata, "mark_for_delete", downloads.original_mark
    )  # undone later
    monkeypatch.setattr(MediaFileManager, "remove_orphaned_files", downloads.original_remove)
    monkeypatch.setattr(MediaFileManager, "execute_deferred", downloads.original_execute)
    downloads.limit_kept_files()
    return MediaFileManager(MemoryMediaFileStorage("/media"))


def made(manager, content):
    """The address of a file that a visitor has asked to download."""
    deferred = manager.add_deferred(lambda: content, "text/csv", "1.1", "a.csv")
    return manager.execute_deferred(deferred).removeprefix("/media/")


def test_pages_of_others_delete_no_file_before_it_is_fetched(monkeypatch, manager):
    """While one tab asked for its page again and again, all downloads of others failed."""
    times = iter((0.0, 0.1, 0.2, downloads.KEPT - 1, downloads.KEPT))
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


def test_files_are_few_where_no_page_ends(monkeypatch, manager):
    """Tabs that only downloaded had all their files kept: 3 MB of drawings each."""
    seconds = itertools.count()
    monkeypatch.setattr(downloads, "time", SimpleNamespace(monotonic=seconds.__next__))
    monkeypatch.setattr(downloads, "MAX_KEPT", 10)
    files = [made(manager, 4 * letter) for letter in (b"a", b"b", b"c")]
    assert [bool(manager.read_file(file)) for file in files] == [False, True, True]


@pytest.mark.parametrize("place", [100_000, 700_000, 1_900_000])
def test_large_files_are_told_apart(monkeypatch, manager, place):
    """After another mark, a ground truth of 2 MB was downloaded as it was before."""
    threshold = "_PARTIAL_HASH_THRESHOLD"
    monkeypatch.setattr(  # undone later
        memory_media_file_storage, threshold, getattr(memory_media_file_storage, threshold)
    )
    downloads.hash_whole_files()
    before, after = bytes(2_000_000), bytearray(2_000_000)
    after[place] = 1
    files = made(manager, before), made(manager, bytes(after))
    assert [manager.read_file(file).content for file in files] == [before, after]


def test_pictures_of_pages_are_few(monkeypatch, manager):
    """40 tabs, each with sixty pictures of its own, 180 kB together, took 280 MB while they stayed.

    Others that were shown before go; a page that runs again shows its own again.
    """
    monkeypatch.setattr(downloads, "MAX_SHOWN", 10)

    def show(tab, *pictures):
        monkeypatch.setattr(media_file_manager, "_get_session_id", lambda: tab)
        manager.clear_session_refs()
        for number, picture in enumerate(pictures):
            names[picture] = manager.add(picture, "image/png", f"{number}").removeprefix("/media/")
        download = manager.add_deferred(lambda: b"a,b", "text/csv", "download", "a.csv")
        manager.remove_orphaned_files()  # the page ends
        return download

    def there():
        return {picture for picture, name in names.items() if manager.read_file(name)}

    names = {}
    download = show("first", b"old.", b"all.")
    show("second", b"all.", b"2")
    assert there() == {b"old.", b"all.", b"2"}
    show("third", b"new.")
    assert there() == {b"all.", b"2", b"new."}
    assert manager.execute_deferred(download)
    manager.remove_orphaned_files()
    show("first", b"old.", b"2")
    assert there() == {b"new.", b"2", b"old."}


def test_one_file_of_a_client_is_made_at_a_time(monkeypatch):
    """Sixty tabs that asked for two drawings each kept the download of others waiting for 35 s."""
    begun, told = [], asyncio.Event()

    async def make(session, asked):
        begun.append(session.id)
        await told.wait()

    name = "_handle_backend_operation_request"
    monkeypatch.setattr(AppSession, name, downloads.original_make)  # undone later
    downloads.make_in_turn()
    monkeypatch.setattr(downloads, "original_make", make)
    monkeypatch.setattr(downloads, "client_of", lambda session: session[0])

    async def attack():
        sessions = [SimpleNamespace(id=one) for one in ("a1", "a2", "a3", "b")]
        made = asyncio.gather(*(getattr(AppSession, name)(one, None) for one in sessions))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert begun == ["a1", "b"]
        told.set()
        await made

    asyncio.run(attack())
    assert begun == ["a1", "b", "a2", "a3"]
    assert not downloads.turns


def test_files_are_sent_as_they_are(monkeypatch):
    """200 connections that asked for a drawing compressed kept pages of others waiting for 5 s."""
    send = SelectiveGZipMiddleware.__call__
    monkeypatch.setattr(SelectiveGZipMiddleware, "__call__", send)  # undone later
    downloads.send_uncompressed()
    content = b"," * 1_000_000
    app = SelectiveGZipMiddleware(Response(content, media_type="text/csv"))
    headers = [(b"accept-encoding", b"gzip")]
    scope = {"type": "http", "method": "GET", "path": "/media/a.csv", "headers": headers}
    sent = []

    async def keep(message):
        sent.append(message)

    asyncio.run(app(scope, None, keep))
    assert (b"content-encoding", b"gzip") not in sent[0]["headers"]
    assert sent[1]["body"] == content
