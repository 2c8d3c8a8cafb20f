"""Collections in a zip or in remote storage, to be indexed without a copy on this machine.

It reads zips, local or remote, and folders at any address that fsspec knows:
``s3://bucket/folder``, ``gs://…``, ``sftp://…``, ``https://…``. Credentials come from the
environment or from the address. User, password and query of an address are never shown or stored.
"""

from __future__ import annotations

import html
import io
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urljoin, urlsplit

from retrieval.collections import archives, transfer
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

MAX_FILES = 250_000  # in a zip, whose list of files is kept in memory, or in a web folder
MAX_FOLDERS = 10_000  # in a web or sftp folder: a hostile server can invent new ones for ever
MAX_PAGE = 100_000_000  # bytes of a page that lists a folder; Apache takes 200 to 350 a file
MAX_LIST = 300_000_000  # bytes of the paths on an sftp or web server: 2 million of 100 letters
SECONDS = 30.0  # of computing for the pages of a web folder; 250,000 links take 3
MAX_SILENCE = 60.0  # s to wait for an answer of an sftp server

_LINK = re.compile(
    rb"""\bhref=(?:"([^"<>]{1,2000})"|'([^'<>]{1,2000})')""", re.IGNORECASE
)  # Apache leaves an apostrophe in a name as it is


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
    last = PurePosixPath(_shown(address).rpartition("://")[2])
    name = (last.stem if _is_zip(address) else last.name) or "pictures"
    names, missing = _place(address).listed()
    return Remote(name, name, None, names, note=left_out(missing), address=address, missing=missing)


def _shown(address: str) -> str:
    """An address without user, password, query and fragment. A local path is not changed."""
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

    address: with user, password and query, where it has them. missing: folders that are mentioned
    in the list of another and whose own list cannot be read.
    """

    address: str = field(default="", repr=False)
    missing: tuple[str, ...] = ()

    @cached_property
    def place(self) -> _Zip | _Folder:
        return _place(self.address)

    def read_bytes(self, name: str) -> bytes:
        """The bytes of a picture's file.

        Raises PictureError where it is missing, damaged or too large, and RetrievalError where the
        storage does not answer, as then no other picture can be read either.
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
            raise unreadable(f"{name} in {_shown(self.address)}", "its list is not there")
        with _errors_explained(self.address):
            return self.place.check_folder(name, gone, name in self._with_pictures)

    @cached_property
    def _with_pictures(self) -> frozenset[str]:
        """The folders that hold pictures."""
        return frozenset(PurePosixPath(name).parent.as_posix() for name in self.names)

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection: each worker process makes its own."""
        return {key: value for key, value in vars(self).items() if key != "place"}


class _Folder:
    unreadable: tuple[type[Exception], ...] = (FileNotFoundError,)

    def __init__(self, address: str):
        self.address = address
        self.files, path = _connected(address)
        self.start = path.rstrip("/") + "/"
        self.scheme = address.partition("://")[0]
        self.web = self.scheme in ("http", "https")  # whose paths are percent-encoded

    def listed(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the pictures, and of the missing folders (``Remote.missing``)."""
        from retrieval.images import SUFFIXES

        names: set[str] = set()  # a web page may spell one in several ways: p.jpg and %70.jpg
        missing: list[str] = []
        others = 0
        with _errors_explained(self.address):
            if self.web:
                found: Iterable[str] = _linked(self.start, self._fetch, missing)
            elif self.scheme in ("sftp", "ssh"):
                found = self._listed_by_sftp(missing)
            else:
                found = self.files.find(self.start)
            for path in found:
                name = self._name(path)
                parts = PurePosixPath(name).parts
                if not path.startswith(self.start) or any(part.startswith(".") for part in parts):
                    continue
                if PurePosixPath(name).suffix.lower() in SUFFIXES:
                    names.add(check_name(name))
                else:
                    others += 1
        folders = tuple(self._name(folder).rstrip("/") for folder in missing)
        return in_order(names, others, _shown(self.address)), folders

    def _listed_by_sftp(self, missing: list[str]) -> Iterator[str]:
        """Paths of all files; links count as files. fsspec's own list has no limits.

        missing: takes the subfolders that cannot be listed.
        """
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
                            f"{_shown(self.address)} is too large to be read by sftp: it has more "
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

    def _name(self, path: str) -> str:
        name = path.removeprefix(self.start)
        return unquote(name, errors="surrogateescape") if self.web else name  # as files are named

    def check_folder(self, folder: str, gone: str, has_pictures: bool) -> bool:
        """Whether a folder is there. Raises an error where it cannot be read, as ``listed`` leaves
        such folders out without an error.

        An sftp folder that may be listed but not entered, as after ``chmod -R 644``, looks empty. A
        web server may send a log-in page in place of the list and of each picture.
        gone: name of a picture of the folder that cannot be read. has_pictures: whether the list of
        the folder has pictures.
        """
        if self.web:  # the answer for a folder does not tell whether it is there
            # Some servers send a page for each missing file: trust a list with pictures.
            if not has_pictures and PurePosixPath(gone).parent == PurePosixPath(folder):
                self._check_log_in(folder, gone)
            return True
        path = self.start + ("" if folder == "." else folder)
        try:
            if self.scheme in ("sftp", "ssh"):  # fsspec's own list has no limits
                for _ in islice(self.files.ftp.listdir_iter(path), MAX_FILES):
                    pass
            else:
                self.files.ls(path, detail=False)
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
            return io.BytesIO(self._fetch(address))
        except Exception as error:  # fsspec's ``open`` makes each a FileNotFoundError
            if _is_away(error):  # no picture can be read
                raise
            raise FileNotFoundError(address) from error

    def _fetch(self, address: str) -> bytes:
        return _patiently(lambda: self.files.cat_file(address))


def _is_away(error: Exception) -> bool:
    """Whether a web server is busy or breaks off, so that the same may work later."""
    status = getattr(error, "status", 500)
    return not isinstance(error, FileNotFoundError) and (status in TEMPORARY or status >= 500)


def _patiently(ask: Callable[[], bytes]) -> bytes:
    """What ``ask`` returns. It is asked again while the server is busy or breaks off.

    One break in a thousand answers would stop each build of 10,000 pictures, and what is finished
    is read again when it goes on.
    """
    for attempt in range(transfer.RETRIES - 1):
        try:
            return ask()
        except (TimeoutError, ValueError):  # which was waited for, or comes again
            raise
        except Exception as error:
            headers = getattr(error, "headers", None) or {}
            wait = transfer.retry_after(headers.get("Retry-After", ""))
            if wait > transfer.MAX_WAIT or not _is_away(error):
                raise
        time.sleep(max(transfer.PAUSE * 2**attempt, wait))
    return ask()


def _linked(start: str, fetch: Callable[[str], bytes], missing: list[str]) -> list[str]:
    """Addresses of all files below a web folder.

    The page of a folder links to its files and subfolders. fsspec's own reader has no limits here:
    3 kB of blanks keep it busy for minutes.
    start: address of the folder, with its slash. fetch: gives the page at an address. missing:
    takes the subfolders that are not there.
    """
    refused = RetrievalError(
        f"{_shown(start)} is too large to be read from the web: it has more than {MAX_FILES:,} "
        f"files or {MAX_FOLDERS:,} folders, or lists them on too long a page. Name a folder in it."
    )
    until, size = time.thread_time() + SECONDS, 0
    files: set[str] = set()
    folders, waiting = {start}, [start]
    while waiting:
        folder = waiting.pop()
        try:
            page = fetch(folder)
        except FileNotFoundError:
            if folder == start:
                raise
            missing.append(folder)
            continue
        if len(page) > MAX_PAGE or time.thread_time() > until:
            raise refused
        for match in _LINK.finditer(page):
            if time.thread_time() > until:
                raise refused
            try:
                text = (match[1] or match[2]).decode("utf-8", "replace")
                link = urljoin(folder, html.unescape(text))
            except ValueError:  # not a valid address
                continue
            if not link.startswith(start) or "?" in link or "#" in link:
                continue
            if link in files or link in folders:
                continue
            # A folder below many others has a long address, and so has each file in it. A letter
            # takes up to 4 bytes.
            size += 4 * len(link)
            if link.endswith("/"):
                folders.add(link)
                waiting.append(link)
            else:
                files.add(link)
            if len(files) > MAX_FILES or len(folders) > MAX_FOLDERS or size > MAX_LIST:
                raise refused
    return list(files)


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
        """See ``_Folder.listed``; a zip has no missing folders."""
        return tuple(sorted(self.files)), ()

    def check_folder(self, folder: str, gone: str, has_pictures: bool) -> bool:
        """False: the list of a zip was read as a whole, so what it lacks was deleted."""
        return False

    def open(self, name: str) -> BinaryIO:
        return self.files[name]()


class _InParts:
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
            data = _patiently(lambda: self.file.read(size))
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
    """fsspec's file system, and the path in it. Raises RetrievalError where nothing is there."""
    with _errors_explained(address):
        try:
            import fsspec
        except ImportError as error:
            raise RetrievalError("Addresses need fsspec: pip install fsspec") from error
        scheme = address.partition("://")[0]
        if "://" in address and scheme not in fsspec.available_protocols():
            raise RetrievalError(
                f"fsspec cannot read {scheme}:// addresses; use one that begins with s3://, gs://, "
                "sftp:// or https://."
            )
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
        if scheme in ("http", "https"):  # fsspec says the same of a busy server and a missing file
            with suppress(FileNotFoundError):
                _patiently(lambda: files.cat_file(path))
                return files, path
    raise RetrievalError(f"There is nothing at {_shown(address)}: check the address.")


def _limited_client() -> dict[str, Any]:
    """Options for fsspec: answers of a web server are not unpacked, and have a size limit."""
    import fsspec

    from retrieval import images

    fsspec.get_filesystem_class("https")  # says what to install where aiohttp is missing
    import aiohttp

    class Answer(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            data = bytearray()
            async for chunk in self.content.iter_chunked(archives.CHUNK):
                data += chunk
                if len(data) > images.MAX_BYTES:  # the caller refuses what is larger
                    break
            return bytes(data)

    headers = {"Accept-Encoding": "identity"}
    return {
        "client_kwargs": {"response_class": Answer, "auto_decompress": False, "headers": headers}
    }


@contextmanager
def _errors_explained(address: str, name: str = "") -> Iterator[None]:
    """Turn errors into RetrievalError with a sentence. Their own texts may contain a password.

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
        elif status := getattr(error, "status", None):  # of a web server
            reason = f"the server answers {status}"
        place = f"{name} in {_shown(address)}" if name else _shown(address)
        raise RetrievalError(
            f"{place} cannot be read: {reason}. Check the address and your credentials and run the "
            "same command again; what is finished is kept."
        ) from error
