"""Download one file over http: resumed after a break and verified. The server may be hostile."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from retrieval import files
from retrieval.errors import RetrievalError

CHUNK = 1 << 18
TIMEOUT = 30  # seconds without a byte
MAX_HEADERS = 60.0  # seconds that the headers of an answer, or those of a chunk, may take
SLOWEST = 60_000  # bytes a minute that a server must send
RETRIES = 5  # in a row that each bring fewer bytes than SLOWEST
PAUSE = 0.5  # seconds before the first retry; doubled each time
MAX_WAIT = 120  # seconds that a server may make us wait before the next try
AGENT = "retrieval-demo"
MAX_BYTES = 10_000_000_000
MAX_STAMP = 100_000  # bytes of the note about an unfinished file, which a stranger may have made
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}

Progress = Callable[[int, int | None, str], None]  # bytes here, bytes in all, file name


class Unavailable(RetrievalError):
    """This file can never be downloaded; other files of the server may be."""


class _Broken(Exception):
    """A transfer that may work when tried again. wait: seconds to wait before, at least."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class _Arriving(io.RawIOBase):
    """The bytes that a server sends. Reading after ``until`` raises TimeoutError.

    The timeout of a socket starts again with each byte, so a slow server could hold it for ever.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw, self.until = raw, time.monotonic() + MAX_HEADERS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int | None:
        if time.monotonic() > self.until:
            raise TimeoutError("the server is too slow")
        return self.raw.readinto(buffer)

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Answer(HTTPResponse):
    """An answer that raises TimeoutError where its headers, or one piece, take over MAX_HEADERS."""

    def __init__(self, socket, *rest, **options) -> None:
        super().__init__(socket, *rest, **options)
        self.arriving = _Arriving(self.fp.detach())
        self.fp = io.BufferedReader(self.arriving)

    def read1(self, size: int = -1) -> bytes:
        self.arriving.until = time.monotonic() + MAX_HEADERS
        return super().read1(size)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request):
        return self.do_open(_Connection, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request):
        return self.do_open(_SecureConnection, request)


class _Connection(HTTPConnection):
    response_class = _Answer


class _SecureConnection(HTTPSConnection):
    response_class = _Answer


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, address):
        check_address(address)
        if request.full_url.startswith("https:") and not address.startswith("https:"):
            raise RetrievalError(f"{request.full_url} leads to {address}, without encryption.")
        file.close()  # urllib would read its whole body, which may be endless
        following = super().redirect_request(request, file, code, message, headers, address)
        if following is not None and _domain(address) != _domain(request.full_url):
            following.add_header("User-Agent", AGENT)  # the other may name the user
        return following


def _opener() -> urllib.request.OpenerDirector:
    """An opener that follows http and https only: no file:, no ftp:, no data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        _Http,
        _Https,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _HttpOnly,
    ):
        opener.add_handler(handler())
    return opener


def _domain(address: str) -> list[str]:
    """The end of a host name, by which commons and upload.wikimedia.org are one."""
    return (urlsplit(address).hostname or "").split(".")[-2:]


def check_address(address: str) -> str:
    """``address``, which must be http or https. Raises RetrievalError for any other."""
    try:  # it raises ValueError also for a port above 65535
        parts = urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise RetrievalError(f"{address} is not an http or https address.")
    return address


def fetch(
    address: str,
    target: str | Path,
    *,
    sha256: str = "",
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
    agent: str = AGENT,
) -> Path:
    """Download one file to ``target``, unless it is there already. Returns its path.

    Bytes are written to ``<target>.part``, which is renamed when it is complete. An interrupted
    download is resumed if the server says that the file has not changed.
    sha256: the digest it must have, or its first digits. agent: the User-Agent to send.
    A busy server is asked again, after the time that it states (Retry-After).
    Raises Unavailable where there is no such file, where it is too large, or where its digest is
    wrong (then it is deleted); RetrievalError where the server refuses, the connection keeps
    breaking (then the bytes so far are kept), or the disk is full.
    """
    check_address(address)
    shown = address.partition("?")[0]
    target = Path(target)
    if target.is_file() and files.digest(target).startswith(sha256):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    failures = furthest = 0
    while True:
        try:
            _transfer(address, part, max_bytes, progress, agent)
            break
        except _Broken as error:
            failures = 0 if _size(part) >= furthest + SLOWEST else failures + 1
            furthest = max(furthest, _size(part))
            kept = " What has arrived is kept: the same command goes on." if _size(part) else ""
            if error.wait > MAX_WAIT:
                minutes = f"{error.wait / 60:.0f} minutes"
                raise RetrievalError(
                    f"{shown} cannot be downloaded now: the server asks to wait {minutes}.{kept}"
                ) from error
            if failures >= RETRIES:
                raise RetrievalError(f"{shown} cannot be downloaded now: {error}.{kept}") from error
            time.sleep(max(min(PAUSE * 2**failures, TIMEOUT), error.wait))
    digest = files.digest(part)
    _stamp(part).unlink(missing_ok=True)
    if not digest.startswith(sha256):
        part.unlink()
        raise Unavailable(
            f"{address} has SHA-256 {digest[:16]}… instead of {sha256[:16]}… and was deleted: "
            "it was damaged on the way or replaced by its owner. Try again."
        )
    os.replace(part, target)
    return target


def _transfer(
    address: str, part: Path, max_bytes: int, progress: Progress | None, agent: str
) -> None:
    """Add the missing bytes to ``part``. Raises _Broken where it may work later."""
    validator = _validator(part, address)
    have = _size(part) if validator else 0
    response = _ask(address, part, have, validator, agent)
    if response is None:
        return
    with response:
        start, total = _range(response, address, part, have, validator)
        if (total or 0) > max_bytes:
            raise _too_large(address, part, max_bytes)
        if total is not None:
            check_room(part.parent, total - start, address)
        here = start
        try:
            with open(part, "ab" if start else "wb") as file:
                # Only now, as the bytes of another version are gone.
                _stamp(part).write_text(
                    json.dumps({"address": address, "validator": _strong(response.headers)})
                )
                for chunk in _chunks(response):
                    here += len(chunk)
                    if here > max_bytes:
                        raise _too_large(address, part, max_bytes)
                    file.write(chunk)
                    if progress:
                        progress(here, total, part.name.removesuffix(".part"))
        except OSError as error:
            raise RetrievalError(f"{part} cannot be written: {error.strerror or error}.") from error
        if total is not None and here != total:
            raise _Broken(f"the connection broke off after {here:,} of {total:,} bytes")


def _ask(address: str, part: Path, have: int, validator: str, agent: str) -> HTTPResponse | None:
    """The server's answer to a request for the missing bytes; None where none are missing.

    have: number of bytes in ``part``. validator: the version that they are of, see ``_strong``.
    """
    request = urllib.request.Request(
        address, headers={"User-Agent": agent, "Accept-Encoding": "identity"}
    )
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        return _opener().open(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:
            if have and error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
                return None
            part.unlink(missing_ok=True)
            raise _Broken("the server has a shorter file") from error
        if error.code in TEMPORARY:
            wait = retry_after(error.headers.get("Retry-After", ""))
            raise _Broken(f"the server says {error.code} {error.reason}", wait) from error
        final = Unavailable if error.code in (404, 410) else RetrievalError
        raise final(
            f"{address} cannot be downloaded: the server says {error.code} {error.reason}."
        ) from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise RetrievalError(
                f"{address} cannot be trusted: {error.reason.verify_message}."
            ) from error
        raise _Broken(str(getattr(error.reason, "strerror", None) or error.reason)) from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: of a hostile redirect
        raise _Broken(str(error) or type(error).__name__) from error


def _range(
    response: HTTPResponse, address: str, part: Path, have: int, validator: str
) -> tuple[int, int | None]:
    """Position of an answer's first byte in the file, and the size of the file, if stated.

    have, validator: as for ``_ask``.
    """
    start, stated = 0, response.headers.get("Content-Length", "")
    if response.status == 206:
        match = re.fullmatch(
            r"bytes ([0-9]{1,18})-[0-9]+/(.*)",
            response.headers.get("Content-Range", "").strip(),
        )
        changed = _strong(response.headers) not in ("", validator)
        if not match or int(match[1]) != have or changed:
            part.unlink(missing_ok=True)
            raise _Broken("the server sent another part than was asked for")
        start, stated = have, match[2]
    elif response.status != 200:
        raise RetrievalError(f"{address} cannot be downloaded: the server says {response.status}.")
    return start, int(stated) if re.fullmatch("[0-9]{1,18}", stated) else None


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The content of an answer, in pieces of about CHUNK bytes.

    Raises RetrievalError where fewer than SLOWEST bytes arrive in a minute, and _Broken where the
    connection breaks.
    """
    chunk, since, seen = bytearray(), time.monotonic(), 0
    while True:
        try:
            piece = response.read1(CHUNK)
        except (OSError, HTTPException, ValueError) as error:  # ValueError: of hostile chunks
            yield bytes(chunk)  # written too, so that each try brings new bytes
            raise _Broken(f"the connection broke off ({error})") from error
        chunk += piece
        seen += len(piece)
        if chunk and (len(chunk) >= CHUNK or not piece):
            yield bytes(chunk)
            chunk.clear()
        if not piece:
            return
        if time.monotonic() - since > 60:
            if seen < SLOWEST:
                yield bytes(chunk)
                raise RetrievalError(
                    f"The server of {response.url.partition('?')[0]} is too slow: {seen:,} bytes a "
                    "minute. What has arrived is kept: try the same later."
                )
            since, seen = time.monotonic(), 0


def retry_after(value: str) -> float:
    """Seconds of a Retry-After header, which holds a number or a date (RFC 9110)."""
    if value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _too_large(address: str, part: Path, max_bytes: int) -> Unavailable:
    part.unlink(missing_ok=True)
    return Unavailable(
        f"{address} is larger than {max_bytes / 1e6:,.0f} MB, more than it should be."
    )


def _strong(headers) -> str:
    """The identifier of a file's version: a strong ETag, else its date; '' for neither."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _stamp(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _validator(part: Path, address: str) -> str:
    """The version that the bytes in ``part`` are of; '' if unknown or of another address."""
    try:
        stamp = files.read_json(_stamp(part), MAX_STAMP)
        return str(stamp["validator"]) if stamp["address"] == address else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def check_room(folder: Path, needed: int, subject: str) -> None:
    """Raise RetrievalError where the disk of ``folder`` has less than ``needed`` bytes free.

    subject: of the message, in words.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RetrievalError(
            f"{subject} needs {files.human_bytes(needed)} below {folder}, but "
            f"{files.human_bytes(free)} are free; make room, or choose another place: "
            "RETRIEVAL_DATA, or --out where you gave one."
        )
