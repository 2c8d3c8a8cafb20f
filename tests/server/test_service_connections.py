"""Connections whose clients misbehave, and what that does to the others."""

import asyncio
import contextlib
import socket
import threading
from asyncio.selector_events import BaseSelectorEventLoop

import pytest
import requests
from raw_requests import STALLED, connect, wait_until
from stubs import most_accepted

from retrieval import cli, hosts, request_limits, server
from retrieval.server import connections


def test_addresses_of_one_ipv6_network_are_one_client():
    one = {hosts.client_of_peer((f"2001:db8:1:2:{end}", 1)) for end in ("3:4:5:6", ":", ":ffff")}
    assert len(one) == 1
    others = ("2001:db8:1:3::", "192.0.2.1", "192.0.2.2", "fe80::1%eth0", "a socket")
    assert len(one | {hosts.client_of_peer((other, 2)) for other in others}) == 6
    # As a server that listens to IPv6 too is told of them.
    mapped = hosts.client_of_peer(("::ffff:192.0.2.1", 1))
    assert mapped == hosts.client_of_peer(("192.0.2.1", 1))
    assert mapped != hosts.client_of_peer(("::ffff:192.0.2.2", 1))


def test_a_connection_whose_header_never_ends_is_closed(monkeypatch, client):
    one = connect(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert one.recv(1000).startswith(b"HTTP/1.1 200")
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    one.sendall(b"GET /health HT")  # behind a request that was answered
    rest = b""
    while part := one.recv(1000):
        rest += part
    assert b"HTTP" not in rest
    for text in (b"", b"GET / HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "):
        assert connect(client, text).recv(100) == b"", "it hangs up"


@pytest.mark.parametrize("text", [b"", b"GET / HT", STALLED])
def test_many_idle_connections_keep_nobody_out(monkeypatch, client, text):
    """With a header and no body, 450 of them silenced the service for a minute."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(connections, "HEADER_SECONDS", 300)
    idle = [connect(client, text) for _ in range(60)]
    assert client.get("/health").status_code == 200
    with contextlib.suppress(ConnectionResetError):
        assert idle[0].recv(10) == b"", "the oldest had to go"
    for one in idle:
        one.close()


def test_connections_whose_answers_nobody_reads_are_closed(monkeypatch, client):
    """1,000 of them, which waited for that after the last answer, silenced the service."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    made, transports = connections.Connection.connection_made, []

    def with_small_buffer(self, transport):
        transports.append(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        made(self, transport)

    monkeypatch.setattr(connections.Connection, "connection_made", with_small_buffer)
    ask = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n{}\r\n"
    asked = 3 * ask.format("") + ask.format("Connection: close\r\n")
    deaf = []
    for _ in range(40):
        deaf.append(socket.socket())
        deaf[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf[-1].connect(("127.0.0.1", client.port))
        deaf[-1].sendall(asked.encode())
        wait_until(lambda: len(transports) == len(deaf) and transports[-1].is_closing())
    wait_until(lambda: len(client.server.server_state.connections) <= 20)
    for one in deaf:
        one.close()


def test_answers_that_nobody_reads_do_not_fill_the_memory(monkeypatch, client):
    """150 answers of 65 MB, of a stranger's collection with long names, held 2.8 GB."""
    monkeypatch.setattr(connections, "MAX_UNREAD", 500_000)
    made = connections.Connection.connection_made

    def with_small_buffer(self, transport):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        made(self, transport)

    monkeypatch.setattr(connections.Connection, "connection_made", with_small_buffer)
    open_ones = client.server.server_state.connections
    # A connection counts COUNT_DELAY after it was made: the last answer may come on top.
    most = 500_000 + len(client.get("/openapi.json").content) + 1000
    deaf = []
    before = client.server.server_state.total_requests
    for count in range(before + 1, before + 101):
        deaf.append(socket.socket())
        deaf[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf[-1].connect(("127.0.0.1", client.port))
        deaf[-1].sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda count=count: client.server.server_state.total_requests >= count)
    wait_until(lambda: sum(one._unread() for one in list(open_ones)) <= most)
    assert any(one._unread() for one in list(open_ones))
    assert client.get("/health").status_code == 200
    for one in deaf:
        one.close()


@pytest.mark.parametrize("waits", [True, False])
def test_connections_of_one_client_end_before_those_of_others(monkeypatch, client, waits):
    """600 new ones a second ended those of others before their requests were read."""
    waiting = connections.Connection._waits_for_client
    here = hosts.client_of_peer(("127.0.0.1", 1))
    monkeypatch.setattr(
        connections.Connection,
        "_waits_for_client",
        lambda one: waiting(one) and (waits or one.key != here),
    )
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    try:
        address = ("127.0.0.1", client.port)
        other = socket.create_connection(address, timeout=60, source_address=("127.0.0.2", 0))
    except OSError:
        pytest.skip("this system has one address only")
    greedy = [connect(client) for _ in range(60)]
    other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert other.recv(100).startswith(b"HTTP/1.1 200 ")
    for one in [other, *greedy]:
        one.close()


def test_connections_of_a_proxy_are_those_of_its_clients(monkeypatch, client):
    """Behind nginx half of all searches were ended by 800 connections of one client, as all that
    came through it were one."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)

    def ask(address):
        return STALLED.replace(b"\r\n", f"\r\nX-Forwarded-For: {address}\r\n".encode(), 1)

    other = connect(client, ask("192.0.2.8"))
    assert client.get("/health").status_code == 200
    greedy = [connect(client, ask("192.0.2.9")) for _ in range(60)]
    with contextlib.suppress(ConnectionResetError):
        assert greedy[0].recv(10) == b""
    other.sendall(b"12345678")
    assert other.recv(100).startswith(b"HTTP/1.1 422 ")
    for one in [other, *greedy]:
        one.close()


def test_a_connection_of_a_proxy_counts_for_whom_it_asks_now(client):
    """A proxy asks for another client through a connection that was counted for a former one."""
    with requests.Session() as proxy:
        for address in ("192.0.2.8", "192.0.2.9", "192.0.2.8"):
            asked = {"X-Forwarded-For": address}
            proxy.get(f"{client.root}/health", headers=asked, timeout=60).raise_for_status()
            here = hosts.client_of_peer((address, 0))
            wait_until(lambda here=here: list(connections.Connection.open) == [here])


def test_many_connections_of_a_proxy_may_come_at_once(monkeypatch, client):
    """Before the first was read all were one client's, and the oldest ended: behind nginx every
    fifth search of others, up to eight of eighteen, beside 700 connections of one client."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)

    def ask(address):
        return STALLED.replace(b"\r\n", f"\r\nX-Forwarded-For: {address}\r\n".encode(), 1)

    first = connect(client, ask("192.0.2.7"))
    wait_until(lambda: client.server.server_state.connections)
    loop = next(iter(client.server.server_state.connections)).loop
    stopped, go_on = threading.Event(), threading.Event()
    loop.call_soon_threadsafe(lambda: (stopped.set(), go_on.wait(30)))
    assert stopped.wait(30)
    other = connect(client, ask("192.0.2.8"))
    greedy = [connect(client, ask("192.0.2.9")) for _ in range(60)]
    go_on.set()
    with contextlib.suppress(ConnectionResetError):
        assert greedy[0].recv(10) == b""
    for one in (first, other):
        one.sendall(b"12345678")
        assert one.recv(100).startswith(b"HTTP/1.1 422 ")
    for one in [first, other, *greedy]:
        one.close()


def test_many_connections_at_once_leave_files_for_searches(monkeypatch):
    """Of 1500 idle ones, all accepted before the first was closed, each search was a 500 with the
    usual 1024 files, and the log grew by 4 MB a second."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = []
    monkeypatch.setattr(
        "uvicorn.run",
        lambda *_, **__: allowed.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        assert cli.main(["serve"]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    most = before[1] if before[1] > 0 else request_limits.MAX_OPEN
    assert allowed == [min(most, request_limits.MAX_OPEN)]


def test_a_new_connection_costs_little(monkeypatch, client):
    """Beside 700 new ones a second, each compared with 400, a search took up to 11 s."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 100)
    asked = []
    find = hosts.client_of_peer
    monkeypatch.setattr(hosts, "client_of_peer", lambda peer: asked.append(peer) or find(peer))
    greedy = [connect(client) for _ in range(200)]
    wait_until(lambda: sum(map(len, connections.Connection.open.values())) == 100)
    assert client.get("/health").status_code == 200
    assert len(asked) < 5 * 200
    for one in greedy:
        one.close()
    wait_until(lambda: not connections.Connection.open)


def test_uvicorn_runs_with_our_connection():
    assert server.settings()["http"] is connections.Connection


def test_few_connections_are_accepted_before_others_are_read(monkeypatch):
    """asyncio accepted all 2048 that waited: others waited for these in each round of the loop."""
    accept = BaseSelectorEventLoop._accept_connection
    monkeypatch.setattr(BaseSelectorEventLoop, "_accept_connection", accept)  # restores it
    request_limits.accept_few_at_once()
    most = most_accepted(asyncio.SelectorEventLoop())
    assert 0 < most <= request_limits.MAX_ACCEPTED + 1  # the loop of Python 3.14 takes one more
