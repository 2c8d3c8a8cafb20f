"""Which messages of a browser are handled, and how large they may be."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from starlette.websockets import WebSocketDisconnect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.runtime.app_session import AppSession

from pages.parts.limits import runs
from pages.parts.limits.allowances import OfClients

MAX_PARTS = 100_000  # of one message: each of 10,000 uploaded files takes eight
MAX_PARTS_OF_CLIENT, PARTS_A_SECOND = 400_000, 40_000  # at once, and each second after that
BATCH = 100  # parts that are taken from the allowance of a client at a time
MAX_FILES = 10_000  # that one message may announce; whoever has more brings a zip
MAX_VALUES = 64_000  # bytes of the values of a page, without those of its uploads
BYTES_OF_UPLOAD = 1000  # in a message: its name and addresses
MAX_WIDGETS = 1000  # of a page: Streamlit looks at all of them for each value of its session
MAX_DOWNLOADS = 8  # files, and parts of tables, that are made for one session at the same time

# Numbers of the messages with which developers of Streamlit test its server: it writes a line about
# each into the log.
FOR_DEVELOPERS = {
    field.number for field in BackMsg.DESCRIPTOR.fields if field.name.startswith("debug_")
}
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


def may_be_read(data: bytes, client: str) -> bool:
    """Whether a message has few parts, and its client did not send too many of late.

    data: as it was sent. To be asked before Streamlit reads the message: for each empty widget of
    two bytes it makes an object of 62. Of messages of 4 MB that a client sent at the same time, 66
    took 9 GB.
    """
    count = taken = 0
    try:
        for more in _parts(data):
            count += more
            if count > MAX_PARTS:
                return False
            if count > taken:
                batch = max(BATCH, count - taken)
                if not parts.take(client, batch):
                    return False
                taken += batch
    except (IndexError, ValueError):  # no message, or one that only developers of Streamlit send
        return False
    return True


def _parts(data: bytes) -> Iterator[int]:
    """Count the values in a message and in the messages in it: numbers whose sum is their number.

    data: the wire format of protobuf, https://protobuf.dev/programming-guides/encoding. A list of
    numbers counts a part for each of its bytes. Raises IndexError or ValueError where it is wrong.
    """
    waiting = [(BackMsg.DESCRIPTOR, 0, len(data))]
    while waiting:
        kind, at, end = waiting.pop()
        while at < end:
            tag, at = _number(data, at)
            if tag >> 3 in FOR_DEVELOPERS and kind == BackMsg.DESCRIPTOR:
                raise ValueError("a message for developers")
            inner, has_numbers = _fields(kind).get(tag >> 3, (None, False))
            length = 0
            match tag & 7:
                case 0:
                    _, at = _number(data, at)
                case 1:
                    at += 8
                case 2:
                    length, at = _number(data, at)
                    if inner:
                        waiting.append((inner, at, at + length))
                    at += length
                case 5:
                    at += 4
                case wire_type:
                    raise ValueError(f"wire type {wire_type}")
            if at > end:
                raise ValueError("a value that is longer than its message")
            yield length if has_numbers and length else 1


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The varint at a place of a message, and the place after it."""
    number = shift = 0
    while shift < 64:
        byte = data[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number, at
        shift += 7
    raise ValueError("a number of more than 64 bits")


@cache
def _fields(kind: Descriptor) -> dict[int, tuple[Descriptor | None, bool]]:
    """Number of a field → the kind of message that is in it, and whether it may list numbers."""
    others = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE
    return {field.number: (field.message_type, field.type not in others) for field in kind.fields}
