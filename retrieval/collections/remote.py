"""Pictures in a zip or in object storage, to be indexed without a copy on this machine.

What can be read are zips, here or elsewhere, and folders at any address that fsspec knows:
``s3://bucket/folder``, ``gs://…``, ``sftp://…``, ``https://…``. Credentials come from the
environment, or from an address; of an address, user, password and query are never shown or stored.
"""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urljoin, urlsplit

from retrieval.collections import archives
from retrieval.collections.collection import (
    Collection,
    in_order,
    left_out,
    open_collection,
    unreadable,
)
from retrieval.collections.ground_truth import check_name
from retrieval.collections.transfer import TEMPORARY
from retrieval.errors import RetrievalError

MAX_FILES = 250_000  # in a zip, whose list of files is kept in memory, or in a folder of the web
MAX_FOLDERS = 10_000  # in a folder of the web: its server can make them up as it goes
MAX_PAGE = 20_000_000  # bytes of the page that lists one of them
MAX_SILENCE = 60.0  # s that an sftp server is waited for

_LINK = re.compile(
    rb"""\bhref=(?:"([^"<>]{1,2000})"|'([^'<>]{1,2000})')""", re.IGNORECASE
)  # Apache leaves an apostrophe in a name as it is


def open_anywhere(where: str) -> Collection:
    """What ``open_collection`` opens, a zip, or an address.

    Only for what a user typed: reading an address sends requests to other machines.
    Of a zip or an address, only pictures are read, in the order of their names: no ground truth,
    credits or tables. Hidden files are left out.
    Raises RetrievalError when there is nothing to open, and says what to do.
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
        raise RetrievalError("fsspec takes :: in an address for several; give one without.")
    last = PurePosixPath(_shown(address).rpartition("://")[2])
    name = (last.stem if _is_zip(address) else last.name) or "pictures"
    names, missing = _place(address).listed()
    return Remote(name, name, None, names, note=left_out(missing), address=address, missing=missing)


def _shown(address: str) -> str:
    """An address without user, password, query and fragment. A path stays what it is."""
    if "://" not in address:
        return address
    scheme, rest = address.split("://", 1)
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _is_zip(address: str) -> bool:
    return _shown(address).lower().endswith(".zip")


def _place(address: str) -> _Zip | _Folder:
    return _Zip(address) if _is_zip(address) else _Folder(address)


@dataclass(frozen=True, eq=False)
class Remote(Collection):
    """A collection that is read through fsspec.

    address: with what else is needed to read it. missing: folders that a page of the web links to
    and that are not there.
    """

    address: str = field(default="", repr=False)
    missing: tuple[str, ...] = ()

    @cached_property
    def place(self) -> _Zip | _Folder:
        return _place(self.address)

    def read_bytes(self, name: str) -> bytes:
        """The file of a picture.

        Raises PictureError where it is missing, damaged or too large; and RetrievalError where the
        storage does not answer, as all the other pictures would be missing too.
        """
        from retrieval import images

        data = bytearray()
        with _errors_explained(self.address, name):
            try:
                with self.place.open(name) as file:
                    while len(data) <= images.MAX_BYTES and (chunk := file.read(archives.CHUNK)):
                        data += chunk
            except self.place.unreadable as error:
                raise images.PictureError(
                    f"{name} cannot be read: it is damaged or gone."
                ) from error
        return images.read_bytes(bytes(data), name)

    def check_folder(self, folder: PurePath, gone: str) -> bool:
        name = folder.as_posix()
        if name in self.missing:
            raise unreadable(f"{name} in {_shown(self.address)}", "its page is not there")
        with _errors_explained(self.address):
            return self.place.check_folder(name, gone, name in self._with_pictures)

    @cached_property
    def _with_pictures(self) -> frozenset[str]:
        """The folders in which pictures are."""
        return frozenset(PurePosixPath(name).parent.as_posix() for name in self.names)

    def __getstate__(self) -> dict[str, Any]:
        """For workers, which connect themselves."""
        return {key: value for key, value in vars(self).items() if key != "place"}


class _Folder:
    unreadable: tuple[type[Exception], ...] = (FileNotFoundError,)

    def __init__(self, address: str):
        self.address = address
        self.files, path = _connected(address)
        self.start = path.rstrip("/") + "/"
        self.web = address.startswith(("http://", "https://"))  # whose paths are percent-encoded

    def listed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the pictures, and of the folders that are ``Remote.missing``."""
        from retrieval.images import SUFFIXES

        names: set[str] = set()  # a web page may spell one in several ways: p.jpg and %70.jpg
        missing: list[str] = []
        others = 0
        with _errors_explained(self.address):
            if self.web:
                found, away = _linked(self.start, self.files.cat_file)
                missing = [
                    unquote(folder[len(self.start) : -1], errors="surrogateescape")
                    for folder in away
                ]
            else:
                found = self.files.find(self.start)
        for path in found:
            name = path.removeprefix(self.start)
            if self.web:
                name = unquote(name, errors="surrogateescape")  # as names of files are read
            parts = PurePosixPath(name).parts
            if not path.startswith(self.start) or any(part.startswith(".") for part in parts):
                continue
            if PurePosixPath(name).suffix.lower() in SUFFIXES:
                names.add(check_name(name))
            else:
                others += 1
        return in_order(names, others, _shown(self.address)), tuple(missing)

    def check_folder(self, folder: str, gone: str, has_pictures: bool) -> bool:
        """Whether a folder is there. Raises what says that it cannot be read: ``find`` leaves it
        out without a word.

        sftp calls one empty that may be listed and not entered, as after ``chmod -R 644``; a web
        server may send a page that asks to log in, in place of the list and of each picture.
        has_pictures: whether the list of the folder has pictures in it.
        """
        if self.web:  # where nothing tells whether a folder is there
            # Some servers send a page for each file that is gone: a list with pictures is true.
            if not has_pictures and PurePosixPath(gone).parent == PurePosixPath(folder):
                self._check_log_in(folder, gone)
            return True
        try:
            self.files.ls(self.start + ("" if folder == "." else folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        with suppress(FileNotFoundError, NotADirectoryError):
            self.files.info(self.start + gone)
        return True

    def _check_log_in(self, folder: str, gone: str) -> None:
        with suppress(FileNotFoundError):
            if self.open(gone).read(archives.CHUNK).lstrip().startswith(b"<"):
                raise unreadable(
                    f"{folder} in {_shown(self.address)}",
                    "the server sends a page in place of its pictures",
                )

    def open(self, name: str) -> BinaryIO:
        if not self.web:
            return self.files.open(self.start + name, "rb")
        address = self.start + quote(name, errors="surrogateescape")
        try:
            return io.BytesIO(self.files.cat_file(address))
        except Exception as error:  # fsspec's ``open`` calls them all FileNotFoundError
            status = getattr(error, "status", 500)
            if status in TEMPORARY or status >= 500:  # busy or away: the other pictures too
                raise
            raise FileNotFoundError(address) from error


def _linked(start: str, fetch: Callable[[str], bytes]) -> tuple[list[str], list[str]]:
    """All files below a folder of the web, and the folders that are not there, by their addresses.

    The page of a folder links to what is in it.
    fsspec has no limits here, and 3 kB of blanks keep it busy for minutes.
    start: address of the folder, with its slash. fetch: gives the page at an address.
    """
    refused = RetrievalError(
        f"{_shown(start)} is too large to be read from the web: it has more than {MAX_FILES:,} "
        f"files or {MAX_FOLDERS:,} folders, or lists them on too long a page. Name a folder in it."
    )
    files: set[str] = set()
    folders, waiting = {start}, [start]
    missing: list[str] = []
    while waiting:
        here = waiting.pop()
        try:
            page = fetch(here)
        except FileNotFoundError:
            if here == start:
                raise
            missing.append(here)
            continue
        if len(page) > MAX_PAGE:
            raise refused
        for found in _LINK.finditer(page):
            try:
                text = (found[1] or found[2]).decode("utf-8", "replace")
                link = urljoin(here, html.unescape(text))
            except ValueError:  # an address that is none
                continue
            if not link.startswith(start) or "?" in link or "#" in link:
                continue
            if not link.endswith("/"):
                files.add(link)
            elif link not in folders:
                folders.add(link)
                waiting.append(link)
            if len(files) > MAX_FILES or len(folders) > MAX_FOLDERS:
                raise refused
    return list(files), missing


class _Zip:
    unreadable = archives.DAMAGE

    def __init__(self, address: str):
        from retrieval.images import SUFFIXES

        files, path = _connected(address)
        with _errors_explained(address):
            file = files.open(path, "rb")
            if address.startswith(("http://", "https://")):
                file = _InParts(file, address)
                file.read(1)
            self.files: dict[str, Callable[[], BinaryIO]] = archives.files_of_zip(
                file, _shown(address), max_files=MAX_FILES, suffixes=SUFFIXES
            )

    def listed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """As of ``_Folder``; nothing is missing in a zip."""
        return tuple(sorted(self.files)), ()

    def check_folder(self, folder: str, gone: str, has_pictures: bool) -> bool:
        """A zip is read as a whole."""
        return False

    def open(self, name: str) -> BinaryIO:
        return self.files[name]()


class _InParts:
    """A file of the web whose server has to send each part that is asked for, all of it.

    fsspec takes any short answer for a part, such as a page that asks to log in, and zipfile asks
    for what is missing again and again: tens of thousands of times for one photograph.
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
            data = self.file.read(size)
            if len(data) < (left if size < 0 else min(size, left)):
                raise ValueError("too short")
        return data

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise RetrievalError(
                f"The server of {_shown(self.address)} does not send parts of a file: download the "
                "zip and give the copy."
            ) from error


def _connected(address: str) -> tuple[Any, str]:
    """fsspec's file system and the path in it, where there is something."""
    with _errors_explained(address):
        try:
            import fsspec
        except ImportError as error:
            raise RetrievalError("Addresses need fsspec: pip install fsspec") from error
        scheme = address.partition("://")[0]
        if "://" in address and scheme not in fsspec.available_protocols():
            raise RetrievalError(f"fsspec reads no {scheme}:// addresses.")
        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            options = _limited_client()
        elif scheme in ("sftp", "ssh"):
            steps = ("timeout", "banner_timeout", "auth_timeout", "channel_timeout")
            options = dict.fromkeys(steps, MAX_SILENCE)
        files, path = fsspec.core.url_to_fs(address, **options)
        if scheme in ("sftp", "ssh"):
            files.ftp.get_channel().settimeout(MAX_SILENCE)
        if files.exists(path):
            return files, path
    raise RetrievalError(f"There is nothing at {_shown(address)}.")


def _limited_client() -> dict[str, Any]:
    """Options for fsspec: no answer of a web server is unpacked, or read once it is too large."""
    import fsspec

    from retrieval import images

    fsspec.get_filesystem_class("https")  # says what to install where aiohttp is missing
    import aiohttp

    class Answer(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            data = bytearray()
            async for chunk in self.content.iter_chunked(archives.CHUNK):
                data += chunk
                if len(data) > images.MAX_BYTES:  # whoever asked refuses it
                    break
            return bytes(data)

    headers = {"Accept-Encoding": "identity"}
    return {
        "client_kwargs": {"response_class": Answer, "auto_decompress": False, "headers": headers}
    }


@contextmanager
def _errors_explained(address: str, name: str = "") -> Iterator[None]:
    """What goes wrong becomes a sentence without the address's secrets, of which errors tell.

    name: of the picture that is read.
    """
    try:
        yield
    except RetrievalError:
        raise
    except ImportError as error:  # fsspec says which package it is
        raise RetrievalError(f"{_shown(address)} cannot be read here: {error}.") from error
    except Exception as error:  # each file system has its own
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if isinstance(number, int) else type(error).__name__
        if isinstance(error, TimeoutError):
            reason = "no answer came in time"
        place = f"{name} in {_shown(address)}" if name else _shown(address)
        raise RetrievalError(
            f"{place} cannot be read: {reason}. See that the address and your "
            "credentials are right and run the same command again; what is finished is kept."
        ) from error
