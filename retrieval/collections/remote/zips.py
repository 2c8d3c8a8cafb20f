"""A zip on this machine or anywhere else, of which only the pictures are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from retrieval.collections import archives
from retrieval.collections.remote.connection import (
    WEB,
    connected,
    errors_explained,
    patiently,
    shown,
)
from retrieval.errors import RetrievalError

MAX_FILES = 250_000  # of the list, which is kept in memory


class Zip:
    """The pictures of a zip."""

    unreadable = archives.DAMAGE

    def __init__(self, address: str):
        from retrieval.images import SUFFIXES

        files, path = connected(address)
        with errors_explained(address):
            file = files.open(path, "rb")
            if address.partition("://")[0] in WEB:
                file = InParts(file, address)
                file.read(1)
            self.files: dict[str, Callable[[], BinaryIO]] = archives.files_of_zip(
                file, shown(address), max_files=MAX_FILES, suffixes=SUFFIXES
            )

    def listed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """See ``Folder.listed``; a zip has no missing folders."""
        return tuple(sorted(self.files)), ()

    def check_folder(self, folder: str, gone: str, has_pictures: bool) -> bool:
        """False: the list of a zip was read as a whole, so what it lacks was deleted."""
        return False

    def open(self, name: str) -> BinaryIO:
        return self.files[name]()


class InParts:
    """A web file that is read in parts. The server must send each part in full.

    fsspec takes any short answer for the part, for example a log-in page, and zipfile then asks for
    the missing bytes again and again: tens of thousands of times for one photograph.
    """

    def __init__(self, file: BinaryIO, address: str):
        self.file, self.address = file, address
        self.seek, self.tell, self.seekable = file.seek, file.tell, lambda: True
        with self._refusing():
            self.length = file.seek(0, os.SEEK_END)
            file.seek(max(self.length - 1, 0))

    def read(self, size: int = -1) -> bytes:
        left = self.length - self.tell()
        with self._refusing():
            data = patiently(lambda: self.file.read(size))
            if len(data) < (left if size < 0 else min(size, left)):
                raise ValueError("too short")
        return data

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise RetrievalError(
                f"The server of {shown(self.address)} does not send parts of a file: download the "
                "zip and give the copy."
            ) from error
