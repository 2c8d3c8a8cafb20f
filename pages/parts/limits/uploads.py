"""Limits on the memory and disk that uploads take, and on the forms that bring them."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import Counter
from contextlib import suppress
from tempfile import gettempdir
from typing import Any, NoReturn
from weakref import WeakSet

from starlette import formparsers
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec
from uvicorn.protocols.http.h11_impl import H11Protocol

from pages.parts.limits.allowances import client_of
from pages.parts.limits.messages import MAX_FILES
from retrieval import hosts

MAX_UPLOADED, MAX_OF_ALL = 600 << 20, 2 << 30  # bytes of uploads: of one session, of all
MAX_OF_CLIENT = 1536 << 20  # of all sessions of a client, so that others can bring something too
MAX_IN_MEMORY = 65_536  # bytes of an upload that arrives; the rest goes to a file on the disk

original_add = MemoryUploadedFileManager.add_file
original_read = UploadFile.read
original_parse = formparsers.MultiPartParser.parse
original_data_received = H11Protocol.data_received
arriving: WeakSet[H11Protocol] = WeakSet()  # connections that send, or sent, an upload
not_seen = 0  # bytes that have arrived on all of them since it was seen whether there is room
_reading = asyncio.Lock()


def limit_uploads() -> None:
    """Limit the memory of all uploads of a session, of a client and of all clients.

    Streamlit limits the size of each upload only. It checks before an upload arrives that its
    session is there: an upload that arrives after the session has ended would stay for ever. An
    upload that was deleted still counts, because the session may have kept its bytes.
    """
    MemoryUploadedFileManager.add_file = _add  # type: ignore[assignment, method-assign]


def _add(manager: MemoryUploadedFileManager, session_id: str, file: UploadedFileRec) -> None:
    if not is_session(session_id):
        raise HTTPException(400, "The session of this upload has ended; reload the page.")
    # Session → its client, and the most bytes that it had at once.
    peaks: dict[str, tuple[str, int]] = vars(manager).setdefault("peaks", {})
    for gone in peaks.keys() - manager.file_storage.keys():
        del peaks[gone]
    files = manager.file_storage.get(session_id, {})
    # A session whose connection is broken has no address: its client is the one it had before.
    client, before = peaks.get(session_id) or (client_of(session_id), 0)
    peak = max(sum(map(_size, files.values())) + _size(file), before)
    sizes = peaks | {session_id: (client, peak)}
    if (
        len(files) >= MAX_FILES
        or peak > MAX_UPLOADED
        or sum(size for owner, size in sizes.values() if owner == client) > MAX_OF_CLIENT
        or sum(size for _, size in sizes.values()) > MAX_OF_ALL
    ):
        raise HTTPException(
            413, "Too much was uploaded already; close other tabs, wait two minutes and try again."
        )
    peaks[session_id] = client, peak
    original_add(manager, session_id, file)


def is_session(session_id: str) -> bool:
    """Whether a session is connected, or its connection is broken and may still come back."""
    server: Any = runtime.get_instance()
    if server.is_active_session(session_id):
        return True
    with suppress(KeyError):  # it ends in this moment
        if server._session_mgr._session_storage.get(session_id):
            return True
    return server.is_active_session(session_id)  # it came back in this moment


def _size(file: UploadedFileRec) -> int:
    """Bytes in memory; a name in which one letter is an emoji takes four times its length."""
    return sum(map(sys.getsizeof, file))


def read_one_at_a_time() -> None:
    """Take one large upload at a time from the disk, where it arrived, into memory.

    Streamlit takes the whole of it, and then asks ``_add`` whether there is room: of twenty uploads
    of 195 MB that ended together, ten were refused, but all were in memory, 4.6 GB.
    """
    UploadFile.read = _read  # type: ignore[assignment, method-assign]


async def _read(upload: UploadFile, size: int = -1) -> bytes:
    if upload._in_memory:
        return await original_read(upload, size)
    async with _reading:
        return await original_read(upload, size)


def limit_arriving() -> None:
    """Limit the uploads of a client, and of all, that arrive: they take as much of the disk.

    Each may have 200 MB, and a client need not end it: 40 took 7.7 GB in a minute, and more than a
    thousand are possible. On many Linux systems the folder for temporary files is in memory.
    """
    H11Protocol.data_received = _received  # type: ignore[assignment, method-assign]


def _received(protocol: H11Protocol, data: bytes) -> None:
    """Receive data; after a megabyte of all uploads, see whether there is room for them.

    A megabyte of all: 2000 uploads that stop a little below one take 2 GB.
    """
    global not_seen
    original_data_received(protocol, data)
    if _size_of_body(protocol) > MAX_IN_MEMORY:
        arriving.add(protocol)
        not_seen += len(data)
        if not_seen >= 1 << 20:
            not_seen = 0
            _make_room()


def _size_of_body(protocol: H11Protocol) -> int:
    """Bytes that have arrived of the present or the last request."""
    return getattr(protocol.conn, "size", 0)  # of a connection from before the limits: none


def _make_room() -> None:
    """Where too much arrives, end the largest uploads of the client that sends most."""
    sizes: Counter[str] = Counter()
    for one in list(arriving):
        if one.cycle.response_complete or one.transport.is_closing():
            arriving.discard(one)
        else:
            sizes[_client(one)] += _size_of_body(one)
    room = min(MAX_OF_ALL, shutil.disk_usage(gettempdir()).free)
    for client, most in sizes.most_common(1):
        too_much = max(most - MAX_OF_CLIENT, sizes.total() - room)
        of_client = (one for one in arriving if _client(one) == client)
        for one in sorted(of_client, key=_size_of_body, reverse=True):
            if too_much <= 0:
                break
            too_much -= _size_of_body(one)
            one.transport.abort()


def _client(protocol: H11Protocol) -> str:
    """The client that uploads, or the one for whom a proxy asks."""
    return hosts.client_of_peer(protocol.cycle.scope["client"])


def share_bytes() -> None:
    """Let all copies of an uploaded file have the same bytes.

    Streamlit gives a copy to each run of a page. Twenty zips that waited to be indexed took 2 GB,
    and as much again for the copies.
    """
    UploadedFile.__deepcopy__ = _copy  # type: ignore[attr-defined]


def _copy(file: UploadedFile, memo: dict[int, Any]) -> UploadedFile:
    record = UploadedFileRec(file.file_id, file.name, file.type, file.getvalue())
    return UploadedFile(record, file._file_urls)


def refuse_other_forms() -> None:
    """Let uploads that arrive wait on the disk, and refuse forms as ``a=1&b=2``.

    Of each upload, Starlette would keep a megabyte in memory until its end, which a client need not
    send. Forms that no browser sends for a file: 10 MB of ``%41`` or ``&`` take about half a second
    of the one thread that serves everybody.
    """
    formparsers.MultiPartParser.spool_max_size = MAX_IN_MEMORY
    formparsers.MultiPartParser.parse = _parse  # type: ignore[assignment, method-assign]
    formparsers.FormParser.parse = _refuse  # type: ignore[assignment, method-assign]


async def _parse(parser: formparsers.MultiPartParser) -> FormData:
    """Read a form. An error that is not the server's makes no traceback in the log."""
    try:
        return await original_parse(parser)
    except ClientDisconnect as error:
        raise formparsers.MultiPartException("The upload has no end.") from error
    except OSError as error:
        raise formparsers.MultiPartException(
            "The disk of the app is full, or cannot be written. Try again later."
        ) from error


async def _refuse(parser: formparsers.FormParser) -> NoReturn:
    raise formparsers.MultiPartException("Send the file as multipart/form-data.")
