"""The REST service: the search of the pages and the command line for other clients.

``python -m retrieval serve``; every call is described at /docs, in OpenAPI at /openapi.json.
``catalogue``: the indexes and collections it serves. ``api``: its calls. ``report_client``: those
of the report's client. ``guard``: hosts, tokens and limits of requests. ``connections``: limits of
connections.

It is one process: a search uses every core, and a second process would need the networks and
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
from starlette.formparsers import MultiPartParser
from starlette.requests import ClientDisconnect

from retrieval import cookies, images, request_limits
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.index import finding
from retrieval.index.milvus import AwayError, StoreError
from retrieval.ranking.verifiers import FeaturesError
from retrieval.server import api, catalogue, guard, report_client
from retrieval.text import one_line
from retrieval.workers import Busy


@dataclass(frozen=True)
class Options:
    """Options of the service.

    token: asked for at every call but /health; '' for none. origins: of web pages that may call.
    names: host names of the service, beside numbers and the machine's own name. collection: the
    report's client searches it; '' for the first one with indexes.
    """

    token: str = ""
    origins: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    collection: str = ""


def create(options: Options | None = None) -> request_limits.InTurn:
    """The service, ready for uvicorn or any other ASGI server."""
    options = options or Options()
    cookies.read_in_linear_time()
    request_limits.limit_forms(request_limits.MAX_FIELDS)
    # An upload stays in memory, where all requests together have a limit. The disk may be full.
    MultiPartParser.spool_max_size = guard.MAX_FORM
    # FastAPI itself would load the scripts of /docs from the internet.
    app = FastAPIOffline(
        title="Image retrieval",
        description="Search photographs by example with SIR, DELF and CNN-IRwNHA.",
        responses=api.PROBLEMS,
    )
    _add_error_handlers(app)
    app.include_router(api.router)
    app.include_router(report_client.router(options.collection))
    guarded = guard.Guard(app, options.token, options.names)
    return request_limits.InTurn(guard.Origins(guarded, options.origins))


def run(host: str, port: int, options: Options, open_to_all: bool = False) -> None:
    """The command ``serve``: answer until the process is stopped.

    Raises RetrievalError where the service would be open without a token, where a store or the
    collection is not here, and where the address or a setting cannot be used.
    """
    import uvicorn

    if not (options.token or open_to_all or _is_this_machine(host)):
        raise RetrievalError(
            f"Other machines can reach {host}: set a password with --token or RETRIEVAL_TOKEN, or "
            "say --open to let everybody search."
        )
    if port > 65535:
        raise RetrievalError("A port is a number from 1 to 65535.")
    images.visitors_limit()  # raises for a wrong setting, which a client would see first
    errors: list[RetrievalError] = []
    stores = finding.in_stores(errors, patience=60.0)
    if errors:
        raise errors[0]
    for path in stores:
        # So that the owner sees the error, and not the first client; and later, while a store is
        # away, nobody waits for it to be opened.
        catalogue.opened(path)
    if options.collection:
        catalogue.index_of_each_method(options.collection)  # for the same reason
    request_limits.allow_many_files()
    request_limits.accept_few_at_once()
    request_limits.answer_once()
    # uvicorn ends by the signal that stopped it. Python would make a KeyboardInterrupt of it and
    # unload modules while searches still run, which crashes.
    former_handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        uvicorn.run(create(options), host=host, port=port, **settings())
    except SystemExit as stop:  # its log says why
        raise RetrievalError(
            f"The service cannot listen at {host}, port {port}: choose another --port or --host, "
            "or end the program that uses it."
        ) from stop
    finally:
        signal.signal(signal.SIGINT, former_handler)


def settings() -> dict[str, Any]:
    """Arguments of ``uvicorn.run``."""
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


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every error with ``{"detail": one sentence}``."""

    @app.exception_handler(RetrievalError)
    def explained(request: Request, error: RetrievalError) -> JSONResponse:
        return JSONResponse({"detail": _without_locations(error)}, 422)

    @app.exception_handler(StoreError)
    @app.exception_handler(FeaturesError)
    def for_owner(request: Request, error: StoreError | FeaturesError) -> JSONResponse:
        # Where it is, is for the owner to know, and a store's own words.
        catalogue.log.error("%s", one_line(str(error), 500))
        subject = "The store of this index has a fault"
        if isinstance(error, FeaturesError):
            subject = "The local features beside this index cannot be used"
        text = f"{subject}; its owner finds the reason in the log."
        if isinstance(error, AwayError):
            text = "The store of this index is away; try again later."
        return JSONResponse({"detail": text}, 503)

    @app.exception_handler(Busy)
    def busy(request: Request, error: Busy) -> JSONResponse:
        return JSONResponse(
            {"detail": str(error)}, 429, headers={"Retry-After": str(error.retry_after)}
        )

    @app.exception_handler(ClientDisconnect)
    def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it, but without it the log has an error

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        text = first["msg"]
        if first["type"] == "value_error":  # a text in place of a file
            text = "send a file with a filename, as curl -F picture=@photo.jpg does"
        return JSONResponse({"detail": f"{first['loc'][-1]}: {text}."}, 422)


def _without_locations(error: RetrievalError) -> str:
    """The sentence of an error without the folder of indexes and the addresses of stores."""
    folder = re.escape(f"{collections.PRECOMPUTED}/")
    return catalogue.as_text(re.sub(rf"{folder}|milvus(\+tls)?://[^\s/]+/", "", str(error)))
