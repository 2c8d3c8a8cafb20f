"""What the limits replace inside Streamlit and its server: a list, held against the libraries.

After an upgrade, each failure names a module of ours. Look whether the limit in it still does what
its docstring says, then correct the list, and the bounds in requirements.txt.
"""

import json
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).parents[3]
CONNECTIONS = "pages/parts/limits/connections.py"
DOWNLOADS = "pages/parts/limits/downloads.py"
MESSAGES = "pages/parts/limits/messages.py"
RUNS = "pages/parts/limits/runs.py"
UPLOADS = "pages/parts/limits/uploads.py"
REQUESTS = "retrieval/request_limits.py"
COOKIES = "retrieval/cookies.py"

SESSION = "streamlit.runtime.app_session:AppSession"
STORAGE = "streamlit.runtime.memory_session_storage:MemorySessionStorage"
MEDIA = "streamlit.runtime.media_file_manager:MediaFileManager"
RUNNER = "streamlit.runtime.scriptrunner.script_runner:ScriptRunner"
RUNTIME = "streamlit.runtime.runtime:Runtime"
UPLOADED = "streamlit.runtime.memory_uploaded_file_manager:MemoryUploadedFileManager"
LOOP = "asyncio.selector_events:BaseSelectorEventLoop"
BROWSER = "streamlit.web.server.starlette.starlette_websocket:StarletteSessionClient"
HTTP = "uvicorn.protocols.http.h11_impl:H11Protocol"
CYCLE = "uvicorn.protocols.http.h11_impl:RequestResponseCycle"
SOCKET = "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol"

# A function, its parameters, and the module that sets another in its place.
REPLACED = [
    (f"{STORAGE}.save", "self, session_info", CONNECTIONS),
    (
        f"{RUNTIME}.connect_session",
        "self, client, user_info, existing_session_id, session_id_override",
        CONNECTIONS,
    ),
    (f"{BROWSER}.write_forward_msg", "self, msg", CONNECTIONS),
    ("uvicorn.server:Server.shutdown", "self, sockets", CONNECTIONS),
    (f"{HTTP}.connection_made", "self, transport", CONNECTIONS),
    (f"{HTTP}.connection_lost", "self, exc", CONNECTIONS),
    (f"{HTTP}.data_received", "self, data", UPLOADS),
    (f"{HTTP}.pause_writing", "self", CONNECTIONS),
    (f"{HTTP}.resume_writing", "self", CONNECTIONS),
    (f"{HTTP}.send_400_response", "self, msg", REQUESTS),
    (f"{SOCKET}.connection_made", "self, transport", CONNECTIONS),
    (f"{SOCKET}.connection_lost", "self, exc", CONNECTIONS),
    (f"{SOCKET}.data_received", "self, data", CONNECTIONS),
    (f"{SOCKET}.handle_events", "self", CONNECTIONS),
    (f"{SOCKET}.run_asgi", "self", CONNECTIONS),
    (f"{SOCKET}.send_receive_event_to_app", "self", CONNECTIONS),
    ("streamlit.net_util:get_external_ip", "", CONNECTIONS),
    (
        "streamlit.web.server.starlette.starlette_websocket:_is_origin_allowed",
        "origin, host",
        CONNECTIONS,
    ),
    (f"{SESSION}._handle_backend_operation_request", "self, request", DOWNLOADS),
    (f"{MEDIA}.execute_deferred", "self, file_id", DOWNLOADS),
    (f"{MEDIA}.remove_orphaned_files", "self", DOWNLOADS),
    ("streamlit.runtime.media_file_manager:MediaFileMetadata.mark_for_delete", "self", DOWNLOADS),
    (
        "streamlit.web.server.starlette.starlette_gzip_middleware:SelectiveGZipMiddleware.__call__",
        "self, scope, receive, send",
        DOWNLOADS,
    ),
    (f"{SESSION}.handle_backmsg", "self, msg", MESSAGES),
    (f"{SESSION}._handle_clear_cache_request", "self", MESSAGES),
    (f"{SESSION}._handle_git_information_request", "self", MESSAGES),
    (f"{RUNNER}._install_event_loop", "self", RUNS),
    (f"{RUNNER}._run_script", "self, rerun_data", RUNS),
    (f"{SESSION}.on_flushed_messages_sent", "self", RUNS),
    (f"{SESSION}.flush_browser_queue", "self", RUNS),
    (f"{RUNTIME}._send_message", "self, session_info, msg", RUNS),
    (f"{UPLOADED}.add_file", "self, session_id, file", UPLOADS),
    # Streamlit has none: Python copies such a file with all its bytes.
    ("streamlit.runtime.uploaded_file_manager:UploadedFile.__deepcopy__", None, UPLOADS),
    ("starlette.datastructures:UploadFile.read", "self, size", UPLOADS),
    ("starlette.formparsers:_user_safe_decode", "src, codec", REQUESTS),
    ("starlette.formparsers:FormParser.parse", "self", UPLOADS),
    ("starlette.formparsers:MultiPartParser.parse", "self", UPLOADS),
    ("starlette.formparsers:MultiPartParser.on_header_field", "self, data, start, end", REQUESTS),
    ("starlette.formparsers:parse_options_header", "value", REQUESTS),
    ("starlette.formparsers:unquote_plus", "string, encoding, errors", REQUESTS),
    ("python_multipart.multipart:MultipartParser.write", "self, data", REQUESTS),
    (f"{CYCLE}.run_asgi", "self, app", REQUESTS),
    (
        f"{LOOP}._accept_connection",
        "self, protocol_factory, sock, sslcontext, server, backlog, ssl_handshake_timeout, "
        "ssl_shutdown_timeout",
        REQUESTS,
    ),
    ("http.cookies:_unquote", "str", COOKIES),
]
# Not replaced: other defaults are set, or a subclass of ours has functions of these names.
CHANGED = [
    ("starlette.requests:Request.form", "self, max_files, max_fields, max_part_size", REQUESTS),
    ("h11:Connection.next_event", "self", REQUESTS),
    ("h11._receivebuffer:ReceiveBuffer.maybe_extract_lines", "self", REQUESTS),
]
# Attributes of their objects that we use, beside the functions above.
USED = [
    (STORAGE, "_cache", CONNECTIONS),
    ("streamlit.runtime.memory_session_storage:TTLCache", "_maxsize ttl expire", CONNECTIONS),
    (BROWSER, "_websocket _send_queue", CONNECTIONS),
    (HTTP, "client transport", CONNECTIONS),
    (SOCKET, "client close_sent conn curr_msg_data_type frames queue scope transport", CONNECTIONS),
    (
        "websockets.protocol:Protocol",
        "current_size events max_message_size parser reader",
        CONNECTIONS,
    ),
    ("websockets.streams:StreamReader", "buffer discard", CONNECTIONS),
    ("asyncio:Queue", "_queue", CONNECTIONS),
    ("asyncio:Handle", "_args _callback", CONNECTIONS),
    (LOOP, "_add_reader _selector", CONNECTIONS),
    (RUNTIME, "_get_async_objs", CONNECTIONS),
    (
        MEDIA,
        "_file_metadata _files_by_session_and_coord _get_inactive_file_ids _lock _storage",
        DOWNLOADS,
    ),
    (
        "streamlit.runtime.memory_media_file_storage:MemoryMediaFileStorage",
        "_files_by_id get_file",
        DOWNLOADS,
    ),
    ("streamlit.runtime.memory_media_file_storage", "_PARTIAL_HASH_THRESHOLD", DOWNLOADS),
    (SESSION, "_background_tasks _uploaded_file_mgr id", MESSAGES),
    (UPLOADED, "file_storage", UPLOADS),
    (HTTP, "conn cycle transport", UPLOADS),
    (CYCLE, "response_complete scope", UPLOADS),
    ("starlette.datastructures:UploadFile", "_in_memory", UPLOADS),
    ("starlette.formparsers:MultiPartParser", "spool_max_size", UPLOADS),
    ("streamlit.runtime.uploaded_file_manager:UploadedFile", "_file_urls", UPLOADS),
    (RUNTIME, "_enqueued_some_message get_client is_active_session", RUNS),
    (RUNNER, "_session_id", RUNS),
    (RUNTIME, "_session_mgr", UPLOADS),
    (
        "streamlit.runtime.websocket_session_manager:WebsocketSessionManager",
        "_session_storage",
        UPLOADS,
    ),
    (HTTP, "conn transport", REQUESTS),
    ("python_multipart.multipart:MultipartParser", "boundary index state", REQUESTS),
    ("python_multipart.multipart:MultipartState", "HEADER_VALUE_START PART_DATA", REQUESTS),
    (CYCLE, "disconnected scope", REQUESTS),
    ("h11:Connection", "_receive_buffer our_state their_state trailing_data", REQUESTS),
]

# A process of its own: other tests may have set the limits in this one.
LOOK = """
import inspect, json, pkgutil, sys

def parameters(name):
    try:
        return ", ".join(inspect.signature(pkgutil.resolve_name(name)).parameters)
    except AttributeError:
        return None

def of_ours():
    libraries = "asyncio streamlit starlette uvicorn websockets h11 http python_multipart".split()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in libraries:
            classes = [one for one in vars(module).values() if inspect.isclass(one)]
            for owner in [module, *(one for one in classes if one.__module__ == name)]:
                for key, value in vars(owner).items():
                    if str(getattr(value, "__module__", "")).startswith(("pages.", "retrieval.")):
                        path = key if owner is module else f"{owner.__name__}.{key}"
                        yield f"{name}:{path}", value.__module__.replace(".", "/") + ".py"

names = json.loads(sys.argv[1])
before = {name: parameters(name) for name in names}
from pages.parts import limits
limits.set_once()
print(json.dumps([before, dict(of_ours())]))
"""


@pytest.fixture(scope="module")
def looked():
    """Parameters of the originals, and what is in the libraries once the limits are set."""
    names = json.dumps([name for name, _, _ in REPLACED + CHANGED])
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, names], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize(("name", "parameters", "where"), REPLACED + CHANGED)
def test_function_has_the_parameters_that_its_replacement_expects(looked, name, parameters, where):
    found = looked[0][name]
    assert found == parameters, f"{name} has another form: look at {where}, see {__file__}"


def test_the_list_has_all_functions_that_are_replaced(looked):
    assert looked[1] == {name: where for name, _, where in REPLACED}


@pytest.mark.parametrize(("name", "attributes", "where"), USED)
def test_object_has_the_attributes_that_a_limit_uses(name, attributes, where):
    owner = resolve_name(name)
    there = {*dir(owner), *getattr(owner, "__annotations__", {})}
    for base in getattr(owner, "__mro__", ()):  # a module has none
        for function in vars(base).values():
            there.update(getattr(getattr(function, "__code__", None), "co_names", ()))
    missing = set(attributes.split()) - there
    assert not missing, f"{name} lacks {missing}: look at {where}, see {__file__}"
