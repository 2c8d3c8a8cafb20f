"""What uploads take in memory, and how their forms are read."""

import asyncio
import copy
from contextlib import ExitStack
from tempfile import SpooledTemporaryFile
from types import SimpleNamespace

import pytest
from starlette import formparsers
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser
from starlette.requests import Request
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from pages.parts.limits import uploads
from pages.parts.plain import plain


def test_names_that_cannot_be_sent():
    """Half a surrogate, as JSON and file systems allow it, cannot be put into a message."""
    assert plain("caf\ud800*") == r"caf\?\*"


def parsed_form(charset):
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    body = '--x\r\nContent-Disposition: form-data; name="é"\r\n\r\nbcher-kva\r\n--x--\r\n'

    async def stream():
        yield body.encode()

    parser = formparsers.MultiPartParser(Headers({"Content-Type": kind}), stream())
    return dict(asyncio.run(parser.parse()))


def test_forms_are_read_as_utf8(monkeypatch):
    monkeypatch.setattr(
        formparsers, uploads.DECODE, getattr(formparsers, uploads.DECODE)
    )  # undone later
    uploads.read_forms_as_utf8()
    for charset in ("punycode", "utf-8", "latin-1", "nothing"):
        assert parsed_form(charset) == {"é": "bcher-kva"}


def test_forms_without_files_are_refused(monkeypatch):
    """20 uploads of 10 MB of ampersands kept all visitors waiting for nine seconds."""
    monkeypatch.setattr(FormParser, "parse", FormParser.parse)  # undone later
    monkeypatch.setattr(formparsers, uploads.DECODE, getattr(formparsers, uploads.DECODE))
    uploads.read_forms_as_utf8()
    kind = (b"content-type", b"application/x-www-form-urlencoded")

    async def receive():
        return {"type": "http.request", "body": b"&" * 100}

    request = Request({"type": "http", "headers": [kind], "app": None}, receive)
    with pytest.raises(HTTPException, match="multipart"):
        asyncio.run(request._get_form(max_files=1, max_fields=1, max_part_size=1))


def uploading(monkeypatch, *sessions):
    """A server with these sessions, and what it does with an upload of so many bytes.

    The address of a session is its name up to a colon.
    """
    addresses = {
        session: SimpleNamespace(client_context=SimpleNamespace(remote_ip=session.split(":")[0]))
        for session in sessions
    }
    monkeypatch.setattr(MemoryUploadedFileManager, "add_file", MemoryUploadedFileManager.add_file)
    uploads.limit_uploads()
    away = SimpleNamespace(get=lambda session: session == "away")
    server = SimpleNamespace(
        is_active_session=sessions.__contains__,
        _session_mgr=SimpleNamespace(_session_storage=away),
        get_client=addresses.get,
    )
    monkeypatch.setattr(uploads.runtime, "get_instance", lambda: server)
    manager = MemoryUploadedFileManager("")

    def upload(session, name, size):
        manager.add_file(session, UploadedFileRec(name, name, "", bytes(size)))

    return manager, upload


def test_uploads_of_one_client_leave_room_for_others(monkeypatch):
    """Four tabs filled the 2 GB of all, and nobody else could bring pictures."""
    monkeypatch.setattr(uploads, "MAX_OF_CLIENT", 150_999)
    _, upload = uploading(monkeypatch, "a:1", "a:2", "b:1")
    upload("a:1", "a", 100_000)
    with pytest.raises(HTTPException, match="413"):
        upload("a:2", "a", 100_000)
    upload("b:1", "a", 100_000)


def test_an_upload_that_outlives_its_session(monkeypatch):
    """It stayed in memory for ever: nobody was left with whom it would have gone."""
    manager, upload = uploading(monkeypatch, "there")
    upload("there", "a", 10)
    upload("away", "a", 10)
    with pytest.raises(HTTPException, match="400"):
        upload("gone", "a", 10)
    assert set(manager.file_storage) == {"there", "away"}


def test_uploads_are_few_in_all(monkeypatch):
    """Each was limited: ten of 199 MB took 2 GB, a hundred would have taken 20."""
    monkeypatch.setattr(uploads, "MAX_UPLOADED", 100_999)
    monkeypatch.setattr(uploads, "MAX_OF_ALL", 150_999)
    manager, upload = uploading(monkeypatch, "one", "two")
    upload("one", "a", 60_000)
    upload("one", "b", 40_000)
    upload("two", "a", 50_000)
    for session, size in (("one", 1000), ("two", 1000)):
        with pytest.raises(HTTPException, match="413"):
            upload(session, "c", size)
    manager.remove_file("one", "a")
    upload("one", "c", 60_000)
    assert manager._total_bytes == 150_000


def test_uploads_that_were_deleted_count_on_where_their_session_may_have_kept_them(monkeypatch):
    """Sessions that each kept 200 MB and then deleted the upload took all memory there is."""
    monkeypatch.setattr(uploads, "MAX_OF_ALL", 150_999)
    manager, upload = uploading(monkeypatch, "one", "two")
    upload("one", "a", 100_000)
    manager.remove_file("one", "a")
    with pytest.raises(HTTPException, match="413"):
        upload("two", "a", 100_000)
    upload("one", "b", 100_000)
    manager.remove_session_files("one")
    upload("two", "a", 100_000)


def test_names_of_uploads_count_too(monkeypatch):
    """Those of 6000 empty files took 0.4 GB, and nothing ended it."""
    monkeypatch.setattr(uploads, "MAX_UPLOADED", 100_000)
    monkeypatch.setattr(uploads, "MAX_FILES", 3)
    _, upload = uploading(monkeypatch, "one", "two")
    upload("one", "\N{SLIGHTLY SMILING FACE}" + "a" * 10_000, 0)  # 40 kB, twice
    with pytest.raises(HTTPException, match="413"):
        upload("one", "b" * 15_000, 0)
    for name in "abc":
        upload("two", name, 0)
    with pytest.raises(HTTPException, match="413"):
        upload("two", "d", 0)


def test_large_uploads_come_into_memory_one_at_a_time(monkeypatch):
    """Twenty of 195 MB that ended together took 4.6 GB: they were refused after they were read."""
    monkeypatch.setattr(UploadFile, "read", uploads.original_read)  # undone later
    events = []

    async def read(upload, size):
        events.append(f"begin {upload.filename}")
        await asyncio.sleep(0.01)
        events.append(f"end {upload.filename}")
        return b"data"

    monkeypatch.setattr(uploads, "original_read", read)
    uploads.read_one_at_a_time()

    async def read_all():
        with ExitStack() as stack:
            files = []
            for name, limit in [("a", 1), ("b", 1), ("small", 100)]:
                file = stack.enter_context(SpooledTemporaryFile(max_size=limit))
                file.write(b"bytes")
                files.append(UploadFile(file, filename=name))
            return await asyncio.gather(*(one.read() for one in files))

    assert asyncio.run(read_all()) == [b"data"] * 3
    assert [event for event in events if "small" not in event] == [
        *("begin a", "end a"),
        *("begin b", "end b"),
    ]
    assert events.index("begin small") < events.index("end a"), "a small one waits for no other"


def test_all_copies_of_an_upload_have_the_same_bytes(monkeypatch):
    """Seventeen zips took 1.9 GB, and as much again while their pages waited to index them."""
    monkeypatch.setattr(UploadedFile, "__deepcopy__", None, raising=False)  # undone later
    uploads.share_bytes()
    file = UploadedFile(UploadedFileRec("1", "a.zip", "zip", bytes(1000)), FileURLs(file_id="1"))
    copied = copy.deepcopy([file])[0]
    assert copied.getvalue() is file.getvalue()
    assert (copied, copied.name, copied.size, copied.type) == (file, "a.zip", 1000, "zip")
    assert copied.read(10) == bytes(10)
    assert (copied.tell(), file.tell()) == (10, 0)
