"""``serve``: the REST service."""

from __future__ import annotations

import argparse
import os

from retrieval.cli.arguments import command, positive, store
from retrieval.index.milvus import STORES

TOKEN = "RETRIEVAL_TOKEN"


def add(commands) -> None:
    serve = command(commands, "serve", _serve, "the REST service: this search for other clients")
    serve.add_argument(
        "stores",
        type=store,
        nargs="*",
        metavar="STORE",
        help=f"indexes in Milvus: milvus://host:19530/town, in place of folders; or in ${STORES}",
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="default: 127.0.0.1; 0.0.0.0 lets other machines in"
    )
    serve.add_argument("--port", type=positive, default=8000, metavar="N", help="default: 8000")
    serve.add_argument(
        "--token", help=f"password that clients send as a bearer token; better in ${TOKEN}"
    )
    serve.add_argument("--open", action="store_true", help="let other machines in without a token")
    serve.add_argument(
        "--name", action="append", default=[], help="host name of the service, as behind a proxy"
    )
    serve.add_argument(
        "--origin", action="append", default=[], help="web pages that may call, as https://a.org"
    )
    serve.add_argument(
        "--collection",
        default="",
        metavar="NAME",
        help="that answers the report's client at /; default: the first one with indexes",
    )


def _serve(args: argparse.Namespace) -> None:
    from retrieval import server

    if args.stores:
        os.environ[STORES] = " ".join(map(str, args.stores))
    options = server.Options(
        token=args.token or os.environ.get(TOKEN, ""),
        origins=tuple(args.origin),
        names=tuple(args.name),
        collection=args.collection,
    )
    server.run(args.host, args.port, options, args.open)
