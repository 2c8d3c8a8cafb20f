"""Which messages of a browser are handled, and how large they may be."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from google.protobuf.message import Message
from starlette.websockets import WebSocketDisconnect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.runtime.app_session import AppSession

from pages.parts.limits import runs
from pages.parts.limits.allowances import OfClients, client_of

MAX_PARTS = 100_000  # of one message: each of 10,000 uploaded files takes eight
MAX_PARTS_OF_CLIENT, PARTS_A_SECOND = 400_000, 40_000  # at once, and each second after that
MAX_FILES = 10_000  # that one message may announce; whoever has more brings a zip
MAX_VALUES = 64_000  # bytes of the values of a page, without those of its uploads
BYTES_OF_UPLOAD = 1000  # in a message: its name and addresses
MAX_WIDGETS = 1000  # of a page: Streamlit looks at all of them for each value of its session
MAX_DOWNLOADS = 8  # files, and parts of tables, that are made for one session at the same time

# What Streamlit does at "clear the caches" and "tell me the state of the repository".
HANDLERS = ("_handle_clear_cache_request", "_handle_git_information_request")
original_handle = AppSession.handle_backmsg
parts = OfClients(MAX_PARTS_OF_CLIENT, PARTS_A_SECOND)


def filter_messages() -> None:
    """Ignore messages that no page of this app sends, and refuse messages that are too large.

    Some would do harm to all visitors. "Clear the caches" unloads the networks that all use, and
    deletes the pictures that visitors brought. "Backend operations" make files to download, in a
    few threads for all; one of them writes instructions for a coding assistant into the folder of
    the app. Each file that a message announces is answered with 230 bytes.
    """
    for name in HANDLERS:
        setattr(AppSession, name, _nothing)
    AppSession.handle_backmsg = _handle  # type: ignore[assignment, method-assign]


def _nothing(session: AppSession) -> None:
    pass


def _handle(session: AppSession, message: BackMsg) -> None:
    """Handle a message, or ignore it, or end the connection, which would keep a large one."""
    count = _parts(message)
    if count > MAX_PARTS or not parts.take(client_of(session.id), count):
        raise WebSocketDisconnect
    if message.ByteSize() > MAX_VALUES and not message.HasField("file_urls_request"):
        _forget_uploads_that_are_gone(session, message)
        if message.ByteSize() > MAX_VALUES + BYTES_OF_UPLOAD * len(_uploads(session)):
            raise WebSocketDisconnect
    if _is_allowed(session, message):
        original_handle(session, message)


def _uploads(session: AppSession) -> Collection[str]:
    manager: Any = session._uploaded_file_mgr
    return manager.file_storage.get(session.id, ())


def _forget_uploads_that_are_gone(session: AppSession, message: BackMsg) -> None:
    """Take uploads that are no longer kept out of a large message: Streamlit ignores them.

    The rest of the message must then be small, as Streamlit keeps it, in several forms, as long as
    the session: a text of 4 MB with an emoji took 27 MB, in a hundred tabs 2.7 GB.
    """
    there = _uploads(session)
    for widget in message.rerun_script.widget_states.widgets:
        if widget.HasField("file_uploader_state_value"):
            files = widget.file_uploader_state_value.uploaded_file_info
            kept = [file for file in files if file.file_id in there]
            del files[:]
            files.extend(kept)


def _is_allowed(session: AppSession, message: BackMsg) -> bool:
    kind = message.WhichOneof("type")
    if kind == "stop_script":  # what is stopped before it runs leaves a thread that waits
        is_running = session.id in runs.running
        runs.running.discard(session.id)
        return is_running
    if kind == "rerun_script":
        return len(message.rerun_script.widget_states.widgets) <= MAX_WIDGETS
    if kind == "file_urls_request":
        return len(message.file_urls_request.file_names) <= MAX_FILES
    if kind == "backend_operation_request":
        payload = message.backend_operation_request.WhichOneof("payload")
        known = payload in ("deferred_file", "dataframe_chunk")
        return known and len(session._background_tasks) < MAX_DOWNLOADS
    return kind is not None


def _parts(message: Message) -> int:
    """How many values a message has, with all in it; beyond MAX_PARTS they are not all counted.

    Two million widgets without a name are 4 MB, take a second to compare with those before, and up
    to 100 MB of memory until the next message.
    """
    count = 0
    waiting: list[Any] = [message]
    while waiting and count <= MAX_PARTS:
        for _, value in waiting.pop().ListFields():
            values = [value] if isinstance(value, Message | str | bytes | int | float) else value
            count += len(values)
            if count <= MAX_PARTS and isinstance(values[0], Message):
                waiting += values
    return count
