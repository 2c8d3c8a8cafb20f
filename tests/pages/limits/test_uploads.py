"""What uploads take in memory, and how their forms are read."""

import asyncio
import copy
import errno
from contextlib import ExitStack
from tempfile import SpooledTemporaryFile
from types import SimpleNamespace

import pytest
import uvicorn
from starlette import formparsers
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser, MultiPartParser
from starlette.requests import Request
from streamlit.proto.Common_pb2 import FileURLs
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec
from uvicorn.protocols.http.h11_impl import H11Protocol

from pages.parts.limits import uploads
from pages.parts.plain import plain
from retrieval import request_limits


def test_names_that_cannot_be_sent():
    """Half a surrogate, as JSON and file systems allow it, cannot be put into a message."""
    assert plain("caf\ud800*") == r"caf\?\*"


@pytest.fixture
def form(monkeypatch):
    """What the app makes of a form whose body is given."""
    monkeypatch.setattr(FormParser, "parse", FormParser.parse)  # these are undone later
    monkeypatch.setattr(MultiPartParser, "parse", MultiPartParser.parse)
    monkeypatch.setattr(MultiPartParser, "spool_max_size", MultiPartParser.spool_max_size)
    monkeypatch.setattr(Request.form, "__kwdefaults__", dict(Request.form.__kwdefaults__))
    for name in ("parse_options_header", "unquote_plus", request_limits.DECODE):
        monkeypatch.setattr(formparsers, name, getattr(formparsers, name))
    request_limits.limit_forms(max_fields=0)
    uploads.refuse_other_forms()

    def read(body, kind="multipart/form-data; boundary=x", pause=lambda: None):
        parts = [body[: len(body) // 2], body[len(body) // 2 :]]

        async def receive():
            if len(parts) == 1 and pause():
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def parsed():
            headers = [(b"content-type", kind.encode())]
            return await Request({"type": "http", "headers": headers, "app": None}, receive).form()

        return asyncio.run(parsed())

    return read


def part(name, data, more=""):
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + data + b"\r\n--x--\r\n"


@pytest.mark.parametrize("charset", ["punycode", "utf-8", "latin-1", "nothing"])
def test_forms_are_read_as_utf8(form, charset):
    read = form(
        part("é", b"", '; filename="bücher-kva"'),
        f"multipart/form-data; boundary=x; charset={charset}",
    )
    assert read["é"].filename == "bücher-kva"


def test_an_upload_is_a_file_and_nothing_else(form):
    """Fields of forms that had no end took 3 GB: they wait in memory."""
    with pytest.raises(HTTPException, match="fields"):
        form(part("a", b"b"))


def test_uploads_that_arrive_wait_on_the_disk(form, monkeypatch):
    """Of each upload without an end, Starlette kept a megabyte in memory."""
    files = []

    class Spooled(SpooledTemporaryFile):
        def __init__(self, max_size):
            super().__init__(max_size)
            files.append(self)

    def pause():
        assert [file._rolled for file in files] == [True]

    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", Spooled)
    data = bytes(3 * uploads.MAX_IN_MEMORY)
    read = form(part("a", data, '; filename="a.jpg"'), pause=pause)
    assert asyncio.run(read["a"].read()) == data


def test_uploads_to_a_full_disk_are_refused_with_a_sentence(form, monkeypatch):
    class Full(SpooledTemporaryFile):
        def rollover(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", Full)
    with pytest.raises(HTTPException, match="400: The disk of the app is full"):
        form(part("a", bytes(2 * uploads.MAX_IN_MEMORY), '; filename="a.jpg"'))


def test_uploads_that_are_broken_off(form):
    """Each was a traceback of a hundred lines in the log."""
    with pytest.raises(HTTPException, match="400: The upload has no end"):
        form(part("a", bytes(100), '; filename="a.jpg"'), pause=lambda: True)


def test_forms_without_files_are_refused(form):
    """20 uploads of 10 MB of ampersands kept all visitors waiting for nine seconds."""
    with pytest.raises(HTTPException, match="multipart"):
        form(b"&" * 100, "application/x-www-form-urlencoded")


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


class Connected(asyncio.Transport):
    ended = False

    def abort(self):
        self.ended = True

    def close(self):
        pass

    def is_closing(self):
        return self.ended

    def pause_reading(self):
        pass

    resume_reading = pause_reading

    def write(self, data):
        pass


def test_uploads_without_an_end_leave_room_on_the_disk(monkeypatch):
    """40 of one client took 7.7 GB in a minute, and nothing ended it."""
    megabyte = 1 << 20
    monkeypatch.setattr(H11Protocol, "data_received", H11Protocol.data_received)  # undone later
    monkeypatch.setattr(uploads, "MAX_OF_CLIENT", 5 * megabyte)
    monkeypatch.setattr(uploads, "MAX_OF_ALL", 7 * megabyte)
    disk = SimpleNamespace(free=100 * megabyte)
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda folder: disk)
    uploads.limit_arriving()
    kept = []  # here, so that their requests are there until asyncio ends them
    answered = SimpleNamespace(response_complete=True)

    async def attack():
        async def app(scope, receive, send):
            await asyncio.Event().wait()

        settings = uvicorn.Config(app, log_config=None)
        settings.load()

        def send(megabytes, address, size=megabyte, behind=""):
            transport = Connected({"peername": (address, 50_000)})
            protocol = H11Protocol(settings, uvicorn.server.ServerState(), {})
            protocol.connection_made(transport)
            request_limits.limit_connection(protocol, transport)
            head = f"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {100 * megabyte}\r\n"
            head += f"X-Forwarded-For: {behind}\r\n\r\n" if behind else "\r\n"
            protocol.data_received(head.encode())
            for _ in range(megabytes):
                protocol.data_received(bytes(size))
            kept.append(protocol)
            return transport

        def ended():
            return "".join(str(int(protocol.transport.ended)) for protocol in kept)

        send(3, "192.0.2.1")
        send(2, "192.0.2.1")
        assert ended() == "00"
        send(1, "192.0.2.1")  # too many of this client
        assert ended() == "100"
        send(3, "192.0.2.2")
        send(2, "192.0.2.2")  # too many of all: this client has most
        assert ended() == "10010"
        send(2, "192.0.2.1")  # what ended does not count
        assert ended() == "100100"
        kept[-1].cycle = answered
        send(2, "192.0.2.1")  # nor does what was answered
        assert ended() == "1001000"
        for protocol in kept:
            protocol.cycle = answered
        disk.free = megabyte
        send(2, "192.0.2.3")
        assert ended() == "10010001"
        disk.free = 100 * megabyte
        for _ in range(20):  # none has a megabyte
            send(1, "192.0.2.4", megabyte // 2)
        assert 9 <= sum(protocol.transport.ended for protocol in kept[8:]) <= 11
        for protocol in kept:
            protocol.cycle = answered
        for visitor in (6, 5, 5, 5):
            send(0, "127.0.0.1", behind=f"192.0.2.{visitor}")
        await asyncio.sleep(0)  # uvicorn reads for whom the proxy asks
        for protocol, megabytes in zip(kept[-4:], (3, 2, 2, 1), strict=True):
            for _ in range(megabytes):
                protocol.data_received(bytes(megabyte))
        assert ended()[-4:] in ("0100", "0010")  # not the largest, but one of who sends most

    asyncio.run(attack())


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
