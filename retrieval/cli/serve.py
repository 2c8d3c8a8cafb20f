"""``serve``: the REST service."""

from __future__ import annotations

import argparse

from retrieval.cli.arguments import command, positive


def add(commands) -> None:
    serve = command(commands, "serve", _serve, "the REST service: this search for other clients")
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    serve.add_argument("--port", type=positive, default=8000)


def _serve(args: argparse.Namespace) -> None:
    from retrieval import server

    server.run(args.host, args.port)
