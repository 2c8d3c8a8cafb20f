"""Uploads come as forms, which Starlette reads in the one thread that serves everybody."""

from __future__ import annotations

from starlette import formparsers

NAME = "_user_safe_decode"  # Starlette has no setting for it; the test notices another name


def read_as_utf8() -> None:
    """Read every form as UTF-8, whatever character set a client asks for.

    Python takes the square of the length to read punycode: a megabyte would stop the app for
    a minute.
    """
    setattr(formparsers, NAME, _decode)


def _decode(data: bytes | bytearray, codec: str) -> str:
    return data.decode("utf-8", "replace")
