"""``groups``: pictures of the same thing in an index."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.cli.arguments import command, place, positive
from retrieval.cli.output import Bar, check_output, printable, writing
from retrieval.errors import RetrievalError
from retrieval.text import table

if TYPE_CHECKING:
    from retrieval.index import Index
    from retrieval.ranking.groups import Pair

COLUMNS = ("group", "picture", "inliers of its best pair")


def add(commands) -> None:
    parser = command(commands, "groups", _groups, "find pictures of the same thing in an index")
    parser.add_argument(
        "index", type=place, metavar="INDEX", help="a folder, or the address of a store"
    )
    parser.add_argument(
        "--inliers",
        type=positive,
        metavar="N",
        help="that connect two pictures (20), at least 12; more: smaller groups, fewer mistakes",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="one row a picture")


def _groups(args: argparse.Namespace) -> None:
    from retrieval import index as indexes
    from retrieval.ranking import groups
    from retrieval.ranking.verification import MIN_INLIERS

    min_inliers = groups.CONNECTED if args.inliers is None else args.inliers
    if min_inliers < MIN_INLIERS:
        raise RetrievalError(
            f"Geometry confirms a pair from {MIN_INLIERS} inliers on: choose --inliers "
            f"{MIN_INLIERS} or more."
        )
    if args.csv:
        check_output(args.csv, _has_groups)
    index = indexes.load(args.index)
    pairs = groups.load(index)
    if pairs is None:
        pairs = _compared(index)
    connected = groups.grouped(pair for pair in pairs if pair.inliers >= min_inliers)
    rows = groups.rows(connected, index.first(len(index)).names)
    if args.csv:
        with writing(args.csv) as file:
            file.write(table(COLUMNS, ([row[key] for key in COLUMNS] for row in rows)))
    for row in rows:
        print(printable(f"{row['group']:5} {row['picture']}"))
    many = "1 group" if len(connected) == 1 else f"{len(connected)} groups"
    print(f"{many} with {len(rows)} of {len(index)} pictures")


def _has_groups(path: Path) -> bool:
    """Whether a file is what ``groups --csv`` writes."""
    header = table(COLUMNS, ())
    with path.open("rb") as file:
        return file.read(len(header)) == header


def _compared(index: Index) -> list[Pair]:
    """The confirmed pairs of an index, kept beside it unless some pictures were left out."""
    from retrieval.index.finding import collection_of
    from retrieval.ranking import groups
    from retrieval.ranking.verifiers import DatabaseFeatures

    collection = None
    with suppress(RetrievalError):  # the features of its pictures may lie beside the index
        collection = collection_of(index)
    opened = index.first(len(index))
    database = DatabaseFeatures(opened, collection)
    pairs: list[Pair] = []
    with Bar(len(index)) as bar:
        for position, name in enumerate(opened.names):
            pairs += groups.pairs_of(opened, database, [position])
            bar.update(position + 1, len(index), name)
    if not database.note:
        groups.keep(index, pairs)
    elif pairs:
        print(printable(f"note: {database.note}"), file=sys.stderr)
    else:
        raise RetrievalError(database.note)
    return pairs
