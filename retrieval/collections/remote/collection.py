"""A collection in a zip or in remote storage."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from retrieval.collections.collection import Collection, left_out, open_collection, unreadable
from retrieval.collections.remote.connection import SFTP, WEB, errors_explained, shown
from retrieval.collections.remote.folders import Folder, SftpFolder
from retrieval.collections.remote.web import WebFolder
from retrieval.collections.remote.zips import Zip
from retrieval.errors import RetrievalError
from retrieval.files import CHUNK


def open_anywhere(where: str) -> Collection:
    """Open a name or folder as ``open_collection`` does, or a zip, or an address.

    Use it only for text that the user typed: reading an address sends requests to other machines.
    Of a zip or an address only the pictures are read, in the order of their names: no ground truth,
    credits or tables. Hidden files are left out.
    Raises RetrievalError where there is nothing to open.
    """
    path = Path(os.path.expanduser(where))
    if where.startswith("file://"):
        path = Path(unquote(urlsplit(where).path))
        where = str(path)
    address = where
    if "://" not in where:
        if path.suffix.lower() != ".zip" or not os.path.isfile(path):
            return open_collection(where)
        address = str(path.resolve())
    if "::" in address:
        raise RetrievalError(
            "An address must not contain ::, as fsspec takes it for several; give one address."
        )
    last = PurePosixPath(shown(address).rpartition("://")[2])
    name = (last.stem if _is_zip(address) else last.name) or "pictures"
    names, missing = _place(address).listed()
    return Remote(name, name, None, names, note=left_out(missing), address=address, missing=missing)


def _is_zip(address: str) -> bool:
    return shown(address).lower().endswith(".zip")


def _place(address: str) -> Zip | Folder:
    if _is_zip(address):
        return Zip(address)
    scheme = address.partition("://")[0]
    kind = WebFolder if scheme in WEB else SftpFolder if scheme in SFTP else Folder
    return kind(address)


@dataclass(frozen=True, eq=False)
class Remote(Collection):
    """A collection that is read through fsspec.

    address: with user, password and query, where it has them. missing: folders that are mentioned
    in the list of another and whose own list cannot be read.
    """

    address: str = field(default="", repr=False)
    missing: tuple[str, ...] = ()

    @cached_property
    def place(self) -> Zip | Folder:
        return _place(self.address)

    def read_bytes(self, name: str) -> bytes:
        """The bytes of a picture's file.

        Raises PictureError where it is missing, damaged or too large, and RetrievalError where the
        storage does not answer, as then no other picture can be read either.
        """
        from retrieval import images

        data = bytearray()
        with errors_explained(self.address, name):
            try:
                with self.place.open(name) as file:
                    while len(data) <= images.MAX_BYTES and (chunk := file.read(CHUNK)):
                        data += chunk
            except self.place.unreadable as error:
                raise images.PictureError(
                    f"{name} cannot be read: it is damaged or gone."
                ) from error
        return images.read_bytes(bytes(data), name)

    def check_folder(self, folder: PurePath, gone: str) -> bool:
        name = folder.as_posix()
        if name in self.missing:
            raise unreadable(f"{name} in {shown(self.address)}", "its list is not there")
        with errors_explained(self.address):
            return self.place.check_folder(name, gone, name in self._with_pictures)

    @cached_property
    def _with_pictures(self) -> frozenset[str]:
        """The folders that hold pictures."""
        return frozenset(PurePosixPath(name).parent.as_posix() for name in self.names)

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection: each worker process makes its own."""
        return {key: value for key, value in vars(self).items() if key != "place"}
