"""``bench``: measure on this machine, mostly speed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

from retrieval.cli.arguments import command, folder, positive
from retrieval.cli.output import Bar


def add(commands) -> None:
    text = "measure on this machine, mostly speed"
    bench = commands.add_parser("bench", help=text).add_subparsers(required=True, metavar="WHAT")
    for name, module, text in (
        ("extract", "extraction", "extraction, beside the plain loop of PyTorch"),
        ("evaluation", "evaluation", "scoring, beside a plain loop"),
        ("threads", "threads", "indexing beside other work, by how threads wait"),
        ("start", "start", "cold start of the app to its first page and first answer"),
    ):
        command(bench, name, _benchmark(module), text)
    text = "how often pictures with so many inliers are right"
    command(bench, "inliers", _benchmark("inliers", bar=True), text)

    run = _benchmark("reranking", "index", "collection")
    rerank = command(bench, "rerank", run, "re-ranking, and how it grows")
    _index_arguments(rerank, "default: CNN-IRwNHA's of town")

    run = _benchmark("delf", "index", "collection", bar=True)
    delf = command(bench, "delf", run, "DELF's search, beside the report's procedure")
    _index_arguments(delf, "a DELF index; default: of town")

    run = _benchmark("visitors", "count", "rest")
    visitors = command(bench, "visitors", run, "many visitors at once in the app")
    visitors.add_argument("--count", type=positive, default=30, metavar="N", help="visitors (30)")
    visitors.add_argument(
        "--rest",
        type=positive,
        default=600,
        metavar="S",
        help="seconds after they left, when memory is looked at again (600)",
    )

    run = _benchmark("clients", "count", "seconds")
    clients = command(bench, "clients", run, "many clients at once at the REST service")
    clients.add_argument("--count", type=positive, default=30, metavar="N", help="clients (30)")
    clients.add_argument(
        "--seconds", type=positive, default=60, metavar="S", help="on each method (60)"
    )

    run = _benchmark("scale", "method", "count")
    scale = command(bench, "scale", run, "search in larger collections, made up")
    scale.add_argument(
        "--method",
        choices=["cnn-irwnha", "delf"],
        default="cnn-irwnha",
        help="vectors of cnn-irwnha (the default), or the inverted file of delf",
    )
    scale.add_argument(
        "--count", type=positive, default=100_000, metavar="N", help="pictures (100000)"
    )


def _index_arguments(parser: argparse.ArgumentParser, text: str) -> None:
    """Add an index and its collection. text: help for the index."""
    parser.add_argument("index", type=folder, nargs="?", metavar="INDEX", help=text)
    parser.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the index was made of"
    )


def _benchmark(
    module: str, *names: str, bar: bool = False
) -> Callable[[argparse.Namespace], int | None]:
    """What a command does: ``run`` of a module of ``benchmarks/``, with the arguments ``names``.

    bar: whether ``run`` also takes the function that reports progress.
    The module is imported when the command runs, as some import torch.
    """

    def run(args: argparse.Namespace) -> int | None:
        benchmark = import_module(f"retrieval.benchmarks.{module}")
        values = [getattr(args, name) for name in names]
        if not bar:
            return benchmark.run(*values)
        with Bar(0) as shown:
            return benchmark.run(*values, shown.update)

    return run
