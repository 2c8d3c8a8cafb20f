"""Folders of pictures on a web server that lists them, as Apache and nginx do."""

from __future__ import annotations

import html
import io
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import PurePosixPath
from typing import BinaryIO
from urllib.parse import quote, unquote, urljoin

from retrieval.collections.collection import unreadable
from retrieval.collections.remote import folders
from retrieval.collections.remote.connection import is_away, patiently, shown
from retrieval.errors import RetrievalError
from retrieval.files import CHUNK

MAX_FILES = 250_000
MAX_PAGE = 100_000_000  # bytes of a page that lists a folder; Apache takes 200 to 350 a file
SECONDS = 30.0  # of computing for the pages of a folder; 250,000 links take 3

_LINK = re.compile(
    rb"""\bhref=(?:"([^"<>]{1,2000})"|'([^'<>]{1,2000})')""", re.IGNORECASE
)  # Apache leaves an apostrophe in a name as it is


class WebFolder(folders.Folder):
    """A folder on a web server. Its paths are whole addresses, percent-encoded."""

    def check_folder(self, folder: str, gone: str, has_pictures: bool) -> bool:
        """True: the answer for a folder does not tell whether it is there.

        Raises an error where the server sends another page in place of the list: one to log in, in
        place of the picture too, or one of a list that is repaired.
        """
        # Some servers send a page for each missing file: trust a list with pictures.
        if not has_pictures and PurePosixPath(gone).parent == PurePosixPath(folder):
            with suppress(FileNotFoundError):
                is_page = self.open(gone).read(CHUNK).lstrip().startswith(b"<")
                raise unreadable(
                    f"{folder} in {shown(self.address)}",
                    "the server sends a page in place of its pictures"
                    if is_page
                    else "its list has no pictures, but the server still sends them",
                )
        return True

    def open(self, name: str) -> BinaryIO:
        address = self.start + quote(name, errors="surrogateescape")
        try:
            return io.BytesIO(self._fetch(address))
        except Exception as error:  # fsspec's ``open`` makes each a FileNotFoundError
            if is_away(error):  # no picture can be read
                raise
            raise FileNotFoundError(address) from error

    def _find(self, missing: list[str]) -> list[str]:
        return linked(self.start, self._fetch, missing)

    def _name(self, path: str) -> str:
        return unquote(super()._name(path), errors="surrogateescape")

    def _fetch(self, address: str) -> bytes:
        return patiently(lambda: self.files.cat_file(address))


def linked(start: str, fetch: Callable[[str], bytes], missing: list[str]) -> list[str]:
    """Addresses of all files below a web folder.

    The page of a folder links to its files and subfolders. fsspec's own reader has no limits here:
    3 kB of blanks keep it busy for minutes.
    start: address of the folder, with its slash. fetch: gives the page at an address. missing:
    takes the subfolders that are not there.
    """
    refused = RetrievalError(
        f"{shown(start)} is too large to be read from the web: it has more than {MAX_FILES:,} "
        f"files or {folders.MAX_FOLDERS:,} folders, or lists them on too long a page. Name a "
        "folder in it."
    )
    until, size = time.thread_time() + SECONDS, 0
    found: set[str] = set()
    below, waiting = {start}, [start]
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
            if link in found or link in below:
                continue
            # A folder below many others has a long address, and so has each file in it. A letter
            # takes up to 4 bytes.
            size += 4 * len(link)
            if link.endswith("/"):
                below.add(link)
                waiting.append(link)
            else:
                found.add(link)
            if (
                len(found) > MAX_FILES
                or len(below) > folders.MAX_FOLDERS
                or size > folders.MAX_LIST
            ):
                raise refused
    return list(found)
