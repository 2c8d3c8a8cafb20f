"""Connections through fsspec, with limits, and with errors that show no password."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from retrieval.collections import transfer
from retrieval.collections.transfer import TEMPORARY
from retrieval.errors import RetrievalError
from retrieval.files import CHUNK

MAX_SILENCE = 60.0  # s to wait for an answer of an sftp server
WEB = "http", "https"
SFTP = "sftp", "ssh"
PACKINGS = "gzip", "deflate", "br", "zstd", "compress"


def connected(address: str) -> tuple[Any, str]:
    """fsspec's file system, and the path in it. Raises RetrievalError where nothing is there."""
    with errors_explained(address):
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
        if scheme in WEB:
            options = _limited_client(address)
        elif scheme in SFTP:
            steps = ("timeout", "banner_timeout", "auth_timeout", "channel_timeout")
            options = dict.fromkeys(steps, MAX_SILENCE)
        files, path = fsspec.core.url_to_fs(address, **options)
        if scheme in SFTP:
            files.ftp.get_channel().settimeout(MAX_SILENCE)
        if files.exists(path):
            return files, path
        if scheme in WEB:  # fsspec says the same of a busy server and a missing file
            with suppress(FileNotFoundError):
                patiently(lambda: files.cat_file(path))
                return files, path
    raise RetrievalError(f"There is nothing at {shown(address)}: check the address.")


def _limited_client(address: str) -> dict[str, Any]:
    """Options for fsspec: answers of a web server are not unpacked, and have a size limit."""
    import fsspec

    from retrieval import images

    fsspec.get_filesystem_class("https")  # says what to install where aiohttp is missing
    import aiohttp

    class Answer(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            packing = self.headers.get("Content-Encoding", "").lower()
            if any(way in packing for way in PACKINGS):
                # In a packed list there are no links: every picture would be taken for deleted.
                raise RetrievalError(
                    f"{shown(address)} cannot be read: the server packs what it sends, though it "
                    "is asked not to. Let it send these files as they are (no gzip)."
                )
            if not self.ok:
                return b""  # fsspec asks for it, and uses the status only
            data = bytearray()
            async for chunk in self.content.iter_chunked(CHUNK):
                data += chunk
                if len(data) > images.MAX_BYTES:  # the caller refuses what is larger
                    break
            return bytes(data)

    headers = {"Accept-Encoding": "identity"}
    return {
        "client_kwargs": {"response_class": Answer, "auto_decompress": False, "headers": headers}
    }


def shown(address: str) -> str:
    """An address without user, password, query and fragment. A local path is not changed."""
    if "://" not in address:
        return address
    scheme, rest = address.split("://", 1)
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


@contextmanager
def errors_explained(address: str, name: str = "") -> Iterator[None]:
    """Turn errors into RetrievalError with a sentence. Their own texts may contain a password.

    name: of the picture that is read.
    """
    try:
        yield
    except RetrievalError:
        raise
    except ImportError as error:  # fsspec says which package it is
        raise RetrievalError(f"{shown(address)} cannot be read here: {error}.") from error
    except Exception as error:  # each file system has its own
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if isinstance(number, int) else type(error).__name__
        if isinstance(error, TimeoutError):
            reason = "no answer came in time"
        elif status := getattr(error, "status", None):  # of a web server
            reason = f"the server answers {status}"
        place = f"{name} in {shown(address)}" if name else shown(address)
        raise RetrievalError(
            f"{place} cannot be read: {reason}. Check the address and your credentials and run the "
            "same command again; what is finished is kept."
        ) from error


def patiently(ask: Callable[[], bytes]) -> bytes:
    """What ``ask`` returns. It is asked again while the server is busy or breaks off.

    One break in a thousand answers would stop each build of 10,000 pictures, and what is finished
    is read again when it goes on.
    """
    for attempt in range(transfer.RETRIES - 1):
        try:
            return ask()
        except (TimeoutError, ValueError, RetrievalError):  # was waited for, or comes again
            raise
        except Exception as error:
            headers = getattr(error, "headers", None) or {}
            wait = transfer.retry_after(headers.get("Retry-After", ""))
            if wait > transfer.MAX_WAIT or not is_away(error):
                raise
        time.sleep(max(transfer.PAUSE * 2**attempt, wait))
    return ask()


def is_away(error: Exception) -> bool:
    """Whether a web server is busy or breaks off, so that the same may work later."""
    import aiohttp

    # The latter: it leads to an address that is none of the web, which is its answer.
    if isinstance(error, FileNotFoundError | aiohttp.RedirectClientError):
        return False
    status = getattr(error, "status", 500)
    return status in TEMPORARY or status >= 500
