"""Cookies are read in linear time, as Python does since 3.11.10 and 3.12.6."""

from __future__ import annotations

import http.cookies
import re

_ESCAPED = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")


def read_in_linear_time() -> None:
    """Set ``unquote`` in place of Python's own, which Starlette calls for every cookie.

    That takes the square of the length: 60 kB of backslashes stopped the service, or the app, for
    everybody for five seconds (CVE-2024-7592).
    """
    http.cookies._unquote = unquote  # type: ignore[assignment]


def unquote(text: str) -> str:
    """The value of a cookie without quotation marks, where it has some, and escapes in them."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)) if found[1] else found[2], text[1:-1])
