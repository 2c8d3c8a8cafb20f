"""Searches and look-ups that wait, and clients that leave meanwhile."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from raw_requests import GEM, STALLED, connect, wait_until

from retrieval import request_limits
from retrieval.server import api, catalogue, guard
from retrieval.workers import Workers


@pytest.fixture
def held(monkeypatch):
    """Searches that go on until the event is set; ``held.begun`` counts those that began."""
    event = threading.Event()
    event.begun = 0
    search = catalogue.search

    def slow(*arguments):
        event.begun += 1
        assert event.wait(60)
        return search(*arguments)

    monkeypatch.setattr(catalogue, "search", slow)
    monkeypatch.setattr(catalogue, "SEARCH_WORKERS", Workers(1, 3))
    yield event
    event.set()


def waiting():
    return sum(map(len, catalogue.SEARCH_WORKERS._waiting.values()))


def test_health_and_lists_never_wait_behind_searches(client, picture, held):
    with ThreadPoolExecutor(60) as pool:
        answers = [pool.submit(client.upload, GEM, picture, top=1)]
        wait_until(lambda: held.begun == 1)
        answers += [pool.submit(client.upload, GEM, picture, top=1) for _ in range(59)]
        try:
            wait_until(lambda: waiting() == 3)
            for path in ("/health", "/indexes", "/", "/collections/town/pictures/a.png"):
                assert client.get(path).status_code == 200
            wait_until(lambda: sum(one.done() for one in answers) == 56)
            refused = [one.result() for one in answers if one.done()]
            assert {one.status_code for one in refused} == {429}
            assert all(int(one.headers["retry-after"]) > 0 for one in refused)
            assert "Too many requests are waiting" in refused[0].json()["detail"]
        finally:  # else the pool would wait for ever where one of these fails
            held.set()
        codes = [one.result().status_code for one in answers]
        assert codes.count(200) == 4


def test_lists_never_wait_behind_pictures(monkeypatch, client):
    """One client that asked for 400 large ones at once kept all others from everything else."""
    begun, end = threading.Event(), threading.Event()
    make = api.jpeg

    def slow(*arguments):
        begun.set()
        assert end.wait(60)
        return make(*arguments)

    monkeypatch.setattr(api, "jpeg", slow)
    monkeypatch.setattr(catalogue, "PICTURE_WORKERS", Workers(1, 50))
    path = "/collections/town/pictures/a.png"
    with ThreadPoolExecutor(60) as pool:
        answers = [pool.submit(client.get, path)]
        assert begun.wait(60)
        try:
            answers += [pool.submit(client.get, path) for _ in range(59)]
            wait_until(lambda: sum(one.done() for one in answers) == 19)
            other = requests.get(f"{client.root}/indexes", timeout=30)
            assert other.status_code == 200
        finally:
            end.set()
        codes = [one.result().status_code for one in answers]
    assert (codes.count(200), codes.count(429)) == (41, 19)


@pytest.mark.parametrize("path", ["/indexes", f"/indexes/{GEM}/search?name=x"])
def test_lookups_of_one_client_do_not_keep_others_waiting(monkeypatch, client, path):
    """390 connections that asked for a list of 16 indexes: a search of others took 24 s."""
    one_by_one, find = threading.Lock(), catalogue.index_folders

    def slow():
        with one_by_one:
            time.sleep(0.1)
        return find()

    monkeypatch.setattr(catalogue, "index_folders", slow)
    try:
        address = ("127.0.0.1", client.port)
        other = socket.create_connection(address, timeout=60, source_address=("127.0.0.2", 0))
    except OSError:
        pytest.skip("this system has one address only")
    ask = b"GET " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    greedy = [connect(client, ask) for _ in range(60)]
    time.sleep(0.5)
    other.sendall(ask)
    assert b"HTTP/1.1 " in other.recv(100)
    greedy[-1].setblocking(False)
    with pytest.raises(BlockingIOError):  # it waits still
        greedy[-1].recv(100)
    for one in [other, *greedy]:
        one.close()


@pytest.mark.parametrize("path", ["/", f"/indexes/{GEM}/search"])
def test_clients_that_leave_in_the_middle_are_no_errors_of_ours(client, caplog, path):
    """Each left 74 lines in the log."""
    connect(client, STALLED.replace(b"POST /", b"POST " + path.encode())).close()
    one = connect(client, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert one.recv(100).startswith(b"HTTP/1.1 200 ")
    client.stop()
    assert not caplog.records


def test_uploads_that_still_arrive_when_the_service_is_stopped(client, caplog):
    """Each was a 500 for its client and a traceback in the log."""
    client.server.config.timeout_graceful_shutdown = 1
    one = connect(client, STALLED)
    wait_until(lambda: client.server.server_state.tasks)
    client.stop()
    answer = one.recv(1000)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b'{"detail":"The service is being stopped."}')
    assert "Traceback" not in caplog.text
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("seconds", [0.5, 300])
def test_answers_that_nobody_reads(client, caplog, monkeypatch, seconds):
    """Each such client was a traceback in the log, after 300 s or when the service was stopped."""
    monkeypatch.setattr(guard, "ANSWER_SECONDS", seconds)
    monkeypatch.setattr(api, "jpeg", lambda path, side: bytes(5_000_000))
    client.server.config.timeout_graceful_shutdown = 1
    ask = b"GET /collections/town/pictures/a.png HTTP/1.1\r\nHost: localhost\r\n\r\n"
    one = connect(client, 4 * ask)
    assert one.recv(12) == b"HTTP/1.1 200"
    if seconds < 300:
        wait_until(lambda: not client.server.server_state.connections)
    client.stop()
    one.close()
    assert "Traceback" not in caplog.text
    assert not any(record.exc_info for record in caplog.records)


def test_requests_that_wait_for_their_turn_when_the_service_is_stopped(client, caplog, monkeypatch):
    """Each was a 500 for its client and a traceback in the log."""
    monkeypatch.setattr(request_limits, "MAX_ANSWERED", 1)
    monkeypatch.setattr(request_limits, "turns", {})
    monkeypatch.setattr(request_limits, "SHORT", 300.0)
    client.server.config.timeout_graceful_shutdown = 1
    several = [connect(client, STALLED) for _ in range(3)]
    wait_until(lambda: len(client.server.server_state.tasks) == 3)
    client.stop()
    for one in several:
        one.close()
    assert "Traceback" not in caplog.text
    assert not any(record.exc_info for record in caplog.records)


def test_the_search_of_a_client_that_left_is_dropped(client, picture, held):
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(client.upload, GEM, picture)
        wait_until(lambda: held.begun == 1)
        gone = connect(client, b"GET /indexes/" + GEM.encode() + b"/search?name=a.png HTTP/1.1\r\n"
                       b"Host: localhost\r\n\r\n")  # fmt: skip
        wait_until(lambda: waiting() == 1)
        gone.close()
        wait_until(lambda: waiting() == 0)
        held.set()
        assert first.result().status_code == 200
    assert held.begun == 1
