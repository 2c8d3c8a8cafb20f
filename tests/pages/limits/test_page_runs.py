"""How many pages run at a time."""

import queue
import threading
import time
from types import SimpleNamespace

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import Runtime
from streamlit.runtime.app_session import AppSession

from pages.parts.limits import runs
from retrieval.workers import Workers


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
    monkeypatch.setattr(runs.runtime, "get_instance", lambda: server)
    monkeypatch.setattr(runs, "original_begin_run", lambda runner: None)
    monkeypatch.setattr(runs, "original_run_script", lambda runner, page: page(runner))
    monkeypatch.setattr(runs, "original_sent", lambda session: None)
    monkeypatch.setattr(runs, "SHORT", 60.0)
    monkeypatch.setattr(runs, "RUNS", Workers(runs.MAX_RUNS, 1000, tidy=False))
    begun, threads = queue.Queue(), []

    def start(names, wait=lambda: None):
        def page(runner):
            runs._begin_run(runner)
            begun.put(runner._session_id)
            wait()

        for name in names:
            runner = SimpleNamespace(_session_id=name)
            run = threading.Thread(target=runs._run_script, args=(runner, page), daemon=True)
            threads.append(run)
            run.start()

    def next_ones(count):
        found = sorted(begun.get(timeout=60) for _ in range(count))
        with pytest.raises(queue.Empty):
            begun.get(timeout=0.1)
        return found

    yield start, next_ones
    for thread in threads:
        thread.join(60)


def test_few_pages_run_at_a_time(run_pages):
    """Fifty tabs that asked for their page again and again kept others out for 47 seconds."""
    start, next_ones = run_pages
    done = threading.Event()
    start("abcd", done.wait)
    assert next_ones(4) == ["a", "b", "c", "d"]
    start("e")
    assert not next_ones(0)
    done.set()
    while len(runs.unsent) < 4:
        time.sleep(0.01)
    assert not next_ones(0)  # their messages are not sent yet
    runs._sent(SimpleNamespace(id="a"))
    assert next_ones(1) == ["e"]
    start("fG")
    for session in "bc":
        runs._sent(SimpleNamespace(id=session))
    assert next_ones(2) == ["G", "f"]
    start("h")  # nobody waits for the messages of G, who has left
    assert next_ones(1) == ["h"]


def test_pages_that_wait_let_others_run(run_pages):
    start, next_ones = run_pages
    done = threading.Event()

    def search():
        runs.let_others_run()
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


def test_messages_are_sent_in_batches(session, monkeypatch):
    """All connections had a turn after each one: others waited 20 seconds for their page."""
    messages = [ForwardMsg(hash=str(number)) for number in range(2 * runs.BATCH + 1)]
    arrived = []
    monkeypatch.setattr(runs, "original_flush", lambda session: messages)
    monkeypatch.setattr(
        runs, "original_send", lambda server, to, message: arrived.append((to, message))
    )
    for owner, name in ((AppSession, "flush_browser_queue"), (Runtime, "_send_message")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # undone later
    runs.send_in_batches()
    server = object.__new__(Runtime)
    batches = session.flush_browser_queue()
    for batch in batches:  # as Streamlit does, with a turn for others after each
        server._send_message("a browser", batch)
    assert len(batches) == 3
    server._send_message("a browser", messages[0])  # on its way before the limits were set
    assert arrived == [("a browser", one) for one in (*messages, messages[0])]
