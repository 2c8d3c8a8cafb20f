"""``bench``: measure speed on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from retrieval.cli.arguments import command, positive
from retrieval.cli.output import Bar


def add(commands) -> None:
    bench = commands.add_parser("bench", help="measure speed on this machine").add_subparsers(
        required=True, metavar="WHAT"
    )
    command(bench, "extract", _extract, "extraction, beside the plain loop of PyTorch")
    command(bench, "evaluation", _evaluation, "scoring, beside a plain loop")
    command(bench, "threads", _threads, "indexing beside other work, by how threads wait")
    rerank = command(bench, "rerank", _rerank, "re-ranking, and how it grows")
    rerank.add_argument(
        "index", type=Path, nargs="?", metavar="INDEX", help="default: CNN-IRwNHA's of town"
    )
    rerank.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the index was made of"
    )
    command(bench, "start", _start, "cold start of the app to its first page and first answer")
    visitors = command(bench, "visitors", _visitors, "many visitors at once in the app")
    visitors.add_argument("--count", type=positive, default=30, metavar="N", help="visitors (30)")
    visitors.add_argument(
        "--rest",
        type=positive,
        default=600,
        metavar="S",
        help="seconds after they left, when memory is looked at again (600)",
    )
    clients = command(bench, "clients", _clients, "many clients at once at the REST service")
    clients.add_argument("--count", type=positive, default=30, metavar="N", help="clients (30)")
    clients.add_argument(
        "--seconds", type=positive, default=60, metavar="S", help="on each method (60)"
    )
    local = command(bench, "delf", _delf, "DELF's search, beside the report's procedure")
    local.add_argument(
        "index", type=Path, nargs="?", metavar="INDEX", help="a DELF index; default: of town"
    )
    local.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the index was made of"
    )
    scale = command(bench, "scale", _scale, "search in larger collections, made up")
    scale.add_argument(
        "--method",
        choices=["cnn-irwnha", "delf"],
        default="cnn-irwnha",
        help="vectors of cnn-irwnha (the default), or the inverted file of delf",
    )
    scale.add_argument(
        "--count", type=positive, default=100_000, metavar="N", help="pictures (100000)"
    )


def _extract(args: argparse.Namespace) -> int:
    from retrieval.benchmarks import extraction

    return extraction.run()


def _evaluation(args: argparse.Namespace) -> None:
    from retrieval.benchmarks import evaluation

    evaluation.run()


def _threads(args: argparse.Namespace) -> None:
    from retrieval.benchmarks import threads

    threads.run()


def _rerank(args: argparse.Namespace) -> None:
    from retrieval.benchmarks import reranking

    reranking.run(args.index, args.collection)


def _start(args: argparse.Namespace) -> None:
    from retrieval.benchmarks import start

    start.run()


def _visitors(args: argparse.Namespace) -> None:
    from retrieval.benchmarks import visitors

    visitors.run(args.count, args.rest)


def _clients(args: argparse.Namespace) -> None:
    from retrieval.benchmarks import clients

    clients.run(args.count, args.seconds)


def _scale(args: argparse.Namespace) -> None:
    from retrieval.benchmarks import scale

    scale.run(args.method, args.count)


def _delf(args: argparse.Namespace) -> None:
    from retrieval.benchmarks import local

    with Bar(0, "picture") as bar:
        local.run(args.index, args.collection, bar.update)
