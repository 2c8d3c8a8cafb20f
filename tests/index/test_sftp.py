"""Pictures on an sftp server: a real one, of paramiko, in this process."""

import os
import socket
import threading

import pytest
from stubs import Thumbnail, paint, refused

from retrieval import index
from retrieval.collections import open_collection
from retrieval.collections.remote import connection, folders, open_anywhere

paramiko = pytest.importorskip("paramiko")


class Login(paramiko.ServerInterface):
    def check_auth_password(self, username, password):
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED


class Files(paramiko.SFTPServerInterface):
    """The files of this machine.

    silent_at, forbidden: the file that it never answers for, and the one that may not be read.
    closed: the folder that may not be listed.
    """

    silent_at, forbidden, closed = "", "", ""
    ended = threading.Event()

    def stat(self, path):
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(path))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    lstat = stat

    def list_folder(self, path):
        if self.closed and path.rstrip("/").endswith(self.closed):
            return paramiko.SFTP_PERMISSION_DENIED
        return [
            paramiko.SFTPAttributes.from_stat(os.stat(f"{path}/{name}"), name)
            for name in os.listdir(path)
        ]

    def open(self, path, flags, attributes):
        if self.silent_at and path.endswith(self.silent_at):
            self.ended.wait(60)
        if self.forbidden and path.endswith(self.forbidden):
            return paramiko.SFTP_PERMISSION_DENIED
        handle = paramiko.SFTPHandle(flags)
        handle.readfile = open(path, "rb")  # noqa: SIM115
        return handle


@pytest.fixture(scope="module")
def server():
    """The port of an sftp server."""
    key = paramiko.RSAKey.generate(2048)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed
                    return
                transport = paramiko.Transport(connection)
                transport.add_server_key(key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
                transport.start_server(server=Login())

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    Files.ended.set()


@pytest.fixture
def address(server, tmp_path):
    for seed, name in enumerate(["a.png", "b.png", "sub/c.png"]):
        paint(tmp_path / "photos" / name, seed)
    return f"sftp://me:hunter2@127.0.0.1:{server}{tmp_path}/photos"


def indexed(address, folder):
    return index.build(open_anywhere(address), Thumbnail(), folder / "there")


def test_it_equals_the_index_of_the_folder(address, tmp_path):
    built = indexed(address, tmp_path)
    here = index.build(open_collection(tmp_path / "photos"), Thumbnail(), tmp_path / "here")
    assert (built.names, built.digests) == (here.names, here.digests)
    assert (built.arrays["descriptors"] == here.arrays["descriptors"]).all()
    assert "hunter2" not in (tmp_path / "there" / "manifest.json").read_text()


def test_a_server_that_stops_answering(address, tmp_path, monkeypatch):
    """A build waited for it without end, and Ctrl-C did not stop it."""
    monkeypatch.setattr(connection, "MAX_SILENCE", 5.0)  # the other answers come sooner
    monkeypatch.setattr(Files, "silent_at", "b.png")
    refused("^b.png in sftp://127.*no answer came in time", indexed, address, tmp_path)


def test_a_file_that_may_not_be_read_is_named(address, tmp_path, monkeypatch):
    monkeypatch.setattr(Files, "forbidden", "b.png")
    refused("^b.png in sftp://127.*Permission denied", indexed, address, tmp_path)


def test_a_folder_that_may_not_be_listed_is_named(address, tmp_path, monkeypatch):
    monkeypatch.setattr(Files, "closed", "sub")
    assert open_anywhere(address).names == ("a.png", "b.png")
    assert "the pictures there are left out: sub." in open_anywhere(address).note
    monkeypatch.setattr(Files, "closed", "photos")
    refused("photos cannot be read: Permission denied", open_anywhere, address)


def test_a_list_without_an_end(address, monkeypatch):
    """One of 3 million names took 1.4 GB, and the list went on."""
    given = []

    def more(handle):
        given.append(len(given))
        return [paramiko.SFTPAttributes.from_stat(os.stat("/"), f"{given[-1]}.jpg")]

    monkeypatch.setattr(paramiko.SFTPHandle, "_get_next_files", more)
    monkeypatch.setattr(folders, "MAX_LIST", 100_000)
    refused("too large to be read by sftp: .* Name a folder in it", open_anywhere, address)
    assert len(given) < 2000


def test_a_list_without_an_end_when_a_picture_is_gone(address, tmp_path, monkeypatch):
    """Whether its folder is there was asked with a list of any length: 2.5 GB after 45 s."""
    built = indexed(address, tmp_path)
    (tmp_path / "photos" / "sub" / "c.png").unlink()
    collection, given = open_anywhere(address), []

    def more(handle):
        given.append(len(given))
        if len(given) > 3000:
            return []
        return [paramiko.SFTPAttributes.from_stat(os.stat("/"), f"{given[-1]}.jpg")]

    monkeypatch.setattr(paramiko.SFTPHandle, "_get_next_files", more)
    monkeypatch.setattr(folders, "MAX_LOOKED_AT", 100)
    assert index.build(collection, Thumbnail(), built.path).names == ("a.png", "b.png")
    assert 0 < len(given) < 1000


def test_folders_in_folders_without_an_end(address, monkeypatch):
    def list_folder(files, path):
        return [paramiko.SFTPAttributes.from_stat(os.stat("/"), "sub")]

    monkeypatch.setattr(Files, "list_folder", list_folder)
    monkeypatch.setattr(folders, "MAX_FOLDERS", 50)
    refused("has more than 50 folders", open_anywhere, address)
