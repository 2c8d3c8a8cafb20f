"""Limits on what one browser may ask of Streamlit's server, which has no settings for them.

Streamlit's own functions are replaced. A test of each limit fails where they get other names.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from asyncio import Transport
from functools import cache
from typing import Any, NoReturn

from google.protobuf.message import Message
from starlette import formparsers
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketDisconnect
from streamlit import net_util, runtime
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import Runtime
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.runtime_util import get_max_widget_state_size_bytes
from streamlit.runtime.scriptrunner import ScriptRunner
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData
from streamlit.runtime.session_manager import SessionInfo
from streamlit.runtime.uploaded_file_manager import UploadedFileRec
from streamlit.web.server.starlette.starlette_websocket import StarletteSessionClient
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from retrieval import chunks, cookies, hosts
from retrieval.workers import Workers

MOST_OPEN = 65_536  # connections and files; where the system allows fewer, as many as it does
MOST_AWAY = 4096  # sessions that may come back, for the two minutes in which each of them may
A_MOMENT = 1.0  # s after those minutes
MOST_FILES = 10_000  # that one message may announce; whoever has more brings a zip
MOST_WIDGETS = 1000  # of a page: Streamlit looks at all of them for each value of its session
MOST_PARTS = 100_000  # of one message: each of 10,000 uploaded files takes eight
MOST_OF_PARTS, PARTS_A_SECOND = 400_000, 40_000  # of one client at once, and then so many a second
MOST_FRAMES = 1000  # pieces of messages of a browser at once, and then so many a second:
FRAMES_A_SECOND = 100
MOST_OPENED, OPENED_A_SECOND = 300, 10  # the same for connections of browsers of one client
MOST_ARRIVING = 256 << 20  # bytes of messages of all browsers that have begun to arrive
MOST_UNREAD = 16 << 20  # bytes that wait until one browser reads them
MOST_UPLOADED, MOST_OF_ALL = 600 << 20, 2 << 30  # bytes of uploads: of one session, of all
MOST_RUNS = 4  # of pages at once
SHORT = 1.0  # s; a run that takes longer goes on beside those that begin after it
MOST_DOWNLOADS = 8  # and parts of tables, that are made for one session at a time

DECODE = "_user_safe_decode"  # of Starlette: reads a form in the character set that it names
# What Streamlit does at "clear the caches" and "tell me the state of the repository".
HANDLERS = ("_handle_clear_cache_request", "_handle_git_information_request")
handle = AppSession.handle_backmsg
save = MemorySessionStorage.save
add = MemoryUploadedFileManager.add_file
made = H11Protocol.connection_made
handle_events = WebSocketsSansIOProtocol.handle_events
connect = Runtime.connect_session
connected = WebSocketsSansIOProtocol.connection_made
lost = WebSocketsSansIOProtocol.connection_lost
write = StarletteSessionClient.write_forward_msg
begin_run = ScriptRunner._install_event_loop
run_script = ScriptRunner._run_script
sent = AppSession.on_flushed_messages_sent
RUNS = Workers(MOST_RUNS, 1_000_000, tidy=False)  # a session has one run at a time
_run = threading.local()  # its ``ended``, where it is one of those
unsent: dict[str, threading.Event] = {}  # ends of runs by session
running: set[str] = set()  # sessions whose page runs and was not told to stop
Accounts = dict[str, tuple[float, float]]  # of each client, what is left, and when that was
opened: Accounts = {}
parts: Accounts = {}
arriving: dict[WebSocketsSansIOProtocol, int] = {}  # bytes of a message whose end is missing


@cache
def set_once() -> None:
    """Set all limits, at the first run of a page."""
    allow_many_connections()
    keep_few_uploads()
    refuse_tiny_pieces()
    open_slowly()
    hold_few_messages()
    run_few_pages()
    cookies.read_in_linear_time()
    ask_nobody_for_our_address()
    read_forms_as_utf8()
    ignore_messages()


def allow_many_connections() -> None:
    """Let many connections be open, and many sessions be away: a few of them keep nobody out.

    Streamlit waits for ever for the rest of a request, and by default a process may have 1024
    files: whoever began as many requests shut all others out. It keeps 128 sessions whose
    connection is broken: whoever opened and closed as many took from others, whose telephone
    slept, what they had brought. And it forgot a session only when it saved another: what the last
    visitors of a day had brought stayed in memory for the night.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST_OPEN if most == resource.RLIM_INFINITY else min(most, MOST_OPEN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))
    setattr(MemorySessionStorage, "save", _save)  # noqa: B010, mypy allows no assignment


def _save(storage: MemorySessionStorage, session: SessionInfo) -> None:
    away: Any = storage._cache
    away._maxsize = MOST_AWAY
    save(storage, session)
    with contextlib.suppress(RuntimeError):  # a script that ends its own session has no loop
        asyncio.get_running_loop().call_later(away.ttl + A_MOMENT, _forget, away)


def _forget(away: Any) -> None:
    """End the sessions that may not come back any more."""
    for _, info in away.expire():
        info.session.shutdown()


def keep_few_uploads() -> None:
    """Limit what all uploads that wait to be used take in memory, where Streamlit limits each.

    Streamlit looks whether the session of an upload is there only before the upload comes: what
    came after it had ended stayed for ever. An upload that is deleted counts on, for its session
    may have kept it: 16 sessions held 6 GB.
    """
    setattr(MemoryUploadedFileManager, "add_file", _add)  # noqa: B010


def _add(manager: MemoryUploadedFileManager, session_id: str, file: UploadedFileRec) -> None:
    server: Any = runtime.get_instance()
    there = server.is_active_session(session_id)
    if not there and not server._session_mgr._session_storage.get(session_id):
        raise HTTPException(400, "The session of this upload has ended.")
    most: dict[str, int] = vars(manager).setdefault("most", {})  # bytes of each session at once
    for gone in most.keys() - manager.file_storage.keys():
        del most[gone]
    mine = sum(len(one.data) for one in manager.file_storage.get(session_id, {}).values())
    mine = max(mine + len(file.data), most.get(session_id, 0))
    if mine > MOST_UPLOADED or sum((most | {session_id: mine}).values()) > MOST_OF_ALL:
        raise HTTPException(413, "Too much was uploaded already.")
    most[session_id] = mine
    add(manager, session_id, file)


def refuse_tiny_pieces() -> None:
    """End connections of bodies and messages in tiny pieces, which keep all others waiting.

    Bodies: see ``retrieval.chunks``. Of messages, 20 browsers that sent empty ones, or parts of one
    byte, kept everybody waiting for half a minute.
    """
    setattr(H11Protocol, "connection_made", _made)  # noqa: B010
    setattr(WebSocketsSansIOProtocol, "handle_events", _handle_events)  # noqa: B010


def _made(protocol: H11Protocol, transport: Transport) -> None:
    made(protocol, transport)
    chunks.limit(protocol, transport)


def _handle_events(protocol: WebSocketsSansIOProtocol) -> None:
    before, count = getattr(protocol, "frames_left", None), len(protocol.conn.events)
    left = _left(before, MOST_FRAMES, FRAMES_A_SECOND, count)
    setattr(protocol, "frames_left", left)  # noqa: B010
    if left[0] < 0:
        protocol.transport.abort()
    else:
        handle_events(protocol)
        _limit_arriving(protocol)


def _left(
    before: tuple[float, float] | None, most: int, a_second: int, taken: int
) -> tuple[float, float]:
    """What is left of ``most``, where so many come back a second, and the time.

    before: the same when it was last asked; None at first.
    """
    now = time.monotonic()
    left, then = before or (most, now)
    return min(left + (now - then) * a_second, most) - taken, now


def open_slowly() -> None:
    """Let a client open some connections a second, beyond the first ones.

    Each makes a session and a thread. 50 loops that opened one, asked for the page and left at once
    kept others waiting for 12 seconds.
    """
    setattr(Runtime, "connect_session", _connect)  # noqa: B010


def _connect(server: Runtime, client: Any, **more: Any) -> str:
    """Connect, or end the connection: the browser will try again."""
    who = hosts.client_with(client.client_context.remote_ip)
    _take(1, opened, who, MOST_OPENED, OPENED_A_SECOND)
    return connect(server, client, **more)


def _take(count: int, accounts: Accounts, who: str, most: int, a_second: int) -> None:
    """Count what a client asks for. Raises WebSocketDisconnect where it is more than is left."""
    if len(accounts) > MOST_AWAY:
        accounts.clear()
    left = _left(accounts.get(who), most, a_second, count)
    if left[0] < 0:
        raise WebSocketDisconnect
    accounts[who] = left


def hold_few_messages() -> None:
    """Limit what messages take in memory that a browser sends slowly, or does not read.

    Streamlit looks at the size of a message when all of it is there, up to 200 MB: ten browsers
    that kept the end back held 1.5 GB. It lets 500 messages to a browser wait, of any size.
    """
    setattr(WebSocketsSansIOProtocol, "connection_made", _connected)  # noqa: B010
    setattr(WebSocketsSansIOProtocol, "connection_lost", _lost)  # noqa: B010
    setattr(StarletteSessionClient, "write_forward_msg", _write)  # noqa: B010


def _connected(protocol: WebSocketsSansIOProtocol, transport: Transport) -> None:
    connected(protocol, transport)
    protocol.conn.max_message_size = get_max_widget_state_size_bytes()


def _lost(protocol: WebSocketsSansIOProtocol, error: Exception | None) -> None:
    arriving.pop(protocol, None)
    lost(protocol, error)


def _limit_arriving(protocol: WebSocketsSansIOProtocol) -> None:
    """End the connection of which most has arrived, where that of all is too much."""
    arriving.pop(protocol, None)
    size = len(protocol.conn.reader.buffer) + (protocol.conn.current_size or 0)
    if size > chunks.READ:  # what is less came in one piece, or takes no more than a connection
        arriving[protocol] = size
    if sum(arriving.values()) > MOST_ARRIVING:
        max(arriving, key=lambda one: arriving[one]).transport.abort()


def _write(client: StarletteSessionClient, message: ForwardMsg) -> None:
    waiting: Any = client._send_queue
    if sum(map(len, waiting._queue)) > MOST_UNREAD:
        client._closed.set()
    write(client, message)


def run_few_pages() -> None:
    """Let a few pages run at a time, of each client in turn, and the others wait.

    Each run is a thread, and makes hundreds of messages, which one thread sends for everybody.
    With fifty tabs that asked for their page again and again, others waited until they stopped.
    After a message to stop, the next run has a thread of its own. With fifty tabs that asked and
    stopped in turn there were 6,000, and others waited for a minute: see ``_is_modest``.
    """
    setattr(ScriptRunner, "_install_event_loop", _begin_run)  # noqa: B010, called by each run
    setattr(ScriptRunner, "_run_script", _run_script)  # noqa: B010
    setattr(AppSession, "on_flushed_messages_sent", _sent)  # noqa: B010


def _begin_run(runner: ScriptRunner) -> None:
    begin_run(runner)
    if not hasattr(_run, "ended"):  # the thread begins, and no run yet
        return
    _end_run(runner)  # the one before
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        ended.wait(SHORT)

    RUNS.submit(_client(runner._session_id), hold)
    begun.wait()
    _run.ended = ended
    running.add(runner._session_id)


def _client(session: str) -> str:
    """Whose session it is: see ``hosts``."""
    client = runtime.get_instance().get_client(session)
    address = client.client_context.remote_ip if client and client.client_context else None
    return hosts.client_with(address)


def _run_script(runner: ScriptRunner, asked: RerunData) -> None:
    _run.ended = None
    try:
        run_script(runner, asked)  # and again where it is asked for the page meanwhile
    finally:
        running.discard(runner._session_id)
        _end_run(runner)
        del _run.ended


def _end_run(runner: ScriptRunner) -> None:
    """The next page may begin when the messages of this run are sent, if anybody is there."""
    session, server = runner._session_id, runtime.get_instance()
    if _run.ended and server.is_active_session(session):
        _run.ended, unsent[session] = unsent.pop(session, None), _run.ended
        server._enqueued_some_message()  # that thread may have sent all of them already
    let_others_run()


def _sent(session: AppSession) -> None:
    if ended := unsent.pop(session.id, None):
        ended.set()
    sent(session)


def let_others_run() -> None:
    """Let the next page begin: that of this thread has to wait for something."""
    if getattr(_run, "ended", None):
        _run.ended.set()


def ask_nobody_for_our_address() -> None:
    """Refuse pages of other sites at once.

    Streamlit would ask a server on the net, in the one thread that serves everybody, whether the
    site has the address of this machine. Where no answer comes, that takes two seconds a page.
    """
    setattr(net_util, "get_external_ip", lambda: None)  # noqa: B010


def read_forms_as_utf8() -> None:
    """Read every form, of an upload, as UTF-8, whatever character set a client asks for.

    Python takes the square of the length to read punycode: a megabyte would stop the one thread
    that serves everybody for a minute. Forms as ``a=1&b=2``, which no browser sends for a file, are
    refused: 20 clients that sent 10 MB of ``%41`` or ``&`` kept everybody waiting for 9 seconds.
    """
    setattr(formparsers, DECODE, _decode)
    setattr(formparsers.FormParser, "parse", _refuse)  # noqa: B010


def _decode(data: bytes | bytearray, codec: str) -> str:
    return data.decode("utf-8", "replace")


async def _refuse(parser: formparsers.FormParser) -> NoReturn:
    raise formparsers.MultiPartException("A file comes as multipart/form-data.")


def ignore_messages() -> None:
    """Let no visitor clear the caches of all, reach files of the owner, or keep others waiting.

    With the caches go the networks that everybody uses, and the pictures of visitors are deleted
    as if their sessions had ended. Each file that is announced is answered with 230 bytes. What
    Streamlit does for a page without running it: it makes a file to download, in one of a few
    threads for all. Where the owner has a coding assistant, it also writes instructions for that
    into the folder of the app.
    """
    for name in HANDLERS:
        setattr(AppSession, name, _nothing)
    setattr(AppSession, "handle_backmsg", _handle)  # noqa: B010, mypy allows no assignment


def _nothing(session: AppSession) -> None:
    pass


def _handle(session: AppSession, message: BackMsg) -> None:
    """Handle a message, or ignore it, or end the connection, which would keep a large one."""
    count = _parts(message)
    if count > MOST_PARTS:
        raise WebSocketDisconnect
    _take(count, parts, _client(session.id), MOST_OF_PARTS, PARTS_A_SECOND)
    if _is_modest(session, message):
        handle(session, message)


def _is_modest(session: AppSession, message: BackMsg) -> bool:
    kind = message.WhichOneof("type")
    if kind == "stop_script":  # what is stopped before it runs leaves a thread that waits
        is_running = session.id in running
        running.discard(session.id)
        return is_running
    if kind == "rerun_script":
        return len(message.rerun_script.widget_states.widgets) <= MOST_WIDGETS
    if kind == "file_urls_request":
        return len(message.file_urls_request.file_names) <= MOST_FILES
    if kind == "backend_operation_request":
        asked = message.backend_operation_request.WhichOneof("payload")
        known = asked in ("deferred_file", "dataframe_chunk")
        return known and len(session._background_tasks) < MOST_DOWNLOADS
    return True


def _parts(message: Message) -> int:
    """How many values a message has, with all in it; beyond MOST_PARTS they are not all counted.

    Two million widgets without a name are 4 MB, take a second to compare with those before, and up
    to 100 MB of memory until the next message. Fifty tabs that sent 10,000 parts again and again
    kept others waiting for a minute.
    """
    count = 0
    waiting: list[Any] = [message]
    while waiting and count <= MOST_PARTS:
        for _, value in waiting.pop().ListFields():
            values = [value] if isinstance(value, Message | str | bytes | int | float) else value
            count += len(values)
            if count <= MOST_PARTS and isinstance(values[0], Message):
                waiting += values
    return count
