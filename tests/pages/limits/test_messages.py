"""What messages of a browser are handled."""

import pytest
import streamlit as st
from starlette.websockets import WebSocketDisconnect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from pages.parts.limits import allowances, messages


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
    for count in (0, messages.MAX_FILES, messages.MAX_FILES + 1):
        message = BackMsg()
        message.file_urls_request.file_names.extend([""] * count)
        session.handle_backmsg(message)
    assert [len(one.file_urls_request.file_names) for one in handled] == [0, messages.MAX_FILES]


def test_messages_of_very_many_parts(parts):
    """Two million widgets, which are 4 MB, took 123 MB and kept everybody waiting for a second."""

    def message(widgets=0, numbers=0, hashes=0):
        made = BackMsg()
        state = made.rerun_script
        state.widget_states.widgets.extend([WidgetState()] * widgets)
        state.widget_states.widgets.add().int_array_value.data.extend([1] * numbers)
        state.cached_message_hashes.extend([""] * hashes)
        return made.SerializeToString()

    most = messages.MAX_PARTS
    small = [message(), message(999, 50_000, 900), message(messages.MAX_WIDGETS), b""]
    large = [message(widgets=most), message(numbers=most), message(hashes=most)]
    assert all(messages.may_be_read(one, "a") for one in small)
    assert not any(messages.may_be_read(one, f"b{number}") for number, one in enumerate(large))


def test_parts_are_counted_as_they_are_sent():
    message = BackMsg()
    script = message.rerun_script
    script.query_string, script.context_info.timezone_offset = "é" * 300, -60
    widgets = script.widget_states.widgets
    widgets.add(id="a", double_value=0.1)
    widgets.add(id="b", int_value=-(2**40))
    widgets.add(id="c").double_array_value.data.extend([1.0, 2.0])  # 16 bytes
    file = widgets.add(id="d").file_uploader_state_value.uploaded_file_info.add(size=10**6)
    file.file_urls.upload_url = "/there"
    # rerun_script 1, query 1, context 2, widget_states 1, widgets 4 with id 4, two values 2,
    # list 1 + 16, uploader 1, file 1, size 1, urls 1, address 1
    assert sum(messages._parts(message.SerializeToString())) == 37


@pytest.mark.parametrize(
    "data",
    [
        b"\x5a",  # a message without its length
        b"\x5a\x05a",  # that is longer than all there is
        b"\x5a\x02\x0a\x05",  # that holds a longer one
        b"\x5a" + b"\xff" * 10,  # of 2^70 bytes
        b"\x5b\x5c",  # a group
        BackMsg(debug_disconnect_websocket=True).SerializeToString(),  # a line in the log
        BackMsg(debug_shutdown_runtime=True).SerializeToString(),
    ],
)
def test_what_is_no_message_of_a_page(parts, data):
    assert not messages.may_be_read(data, "a")


def test_parts_of_all_messages_of_a_client(parts, monkeypatch):
    """Fifty tabs that announced 10,000 files again and again kept others waiting for a minute."""
    message = BackMsg()
    message.file_urls_request.file_names.extend([""] * messages.MAX_FILES)
    data = message.SerializeToString()
    monkeypatch.setattr(allowances.time, "monotonic", lambda: 0.0)
    most = messages.MAX_PARTS_OF_CLIENT // messages.MAX_FILES - 1  # a message is one part too
    assert all(messages.may_be_read(data, "a") for _ in range(most))
    assert not messages.may_be_read(data, "a")
    assert messages.may_be_read(data, "b")


def test_messages_that_are_refused_count(parts, monkeypatch):
    """Else a client could have as many counted as it likes, in the thread that serves everybody."""
    monkeypatch.setattr(allowances.time, "monotonic", lambda: 0.0)
    message = BackMsg()
    message.rerun_script.cached_message_hashes.extend([""] * 2 * messages.MAX_PARTS)
    for _ in range(10):
        assert not messages.may_be_read(message.SerializeToString(), "a")
    assert not messages.may_be_read(BackMsg(stop_script=True).SerializeToString(), "a")


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
    assert len(handled) == messages.MAX_DOWNLOADS
    session._background_tasks.pop()
    session.handle_backmsg(message)
    assert len(handled) == messages.MAX_DOWNLOADS + 1


def test_long_values_of_a_page(session, handled):
    """A text of 4 MB took 27 MB as long as its session was there: 100 tabs filled 2.7 GB."""
    uploaded = [str(number) for number in range(2000)]
    session._uploaded_file_mgr.file_storage[session.id] = dict.fromkeys(uploaded)

    def message(text="", files=()):
        made = BackMsg()
        widgets = made.rerun_script.widget_states.widgets
        widgets.add(string_value=text)
        for file in files:
            infos = widgets.add().file_uploader_state_value.uploaded_file_info
            infos.add(file_id=file, name="n" * 500)
        return made

    session.handle_backmsg(message("a" * 50_000))
    session.handle_backmsg(message("a" * 50_000, uploaded[:990]))
    session.id = "here again, as another session"
    session.handle_backmsg(message("a" * 50_000, uploaded[:990]))  # the page remembers its uploads
    files = [
        [bool(one.file_uploader_state_value.uploaded_file_info) for one in widgets[1:]]
        for widgets in (message.rerun_script.widget_states.widgets for message in handled)
    ]
    assert files == [[], [True] * 990, [False] * 990]
    download = BackMsg()
    download.backend_operation_request.request_id = "a" * messages.MAX_VALUES
    for one in (message("a" * messages.MAX_VALUES), download):  # that waits for its turn
        with pytest.raises(WebSocketDisconnect):
            session.handle_backmsg(one)
