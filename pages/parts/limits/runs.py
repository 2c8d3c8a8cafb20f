"""How many pages run at a time, and in which portions their messages are sent."""

from __future__ import annotations

import threading

from streamlit import runtime
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import Runtime
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.scriptrunner import ScriptRunner
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData
from streamlit.runtime.session_manager import ActiveSessionInfo

from pages.parts.limits.allowances import client_of
from retrieval.workers import Workers

MAX_RUNS = 4  # of pages at once
BATCH = 50  # messages that are sent to a browser before anything else is done
SHORT = 1.0  # s; a run that takes longer goes on beside those that begin after it

original_begin_run = ScriptRunner._install_event_loop
original_run_script = ScriptRunner._run_script
original_sent = AppSession.on_flushed_messages_sent
original_flush = AppSession.flush_browser_queue
original_send = Runtime._send_message
RUNS = Workers(MAX_RUNS, 1_000_000, tidy=False)  # a session has one run at a time
_run = threading.local()  # ``ended``: the end of the run, in a thread that runs a page
unsent: dict[str, threading.Event] = {}  # ends of runs by session
running: set[str] = set()  # sessions whose page runs and was not told to stop


def limit_runs() -> None:
    """Let MAX_RUNS pages run at a time; clients take turns.

    Each run is a thread and makes hundreds of messages, which one thread sends for all clients:
    while fifty tabs ask for their page again and again, no other tab gets its page. After a message
    to stop, Streamlit gives the next run a new thread: fifty tabs that ask and stop in turn make
    6,000 of them (see ``messages``).
    """
    ScriptRunner._install_event_loop = _begin_run  # type: ignore[assignment, method-assign]
    ScriptRunner._run_script = _run_script  # type: ignore[assignment, method-assign]
    AppSession.on_flushed_messages_sent = _sent  # type: ignore[assignment, method-assign]


def _begin_run(runner: ScriptRunner) -> None:
    original_begin_run(runner)
    if not hasattr(_run, "ended"):  # the thread begins, and no run yet
        return
    _end_run(runner)  # the one before
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        ended.wait(SHORT)

    RUNS.submit(client_of(runner._session_id), hold)
    begun.wait()
    _run.ended = ended
    running.add(runner._session_id)


def _run_script(runner: ScriptRunner, request: RerunData) -> None:
    _run.ended = None
    try:
        original_run_script(runner, request)  # and again where it is asked for the page meanwhile
    finally:
        running.discard(runner._session_id)
        _end_run(runner)
        del _run.ended


def _end_run(runner: ScriptRunner) -> None:
    """End the run of this thread: another page may begin when its messages were sent.

    Where its browser has left, another page may begin at once.
    """
    session, server = runner._session_id, runtime.get_instance()
    if _run.ended and server.is_active_session(session):
        _run.ended, unsent[session] = unsent.pop(session, None), _run.ended
        server._enqueued_some_message()  # the sending thread may have sent all of them already
    let_others_run()


def _sent(session: AppSession) -> None:
    if ended := unsent.pop(session.id, None):
        ended.set()
    original_sent(session)


def send_in_batches() -> None:
    """Send the messages of a page BATCH at a time.

    Streamlit sends one message to a browser, then looks at all other connections. Where 330
    connections ask for something all the time, a page takes 20 seconds so.
    """
    AppSession.flush_browser_queue = _flush  # type: ignore[assignment, method-assign]
    Runtime._send_message = _send  # type: ignore[assignment, method-assign]


def _flush(session: AppSession) -> list[list[ForwardMsg]]:
    messages = original_flush(session)
    return [messages[start : start + BATCH] for start in range(0, len(messages), BATCH)]


def _send(server: Runtime, to: ActiveSessionInfo, batch: list[ForwardMsg] | ForwardMsg) -> None:
    # Where the first page sets the limits, its first messages may be on their way one by one.
    for message in [batch] if isinstance(batch, ForwardMsg) else batch:
        original_send(server, to, message)


def let_others_run() -> None:
    """Let another page begin, because the page of this thread waits for something."""
    if getattr(_run, "ended", None):
        _run.ended.set()
