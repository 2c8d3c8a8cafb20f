"""Limits on the headers, forms and bodies of requests, and on how many a client has at once.

One thread answers all clients. While it reads very many requests, or one request in very many
pieces, it does nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Transport
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator
from socket import socket
from typing import Any
from urllib.parse import unquote_to_bytes
from weakref import WeakValueDictionary

import h11
from h11._receivebuffer import ReceiveBuffer
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header
from starlette import formparsers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from retrieval import hosts

MAX_OPEN = 65_536  # connections and files; where the system allows fewer, as many as it does
MAX_ACCEPTED = 16  # connections that are accepted before the others are read and answered
MAX_TINY = 1000  # chunks of a body that may be tiny
MIN_MEAN = 512  # bytes, at least, that all further chunks have on average
MAX_HEADER = 16_384  # bytes, as in Node: 100 headers of 64 kB, of empty lines, took 4 s
MAX_TARGET = 8190  # bytes of an address, as in Apache
MAX_PIECES = 500  # lines, ; and & of a header: browsers send fewer than 100
MAX_OPTIONS = 50  # ; in the header of one part of a form
MAX_FIELDS = 20  # of a form to the service, which brings one file
MAX_TEXT = 65_536  # bytes of a field with letters that are not ASCII
MAX_FALSE = 1000  # times that a line of a body begins like one between the parts of a form
# Escapes of the signs of base64, which are replaced all at once. For each other escape in a form
# Python makes an object.
BASE64_ESCAPES = {
    b"%2B": b"+",
    b"%2F": b"/",
    b"%3D": b"=",
    b"%2b": b"+",
    b"%2f": b"/",
    b"%3d": b"=",
}
BLANKS = b" " * 64  # so many may not begin the value of a header in a form
READ = 16_384  # bytes of one connection that are read before the next connection is read
MAX_ANSWERED = 50  # requests of one client at once
SHORT = 1.0  # s; a request that takes longer is not counted any more: an upload, a slow browser

# The function of Starlette that decodes a field with the character set that the form names.
DECODE = "_user_safe_decode"

original_accept = BaseSelectorEventLoop._accept_connection  # type: ignore[attr-defined]
original_answer = RequestResponseCycle.run_asgi
original_refuse = H11Protocol.send_400_response
original_parse = MultipartParser.write
original_header_field = formparsers.MultiPartParser.on_header_field
turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # of each client


class Connection(h11.Connection):
    """The server side of an h11 connection. It refuses bodies of tiny chunks and headers of tiny
    pieces, also the headers that may follow a body.

    h11 reads all that has arrived in one go, and meanwhile no other client is served. A chunk takes
    20 µs, a Content-Type of 15,000 semicolons 30 ms, 16 kB of lines of three bytes 20 ms. The same
    holds for forms: 300 connections that sent lines which begin like one between two parts, and
    nothing else, kept others waiting for 13 s.
    """

    chunks = size = false_lines = 0  # of the body that arrives

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEADER)
        self._receive_buffer = _Buffer()

    def next_event(self):
        if self.their_state is h11.IDLE:
            head = self.trailing_data[0].partition(b"\r\n\r\n")[0]
            if sum(map(head.count, (b"\n", b";", b"&"))) > MAX_PIECES:
                raise h11.RemoteProtocolError("a header in tiny pieces")
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.chunks = self.size = self.false_lines = 0
            if len(event.target) > MAX_TARGET:
                raise h11.RemoteProtocolError("an address that is too long", 414)
        elif isinstance(event, h11.Data):
            self.chunks += event.chunk_start
            self.size += len(event.data)
            if self.chunks > MAX_TINY + self.size / MIN_MEAN:
                raise h11.RemoteProtocolError("too many tiny chunks")
            self.false_lines += event.data.count(b"\r\n--")
            if self.false_lines > MAX_FALSE:
                raise h11.RemoteProtocolError("too many lines that begin with --")
        return event


class _Buffer(ReceiveBuffer):
    """What has arrived of a request."""

    def maybe_extract_lines(self):
        lines = super().maybe_extract_lines()
        if lines is not None and len(lines) > MAX_PIECES:
            raise h11.RemoteProtocolError("a header in tiny pieces")
        return lines


def allow_many_files() -> None:
    """Let the process have more open files than the usual 1024.

    Each connection is one. Where no file is left, asyncio logs each connection that it cannot
    accept, and no folder can be listed.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_OPEN if most == resource.RLIM_INFINITY else min(most, MAX_OPEN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))


def accept_few_at_once() -> None:
    """Accept at most MAX_ACCEPTED connections in a round of the thread that answers.

    asyncio accepts all that wait, up to 2048, and an answer takes about ten rounds: beside 300
    loops of one client that connect, send a picture to the service and leave, a search of another
    took 17 s. Now it takes 2, and 10 where 2048 connections wait when it comes.
    """
    BaseSelectorEventLoop._accept_connection = _accept  # type: ignore[attr-defined]


def _accept(
    loop: BaseSelectorEventLoop,
    factory: Any,
    listener: socket,
    sslcontext: Any,
    server: Any,
    backlog: int,
    *more: Any,
) -> None:
    few = min(backlog, MAX_ACCEPTED)
    original_accept(loop, factory, listener, sslcontext, server, few, *more)


def limit_forms(max_fields: int) -> None:
    """Refuse forms of more than one file or ``max_fields`` fields, and forms with very many options
    in a header of a part; read each as UTF-8, whatever character set a client asks for.

    A form of 900 empty files (56 kB) took 0.1 s, one of 1.2 MB with many options 0.7 s. The time of
    punycode grows with the square of the length: a megabyte would stop the one thread that serves
    everybody for a minute.
    """
    assert Request.form.__kwdefaults__ is not None
    Request.form.__kwdefaults__.update(max_files=1, max_fields=max_fields)
    MultipartParser.write = _parse  # type: ignore[assignment, method-assign]
    formparsers.MultiPartParser.on_header_field = _header_field  # type: ignore[assignment, method-assign]
    formparsers.parse_options_header = _parse_options  # type: ignore[attr-defined]
    formparsers.unquote_plus = _unquote_plus  # type: ignore[attr-defined, assignment]
    setattr(formparsers, DECODE, _decode)


def _parse(parser: MultipartParser, data: bytes) -> int:
    """Read a piece of a form. Refuse one with spaces or tabs behind a line between two parts, or
    with many at the beginning of a value.

    They are allowed, but no client sends them, and the parser looks at each by itself: 16 kB took
    18 ms, and 300 uploads of spaces kept the page of another visitor waiting for 88 s.
    """
    # The end of the piece before, where that may be the beginning of such a line.
    before = parser.boundary[: parser.index] if parser.state == MultipartState.PART_DATA else b""
    if any(parser.boundary + blank in before + data for blank in (b" ", b"\t")):
        raise MultipartParseError("Spaces behind a line between two parts.")
    if parser.state == MultipartState.HEADER_VALUE_START and data.startswith(BLANKS):
        raise MultipartParseError("Many spaces in a header.")
    return original_parse(parser, data)


def _header_field(parser: formparsers.MultiPartParser, data: bytes, start: int, end: int) -> None:
    """Take the name of a header, which ends at a colon; refuse many spaces behind it."""
    if data.startswith(BLANKS, end + 1):
        raise MultipartParseError("Many spaces in a header.")
    original_header_field(parser, data, start, end)


def _decode(data: bytes | bytearray, codec: str = "") -> str:
    """The text of a field. Longer than MAX_TEXT, it is a picture in base64, and a byte is a letter.

    With a single emoji, Python keeps four bytes for each letter of a text: five forms of 44 MB took
    1.2 GB.
    """
    if len(data) > MAX_TEXT:
        return data.decode("latin-1")
    return data.decode("utf-8", "replace")


def _unquote_plus(text: str) -> str:
    """``urllib.parse.unquote_plus`` in linear time and memory.

    The original splits a text at each letter that is not ASCII: a form of 42 MB took 20 s and 1 GB.
    text: bytes of a form, decoded as latin-1.
    """
    data = text.encode("latin-1").replace(b"+", b" ")
    for escape, sign in BASE64_ESCAPES.items():
        data = data.replace(escape, sign)
    return _decode(unquote_to_bytes(data))


def _parse_options(value: str | bytes | None) -> tuple[bytes, dict[bytes, bytes]]:
    if str(value).count(";") > MAX_OPTIONS:
        raise formparsers.MultiPartException("A part has too many options.")
    return parse_options_header(value)


def limit_connection(protocol: H11Protocol, transport: Transport) -> None:
    """Set these limits for a connection that was just made."""
    protocol.conn = Connection()
    with contextlib.suppress(AttributeError):  # only asyncio's own would read 256 kB
        transport.max_size = READ  # type: ignore[attr-defined]


def answer_once() -> None:
    """Answer a request only once, also where the rest of it turns out to be wrong.

    uvicorn answers with the status 400 and a text, also where the app has answered before or does
    so in the next moment, and also to HEAD. h11 refuses that, and a traceback comes into the log:
    1750 requests of 70 bytes wrote 10 MB.
    """
    H11Protocol.send_400_response = _refuse  # type: ignore[assignment, method-assign]


def _refuse(protocol: H11Protocol, reason: str) -> None:
    try:
        original_refuse(protocol, reason)
    except h11.LocalProtocolError:  # it was answered before, or asks with HEAD for no text
        protocol.transport.abort()
    if protocol.cycle is not None:
        protocol.cycle.disconnected = True  # what the app sends is dropped


def answer_in_turn() -> None:
    """Answer at most MAX_ANSWERED requests of a client at a time.

    The thread that answers serves all requests in rounds: beside 390 connections of one client that
    asked all the time, a search of another client took 28 s.
    """
    RequestResponseCycle.run_asgi = _answer  # type: ignore[assignment, method-assign]


async def _answer(cycle: RequestResponseCycle, app: Any) -> None:
    async with _turn(cycle.scope["client"]):
        if not cycle.disconnected:
            await original_answer(cycle, app)


class InTurn:
    """``answer_in_turn`` for an app that takes the client from a header that a proxy sets."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("client"):
            # uvicorn writes it into the log. Whoever connects like a proxy may state any text, as a
            # command for the owner's terminal.
            address, port = scope["client"]
            scope["client"] = "".join(filter(str.isprintable, address))[:100], port
        cycle = getattr(receive, "__self__", None)  # uvicorn's
        try:
            async with _turn(scope.get("client")):
                if not getattr(cycle, "disconnected", False):
                    await self.app(scope, receive, send)
        except asyncio.CancelledError:
            # The server ends, or the client does not read: nothing can be sent any more. uvicorn
            # would write a traceback into the log.
            if cycle is None:
                raise
            cycle.transport.abort()
            await asyncio.sleep(0)  # until uvicorn knows


@contextlib.asynccontextmanager
async def _turn(peer: tuple[str, int] | None) -> AsyncIterator[None]:
    """Wait until few other requests of a client are being answered."""
    client, loop = hosts.client_of_peer(peer), asyncio.get_running_loop()
    turn = turns.setdefault(client, asyncio.Semaphore(MAX_ANSWERED))
    await turn.acquire()
    end_of_turn = loop.call_later(SHORT, turn.release)
    try:
        yield
    finally:
        if loop.time() < end_of_turn.when():
            end_of_turn.cancel()
            loop.call_soon(turn.release)  # after a round of all other requests
