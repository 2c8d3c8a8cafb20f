"""Connections of a browser, and the pieces that its messages come in."""

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import tracemalloc
from asyncio.selector_events import BaseSelectorEventLoop
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.websockets import WebSocketDisconnect
from streamlit import net_util
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.runtime import Runtime
from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.runtime.state import SessionState
from streamlit.runtime.state.common import WidgetMetadata
from streamlit.web.server import server_util
from streamlit.web.server.starlette import starlette_websocket
from streamlit.web.server.starlette.starlette_websocket import StarletteSessionClient
from stubs import most_accepted
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.server import ServerProtocol

from pages.parts.limits import allowances, connections
from pages.parts.limits.allowances import OfClients
from retrieval import request_limits

ROOT = Path(__file__).parents[3]


def test_browsers_of_one_client_connect_slowly(monkeypatch):
    """50 loops that opened the page and left at once kept others waiting for 12 seconds."""
    monkeypatch.setattr(Runtime, "connect_session", Runtime.connect_session)  # undone later
    monkeypatch.setattr(connections, "original_connect", lambda server, client, **_: "connected")
    monkeypatch.setattr(
        connections, "opened", OfClients(connections.MAX_OPENED, connections.OPENED_A_SECOND)
    )
    now = 0.0
    monkeypatch.setattr(allowances.time, "monotonic", lambda: now)
    connections.limit_new_sessions()
    server = object.__new__(Runtime)

    def connected(address, tries):
        client = SimpleNamespace(client_context=SimpleNamespace(remote_ip=address))
        count = 0
        for _ in range(tries):
            with contextlib.suppress(WebSocketDisconnect):
                count += server.connect_session(client=client, user_info={}) == "connected"
        return count

    assert connected("192.0.2.1", 1000) == connections.MAX_OPENED
    assert connected("192.0.2.2", 1) == 1
    now = 2.0
    assert connected("192.0.2.1", 1000) == 2 * connections.OPENED_A_SECOND


def test_few_connections_are_accepted_though_the_server_listens_already(monkeypatch):
    """Twenty loops that began a connection and left at once kept others waiting for 20 s."""
    monkeypatch.setattr(
        BaseSelectorEventLoop, "_accept_connection", request_limits.original_accept
    )  # undone later
    loop = asyncio.SelectorEventLoop()
    server = SimpleNamespace(_get_async_objs=lambda: SimpleNamespace(eventloop=loop))
    monkeypatch.setattr(connections.runtime, "exists", lambda: True)
    monkeypatch.setattr(connections.runtime, "get_instance", lambda: server)
    most = most_accepted(loop, connections.accept_few_at_once)
    assert 0 < most <= request_limits.MAX_ACCEPTED + 1  # the loop of Python 3.14 takes one more


def test_sessions_away_outlast_hundreds_of_others(monkeypatch):
    """130 connections, opened and closed, took the pictures of visitors whose telephone slept."""
    monkeypatch.setattr(MemorySessionStorage, "save", MemorySessionStorage.save)  # undone later
    connections.keep_many_sessions()
    storage = MemorySessionStorage()
    for number in range(1000):
        storage.save(SimpleNamespace(session=SimpleNamespace(id=f"{number}")))
    assert storage.get("0").session.id == "0"


def test_sessions_that_stay_away_end_without_others(monkeypatch):
    """What the last visitors had brought stayed until others came and went."""
    monkeypatch.setattr(MemorySessionStorage, "save", MemorySessionStorage.save)  # undone later
    connections.keep_many_sessions()
    storage = MemorySessionStorage(ttl_seconds=0.5)
    ended = []
    late, soon = session("late", ended), session("soon", ended)

    async def leave():
        storage.save(SimpleNamespace(session=late))
        storage.save(SimpleNamespace(session=soon))
        storage.delete("soon")  # it came back
        await asyncio.sleep(1)

    monkeypatch.setattr(connections, "GRACE", 0.02)
    asyncio.run(leave())
    assert ended == ["late"]
    # Their garbage was collected minutes later, and with it 2 GB of uploads.
    assert "brought" not in late.session_state
    assert soon.session_state["brought"] == "soon"


def session(name, ended):
    """A session that adds its name to a list when it ends."""
    state = SessionState()
    state["brought"] = name
    return SimpleNamespace(id=name, session_state=state, shutdown=lambda: ended.append(name))


def test_a_session_ends_though_another_leaves_at_the_same_moment(monkeypatch):
    """Streamlit dropped it when it saved the other one, and its uploads stayed."""
    monkeypatch.setattr(MemorySessionStorage, "save", MemorySessionStorage.save)  # undone later
    connections.keep_many_sessions()
    storage = MemorySessionStorage(ttl_seconds=0)
    ended = []
    for name in ("first", "second"):
        storage.save(SimpleNamespace(session=session(name, ended)))
    assert ended == ["first"]


def test_sessions_end_though_one_before_them_was_sent_a_forged_value(monkeypatch):
    """The others stayed with all that they had brought, and the one that left was never saved."""
    monkeypatch.setattr(MemorySessionStorage, "save", MemorySessionStorage.save)  # undone later
    connections.keep_many_sessions()
    storage = MemorySessionStorage(ttl_seconds=0)
    ended = []
    forged = session("forged", ended)
    widget = WidgetMetadata("box", json.loads, json.dumps, "json_value")
    forged.session_state._new_widget_state.set_widget_metadata(widget)
    value = WidgetState(id="box", json_value="[" + "9" * 5000 + "]")
    forged.session_state._new_widget_state.set_widget_from_proto(value)
    for left in (forged, session("second", ended), session("third", ended)):
        storage.save(SimpleNamespace(session=left))
    assert ended == ["forged", "second"]


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
    now = min(most, request_limits.MAX_OPEN) if most > 0 else request_limits.MAX_OPEN
    assert ran.stdout.split("\n")[-3:-1] == [str((now, most)), "retrieval.cookies"]


@pytest.fixture
def accept(monkeypatch):
    """A function that makes a connection from an address. Returns protocol and transport."""
    for name in ("connection_made", "connection_lost", "pause_writing", "resume_writing"):
        monkeypatch.setattr(H11Protocol, name, getattr(H11Protocol, name))  # undone later
    monkeypatch.setattr(connections, "open_now", Counter())
    connections.limit_connections()
    settings = uvicorn.Config(lambda *_: None, log_config=None)
    settings.load()
    loop = asyncio.new_event_loop()
    state = uvicorn.server.ServerState()

    def accept(address):
        transport = Accepted({"peername": (address, 50_000)})
        protocol = H11Protocol(settings, state, {}, loop)
        protocol.connection_made(transport)
        return protocol, transport

    yield accept
    loop.close()


class Accepted(asyncio.Transport):
    ended = False
    size = 0

    def get_write_buffer_size(self):
        return self.size

    def abort(self):
        self.ended = True

    def close(self):
        pass


def test_requests_in_tiny_pieces(accept):
    """20 clients that sent one byte a chunk kept all visitors waiting for 26 seconds."""
    protocol, _ = accept("192.0.2.1")
    assert isinstance(protocol.conn, request_limits.Connection)


def test_many_connections_of_one_client(accept, monkeypatch):
    """28,000 connections of one client, as many as it has ports, shut all others out."""
    monkeypatch.setattr(connections, "MAX_OF_CLIENT", 3)
    ended = [accept(f"2001:db8::{number}")[1].ended for number in range(5)]
    assert ended == [False, False, False, True, True]
    assert not accept("192.0.2.2")[1].ended


def test_connections_are_counted_as_they_come_and_go(accept, monkeypatch):
    """A count of all, 10,000, at each new one kept others waiting for half a minute."""
    monkeypatch.setattr(connections, "MAX_OF_CLIENT", 1)
    monkeypatch.setattr(connections, "original_socket_lost", lambda *_: None)
    asked = []
    monkeypatch.setattr(
        connections.hosts, "client_of_peer", lambda peer: asked.append(peer) or peer[0]
    )
    accepted = [accept(f"192.0.2.{number}") for number in range(100)]
    assert not any(transport.ended for _, transport in accepted)
    assert len(asked) <= 200
    assert accept("192.0.2.1")[1].ended
    for number in (1, 1, 2):
        accepted[number][0].connection_lost(None)
    became_a_socket = Protocol()
    became_a_socket.client, became_a_socket.transport = ("192.0.2.3", 50_000), None
    became_a_socket.conn, became_a_socket.frames = ServerProtocol(), []
    connections._socket_lost(became_a_socket, None)
    assert len(connections.open_now) == 97
    assert not accept("192.0.2.1")[1].ended


def test_files_that_nobody_reads(accept, monkeypatch):
    """200 downloads of 8 MB, asked for and not read, held 1 GB for as long as a client liked."""
    monkeypatch.setattr(connections, "MAX_UNREAD_OF_CLIENT", 10)
    asked = [accept(address) for address in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")]

    def ended():
        return [transport.ended for _, transport in asked]

    for (protocol, transport), transport.size in zip(asked, (4, 5, 5, 9), strict=True):
        protocol.pause_writing()
        if transport.size == 4:
            protocol.resume_writing()  # this one was read
    assert ended() == [False, False, False, False]
    asked[0][0].pause_writing()
    assert ended() == [False, True, False, False]
    for protocol, _ in asked:
        protocol.connection_lost(None)
    assert not connections.unread


class Protocol:
    """Stands for a connection."""


def test_messages_in_tiny_pieces(monkeypatch):
    """700 browsers of one client that sent 500 empty messages each kept others waiting for 33 s."""
    handled, ended = [], []
    monkeypatch.setattr(connections, "original_handle_events", handled.append)
    most, a_second = connections.MAX_FRAMES, connections.FRAMES_A_SECOND
    monkeypatch.setattr(connections, "pieces", OfClients(most, a_second))
    now = 0.0
    monkeypatch.setattr(allowances.time, "monotonic", lambda: now)
    transport = SimpleNamespace(abort=lambda: ended.append(1), get_write_buffer_size=lambda: 0)
    reader = SimpleNamespace(buffer=b"")

    def send(count, address, browsers=1):
        for port in range(browsers):
            protocol = Protocol()
            protocol.client, protocol.transport = (address, port), transport
            protocol.conn = SimpleNamespace(events=[0] * count, reader=reader, current_size=None)
            connections._handle_events(protocol)

    send(500, "192.0.2.1", browsers=most // 500)
    assert (len(handled), ended) == (most // 500, [])
    send(500, "192.0.2.1", browsers=2)
    send(500, "192.0.2.2")
    assert (len(handled), ended) == (most // 500 + 1, [1, 1])
    now = 1.5  # s; half of it for the thousand that were too many
    send(500, "192.0.2.1", browsers=a_second // 500)
    assert (len(handled), ended) == (most // 500 + 1 + a_second // 500, [1, 1])


class Transport(asyncio.Transport):
    """Of a browser that never reads."""

    aborted = False
    size = 0

    def write(self, data):
        pass

    def close(self):
        pass

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True

    def get_write_buffer_size(self):
        return self.size


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def connect(monkeypatch, address="192.0.2.1", handshake=HANDSHAKE):
    """A browser's connection to uvicorn, with Streamlit's setting and our limits."""
    for name in (
        "run_asgi",
        "send_receive_event_to_app",
        "connection_made",
        "connection_lost",
        "data_received",
        "handle_events",
    ):
        found = getattr(WebSocketsSansIOProtocol, name)
        monkeypatch.setattr(WebSocketsSansIOProtocol, name, found)  # undone later
    monkeypatch.setattr(
        StarletteSessionClient, "write_forward_msg", StarletteSessionClient.write_forward_msg
    )
    connections.limit_messages()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    settings = uvicorn.Config(app, log_config=None, ws_max_size=200 << 20)
    settings.load()
    loop = asyncio.get_running_loop()
    protocol = WebSocketsSansIOProtocol(settings, uvicorn.server.ServerState(), {}, loop)
    protocol.connection_made(Transport({"peername": (address, 50_000)}))
    protocol.data_received(handshake)
    await asyncio.sleep(0)
    return protocol


def begun(size, sent, last=True):
    """The beginning of a message of ``size`` bytes, whose other frames follow unless ``last``."""
    return bytes([0x82 if last else 2, 0xFF]) + size.to_bytes(8, "big") + bytes(4 + sent)


def test_a_client_that_sent_too_many_frames_owes_them(monkeypatch):
    """600 loops that connected, sent 16 kB of empty frames and came again kept others waiting for
    16 s: the frames were counted when they had been read."""
    pieces = OfClients(100, 1)
    monkeypatch.setattr(connections, "pieces", pieces)
    now = 0.0
    monkeypatch.setattr(allowances.time, "monotonic", lambda: now)
    ping, wrong = b"\x89\x80" + bytes(4), b"\xff\x80" + bytes(4)

    async def attack():
        nonlocal now
        first = await connect(monkeypatch)
        second = await connect(monkeypatch)
        other = await connect(monkeypatch, "192.0.2.2")
        first.data_received(ping * 400)
        assert first.transport.aborted
        second.data_received(ping * 400)
        assert second.transport.aborted
        assert not second.conn.events  # nothing was read
        other.data_received(ping)
        assert not other.transport.aborted
        other.data_received(ping * 400 + wrong)  # none of them is handled, all are counted
        now = 250.0
        assert not pieces.take("192.0.2.2", 0)
        now = 350.0  # 402 frames of the first, with its handshakes: 302 too many
        assert pieces.take("192.0.2.1", 0)
        for protocol in (first, second, other):
            protocol.connection_lost(None)

    asyncio.run(attack())


def test_frames_of_a_visitor_behind_a_proxy(monkeypatch):
    """Three connections of one visitor had all others cut off: 53 times in 22 s."""
    monkeypatch.setattr(connections, "pieces", OfClients(100, 1))
    ping = b"\x89\x80" + bytes(4)

    async def attack():
        many = []
        for number in (1, 1, 2):
            states = b"\r\nx-forwarded-for: 192.0.2.%d\r\n\r\n" % number
            handshake = HANDSHAKE.replace(b"\r\n\r\n", states)
            many.append(await connect(monkeypatch, "127.0.0.1", handshake))
        many[0].data_received(ping * 4000)
        many[1].data_received(ping)
        many[2].data_received(ping)
        assert [one.transport.aborted for one in many] == [True, True, False]
        for protocol in many:
            protocol.connection_lost(None)

    asyncio.run(attack())


def test_messages_that_never_end(monkeypatch):
    """Ten browsers that kept the last byte of 150 MB back held 1.5 GB for as long as they liked."""

    async def attack():
        for message in (begun(5 << 20, 1), begun(3 << 20, 3 << 20, False) + begun(3 << 20, 1)):
            protocol = await connect(monkeypatch)
            protocol.data_received(message)
            assert protocol.close_sent
            protocol.connection_lost(None)
        monkeypatch.setattr(connections, "MAX_ARRIVING", 5_000_000)
        many = [await connect(monkeypatch) for _ in range(3)]
        for protocol, size in zip(many, (1, 3, 2), strict=True):
            protocol.data_received(begun(3_900_000, size * 1_000_000))
        assert [one.transport.aborted for one in many] == [False, True, False]
        for protocol in many:
            protocol.connection_lost(None)
        assert not connections.arriving

    asyncio.run(attack())


def test_messages_end_with_their_connection(monkeypatch):
    """20 loops that sent 3.9 MB of a message and broke off had 1.5 GB kept: what is left of a
    connection waits for the garbage collector, which counts objects and not bytes."""

    async def attack():
        protocol = await connect(monkeypatch)
        protocol.data_received(begun(1 << 20, 1 << 20, last=False) + begun(2 << 20, 1 << 20))
        assert protocol.frames
        assert protocol.conn.reader.buffer
        protocol.connection_lost(None)
        assert not protocol.frames
        assert not protocol.conn.reader.buffer

    asyncio.run(attack())


def test_messages_are_not_kept(monkeypatch):
    """100 tabs that sent one of 4 MB took 0.8 GB for as long as they sent no other."""

    async def attack():
        protocol = await connect(monkeypatch)
        for size in (100, 100_000):
            protocol.data_received(begun(size, size))
        sizes = [len(protocol.queue.get_nowait()["bytes"]) for _ in range(3)]
        assert sizes == [100, 100_000, 0]
        protocol.connection_lost(None)

    asyncio.run(attack())


def test_messages_that_may_not_be_read_are_not_handed_on(monkeypatch, parts):
    """66 of 4 MB that a client sent at the same time took 9 GB: Streamlit made two million objects
    of each, and those of all were there at once."""
    message = b"\x5a\x06\x12\x04" + b"\x0a\x00" * 2  # widgets without a name
    large = b"\x5a\x84\x80\x20\x12\x80\x80\x20" + b"\x0a\x00" * (1 << 18)

    async def attack():
        for data, opcode, there in ((message, 2, True), (large, 2, False), (message, 1, False)):
            protocol = await connect(monkeypatch)
            length = b"\xff" + len(data).to_bytes(8, "big")
            protocol.data_received(bytes([0x80 | opcode]) + length + bytes(4) + data)
            assert protocol.transport.aborted is not there
            assert protocol.queue.qsize() == there
            assert not protocol.frames
            protocol.connection_lost(None)

    asyncio.run(attack())


def test_nothing_is_left_of_a_message_when_its_connection_is_lost(monkeypatch, parts):
    """4 MB of each waited for the garbage collector, 1 GB after 250 of them."""
    size = 1 << 20

    async def attack():
        protocol = await connect(monkeypatch)
        tracemalloc.start()
        protocol.data_received(b"\x82\xff" + size.to_bytes(8, "big") + bytes(4) + b"\x0a" * size)
        protocol.connection_lost(None)
        assert tracemalloc.get_traced_memory()[0] < size
        assert protocol.transport.aborted

    gc.disable()
    try:
        asyncio.run(attack())
    finally:
        gc.enable()
        tracemalloc.stop()


def test_messages_that_nobody_reads(monkeypatch):
    """One client whose tabs read nothing took 1 GB in 150 s, until it closed them."""

    async def attack():
        def show(protocol, megabytes):
            socket = SimpleNamespace(headers=Headers(), cookies={}, client=None)
            socket.scope = protocol.scope
            browser = StarletteSessionClient(socket)
            message = ForwardMsg()
            message.delta.new_element.markdown.body = "," * (megabytes << 20)
            browser.write_forward_msg(message)
            return browser

        monkeypatch.setattr(connections, "MAX_UNREAD_OF_CLIENT", 40 << 20)
        mine = [await connect(monkeypatch) for _ in range(4)]
        others = await connect(monkeypatch, "192.0.2.2")
        browsers = [show(others, 15), *map(show, mine, (10, 14, 13, 5))]
        assert [one.transport.aborted for one in (*mine, others)] == [False, True, *3 * [False]]
        browsers.append(show(others, 17))
        assert others.transport.aborted
        for browser in browsers:
            await browser.aclose()
        for protocol in (*mine, others):
            protocol.connection_lost(None)
        assert not connections.unread

    asyncio.run(attack())


def test_pages_that_were_read_later(monkeypatch):
    """Of 130 tabs with 2 MB of names each some were cut off for ever, though all had read all."""

    async def read():
        monkeypatch.setattr(connections, "MAX_UNREAD_OF_CLIENT", 10)
        browsers = [await connect(monkeypatch) for _ in range(4)]
        for protocol in browsers:
            protocol.transport.size = 4
            connections._limit_unread(protocol.transport)
            protocol.transport.size = 0
            assert not protocol.transport.aborted
        for protocol in browsers:
            protocol.connection_lost(None)
        assert not connections.unread
        assert not connections.waiting

    asyncio.run(read())


def test_answers_to_pings_that_nobody_reads(monkeypatch):
    """A browser that sent pings and read nothing was given 0.9 GB an hour to keep."""

    async def attack():
        protocol = await connect(monkeypatch)
        protocol.transport.size = connections.MAX_UNREAD + 1
        protocol.data_received(b"\x89\x80" + bytes(4))
        assert protocol.transport.aborted
        protocol.connection_lost(None)

    asyncio.run(attack())


def test_nobody_is_asked_for_our_address(monkeypatch):
    """20 pages of another site kept all visitors waiting for 5 seconds, and longer offline."""
    monkeypatch.setattr(net_util, "get_external_ip", net_util.get_external_ip)
    asked = []
    monkeypatch.setattr("requests.get", lambda address, **_: asked.append(address))
    connections.skip_address_lookup()
    assert not server_util.is_url_from_allowed_origins("http://evil.example")
    assert server_util.is_url_from_allowed_origins("http://localhost:8501")
    assert not asked


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//[", "http://evil.example", None])
def test_pages_without_a_readable_address_are_refused_without_a_traceback(monkeypatch, origin):
    monkeypatch.setattr(
        starlette_websocket, "_is_origin_allowed", connections.original_is_allowed
    )  # undone later
    connections.refuse_origins_that_are_none()
    assert starlette_websocket._is_origin_allowed(origin, "localhost:8501") == (origin is None)
    assert starlette_websocket._is_origin_allowed("http://localhost:8501", "localhost:8501")
