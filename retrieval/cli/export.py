"""``export``: put an index into a store."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from retrieval.cli.arguments import command, store
from retrieval.cli.output import Bar
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.index.milvus import Address
from retrieval.index.store import Index


def add(commands) -> None:
    export = command(commands, "export", _export, "put an index into a store: Milvus")
    export.add_argument("index", type=Path, metavar="INDEX", help="a folder with vectors")
    export.add_argument(
        "--store", type=store, required=True, metavar="ADDRESS", help="milvus://host:19530/town"
    )
    export.add_argument(
        "--metadata",
        type=Path,
        metavar="FILE.csv",
        help="columns to filter with; the column called name has the names of the pictures",
    )
    export.set_defaults(resumed=True)


def _export(args: argparse.Namespace) -> None:
    from retrieval import index as indexes
    from retrieval.evaluation.runs import collection_of

    index = indexes.load(args.index)
    collection = None
    with suppress(RetrievalError):  # without its labels there is less to filter with
        collection = collection_of(index)
    put_into(args.store, index, collection, args.metadata)


def put_into(
    address: Address, index: Index, collection: Collection | None, metadata: Path | None = None
) -> None:
    """Export an index, with the landmarks of its collection and what a file says, and say so."""
    from retrieval.index.export import Values, export, landmarks, read_metadata

    known: dict[str, Values] = {}
    if collection:
        known.update(landmarks(collection))
    for name, values in (read_metadata(metadata) if metadata else {}).items():
        known[name] = {**known.get(name, {}), **values}
    with Bar(len(index)) as bar:
        written = export(index, address, known, bar.update)
    columns = sorted({column for values in known.values() for column in values})
    filters = f"; filters: {', '.join(columns)}" if columns else ""
    print(f"{len(index)} pictures in {address}, {written} of them written now{filters}")
