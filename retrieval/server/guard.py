"""Who may ask, how much they may send, and how long it may take."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Collection

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from python_multipart.multipart import parse_options_header
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval import hosts

MAX_BODY = 30_000_000  # bytes of a request: the picture, and what surrounds it
MAX_FORM = 45_000_000  # the same in base64, with some of it escaped once more
MAX_ESCAPED = 1_500_000  # %2B and the like in a form: of base64 every 32nd letter
MAX_HELD = 300_000_000  # bytes of all requests that are being answered
SHARE = 0.8  # of them that those of one client may have, so that others find room
BODY_SECONDS = 60.0  # for a request to arrive
ANSWER_SECONDS = 300.0  # for everything, until the client has the answer
URL_ENCODED = b"application/x-www-form-urlencoded"
# Of a form. Python knows a hundred others, and to read punycode takes the square of its length.
CHARACTER_SETS = (b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1")
# Origins of pages that this machine serves, on whatever port.
PAGES_HERE = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


class Origins:
    """CORS: web pages with a named origin may call, and at ``/`` also those of this machine.

    The client of the report is such a page. If any page could read what ``/`` answers, one that the
    owner visits could take the pictures of a collection from a service that is for them alone.
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

    The host that a browser believes to talk to is checked because any web page can give its own
    name the address of this machine, and would then be taken for a page of ours.
    """

    def __init__(self, app: ASGIApp, token: str, names: Collection[str]):
        self.app, self.token = app, token.encode()
        self.names = {name.lower() for name in names}
        self.held: Counter[str] = Counter()  # client → bytes in memory or in temporary files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        most = MAX_FORM if scope["path"] == "/" else MAX_BODY
        kinds = _kinds(scope)
        encoded = any(URL_ENCODED in kind for kind in kinds)
        who = hosts.client_at(scope.get("client"))
        request = _Request(self, who, receive, most, encoded)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.app(scope, request.receive, send)
        finally:
            self.held -= Counter({who: request.seen})  # who holds nothing is forgotten

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not hosts.is_ours(host, self.names):
            text = f"This service is not known as {host}; start it with: serve --name {host}"
            return JSONResponse({"detail": text}, 400)
        options = [parse_options_header(kind)[1] for kind in _kinds(scope)]
        if any(one.get(b"charset", b"utf-8") not in CHARACTER_SETS for one in options):
            return JSONResponse({"detail": "A form comes in UTF-8."}, 400)
        given = headers.get(b"authorization", b"")
        if self.token and scope["path"] != "/health":
            kind, _, token = given.partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self.token):
                return JSONResponse(
                    {"detail": "This service asks for a token: Authorization: Bearer …"},
                    401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
        return None


def _kinds(scope: Scope) -> list[bytes]:
    """Every header that says what the body is, in small letters."""
    return [value.lower() for name, value in scope["headers"] if name == b"content-type"]


class _Request:
    """Counts the bytes and the time of a body as it arrives.

    encoded: whether it is a form in which characters may be escaped. Python makes an object of each
    escape: 45 MB of them would take 3.5 GB and hold everybody up for seconds.
    """

    def __init__(self, guard: Guard, who: str, receive: Receive, most: int, encoded: bool):
        self.guard, self.who, self.next = guard, who, receive
        self.most, self.encoded = most, encoded
        self.seen, self.escaped, self.whole = 0, 0, False
        self.end = asyncio.get_running_loop().time() + BODY_SECONDS

    async def receive(self) -> Message:
        if self.whole:
            return await self.next()
        try:
            async with asyncio.timeout_at(self.end):
                message = await self.next()
        except TimeoutError as error:
            raise _over(408, f"A request has {BODY_SECONDS:g} s to arrive.") from error
        body = message.get("body", b"")
        size = len(body)
        self.seen += size
        held = self.guard.held
        held[self.who] += size
        self.whole = not message.get("more_body", False)
        if self.seen > self.most:
            text = f"A request may have {self.most // 1_000_000} MB; send a smaller picture."
            raise _over(413, text)
        self.escaped += body.count(b"%") if self.encoded else 0
        if self.escaped > MAX_ESCAPED:
            raise _over(
                413, "The form has too many escaped characters; send the picture in base64."
            )
        if held.total() > MAX_HELD or held[self.who] > SHARE * MAX_HELD:
            raise _over(503, "Too much is being sent at once; try again.", {"Retry-After": "5"})
        return message


def _over(status: int, text: str, headers: dict[str, str] | None = None) -> HTTPException:
    """The rest of the request is not wanted."""
    return HTTPException(status, text, {"Connection": "close", **(headers or {})})
