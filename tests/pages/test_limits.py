"""What one browser may ask of Streamlit's server: messages, connections, forms."""

import asyncio
import contextlib
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import streamlit as st
import uvicorn
from starlette import formparsers
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser
from starlette.requests import Request
from starlette.websockets import WebSocketDisconnect
from streamlit import net_util
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.runtime import Runtime
from streamlit.runtime.app_session import AppSession, AppSessionState
from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.session_manager import SessionClientDisconnectedError
from streamlit.runtime.uploaded_file_manager import UploadedFileRec
from streamlit.web.server import server_util
from streamlit.web.server.starlette.starlette_websocket import StarletteSessionClient
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from pages.parts import limits
from pages.parts.plain import plain
from retrieval import chunks
from retrieval.workers import Workers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def session(monkeypatch):
    """A session that lacks what Streamlit's own handlers would look for."""
    for name in (*limits.HANDLERS, "handle_backmsg"):
        monkeypatch.setattr(AppSession, name, getattr(AppSession, name))  # undone later
    limits.ignore_messages()
    session = object.__new__(AppSession)
    session._state = AppSessionState.SHUTDOWN_REQUESTED  # there is nothing to shut down
    session.id = "there"
    monkeypatch.setattr(limits, "_client", lambda session: f"client of {session}")
    monkeypatch.setattr(limits, "parts", {})
    return session


@pytest.fixture
def handled(monkeypatch):
    """What is left for Streamlit to do."""
    left = []
    monkeypatch.setattr(limits, "handle", lambda session, message: left.append(message))
    return left


def test_no_visitor_clears_the_caches_of_all(session):
    """Two bytes did, and the pictures of all visitors were deleted three minutes later."""
    made = []

    @st.cache_resource(on_release=made.remove)
    def shared():
        made.append(1)
        return 1

    shared()
    for message in (BackMsg(clear_cache=True), BackMsg(load_git_info=True)):
        session.handle_backmsg(message)
    assert made == [shared()]
    shared.clear()
    assert not made


def test_browsers_of_one_client_connect_slowly(monkeypatch):
    """50 loops that opened the page and left at once kept others waiting for 12 seconds."""
    monkeypatch.setattr(Runtime, "connect_session", Runtime.connect_session)  # undone later
    monkeypatch.setattr(limits, "connect", lambda server, client, **_: "connected")
    monkeypatch.setattr(limits, "opened", {})
    now = 0.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    limits.open_slowly()
    server = object.__new__(Runtime)

    def connected(address, tries):
        client = SimpleNamespace(client_context=SimpleNamespace(remote_ip=address))
        count = 0
        for _ in range(tries):
            with contextlib.suppress(WebSocketDisconnect):
                count += server.connect_session(client=client, user_info={}) == "connected"
        return count

    assert connected("192.0.2.1", 1000) == limits.MOST_OPENED
    assert connected("192.0.2.2", 1) == 1
    now = 2.0
    assert connected("192.0.2.1", 1000) == 2 * limits.OPENED_A_SECOND


def test_files_that_are_announced(session, handled):
    """Each is answered with an address: 1.5 MB took 0.6 GB, and 25 MB took all there is."""
    for count in (0, limits.MOST_FILES, limits.MOST_FILES + 1):
        message = BackMsg()
        message.file_urls_request.file_names.extend([""] * count)
        session.handle_backmsg(message)
    assert [len(one.file_urls_request.file_names) for one in handled] == [0, limits.MOST_FILES]


def test_messages_of_very_many_parts(session, handled):
    """Two million widgets, which are 4 MB, kept everybody waiting for a second."""

    def message(widgets=0, numbers=0, hashes=0):
        made = BackMsg()
        state = made.rerun_script
        state.widget_states.widgets.extend([WidgetState()] * widgets)
        state.widget_states.widgets.add().int_array_value.data.extend([1] * numbers)
        state.cached_message_hashes.extend([""] * hashes)
        return made

    most = limits.MOST_PARTS
    small = [message(), message(999, 80_000, 900)]
    large = [message(widgets=most), message(numbers=most), message(hashes=most)]
    for one in small:
        session.handle_backmsg(one)
    for one in large:
        with pytest.raises(WebSocketDisconnect):  # its connection, which would keep it, ends
            session.handle_backmsg(one)
    session.handle_backmsg(message(limits.MOST_WIDGETS))  # and one more
    assert handled == small


def test_parts_of_all_messages_of_a_client(session, handled, monkeypatch):
    """Fifty tabs that announced 10,000 files again and again kept others waiting for a minute."""
    message = BackMsg()
    message.file_urls_request.file_names.extend([""] * limits.MOST_FILES)
    monkeypatch.setattr(limits.time, "monotonic", lambda: 0.0)
    most = limits.MOST_OF_PARTS // limits.MOST_FILES - 1  # a message is one part too
    for _ in range(most):
        session.handle_backmsg(message)
    with pytest.raises(WebSocketDisconnect):
        session.handle_backmsg(message)
    session.id = "b"
    session.handle_backmsg(message)
    assert len(handled) == most + 1


@pytest.mark.parametrize("payload", ["install_skills", "dismiss_skills_nudge"])
def test_no_visitor_writes_into_the_folder_of_the_app(session, handled, payload):
    """Instructions for coding assistants were installed there, for whoever came by a proxy."""
    message = BackMsg()
    getattr(message.backend_operation_request, payload).SetInParent()
    session._background_tasks = set()
    session.handle_backmsg(message)
    assert not handled


def test_files_to_download_are_made_a_few_at_a_time(session, handled):
    """10,000 were asked for with 0.8 MB, and made in the threads that serve everybody."""
    message = BackMsg()
    message.backend_operation_request.deferred_file.file_id = "a table"
    session._background_tasks = set()
    for number in range(20):
        session.handle_backmsg(message)
        if len(handled) > number:
            session._background_tasks.add(number)
    assert len(handled) == limits.MOST_DOWNLOADS
    session._background_tasks.pop()
    session.handle_backmsg(message)
    assert len(handled) == limits.MOST_DOWNLOADS + 1


def test_names_that_cannot_be_sent():
    """Half a surrogate, as JSON and file systems allow it, cannot be put into a message."""
    assert plain("caf\ud800*") == r"caf\?\*"


def test_sessions_away_outlast_hundreds_of_others(monkeypatch):
    """130 connections, opened and closed, took the pictures of visitors whose telephone slept."""
    monkeypatch.setattr(MemorySessionStorage, "save", MemorySessionStorage.save)  # undone later
    limits.allow_many_connections()
    storage = MemorySessionStorage()
    for number in range(1000):
        storage.save(SimpleNamespace(session=SimpleNamespace(id=f"{number}")))
    assert storage.get("0").session.id == "0"


SHOWN = """
import http.cookies
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from streamlit.testing.v1 import AppTest
assert not AppTest.from_file("app.py", default_timeout=60).run().exception
print(resource.getrlimit(resource.RLIMIT_NOFILE))
print(http.cookies._unquote.__module__)
import streamlit
assert not streamlit.get_option("runner.postScriptGC")
"""


def test_limits_are_set_before_a_page_is_shown():
    """A thousand requests, begun and not ended, kept everybody out for as long as they stayed."""
    resource = pytest.importorskip("resource")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    ran = subprocess.run(
        [sys.executable, "-c", SHOWN], cwd=ROOT, capture_output=True, text=True, check=True
    )
    now = min(most, limits.MOST_OPEN) if most > 0 else limits.MOST_OPEN
    assert ran.stdout.split("\n")[-3:-1] == [str((now, most)), "retrieval.cookies"]


def parsed_form(charset):
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    body = '--x\r\nContent-Disposition: form-data; name="é"\r\n\r\nbcher-kva\r\n--x--\r\n'

    async def stream():
        yield body.encode()

    parser = formparsers.MultiPartParser(Headers({"Content-Type": kind}), stream())
    return dict(asyncio.run(parser.parse()))


def test_forms_are_read_as_utf8(monkeypatch):
    monkeypatch.setattr(
        formparsers, limits.DECODE, getattr(formparsers, limits.DECODE)
    )  # undone later
    limits.read_forms_as_utf8()
    for charset in ("punycode", "utf-8", "latin-1", "nothing"):
        assert parsed_form(charset) == {"é": "bcher-kva"}


def test_forms_without_files_are_refused(monkeypatch):
    """20 uploads of 10 MB of ampersands kept all visitors waiting for nine seconds."""
    monkeypatch.setattr(FormParser, "parse", FormParser.parse)  # undone later
    monkeypatch.setattr(formparsers, limits.DECODE, getattr(formparsers, limits.DECODE))
    limits.read_forms_as_utf8()
    kind = (b"content-type", b"application/x-www-form-urlencoded")

    async def receive():
        return {"type": "http.request", "body": b"&" * 100}

    request = Request({"type": "http", "headers": [kind], "app": None}, receive)
    with pytest.raises(HTTPException, match="multipart"):
        asyncio.run(request._get_form(max_files=1, max_fields=1, max_part_size=1))


def test_requests_in_tiny_pieces(monkeypatch):
    """20 clients that sent one byte a chunk kept all visitors waiting for 26 seconds."""
    monkeypatch.setattr(H11Protocol, "connection_made", H11Protocol.connection_made)
    monkeypatch.setattr(WebSocketsSansIOProtocol, "handle_events", limits.handle_events)
    limits.refuse_tiny_pieces()
    settings = uvicorn.Config(lambda *_: None, log_config=None)
    settings.load()
    loop = asyncio.new_event_loop()
    protocol = H11Protocol(settings, uvicorn.server.ServerState(), {}, loop)
    protocol.connection_made(asyncio.Transport())
    loop.close()
    assert isinstance(protocol.conn, chunks.Connection)


class Protocol:
    """Stands for a connection."""


def test_messages_in_tiny_pieces(monkeypatch):
    """20 browsers that sent empty messages kept all visitors waiting for a minute."""
    handled, ended = [], []
    monkeypatch.setattr(limits, "handle_events", handled.append)
    seconds = iter((0, 6, 12, 12.1, 12.2))
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    transport = SimpleNamespace(abort=lambda: ended.append(1))
    conn = SimpleNamespace(events=[0] * 600, reader=SimpleNamespace(buffer=b""), current_size=None)
    protocol = Protocol()
    protocol.conn, protocol.transport = conn, transport
    for _ in range(3):  # a browser that is busy
        limits._handle_events(protocol)
    assert (len(handled), ended) == (3, [])
    for _ in range(2):
        limits._handle_events(protocol)
    assert (len(handled), ended) == (3, [1, 1])


class Transport(asyncio.Transport):
    """Of a browser that never reads."""

    aborted = False

    def write(self, data):
        pass

    def close(self):
        pass

    def is_closing(self):
        return False

    def abort(self):
        self.aborted = True


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def connect(monkeypatch):
    """A browser's connection to uvicorn, with Streamlit's setting and our limits."""
    for name in ("connection_made", "connection_lost", "handle_events"):
        found = getattr(WebSocketsSansIOProtocol, name)
        monkeypatch.setattr(WebSocketsSansIOProtocol, name, found)  # undone later
    monkeypatch.setattr(
        StarletteSessionClient, "write_forward_msg", StarletteSessionClient.write_forward_msg
    )
    limits.refuse_tiny_pieces()
    limits.hold_few_messages()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    settings = uvicorn.Config(app, log_config=None, ws_max_size=200 << 20)
    settings.load()
    loop = asyncio.get_running_loop()
    protocol = WebSocketsSansIOProtocol(settings, uvicorn.server.ServerState(), {}, loop)
    protocol.connection_made(Transport())
    protocol.data_received(HANDSHAKE)
    await asyncio.sleep(0)
    return protocol


def begun(size, sent, last=True):
    """The beginning of a message of ``size`` bytes, whose other frames follow unless ``last``."""
    return bytes([0x82 if last else 2, 0xFF]) + size.to_bytes(8, "big") + bytes(4 + sent)


def test_messages_that_never_end(monkeypatch):
    """Ten browsers that kept the last byte of 150 MB back held 1.5 GB for as long as they liked."""

    async def attack():
        for message in (begun(5 << 20, 1), begun(3 << 20, 3 << 20, False) + begun(3 << 20, 1)):
            protocol = await connect(monkeypatch)
            protocol.data_received(message)
            assert protocol.close_sent
            protocol.connection_lost(None)
        monkeypatch.setattr(limits, "MOST_ARRIVING", 5_000_000)
        many = [await connect(monkeypatch) for _ in range(3)]
        for protocol, size in zip(many, (1, 3, 2), strict=True):
            protocol.data_received(begun(3_900_000, size * 1_000_000))
        assert [one.transport.aborted for one in many] == [False, True, False]
        for protocol in many:
            protocol.connection_lost(None)
        assert not limits.arriving

    asyncio.run(attack())


def test_messages_that_nobody_reads(monkeypatch):
    """500 waited for each browser, of 15 MB where it had sent a box with a million commas."""

    async def attack():
        await connect(monkeypatch)
        socket = SimpleNamespace(headers=Headers(), cookies={}, client=None)
        client = StarletteSessionClient(socket)
        message = ForwardMsg()
        message.delta.new_element.markdown.body = "," * (7 << 20)
        for _ in range(3):
            client.write_forward_msg(message)
        with pytest.raises(SessionClientDisconnectedError):
            client.write_forward_msg(message)
        await client.aclose()

    asyncio.run(attack())


@pytest.fixture
def run_pages(monkeypatch):
    """Start runs of pages in threads, each a function to call meanwhile; and those that are at it.

    Streamlit's own part is left out: what calls our functions does it where Streamlit does.
    """
    server = SimpleNamespace(
        get_client=lambda session: None,
        is_active_session=str.islower,
        _enqueued_some_message=lambda: None,
    )
    monkeypatch.setattr(limits.runtime, "get_instance", lambda: server)
    monkeypatch.setattr(limits, "begin_run", lambda runner: None)
    monkeypatch.setattr(limits, "run_script", lambda runner, page: page(runner))
    monkeypatch.setattr(limits, "sent", lambda session: None)
    monkeypatch.setattr(limits, "SHORT", 60.0)
    monkeypatch.setattr(limits, "RUNS", Workers(limits.MOST_RUNS, 1000, tidy=False))
    begun, threads = queue.Queue(), []

    def start(names, wait=lambda: None):
        def page(runner):
            limits._begin_run(runner)
            begun.put(runner._session_id)
            wait()

        for name in names:
            runner = SimpleNamespace(_session_id=name)
            run = threading.Thread(target=limits._run_script, args=(runner, page), daemon=True)
            threads.append(run)
            run.start()

    def next_ones(count):
        found = sorted(begun.get(timeout=20) for _ in range(count))
        with pytest.raises(queue.Empty):
            begun.get(timeout=0.1)
        return found

    yield start, next_ones
    for thread in threads:
        thread.join(20)


def test_few_pages_run_at_a_time(run_pages):
    """Fifty tabs that asked for their page again and again kept others out for 47 seconds."""
    start, next_ones = run_pages
    done = threading.Event()
    start("abcd", done.wait)
    assert next_ones(4) == ["a", "b", "c", "d"]
    start("e")
    assert not next_ones(0)
    done.set()  # their messages are not sent yet
    assert not next_ones(0)
    limits._sent(SimpleNamespace(id="a"))
    assert next_ones(1) == ["e"]
    start("fG")
    for session in "bc":
        limits._sent(SimpleNamespace(id=session))
    assert next_ones(2) == ["G", "f"]
    start("h")  # nobody waits for the messages of G, who has left
    assert next_ones(1) == ["h"]


def test_pages_that_wait_let_others_run(run_pages):
    start, next_ones = run_pages
    done = threading.Event()

    def search():
        limits.let_others_run()
        done.wait()

    start("abcdefgh", search)
    assert len(next_ones(8)) == 8
    done.set()


def test_only_a_page_that_runs_is_stopped(run_pages, session, handled):
    """Fifty tabs that asked and stopped in turn made 6,000 threads and kept others out for 54 s."""
    start, next_ones = run_pages
    session.id, done = "b", threading.Event()
    stop = BackMsg(stop_script=True)
    session.handle_backmsg(stop)
    assert not handled
    start("b", done.wait)
    next_ones(1)
    session.handle_backmsg(stop)
    session.handle_backmsg(stop)  # of the run after that, which has not begun
    assert handled == [stop]
    start("c")
    next_ones(1)
    done.set()


def test_nobody_is_asked_for_our_address(monkeypatch):
    """20 pages of another site kept all visitors waiting for 5 seconds, and longer offline."""
    monkeypatch.setattr(net_util, "get_external_ip", net_util.get_external_ip)
    asked = []
    monkeypatch.setattr("requests.get", lambda address, **_: asked.append(address))
    limits.ask_nobody_for_our_address()
    assert not server_util.is_url_from_allowed_origins("http://evil.example")
    assert server_util.is_url_from_allowed_origins("http://localhost:8501")
    assert not asked


def uploading(monkeypatch, *sessions):
    """A server with these sessions, and what it does with an upload of so many bytes."""
    monkeypatch.setattr(MemoryUploadedFileManager, "add_file", MemoryUploadedFileManager.add_file)
    limits.keep_few_uploads()
    away = SimpleNamespace(get=lambda session: session == "away")
    server = SimpleNamespace(
        is_active_session=sessions.__contains__,
        _session_mgr=SimpleNamespace(_session_storage=away),
    )
    monkeypatch.setattr(limits.runtime, "get_instance", lambda: server)
    manager = MemoryUploadedFileManager("")

    def upload(session, name, size):
        manager.add_file(session, UploadedFileRec(name, name, "", bytes(size)))

    return manager, upload


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
    monkeypatch.setattr(limits, "MOST_UPLOADED", 100)
    monkeypatch.setattr(limits, "MOST_OF_ALL", 150)
    manager, upload = uploading(monkeypatch, "one", "two")
    upload("one", "a", 60)
    upload("one", "b", 40)
    upload("two", "a", 50)
    for session, size in (("one", 1), ("two", 1)):
        with pytest.raises(HTTPException, match="413"):
            upload(session, "c", size)
    manager.remove_file("one", "a")
    upload("one", "c", 60)
    assert manager._total_bytes == 150


def test_uploads_that_were_deleted_count_on_where_their_session_may_have_kept_them(monkeypatch):
    """Sessions that each kept 200 MB and then deleted the upload took all memory there is."""
    monkeypatch.setattr(limits, "MOST_OF_ALL", 150)
    manager, upload = uploading(monkeypatch, "one", "two")
    upload("one", "a", 100)
    manager.remove_file("one", "a")
    with pytest.raises(HTTPException, match="413"):
        upload("two", "a", 100)
    upload("one", "b", 100)
    manager.remove_session_files("one")
    upload("two", "a", 100)


def test_sessions_that_stay_away_end_without_others(monkeypatch):
    """What the last visitors had brought stayed until others came and went."""
    monkeypatch.setattr(MemorySessionStorage, "save", MemorySessionStorage.save)  # undone later
    limits.allow_many_connections()
    storage = MemorySessionStorage(ttl_seconds=0.02)
    ended = []
    late, soon = (
        SimpleNamespace(id=name, shutdown=lambda name=name: ended.append(name))
        for name in ("late", "soon")
    )

    async def leave():
        storage.save(SimpleNamespace(session=late))
        storage.save(SimpleNamespace(session=soon))
        storage.delete("soon")  # it came back
        await asyncio.sleep(0.2)

    monkeypatch.setattr(limits, "A_MOMENT", 0.02)
    asyncio.run(leave())
    assert ended == ["late"]
