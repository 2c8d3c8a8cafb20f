"""``bench``: measure on this machine, mostly speed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from retrieval.cli.arguments import command, positive
from retrieval.cli.output import Bar


def add(commands) -> None:
    bench = commands.add_parser(
        "bench", help="measure on this machine, mostly speed"
    ).add_subparsers(required=True, metavar="WHAT")
    command(
        bench,
        "extract",
        _benchmark("extraction"),
        "extraction, beside the plain loop of PyTorch",
    )
    command(bench, "evaluation", _benchmark("evaluation"), "scoring, beside a plain loop")
    command(
        bench,
        "threads",
        _benchmark("threads"),
        "indexing beside other work, by how threads wait",
    )
    command(
        bench,
        "inliers",
        _benchmark("inliers", bar=True),
        "how often pictures with so many inliers are right",
    )
    rerank = command(
        bench,
        "rerank",
        _benchmark("reranking", "index", "collection"),
        "re-ranking, and how it grows",
    )
    rerank.add_argument(
        "index", type=Path, nargs="?", metavar="INDEX", help="default: CNN-IRwNHA's of town"
    )
    rerank.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the index was made of"
    )
    command(
        bench,
        "start",
        _benchmark("start"),
        "cold start of the app to its first page and first answer",
    )
    visitors = command(
        bench,
        "visitors",
        _benchmark("visitors", "count", "rest"),
        "many visitors at once in the app",
    )
    visitors.add_argument("--count", type=positive, default=30, metavar="N", help="visitors (30)")
    visitors.add_argument(
        "--rest",
        type=positive,
        default=600,
        metavar="S",
        help="seconds after they left, when memory is looked at again (600)",
    )
    clients = command(
        bench,
        "clients",
        _benchmark("clients", "count", "seconds"),
        "many clients at once at the REST service",
    )
    clients.add_argument("--count", type=positive, default=30, metavar="N", help="clients (30)")
    clients.add_argument(
        "--seconds", type=positive, default=60, metavar="S", help="on each method (60)"
    )
    delf = command(
        bench,
        "delf",
        _benchmark("delf", "index", "collection", bar=True),
        "DELF's search, beside the report's procedure",
    )
    delf.add_argument(
        "index", type=Path, nargs="?", metavar="INDEX", help="a DELF index; default: of town"
    )
    delf.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the index was made of"
    )
    scale = command(
        bench,
        "scale",
        _benchmark("scale", "method", "count"),
        "search in larger collections, made up",
    )
    scale.add_argument(
        "--method",
        choices=["cnn-irwnha", "delf"],
        default="cnn-irwnha",
        help="vectors of cnn-irwnha (the default), or the inverted file of delf",
    )
    scale.add_argument(
        "--count", type=positive, default=100_000, metavar="N", help="pictures (100000)"
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
