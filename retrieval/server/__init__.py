"""The REST service: the same search for other clients. A thin door, like the command line.

``python -m retrieval serve``; every call is described at /docs, in OpenAPI at /openapi.json.
``catalogue``: the indexes and collections it serves. ``api``: our own calls. ``report_client``:
those of the report's client. ``guard``: who may ask, and how much. ``connections``: clients that
are silent.

One process is right: a search uses every core, and a second process would need the networks and
indexes in memory once more.
"""

from __future__ import annotations

import ipaddress
import re
import signal
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.requests import ClientDisconnect

from retrieval import cookies
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.index import finding, load
from retrieval.index.milvus import AwayError
from retrieval.server import api, catalogue, guard, report_client
from retrieval.workers import Busy


@dataclass(frozen=True)
class Options:
    """token: asked for at every call but /health. origins: of web pages that may call.

    names: under which the service is known, beside numbers and the machine's own name.
    collection: that answers the report's client; the first one with indexes by default.
    """

    token: str = ""
    origins: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    collection: str = ""


def create(options: Options | None = None) -> guard.Origins:
    """The service, ready for uvicorn or any other ASGI server."""
    options = options or Options()
    cookies.read_in_linear_time()
    # The pages at /docs come from here, not from a server on the net.
    app = FastAPIOffline(
        title="Image retrieval",
        description="Search photographs by example with SIR, DELF and CNN-IRwNHA.",
        responses=api.PROBLEMS,
    )
    _explain(app)
    app.include_router(api.router)
    app.include_router(report_client.router(options.collection))
    guarded = guard.Guard(app, options.token, options.names)
    return guard.Origins(guarded, options.origins)


def run(host: str, port: int, options: Options, open_to_all: bool = False) -> None:
    """The command ``serve``."""
    import uvicorn

    if not (options.token or open_to_all or _is_this_machine(host)):
        raise RetrievalError(
            f"Other machines can reach {host}: set a password with --token or RETRIEVAL_TOKEN, or "
            "say --open to let everybody search."
        )
    if port > 65535:
        raise RetrievalError("A port is a number from 1 to 65535.")
    for path in finding.in_stores():
        load(path)  # or the first client would be told that a store is away
    if options.collection:
        catalogue.defaults(options.collection)  # or it would be found out by the first client
    # uvicorn ends by the signal that stopped it. As a KeyboardInterrupt it would go on to tear down
    # modules below searches that are still at work, which ends in a crash.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        uvicorn.run(create(options), host=host, port=port, **settings())
    except SystemExit as stop:  # its log says why
        raise RetrievalError(
            f"The service cannot listen at {host}, port {port}: choose another --port or --host, "
            "or end the program that uses it."
        ) from stop
    finally:
        signal.signal(signal.SIGINT, before)


def settings() -> dict[str, Any]:
    """How uvicorn is to treat connections."""
    from retrieval.server.connections import Connection

    return {
        "http": Connection,
        "ws": "none",
        "timeout_keep_alive": 5,
        "timeout_graceful_shutdown": 5,
        "server_header": False,
    }


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _explain(app: FastAPI) -> None:
    """Every refusal is ``{"detail": one sentence}``."""

    @app.exception_handler(RetrievalError)
    def explained(request: Request, error: RetrievalError) -> JSONResponse:
        return JSONResponse({"detail": _told(error)}, 422)

    @app.exception_handler(AwayError)
    def away(request: Request, error: AwayError) -> JSONResponse:
        catalogue.log.error("%s", error)  # where it is, is for the owner to know
        return JSONResponse({"detail": "The store of this index is away; try again later."}, 503)

    @app.exception_handler(Busy)
    def busy(request: Request, error: Busy) -> JSONResponse:
        return JSONResponse(
            {"detail": str(error)}, 429, headers={"Retry-After": str(error.retry_after)}
        )

    @app.exception_handler(ClientDisconnect)
    def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it: what counts is that it is no error

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}."}, 422)


def _told(error: RetrievalError) -> str:
    """What a client may know of an error: not where indexes and stores are on our side."""
    here = re.escape(f"{collections.PRECOMPUTED}/")
    return re.sub(rf"{here}|milvus(\+tls)?://[^\s/]+/", "", str(error))
