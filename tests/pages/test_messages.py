"""Messages of a browser that concern everybody, handled by Streamlit as the app has it do."""

import streamlit as st
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.runtime.app_session import AppSession, AppSessionState

from pages.parts import messages
from pages.parts.plain import plain


def test_no_visitor_clears_the_caches_of_all(monkeypatch):
    """Two bytes did, and the pictures of all visitors were deleted three minutes later."""
    for name in messages.NAMES:
        monkeypatch.setattr(AppSession, name, getattr(AppSession, name))  # undone later
    messages.ignore()
    made = []

    @st.cache_resource(on_release=made.remove)
    def shared():
        made.append(1)
        return 1

    shared()
    session = object.__new__(AppSession)
    session._state = AppSessionState.SHUTDOWN_REQUESTED  # there is nothing to shut down
    for message in (BackMsg(clear_cache=True), BackMsg(load_git_info=True)):
        session.handle_backmsg(message)  # without the change it would look for what it lacks
    assert made == [shared()]
    shared.clear()
    assert not made


def test_names_that_cannot_be_sent():
    """Half a surrogate, as JSON and file systems allow it, cannot be put into a message."""
    assert plain("caf\ud800*") == r"caf\?\*"
