"""Messages of a browser that concern everybody, handled by Streamlit as the app has it do."""

import pytest
import streamlit as st
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.runtime.app_session import AppSession, AppSessionState

from pages.parts import messages
from pages.parts.plain import plain


@pytest.fixture
def session(monkeypatch):
    """A session that lacks what Streamlit's own handlers would look for."""
    for name in (*messages.NAMES, "handle_backmsg"):
        monkeypatch.setattr(AppSession, name, getattr(AppSession, name))  # undone later
    messages.ignore()
    session = object.__new__(AppSession)
    session._state = AppSessionState.SHUTDOWN_REQUESTED  # there is nothing to shut down
    return session


@pytest.fixture
def handled(monkeypatch):
    """What is left for Streamlit to do."""
    left = []
    monkeypatch.setattr(messages, "handle", lambda session, message: left.append(message))
    return left


def test_no_visitor_clears_the_caches_of_all(session):
    """Two bytes did, and the pictures of all visitors were deleted three minutes later."""
    made = []

    @st.cache_resource(on_release=made.remove)
    def shared():
        made.append(1)
        return 1

    shared()
    for message in (BackMsg(clear_cache=True), BackMsg(load_git_info=True)):
        session.handle_backmsg(message)
    assert made == [shared()]
    shared.clear()
    assert not made


def test_files_that_are_announced(session, handled):
    """Each is answered with an address: 1.5 MB took 0.6 GB, and 25 MB took all there is."""
    for count in (0, messages.MOST_FILES, messages.MOST_FILES + 1):
        message = BackMsg()
        message.file_urls_request.file_names.extend([""] * count)
        session.handle_backmsg(message)
    assert [len(one.file_urls_request.file_names) for one in handled] == [0, messages.MOST_FILES]


@pytest.mark.parametrize("payload", ["install_skills", "dismiss_skills_nudge"])
def test_no_visitor_writes_into_the_folder_of_the_app(session, handled, payload):
    """Instructions for coding assistants were installed there, for whoever came by a proxy."""
    message = BackMsg()
    getattr(message.backend_operation_request, payload).SetInParent()
    session._background_tasks = set()
    session.handle_backmsg(message)
    assert not handled


def test_files_to_download_are_made_a_few_at_a_time(session, handled):
    """10,000 were asked for with 0.8 MB, and made in the threads that serve everybody."""
    message = BackMsg()
    message.backend_operation_request.deferred_file.file_id = "a table"
    session._background_tasks = set()
    for number in range(20):
        session.handle_backmsg(message)
        if len(handled) > number:
            session._background_tasks.add(number)
    assert len(handled) == messages.MOST_DOWNLOADS
    session._background_tasks.pop()
    session.handle_backmsg(message)
    assert len(handled) == messages.MOST_DOWNLOADS + 1


def test_names_that_cannot_be_sent():
    """Half a surrogate, as JSON and file systems allow it, cannot be put into a message."""
    assert plain("caf\ud800*") == r"caf\?\*"
