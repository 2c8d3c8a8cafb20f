"""What any browser may tell Streamlit although it concerns everybody: it is not done."""

from __future__ import annotations

from streamlit.runtime.app_session import AppSession

# What Streamlit does at "clear the caches" and "tell me the state of the repository". It has no
# setting for them; the test notices other names.
NAMES = ("_handle_clear_cache_request", "_handle_git_information_request")


def ignore() -> None:
    """Let no visitor clear the caches of all, or see the owner's files that are not committed.

    With the caches go the networks that everybody uses, and the pictures of visitors are deleted
    as if their sessions had ended.
    """
    for name in NAMES:
        setattr(AppSession, name, _nothing)


def _nothing(session: AppSession) -> None:
    pass
