"""Which hosts, web pages and tokens are accepted; limits on bytes and seconds of requests."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections import Counter
from collections.abc import Collection

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from python_multipart.multipart import parse_options_header
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval import hosts
from retrieval.request_limits import BASE64_ESCAPES

MAX_BODY = 30_000_000  # bytes of a request: the picture, and the form around it
MAX_FORM = 45_000_000  # the same for a form with the picture in base64, a few letters of it escaped
MAX_ESCAPED = 5000  # escaped letters of a form, without those of base64, and & between its fields
MAX_HELD = 480_000_000  # bytes of all requests that are being answered
CLIENT_SHARE = 0.5  # of MAX_HELD that one client may fill, so that others find room
BODY_SECONDS = 240.0  # for the body of a request to arrive: 10 MB from a telephone take 200
ANSWER_SECONDS = 300.0  # for a request, until the client has the answer
URL_ENCODED = b"application/x-www-form-urlencoded"
# Character sets that a form may name. It is read as UTF-8: letters of another would be lost.
CHARACTER_SETS = (b"utf-8", b"utf8", b"us-ascii")
# Origins of pages that this machine serves, on any port.
PAGES_HERE = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


class Origins:
    """CORS: web pages of ``origins`` may make every call, pages of this machine the call ``/``.

    The report's client is a page of this machine. If every page could read the answers of ``/``, a
    page of another site, opened by the owner, could read the pictures of a private service.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]):
        self.report, self.others = (
            CORSMiddleware(
                app,
                allow_origins=list(origins),
                allow_origin_regex=allowed,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
            )
            for allowed in (PAGES_HERE, None)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.report if scope.get("path") == "/" else self.others)(scope, receive, send)


class Guard:
    """Checks host and token, and limits the bytes and seconds of a request.

    token: '' for none. names: host names of the service, beside numbers and the machine's own name.
    The Host header is checked because a web page can give its own name the address of this machine
    (DNS rebinding), and would then count as a page of ours.
    """

    def __init__(self, app: ASGIApp, token: str, names: Collection[str]):
        self.app, self.token = app, os.fsencode(token)
        self.names = {name.lower() for name in names}
        self.held: Counter[str] = Counter()  # client → bytes in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        max_bytes = MAX_FORM if scope["path"] == "/" else MAX_BODY
        url_encoded = any(URL_ENCODED in kind for kind in _content_types(scope))
        client = hosts.client_of_peer(scope.get("client"))
        request = _Request(self, client, receive, max_bytes, url_encoded)
        limit = asyncio.timeout(ANSWER_SECONDS)
        try:
            async with limit:
                await self.app(scope, request.receive, send)
        except TimeoutError as late:
            if not limit.expired():
                raise
            raise asyncio.CancelledError from late  # the client reads no answers: see ``InTurn``
        except asyncio.CancelledError:  # some seconds after the service was told to end
            if scope["method"] != "POST" or request.complete:
                raise
            stopped = JSONResponse({"detail": "The service is being stopped."}, 503)
            await stopped(scope, receive, send)
        finally:
            self.held -= Counter({client: request.bytes})  # -= drops clients that hold nothing

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request with a wrong host, character set or token; None for others."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not hosts.is_ours(host, self.names):
            text = f"This service is not known as {host}; start it with: serve --name {host}"
            return JSONResponse({"detail": text}, 400)
        options = [parse_options_header(kind)[1] for kind in _content_types(scope)]
        if any(option.get(b"charset", b"utf-8") not in CHARACTER_SETS for option in options):
            return JSONResponse({"detail": "A form comes in UTF-8."}, 400)
        if self.token and scope["path"] != "/health":
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self.token):
                return JSONResponse(
                    {"detail": "This service asks for a token: Authorization: Bearer …"},
                    401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
        return None


def _content_types(scope: Scope) -> list[bytes]:
    """All Content-Type headers, in small letters; a request may have several."""
    return [value.lower() for name, value in scope["headers"] if name == b"content-type"]


class _Request:
    """The body of a request, limited in bytes, escapes and seconds as it arrives.

    url_encoded: whether it is a form in which characters may be escaped. Nobody else is served
    while it is read: a form of 1.5 million escapes takes over a second, 45 MB of & take 20.
    """

    def __init__(
        self, guard: Guard, client: str, receive: Receive, max_bytes: int, url_encoded: bool
    ):
        self.guard, self.client, self.next_message = guard, client, receive
        self.max_bytes, self.url_encoded = max_bytes, url_encoded
        self.bytes, self.escapes, self.complete = 0, 0, False
        self.deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def receive(self) -> Message:
        """The next message of the body. Raises HTTPException at a limit: 408, 413 or 503."""
        if self.complete:
            return await self.next_message()
        try:
            async with asyncio.timeout_at(self.deadline):
                message = await self.next_message()
        except TimeoutError as error:
            raise _rejection(408, f"A request has {BODY_SECONDS:g} s to arrive.") from error
        body = message.get("body", b"")
        self.bytes += len(body)
        held = self.guard.held
        held[self.client] += len(body)
        self.complete = not message.get("more_body", False)
        if self.bytes > self.max_bytes:
            text = f"A request may have {self.max_bytes // 1_000_000} MB; send a smaller picture."
            raise _rejection(413, text)
        self.escapes += _escapes(body) if self.url_encoded else 0
        if self.escapes > MAX_ESCAPED:
            raise _rejection(
                413,
                "The form has too many escaped characters or fields; send the picture in base64 "
                "without line breaks.",
            )
        if held.total() > MAX_HELD or held[self.client] > CLIENT_SHARE * MAX_HELD:
            raise _rejection(
                503, "Too much is being sent at once; try again.", {"Retry-After": "5"}
            )
        return message


def _escapes(body: bytes) -> int:
    """How many escapes are in a piece of a form, besides those of base64, and how many &."""
    return body.count(b"%") + body.count(b"&") - sum(map(body.count, BASE64_ESCAPES))


def _rejection(status: int, text: str, headers: dict[str, str] | None = None) -> HTTPException:
    """An error after which the connection is closed, as the rest of the body is not read."""
    return HTTPException(status, text, {"Connection": "close", **(headers or {})})
