"""``export``: put an index into a store."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from retrieval.cli.arguments import command, folder, store
from retrieval.cli.output import Bar
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.index import Index
from retrieval.index.milvus import Address


def add(commands) -> None:
    export = command(commands, "export", _export, "put an index into a store: Milvus")
    export.add_argument("index", type=folder, metavar="INDEX", help="a folder with vectors")
    export.add_argument(
        "--store", type=store, required=True, metavar="ADDRESS", help="milvus://host:19530/town"
    )
    export.add_argument(
        "--metadata",
        type=Path,
        metavar="FILE",
        help="a CSV or JSON table to filter with, besides the one of the collection; its column "
        "called name has the names of the pictures",
    )
    export.set_defaults(resumed=True)


def _export(args: argparse.Namespace) -> None:
    from retrieval import index as indexes
    from retrieval.index.finding import collection_of

    index = indexes.load(args.index)
    collection = None
    with suppress(RetrievalError):  # without its labels there is less to filter with
        collection = collection_of(index)
    put_into(args.store, index, collection, args.metadata)


def put_into(
    address: Address, index: Index, collection: Collection | None, metadata: Path | None = None
) -> None:
    """Export an index, with what is known of its pictures, and say so.

    That is their landmarks, the metadata of their collection, and what a further file says.
    """
    from retrieval.collections.metadata import Metadata, Values, of_pictures, read_table
    from retrieval.index.export import export, landmarks

    known: dict[str, Values] = {}
    tables: list[Metadata] = [landmarks(collection), collection.metadata] if collection else []
    if metadata:
        tables.append(of_pictures(read_table(metadata), index.names))
    for table in tables:
        for name, values in table.items():
            known[name] = {**known.get(name, {}), **values}
    with Bar(len(index)) as bar:
        written = export(index, address, known, bar.update)
    columns = sorted({column for values in known.values() for column in values})
    filters = f"; filters: {', '.join(columns)}" if columns else ""
    print(f"{len(index)} pictures in {address}, {written} of them written now{filters}")
