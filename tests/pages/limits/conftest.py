"""A session, and what of its messages is left for Streamlit."""

import pytest
from streamlit.runtime.app_session import AppSession, AppSessionState
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

from pages.parts.limits import messages
from pages.parts.limits.allowances import OfClients


@pytest.fixture
def session(monkeypatch):
    """A session that lacks what Streamlit's own handlers would look for."""
    for name in (*messages.HANDLERS, "handle_backmsg"):
        monkeypatch.setattr(AppSession, name, getattr(AppSession, name))  # undone later
    messages.filter_messages()
    session = object.__new__(AppSession)
    session._state = AppSessionState.SHUTDOWN_REQUESTED  # there is nothing to shut down
    session.id = "there"
    session._uploaded_file_mgr = MemoryUploadedFileManager("")
    return session


@pytest.fixture
def parts(monkeypatch):
    """What each client may still send, as if nobody had sent anything."""
    allowed = OfClients(messages.MAX_PARTS_OF_CLIENT, messages.PARTS_A_SECOND)
    monkeypatch.setattr(messages, "parts", allowed)


@pytest.fixture
def handled(monkeypatch):
    """What is left for Streamlit to do."""
    left = []
    monkeypatch.setattr(messages, "original_handle", lambda session, message: left.append(message))
    return left
