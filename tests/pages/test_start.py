"""The start and the end of the server, before and after all visits."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import streamlit as st
from streamlit import cli_util
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from pages.parts import own_uploads, start, turns
from retrieval.benchmarks.served import APP, free_port

ROOT = Path(__file__).parents[2]
TOKEN = "2|00000000|61|0"  # in the form of Streamlit's, against requests of other pages


@pytest.fixture
def server(tmp_path):
    """The app as README starts it, its address and its log; no page was opened."""
    port = free_port()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *APP, "--server.port", str(port)],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        with suppress(OSError):
            urllib.request.urlopen(f"{address}/_stcore/health")
            break
        time.sleep(0.1)
    yield process, address, tmp_path / "log"
    process.kill()
    process.wait()


def test_limits_are_set_before_anybody_opens_a_page(server):
    """Uploads without an end took 4 GB in 45 s."""
    _, address, _ = server
    many = urllib.request.Request(address, headers={f"A{number}": "" for number in range(600)})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(many)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_the_server_ends_when_it_is_told_to(server, kind):
    """An upload without an end kept it from ending."""
    process, address, log = server
    message = BackMsg()
    message.file_urls_request.file_names.append("a.jpg")
    with connect(
        address.replace("http", "ws") + "/_stcore/stream", subprotocols=["streamlit"]
    ) as tab:
        tab.send(message.SerializeToString())
        while not (answer := ForwardMsg.FromString(tab.recv())).HasField("file_urls_response"):
            pass
        path = answer.file_urls_response.file_urls[0].upload_url
        head = (
            f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: _streamlit_xsrf={TOKEN}\r\n"
            f"X-Xsrftoken: {TOKEN}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
        )
        place = urlsplit(address)
        with socket.create_connection((place.hostname, place.port)) as upload:
            upload.sendall(head.encode())
            assert upload.recv(1000).startswith(b"HTTP/1.1 100")  # the server waits for the rest
            process.send_signal(kind)
            process.wait(60)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("headless", [True, False])
def test_the_browser_is_opened_and_private_folders_are_deleted(monkeypatch, headless):
    settings = {"server.headless": headless, "browser.serverAddress": "app.example"}
    monkeypatch.setattr(turns, "client", lambda: "a")
    monkeypatch.setattr(st, "get_option", settings.get)
    opened = []
    monkeypatch.setattr(cli_util, "open_browser", opened.append)

    async def serve():
        async with start.until_the_end(None):
            folder = own_uploads.private_folder()
            Path(folder.name, "a.jpg").write_bytes(b"a")
            await asyncio.sleep(1)
        return folder

    folder = asyncio.run(serve())
    assert not Path(folder.name).exists()
    assert opened == ([] if headless else ["http://app.example:8501"])
