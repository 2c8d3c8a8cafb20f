"""Requests in tiny pieces are refused, many of one client wait; those of real clients do not."""

import asyncio
import base64
import sys
import tracemalloc
from types import SimpleNamespace
from urllib.parse import quote_plus, unquote_plus

import h11
import pytest
import uvicorn
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser
from starlette import formparsers
from starlette.datastructures import Headers
from uvicorn.protocols.http.h11_impl import H11Protocol

from retrieval import request_limits

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def received(connection, size, count):
    """Bytes of a request whose body comes in ``count`` chunks of ``size`` bytes."""
    chunk = b"%x\r\n%s\r\n" % (size, b"a" * size)
    connection.receive_data(HEAD + chunk * count + b"0\r\n\r\n")
    total = 0
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        total += len(event.data) if isinstance(event, h11.Data) else 0
    return total


@pytest.mark.parametrize(("size", "count"), [(1, 900), (700, 3000), (8192, 2000)])
def test_bodies_of_clients(size, count):
    assert received(request_limits.Connection(), size, count) == size * count


def test_each_body_is_counted_for_itself():
    connection = request_limits.Connection()
    for _ in range(3):
        assert received(connection, 1, 900) == 900
        answer = h11.Response(status_code=200, headers=[("Content-Length", "0")])
        for event in (answer, h11.EndOfMessage()):
            connection.send(event)
        connection.start_next_cycle()


@pytest.mark.parametrize("size", [1, 64])
def test_tiny_chunks(size):
    with pytest.raises(h11.RemoteProtocolError):
        received(request_limits.Connection(), size, 5000)


@pytest.mark.parametrize(("lines", "read"), [(900, True), (1100, False)])
def test_bodies_of_lines_that_are_not_between_parts(lines, read):
    """The parser of forms looks at each of them: 300 connections kept others waiting for 13 s."""
    connection = request_limits.Connection()
    body = b"\r\n--b" * lines
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection.receive_data(head + body)
    connection.next_event()
    if read:
        assert connection.next_event().data == body
    else:
        with pytest.raises(h11.RemoteProtocolError, match="lines"):
            connection.next_event()


def test_the_address_that_a_proxy_states_is_no_command_for_a_terminal():
    """``X-Forwarded-For: ESC ]52;c;…`` set the clipboard of whoever read the log of the service."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["client"])

    for address in ("a\x1b]52;c;cm0K\x07\x9b31m", "192.0.2.1", "2001:db8::1"):
        scope = {"type": "http", "client": (address, 1)}
        asyncio.run(request_limits.InTurn(app)(scope, None, None))
        assert scope["client"] == seen[-1]
    assert seen == [("a]52;c;cm0K31m", 1), ("192.0.2.1", 1), ("2001:db8::1", 1)]


class Connected(asyncio.Transport):
    sent, ended = b"", False

    def write(self, data):
        self.sent += data

    def close(self):
        self.ended = True

    abort = close

    def is_closing(self):
        return self.ended


@pytest.mark.parametrize("method", [b"POST", b"HEAD"])
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("rest", [b"zz\r\n", b"1450\r\n" + b"\r\n--b" * 1040])
def test_a_request_is_answered_once(monkeypatch, caplog, method, answered, rest):
    """The answer to the rest of a request that was answered already was a traceback in the log. So
    were the answer of an app that was about to give one, and a text in answer to HEAD."""
    monkeypatch.setattr(H11Protocol, "send_400_response", H11Protocol.send_400_response)
    request_limits.answer_once()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 404})
        await send({"type": "http.response.body"})

    async def attack():
        settings = uvicorn.Config(app, log_config=None, lifespan="off")
        settings.load()
        protocol = H11Protocol(settings, uvicorn.server.ServerState(), {})
        transport = Connected()
        protocol.connection_made(transport)
        request_limits.limit_connection(protocol, transport)
        protocol.data_received(HEAD.replace(b"POST", method))
        while answered and not protocol.cycle.response_complete:
            await asyncio.sleep(0)
        protocol.data_received(rest)
        for _ in range(5):  # else the app answers now
            await asyncio.sleep(0)
        assert transport.ended
        assert transport.sent.count(b"HTTP/1.1") == 1
        assert transport.sent.startswith(b"HTTP/1.1 404" if answered else b"HTTP/1.1 400")

    asyncio.run(attack())
    assert not [record for record in caplog.records if record.exc_info]


def sent(header):
    """What a server makes of a request with this header."""
    connection = request_limits.Connection()
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + header)
    return connection.next_event()


def test_a_header_of_a_browser_is_read():
    cookies = b"Cookie: " + b"name=value; " * 180 + b"\r\n"
    assert isinstance(sent(cookies + b"Accept: a;q=0.9\r\n" * 60 + b"\r\n"), h11.Request)
    assert sent(b"a:\r\n" * 400) is h11.NEED_DATA  # more of it may come


@pytest.mark.parametrize(
    "header",
    [
        b"a:\r\n" * 5000,  # without an end: 100 of 64 kB kept everybody waiting for four seconds
        b"a:b\r\n" * 2500 + b"\r\n",
        b"Content-Type: multipart/form-data" + b";" * 15_000 + b"\r\n\r\n",
        b"Referer: http://localhost/?" + b"&top=1" * 2500 + b"\r\n\r\n",
    ],
    ids=["lines without an end", "many lines", "many options", "many parameters"],
)
def test_headers_in_tiny_pieces_are_refused(header):
    """380 connections that sent 15,000 semicolons kept all others out of the service."""
    with pytest.raises(h11.RemoteProtocolError):
        sent(header)


@pytest.mark.parametrize(("size", "read"), [(8000, True), (8200, False)])
def test_long_addresses_are_refused(size, read):
    connection = request_limits.Connection()
    connection.receive_data(b"GET /?where=%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * size))
    if read:
        assert isinstance(connection.next_event(), h11.Request)
    else:
        with pytest.raises(h11.RemoteProtocolError, match="address"):
            connection.next_event()


def test_tiny_lines_behind_a_body_are_refused():
    """200 connections that sent 16 kB of them kept all others waiting for 37 s."""
    connection = request_limits.Connection()
    for count in (100, 4000):
        connection.receive_data(HEAD + b"0\r\n" + b"a:\r\n" * count + b"\r\n")
        assert isinstance(connection.next_event(), h11.Request)
        if count == 4000:
            with pytest.raises(h11.RemoteProtocolError):
                connection.next_event()
        else:
            assert len(connection.next_event().headers) == count
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()


FORM = b'--B\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n%s\r\n--B%s\r\n'


@pytest.mark.parametrize(
    ("data", "end", "read"),
    [
        (b"\r\n--\r\n--A --B  \r\n -B\t\r\r\n--", b"--", True),
        (b"x", b" " * 50_000, False),
        (b"x", b"\t--", False),
        (b"x\r\n--B\tx", b"--", False),
    ],
)
def test_no_spaces_behind_a_line_between_two_parts(monkeypatch, data, end, read):
    """300 uploads of nothing but spaces kept the page of another visitor waiting for 88 s."""
    monkeypatch.setattr(MultipartParser, "write", MultipartParser.write)  # undone later
    request_limits.limit_forms(request_limits.MAX_FIELDS)
    form, found = FORM % (data, end), []
    callbacks = {"on_part_data": lambda piece, first, last: found.append(piece[first:last])}
    for split in range(60, 100):
        found.clear()
        parser = MultipartParser(b"B", callbacks)
        try:
            parser.write(form[:split])
            parser.write(form[split:])
        except MultipartParseError:
            assert not read
        else:
            assert read
            assert b"".join(found) == data


@pytest.mark.parametrize(("spaces", "read"), [(1, True), (40, True), (4000, False)])
@pytest.mark.parametrize("size", [10_000, 100])
def test_few_spaces_begin_the_value_of_a_header(monkeypatch, spaces, read, size):
    """300 connections that sent 28 kB of them with each upload kept a page waiting for 10 s."""
    for owner, name in (
        (MultipartParser, "write"),
        (formparsers.MultiPartParser, "on_header_field"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # undone later
    request_limits.limit_forms(request_limits.MAX_FIELDS)
    form = FORM.replace(b": ", b":" + b" " * spaces) % (b"x", b"--")

    async def pieces():
        for start in range(0, len(form), size):
            yield form[start : start + size]

    headers = Headers({"Content-Type": "multipart/form-data; boundary=B"})
    parse = formparsers.MultiPartParser(headers, pieces()).parse()
    if read:
        assert asyncio.run(parse)["a"].filename == "b"
    else:
        with pytest.raises(formparsers.MultiPartException):
            asyncio.run(parse)


@pytest.mark.parametrize(
    "value",
    [
        quote_plus(base64.b64encode(bytes(range(256)))),
        quote_plus(base64.b64encode(bytes(range(256)))).lower(),
        "name=a+b%20%C3%A9%2B&%252B%25%32%42%%2B%2",
    ],
)
def test_values_of_forms_are_those_of_urllib(monkeypatch, value):
    assert value == value.encode().decode("latin-1")
    monkeypatch.setattr(formparsers, "unquote_plus", None)
    request_limits.limit_forms(request_limits.MAX_FIELDS)
    assert formparsers.unquote_plus(value) == unquote_plus(value)


def test_a_long_field_takes_a_byte_for_each_of_its_bytes(monkeypatch):
    """Five forms of 44 MB of base64 and one emoji took 1.2 GB: four bytes for each letter."""
    for name in ("unquote_plus", request_limits.DECODE):
        monkeypatch.setattr(formparsers, name, getattr(formparsers, name))  # undone later
    request_limits.limit_forms(request_limits.MAX_FIELDS)
    decode = getattr(formparsers, request_limits.DECODE)
    short, long = "é🙂a", "🙂" + "a" * request_limits.MAX_TEXT
    assert decode(short.encode(), "latin-1") == formparsers.unquote_plus(quote_plus(short)) == short
    for text in (decode(long.encode(), "utf-8"), formparsers.unquote_plus(quote_plus(long))):
        assert text.endswith("a" * request_limits.MAX_TEXT)
        assert sys.getsizeof(text) < 1.1 * len(long)


def test_letters_that_are_not_ascii_make_no_pieces(monkeypatch):
    """A form of 42 MB with a single escape took 20 s and 1 GB; meanwhile nobody was served."""
    monkeypatch.setattr(formparsers, "unquote_plus", unquote_plus)
    request_limits.limit_forms(request_limits.MAX_FIELDS)
    text = "%41" + "\xe9a" * 200_000
    tracemalloc.start()
    try:
        formparsers.unquote_plus(text)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(text)
    finally:
        tracemalloc.stop()


def test_one_connection_is_read_in_small_pieces():
    protocol, transport = SimpleNamespace(), SimpleNamespace()
    request_limits.limit_connection(protocol, transport)
    assert isinstance(protocol.conn, request_limits.Connection)
    assert transport.max_size == request_limits.READ


def test_requests_of_one_client_are_answered_a_few_at_a_time(monkeypatch):
    """1,900 connections that asked all the time kept a page waiting for 42 s."""
    monkeypatch.setattr(request_limits, "MAX_ANSWERED", 3)
    monkeypatch.setattr(request_limits, "SHORT", 0.1)
    monkeypatch.setattr(request_limits, "turns", {})
    answered = []

    async def answer(cycle, seconds):
        if seconds:
            await asyncio.sleep(seconds)
        answered.append(cycle.scope["client"])

    def ask(client, seconds=0.0, disconnected=False):
        cycle = SimpleNamespace(scope={"client": client}, disconnected=disconnected)
        return asyncio.ensure_future(request_limits._answer(cycle, seconds))

    async def attack():
        many = [ask(("192.0.2.1", port)) for port in range(100)]
        await ask(("192.0.2.2", 1))
        assert answered == [("192.0.2.1", port) for port in range(3)] + [("192.0.2.2", 1)]
        left = ask(("192.0.2.1", 100), disconnected=True)
        await asyncio.gather(*many, left)
        assert len(answered) == 101
        uploads = [ask(("192.0.2.1", port), seconds=60) for port in range(3)]
        await asyncio.sleep(0)
        another = ask(("192.0.2.1", 3))
        await asyncio.sleep(0.01)
        assert not another.done()
        await asyncio.wait_for(another, 30)
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
        await asyncio.sleep(0)
        assert request_limits.turns["192.0.2.1"]._value == 3

    monkeypatch.setattr(request_limits, "original_answer", answer)
    asyncio.run(attack())
