"""Messages of browsers that Streamlit would follow at the cost of everybody: it does not."""

from __future__ import annotations

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.runtime.app_session import AppSession

MOST_FILES = 10_000  # that one message may announce; whoever has more brings a zip

# What Streamlit does at "clear the caches" and "tell me the state of the repository". It has no
# setting for them; the test notices other names.
NAMES = ("_handle_clear_cache_request", "_handle_git_information_request")
handle = AppSession.handle_backmsg


def ignore() -> None:
    """Let no visitor clear the caches of all, see files of the owner, or fill the memory.

    With the caches go the networks that everybody uses, and the pictures of visitors are deleted
    as if their sessions had ended. Each file that is announced is answered with 230 bytes.
    """
    for name in NAMES:
        setattr(AppSession, name, _nothing)
    setattr(AppSession, "handle_backmsg", _handle)  # noqa: B010, mypy allows no assignment


def _nothing(session: AppSession) -> None:
    pass


def _handle(session: AppSession, message: BackMsg) -> None:
    if len(message.file_urls_request.file_names) <= MOST_FILES:
        handle(session, message)
