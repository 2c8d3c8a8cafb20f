"""Folders of pictures at any address that fsspec knows, and on sftp servers."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import PurePosixPath
from typing import BinaryIO

from retrieval.collections.collection import in_order
from retrieval.collections.names import check_name
from retrieval.collections.remote.connection import connected, errors_explained, shown
from retrieval.errors import RetrievalError

MAX_FOLDERS = 10_000  # in a web or sftp folder: a hostile server can invent new ones for ever
MAX_LIST = 300_000_000  # bytes of the paths on an sftp or web server: 2 million of 100 letters
MAX_LOOKED_AT = 250_000  # files of an sftp folder that are listed to see that it can be read


class Folder:
    """A folder of pictures at an address. Subclasses know what a kind of server needs."""

    unreadable: tuple[type[Exception], ...] = (FileNotFoundError,)

    def __init__(self, address: str):
        self.address = address
        self.files, path = connected(address)
        self.start = path.rstrip("/") + "/"

    def listed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the pictures, and of the missing folders (``Remote.missing``)."""
        from retrieval.images import SUFFIXES

        names: set[str] = set()  # a web page may spell one in several ways: p.jpg and %70.jpg
        missing: list[str] = []
        others = 0
        with errors_explained(self.address):
            for path in self._find(missing):
                name = self._name(path)
                parts = PurePosixPath(name).parts
                if not path.startswith(self.start) or any(part.startswith(".") for part in parts):
                    continue
                if PurePosixPath(name).suffix.lower() in SUFFIXES:
                    names.add(check_name(name))
                else:
                    others += 1
        folders = tuple(self._name(folder).rstrip("/") for folder in missing)
        return in_order(names, others, shown(self.address)), folders

    def check_folder(self, folder: str, gone: str, has_pictures: bool) -> bool:
        """Whether a folder is there. Raises an error where it cannot be read, as ``listed`` leaves
        such folders out without an error.

        An sftp folder that may be listed but not entered, as after ``chmod -R 644``, looks empty.
        gone: name of a picture of the folder that cannot be read. has_pictures: whether the list of
        the folder has pictures.
        """
        try:
            self._check_list(self.start + ("" if folder == "." else folder))
        except (FileNotFoundError, NotADirectoryError):
            return False
        with suppress(FileNotFoundError, NotADirectoryError):
            self.files.info(self.start + gone)
        return True

    def open(self, name: str) -> BinaryIO:
        """The file of a picture."""
        return self.files.open(self.start + name, "rb")

    def _find(self, missing: list[str]) -> Iterable[str]:
        """Paths of all files. missing: takes the subfolders that cannot be listed."""
        return self.files.find(self.start)

    def _name(self, path: str) -> str:
        return path.removeprefix(self.start)

    def _check_list(self, path: str) -> None:
        self.files.ls(path, detail=False)


class SftpFolder(Folder):
    """A folder on an sftp server. fsspec's own lists have no limits."""

    def _find(self, missing: list[str]) -> Iterator[str]:
        """Links count as files."""
        waiting, folders, size = [self.start], 0, 0
        while waiting:
            folder = waiting.pop()
            folders += 1
            try:
                for entry in self.files.ftp.listdir_iter(folder):
                    path = folder + entry.filename
                    size += sys.getsizeof(path)
                    if size > MAX_LIST or folders > MAX_FOLDERS:
                        raise RetrievalError(
                            f"{shown(self.address)} is too large to be read by sftp: it has more "
                            f"than {MAX_FOLDERS:,} folders or about 2 million files. Name a folder "
                            "in it."
                        )
                    if stat.S_ISDIR(entry.st_mode or 0):
                        waiting.append(path + "/")
                    else:
                        yield path
            except (FileNotFoundError, PermissionError):
                if folder == self.start:
                    raise
                missing.append(folder)

    def _check_list(self, path: str) -> None:
        for _ in islice(self.files.ftp.listdir_iter(path), MAX_LOOKED_AT):
            pass
