"""Messages of browsers that Streamlit would follow at the cost of everybody: it does not."""

from __future__ import annotations

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.runtime.app_session import AppSession

MOST_FILES = 10_000  # that one message may announce; whoever has more brings a zip
MOST_DOWNLOADS = 8  # and parts of tables, that are made for one session at a time

# What Streamlit does at "clear the caches" and "tell me the state of the repository". It has no
# setting for them; the test notices other names.
NAMES = ("_handle_clear_cache_request", "_handle_git_information_request")
handle = AppSession.handle_backmsg


def ignore() -> None:
    """Let no visitor clear the caches of all, reach files of the owner, or keep others waiting.

    With the caches go the networks that everybody uses, and the pictures of visitors are deleted
    as if their sessions had ended. Each file that is announced is answered with 230 bytes. What
    Streamlit does for a page without running it: it makes a file to download, in one of a few
    threads for all. Where the owner has a coding assistant, it also writes instructions for that
    into the folder of the app.
    """
    for name in NAMES:
        setattr(AppSession, name, _nothing)
    setattr(AppSession, "handle_backmsg", _handle)  # noqa: B010, mypy allows no assignment


def _nothing(session: AppSession) -> None:
    pass


def _handle(session: AppSession, message: BackMsg) -> None:
    if _is_modest(session, message):
        handle(session, message)


def _is_modest(session: AppSession, message: BackMsg) -> bool:
    kind = message.WhichOneof("type")
    if kind == "file_urls_request":
        return len(message.file_urls_request.file_names) <= MOST_FILES
    if kind == "backend_operation_request":
        asked = message.backend_operation_request.WhichOneof("payload")
        known = asked in ("deferred_file", "dataframe_chunk")
        return known and len(session._background_tasks) < MOST_DOWNLOADS
    return True
