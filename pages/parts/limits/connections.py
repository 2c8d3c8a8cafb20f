"""Limits on connections: how many a client opens, and how much is sent and waits on them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import Transport
from asyncio.selector_events import BaseSelectorEventLoop
from collections import Counter
from typing import Any

import uvicorn
from starlette.websockets import WebSocketDisconnect
from streamlit import net_util, runtime
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import Runtime
from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.runtime.runtime_util import get_max_widget_state_size_bytes
from streamlit.runtime.session_manager import SessionInfo
from streamlit.web.server.starlette import starlette_websocket
from streamlit.web.server.starlette.starlette_websocket import StarletteSessionClient
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from pages.parts.limits import messages
from pages.parts.limits.allowances import OfClients
from retrieval import hosts, request_limits

MAX_AWAY = 4096  # sessions without a connection: each is kept for two minutes, and may come back
GRACE = 1.0  # s after those minutes, when the session is deleted
SECONDS_TO_END = 3.0  # s
MAX_OF_CLIENT = 2000  # connections; 200 browsers of a class behind one address have up to 7 each
MAX_OPENED, OPENED_A_SECOND = 300, 10  # sessions of one client, at once and then
MAX_FRAMES, FRAMES_A_SECOND = 20_000, 2000  # frames of messages of one client, at once and then
MAX_ARRIVING = 256 << 20  # bytes of messages of all browsers that have begun to arrive
MAX_UNREAD = 16 << 20  # bytes that wait until one browser reads them
MAX_UNREAD_OF_CLIENT = 256 << 20  # the same of all browsers of a client

original_shutdown = uvicorn.Server.shutdown
original_save = MemorySessionStorage.save
original_connect = Runtime.connect_session
original_http_made = H11Protocol.connection_made
original_http_lost = H11Protocol.connection_lost
original_pause = H11Protocol.pause_writing
original_resume = H11Protocol.resume_writing
original_run_socket = WebSocketsSansIOProtocol.run_asgi
original_socket_data = WebSocketsSansIOProtocol.data_received
original_handle_events = WebSocketsSansIOProtocol.handle_events
original_received = WebSocketsSansIOProtocol.send_receive_event_to_app
original_socket_made = WebSocketsSansIOProtocol.connection_made
original_socket_lost = WebSocketsSansIOProtocol.connection_lost
original_is_allowed = starlette_websocket._is_origin_allowed
original_write = StarletteSessionClient.write_forward_msg
opened = OfClients(MAX_OPENED, OPENED_A_SECOND)
pieces = OfClients(MAX_FRAMES, FRAMES_A_SECOND)
open_now: Counter[str] = Counter()  # connections of each client
arriving: dict[WebSocketsSansIOProtocol, int] = {}  # bytes of a message whose end is missing
unread: dict[str, dict[Transport, int]] = {}  # bytes of each connection of each client, of late
waiting: dict[Transport, asyncio.Queue[bytes]] = {}  # messages to each browser


def accept_few_at_once() -> None:
    """Accept few connections in a round of the thread that answers, see ``request_limits``.

    Twenty loops of one client that begin a connection to the page and leave at once kept others
    waiting for 20 s. Where the first page sets the limits, the server listens already.
    """
    request_limits.accept_few_at_once()
    if runtime.exists():
        loop = runtime.get_instance()._get_async_objs().eventloop
        if isinstance(loop, BaseSelectorEventLoop):  # not on Windows
            loop.call_soon_threadsafe(_listen_again, loop)


def _listen_again(loop: Any) -> None:
    """Call the present function for new connections where asyncio's own is called."""
    for key in list(loop._selector.get_map().values()):
        reader, _ = key.data
        if reader and getattr(reader._callback, "__func__", None) is request_limits.original_accept:
            loop._add_reader(key.fd, loop._accept_connection, *reader._args)


def end_soon() -> None:
    """End all connections SECONDS_TO_END after the server was told to end.

    It would wait for ever for an upload without an end. Docker kills it after ten seconds, and what
    visitors brought stays on the disk.
    """
    uvicorn.Server.shutdown = _shutdown  # type: ignore[assignment, method-assign]


async def _shutdown(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
    asyncio.get_running_loop().call_later(SECONDS_TO_END, _end_all, server)
    await original_shutdown(server, sockets)


def _end_all(server: uvicorn.Server) -> None:
    for connection in list(server.server_state.connections):
        connection.transport.abort()


def keep_many_sessions() -> None:
    """Keep up to MAX_AWAY sessions whose connection is broken, for two minutes each.

    Streamlit keeps the last 128 of them: one client that opens and closes connections would make
    others lose what they brought, for example while their telephone slept. And it forgets a session
    only when it saves another.
    """
    MemorySessionStorage.save = _save  # type: ignore[assignment, method-assign]


def _save(storage: MemorySessionStorage, session: SessionInfo) -> None:
    away: Any = storage._cache
    away._maxsize = MAX_AWAY
    _forget(away)  # to save one drops them, and does not end them
    original_save(storage, session)
    with contextlib.suppress(RuntimeError):  # a script that ends its own session has no loop
        asyncio.get_running_loop().call_later(away.ttl + GRACE, _forget, away)


def _forget(away: Any) -> None:
    """End the sessions that may not come back any more.

    What they keep, as uploads, would stay until garbage is collected, minutes later.
    """
    for _, info in away.expire():
        info.session.shutdown()
        state = info.session.session_state
        # ``clear`` reads each value that a page has not read yet. A forged one raises, and the
        # sessions after this one would stay, as would the one that is being saved.
        state._new_widget_state.states.clear()
        state.clear()


def limit_new_sessions() -> None:
    """Limit how many sessions a client begins a second, after the first MAX_OPENED.

    Each is a connection and a thread: 50 loops that open one, ask for the page and leave at once
    keep others waiting for 12 seconds.
    """
    Runtime.connect_session = _connect  # type: ignore[assignment, method-assign]


def _connect(server: Runtime, client: Any, **more: Any) -> str:
    """Connect, or end the connection: the browser will try again."""
    if not opened.take(hosts.client_of_address(client.client_context.remote_ip), 1):
        raise WebSocketDisconnect
    return original_connect(server, client, **more)


def limit_connections() -> None:
    """Limit the connections of a client, the requests on them, and answers that it does not read.

    One client can open 28,000 connections. Where the system allows fewer files, no other client
    could connect. Connections are counted as they come and go: to count all of them at each new one
    takes seconds. An answer that is not read waits in memory: 200 files of 8 MB held 1 GB. Limits
    of requests: see ``request_limits``.
    """
    H11Protocol.pause_writing = _pause  # type: ignore[assignment, method-assign]
    H11Protocol.resume_writing = _resume  # type: ignore[assignment, method-assign]
    H11Protocol.connection_made = _http_made  # type: ignore[assignment]
    H11Protocol.connection_lost = _http_lost  # type: ignore[assignment, method-assign]


def _http_made(protocol: H11Protocol, transport: Transport) -> None:
    original_http_made(protocol, transport)
    request_limits.limit_connection(protocol, transport)
    client = hosts.client_of_peer(protocol.client)
    open_now[client] += 1
    if open_now[client] > MAX_OF_CLIENT:
        transport.abort()


def _http_lost(protocol: H11Protocol, error: Exception | None) -> None:
    _count_out(protocol)
    original_http_lost(protocol, error)


def _count_out(protocol: H11Protocol | WebSocketsSansIOProtocol) -> None:
    client = hosts.client_of_peer(protocol.client)
    open_now[client] -= 1
    if open_now[client] <= 0:  # below: the first connections were there before the limits
        del open_now[client]
        unread.pop(client, None)
    else:
        unread.get(client, {}).pop(protocol.transport, None)


def _pause(protocol: H11Protocol) -> None:
    original_pause(protocol)
    _limit_unread(protocol.transport)


def _resume(protocol: H11Protocol) -> None:
    unread.get(hosts.client_of_peer(protocol.client), {}).pop(protocol.transport, None)
    original_resume(protocol)


def _limit_unread(transport: Transport, max_unread: int = MAX_UNREAD_OF_CLIENT) -> None:
    """End a connection of which more than ``max_unread`` bytes are unread.

    Where those of its client are too many, end the one that has most.
    """
    of_client = unread.setdefault(hosts.client_of_peer(transport.get_extra_info("peername")), {})
    of_client[transport] = _bytes_unread(transport)
    if sum(of_client.values()) > MAX_UNREAD_OF_CLIENT:
        for other in of_client:  # browsers have read meanwhile
            of_client[other] = _bytes_unread(other)
    if sum(of_client.values()) > MAX_UNREAD_OF_CLIENT:
        # To close it would wait until all is read.
        max(of_client, key=of_client.__getitem__).abort()
    if of_client[transport] > max_unread:
        transport.abort()


def _bytes_unread(transport: Transport) -> int:
    queue: Any = waiting.get(transport)
    return sum(map(len, queue._queue if queue else ())) + transport.get_write_buffer_size()


def limit_messages() -> None:
    """Limit the frames of messages, and the memory of messages that arrive or wait to be sent.

    Each frame, even an empty one, takes time of the one thread that serves all clients; the frames
    of all browsers of a client are counted together. They can be counted only after they were read.
    So a client that sent too many is cut off for as long as its allowance needs to come back: 600
    loops that connect, send 2,730 empty frames (16 kB) and come again kept others waiting for 16 s.
    Streamlit checks the size of a message when all of it has arrived, up to 200 MB, keeps it until
    the next one comes, and lets 500 messages to a browser wait, of any size.
    """
    WebSocketsSansIOProtocol.run_asgi = _run_socket  # type: ignore[assignment, method-assign]
    WebSocketsSansIOProtocol.send_receive_event_to_app = _received  # type: ignore[assignment, method-assign]
    WebSocketsSansIOProtocol.connection_made = _socket_made  # type: ignore[assignment, method-assign]
    WebSocketsSansIOProtocol.data_received = _socket_data  # type: ignore[assignment, method-assign]
    WebSocketsSansIOProtocol.handle_events = _handle_events  # type: ignore[assignment, method-assign]
    WebSocketsSansIOProtocol.connection_lost = _socket_lost  # type: ignore[assignment, method-assign]
    StarletteSessionClient.write_forward_msg = _write  # type: ignore[assignment, method-assign]


def _client(protocol: WebSocketsSansIOProtocol) -> str:
    """The client of a browser, or once its request was read, the one for whom a proxy asks.

    Else one visitor who sends too many frames through a proxy has all others cut off.
    """
    scope = getattr(protocol, "scope", None)  # uvicorn writes there what the proxy states
    return hosts.client_of_peer(scope["client"] if scope else protocol.client)


async def _run_socket(protocol: WebSocketsSansIOProtocol) -> None:
    protocol.scope["transport"] = protocol.transport  # type: ignore[typeddict-unknown-key]
    await original_run_socket(protocol)


def _received(protocol: WebSocketsSansIOProtocol) -> None:
    """Hand a message on, and an empty one after a large one, which Streamlit would else keep.

    End the connection where the message may not be read, or is a text.
    """
    protocol.frames = [b"".join(protocol.frames)]
    client, size = _client(protocol), len(protocol.frames[0])
    is_text = protocol.curr_msg_data_type == "text"
    if is_text or not messages.may_be_read(protocol.frames[0], client):
        protocol.frames = []
        protocol.transport.abort()
        return
    original_received(protocol)
    if size > request_limits.READ and not protocol.close_sent:
        protocol.queue.put_nowait({"type": "websocket.receive", "bytes": b""})


def _socket_made(protocol: WebSocketsSansIOProtocol, transport: Transport) -> None:
    original_socket_made(protocol, transport)
    protocol.conn.max_message_size = get_max_widget_state_size_bytes()


def _socket_data(protocol: WebSocketsSansIOProtocol, data: bytes) -> None:
    client = _client(protocol)
    if not pieces.take(client, 0):
        protocol.transport.abort()
        return
    original_socket_data(protocol, data)
    # Those before a frame that is wrong: they are not handled.
    pieces.take(client, len(protocol.conn.events), owe=True)


def _handle_events(protocol: Any) -> None:
    client = _client(protocol)
    if pieces.take(client, len(protocol.conn.events), owe=True):
        original_handle_events(protocol)
        _limit_arriving(protocol)
        if protocol.transport.get_write_buffer_size() > request_limits.READ:  # answers to pings
            _limit_unread(protocol.transport, MAX_UNREAD)
    else:
        protocol.conn.events.clear()
        protocol.transport.abort()


def _socket_lost(protocol: WebSocketsSansIOProtocol, error: Exception | None) -> None:
    arriving.pop(protocol, None)
    waiting.pop(protocol.transport, None)
    # What is left of a connection waits for the garbage collector, which counts objects, not bytes.
    protocol.conn.reader.discard()
    protocol.conn.parser.close()
    protocol.frames.clear()
    _count_out(protocol)
    original_socket_lost(protocol, error)


def _limit_arriving(protocol: WebSocketsSansIOProtocol) -> None:
    """Where too much of unfinished messages has arrived, end the connection that has most of it."""
    arriving.pop(protocol, None)
    size = len(protocol.conn.reader.buffer) + (protocol.conn.current_size or 0)
    # What is less came in one piece, or takes no more than a connection.
    if size > request_limits.READ:
        arriving[protocol] = size
    if sum(arriving.values()) > MAX_ARRIVING:
        max(arriving, key=arriving.__getitem__).transport.abort()


def _write(client: StarletteSessionClient, message: ForwardMsg) -> None:
    original_write(client, message)
    transport = client._websocket.scope.get("transport")  # none before the first page
    if transport and not transport.is_closing():
        waiting[transport] = client._send_queue
        _limit_unread(transport, MAX_UNREAD)


def refuse_origins_that_are_none() -> None:
    """Refuse a browser whose page has no readable address, as ``http://[``.

    Streamlit refuses other sites, but of this address Python cannot read the host: each such
    connection wrote a traceback into the log.
    """
    starlette_websocket._is_origin_allowed = _is_allowed


def _is_allowed(origin: str | None, host: str | None) -> bool:
    try:
        return original_is_allowed(origin, host)
    except ValueError:
        return False


def skip_address_lookup() -> None:
    """Do not ask a server on the internet for the address of this machine.

    Streamlit does so where a page of another site connects, to see whether that site is this
    machine. It waits for the answer, up to two seconds, in the one thread that serves all clients.
    """
    net_util.get_external_ip = lambda: None
