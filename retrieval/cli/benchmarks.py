"""``bench``: measure speed on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from retrieval.cli.arguments import command
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
    local = command(bench, "delf", _delf, "DELF's search, beside the report's procedure")
    local.add_argument(
        "index", type=Path, nargs="?", metavar="INDEX", help="a DELF index; default: of town"
    )
    local.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the index was made of"
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


def _delf(args: argparse.Namespace) -> None:
    from retrieval.benchmarks import local

    with Bar(0, "picture") as bar:
        local.run(args.index, args.collection, bar.update)
