"""Files to download, and pictures of pages: how many are kept, how long, how they are sent."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any
from weakref import WeakValueDictionary

from streamlit.proto.BackMsg_pb2 import BackendOperationRequest
from streamlit.runtime import memory_media_file_storage
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.media_file_manager import MediaFileManager, MediaFileMetadata
from streamlit.runtime.media_file_storage import MediaFileKind
from streamlit.web.server.starlette.starlette_gzip_middleware import SelectiveGZipMiddleware

from pages.parts.limits.allowances import client_of

KEPT = 60.0  # s that a file waits for the browser to fetch it
MAX_KEPT = 128 << 20  # bytes of all files that wait; when they are more, the oldest are deleted
MAX_SHOWN = 512 << 20  # bytes of the pictures of all pages

original_mark = MediaFileMetadata.mark_for_delete
original_remove = MediaFileManager.remove_orphaned_files
original_execute = MediaFileManager.execute_deferred
original_make = AppSession._handle_backend_operation_request
turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of each client


def make_in_turn() -> None:
    """Make one file to download, or one part of a table, of a client at a time.

    Streamlit has a few threads that make those of all clients, in the order of the requests: sixty
    tabs that asked for two drawings each kept the download of another client waiting for 35 s.
    """
    AppSession._handle_backend_operation_request = _make  # type: ignore[assignment, method-assign]


async def _make(session: AppSession, request: BackendOperationRequest) -> None:
    async with turns.setdefault(client_of(session.id), asyncio.Lock()):
        await original_make(session, request)


def limit_kept_files() -> None:
    """Keep files to download for KEPT seconds and up to MAX_KEPT bytes; limit pictures of pages.

    Streamlit deletes a file when two pages of any visitors have ended since it was made: while one
    tab asked for its page again and again, all downloads of others failed. And it has no limit: one
    tab that marked results and downloaded its ground truth of 6.7 MB, in turn, had 0.7 GB kept.
    It keeps pictures as long as their tab is open, though the browser fetches them once: 40 tabs of
    sixty pictures each took 280 MB. Files are counted when a page ends and when a file is made, as
    a tab that only downloads ends no page.
    """
    MediaFileManager.execute_deferred = _execute  # type: ignore[assignment, method-assign]
    MediaFileMetadata.mark_for_delete = _nothing  # type: ignore[assignment, method-assign]
    MediaFileManager.remove_orphaned_files = _remove  # type: ignore[assignment, method-assign]


def _nothing(file: MediaFileMetadata) -> None:
    pass


def _execute(manager: MediaFileManager, deferred: str) -> str:
    """Make a file; its address."""
    address = original_execute(manager, deferred)
    manager.remove_orphaned_files()
    return address


def _remove(manager: MediaFileManager) -> None:
    """Called whenever a page ends or a file is made: mark the files that go, and remove them."""
    now, left = time.monotonic(), MAX_KEPT
    storage: Any = manager._storage
    with manager._lock:
        pictures = [
            file for file in storage._files_by_id.values() if file.kind == MediaFileKind.MEDIA
        ]
        if sum(picture.content_size for picture in pictures) > MAX_SHOWN:
            _forget_pictures(manager)
        files = {file: manager._file_metadata[file] for file in manager._get_inactive_file_ids()}
        unused = [
            (vars(file).setdefault("unused_since", now), name)
            for name, file in files.items()
            if file.kind == MediaFileKind.DOWNLOADABLE
        ]
        for since, name in sorted(unused, reverse=True):
            left -= storage.get_file(name).content_size
            if left < 0 or now - since >= KEPT:
                original_mark(files[name])
    original_remove(manager)


def _forget_pictures(manager: MediaFileManager) -> None:
    """Forget the pictures of the pages that ran longest ago: their browsers have them by now."""
    left, seen = MAX_SHOWN, set()
    storage: Any = manager._storage
    for shown in reversed(list(manager._files_by_session_and_coord.values())):  # last page first
        for place, name in list(shown.items()):
            file = storage._files_by_id.get(name)
            if file is None or file.kind != MediaFileKind.MEDIA:
                continue
            if name not in seen:
                left -= file.content_size
                seen.add(name)
            if left < 0:
                del shown[place]


def hash_whole_files() -> None:
    """Let Streamlit look at all bytes of a file to see whether it has it already.

    Of more than a megabyte it looks at the length and at 64 kB of the beginning, the middle and the
    end. A ground truth of 2 MB with one other mark was that of before, and a photograph could be
    shown to all in place of another.
    """
    memory_media_file_storage._PARTIAL_HASH_THRESHOLD = sys.maxsize  # type: ignore[misc]


def send_uncompressed() -> None:
    """Send files as they are: Streamlit compresses tables and drawings anew for every request.

    It does so in 40 threads, and the rest wait for them: 200 connections that asked for one drawing
    of a megabyte kept the pages of others waiting for 5 s.
    """
    SelectiveGZipMiddleware.__call__ = _pass_on  # type: ignore[assignment, method-assign]


async def _pass_on(compressor: SelectiveGZipMiddleware, *request: Any) -> None:
    await compressor.app(*request)
