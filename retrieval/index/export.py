"""Export an index into a store. An export may be killed at any moment and repeated.

Rows are written under their position, so writing one twice changes nothing. They go into a new
collection, whose name holds the checksum of the exported data. When it is complete, the alias is
moved to it, and only then is the former collection dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from retrieval.collections import Collection, ground_truth
from retrieval.collections.metadata import Metadata
from retrieval.errors import RetrievalError
from retrieval.index import milvus, milvus_client, store_description
from retrieval.index.index import Index
from retrieval.index.milvus import LONG_PATIENCE, Address

BATCH_BYTES = 4 << 20  # of vectors in one request; a server takes 64 MB
MAX_FLAT = 100_000  # pictures up to which the engine compares with all of them
MAX_ROWS = 2000  # in one request
ATTEMPTS = 3
SAMPLE = 1000  # pictures of an index that is replaced, to see whether they are these
LONGEST_NAME = 4096  # bytes
MAX_MANIFEST = 1_000_000  # bytes: what the server keeps it in takes 1.5 MB
MAX_METADATA = 60_000  # bytes a picture; Milvus takes 65 536
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)


def export(
    index: Index,
    address: Address,
    metadata: Metadata | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> int:
    """Write an index of global descriptors into a store, and point the alias to it.

    metadata: values to filter with. progress(done, total, name) is called after each batch.
    Returns the number of pictures that were written: 0 where all were there.
    Raises RetrievalError where a store cannot hold the index, where it does not answer, and where
    it holds an index of another method or of other pictures only.
    """
    metadata = metadata or {}
    rows = _rows(index, metadata)
    if _collection_of(address):  # raises for another program's collection
        _check_successor(index, address)
    name = _prepared(index, address, metadata)
    written = 0
    batch = min(max(BATCH_BYTES // (4 * index.width), 1), MAX_ROWS)
    started = _count(address, name) > 0
    for start in range(0, len(index), batch):
        end = min(start + batch, len(index))
        in_batch = f"position >= {start} and position < {end}"
        if not started or _count(address, name, in_batch) < end - start:
            data = rows(start, end)
            _call(address, lambda c, t, data=data: c.upsert(name, data, timeout=t))
            written += end - start
        if progress:
            progress(end, len(index), index.names[end - 1])
    if written:
        _call(address, lambda c, t: c.flush(name, timeout=t))
    count = _count(address, name)
    if count != len(index):
        raise RetrievalError(
            f"The store {address} says that it has {count} of {len(index)} pictures; export again."
        )
    if _collection_of(address) != name:
        _call(address, lambda c, t: _move_alias(c, name, address.collection, t))
    _drop_others(address, name)
    if _collection_of(address) != name:
        raise RetrievalError(f"Another export to {address} came in between; export again.")
    return written


def _check_successor(index: Index, address: Address) -> None:
    """Refuse to replace an index of another method or of other pictures only.

    Nobody asked to delete it, and it may be nowhere else.
    """
    try:
        old = store_description.describe(address)
    except milvus.StoreError:
        raise
    except RetrievalError:  # of another version: nothing can read it
        return
    method = old.manifest["method"]
    if method != index.method:
        raise RetrievalError(
            f"{address} is an index of {method}, not of {index.method}; export to another name."
        )
    pictures = old.manifest["pictures"]
    milvus.load(address, old.collection, LONG_PATIENCE)  # the server may have been started anew
    sample = np.unique(np.linspace(0, pictures - 1, SAMPLE).astype(np.int64)).tolist()
    rows = _call(
        address,
        lambda c, t: c.query(
            old.collection, ids=sample, output_fields=["name", "sha256"], timeout=t
        ),
    )
    digests = {*index.digests} - {""}
    try:
        same = any(row["name"] in index.positions or row["sha256"] in digests for row in rows)
    except milvus_client.damage():
        return  # it cannot be searched
    if rows and not same:
        raise RetrievalError(
            f"{address} is an index of other pictures: it has none of these. Export to another "
            "name."
        )


def landmarks(collection: Collection) -> Metadata:
    """Metadata out of ground truth: the landmark of each picture that some query has as right."""
    known = ground_truth.landmarks(collection.names, collection.queries)
    return {name: {"landmark": landmark} for name, landmark in known.items()}


def _check_column(column: str) -> None:
    if not _COLUMN.fullmatch(column) or column in store_description.FIELDS:
        raise RetrievalError(
            f"Metadata cannot be called {column!r}: use letters, digits and _, and none of "
            f"{', '.join(store_description.FIELDS)}."
        )


def _rows(index: Index, metadata: Metadata) -> Callable[[int, int], list[dict[str, Any]]]:
    """A function that gives the rows of some pictures. Refuses early what a store cannot take."""
    if index.kind != "global":
        raise RetrievalError(
            f"A store holds one vector a picture; the local features of {index} stay in its folder."
        )
    if index.brings_queries:
        raise RetrievalError(
            f"{index} brings its own queries, which a store cannot hold: search it in its folder."
        )
    if len(json.dumps(index.manifest)) > MAX_MANIFEST:
        raise RetrievalError(
            f"{index} lists {len(index.manifest['skipped'])} skipped pictures, too many for a "
            "store: take them out of the collection and index it again."
        )
    for name in index.names:
        try:
            long = len(name.encode()) > LONGEST_NAME
        except UnicodeEncodeError:
            long = True
        if long:
            raise RetrievalError(
                f"A store cannot hold the name {name!r}: give it a shorter, plain one."
            )
    for column in {column for values in metadata.values() for column in values}:
        _check_column(column)
    for name, values in metadata.items():
        if len(json.dumps(values)) > MAX_METADATA:
            raise RetrievalError(
                f"The metadata of {name} is longer than {MAX_METADATA} bytes; shorten it."
            )

    def rows(start: int, end: int) -> list[dict[str, Any]]:
        vectors = index.arrays["descriptors"][start:end].astype(np.float32)
        return [
            {
                **metadata.get(index.names[position], {}),
                "position": position,
                "name": index.names[position],
                "sha256": index.digests[position],
                "width": int(index.sizes[position][0]),
                "height": int(index.sizes[position][1]),
                "vector": vector,
            }
            for position, vector in zip(range(start, end), vectors.tolist(), strict=True)
        ]

    return rows


def _prepared(index: Index, address: Address, metadata: Metadata) -> str:
    """The name of the collection to fill: made and loaded, perhaps by an earlier export.

    milvus-lite can neither make nor open a collection in the making of which it was killed. Such a
    one is left alone, and the next name taken.
    """
    refused: milvus.RefusedError | None = None
    for attempt in range(ATTEMPTS):
        name = _collection_name(index, address, metadata, attempt)
        try:
            _prepare(index, address, name)
            return name
        except milvus.RefusedError as error:
            # Milvus Lite keeps a part of each collection for which the disk is full. The other
            # names are for when there is room again.
            if "No space left" in error.reason:
                raise
            refused = error
    assert refused is not None
    raise refused


def _collection_name(index: Index, address: Address, metadata: Metadata, attempt: int) -> str:
    """A collection's name: the alias and a checksum of all that is exported."""
    exported = [
        store_description.FORMAT,
        index.manifest["sha256"],
        str(index.path.resolve()),
        attempt,
        {name: dict(values) for name, values in metadata.items() if name in index.positions},
    ]
    text = json.dumps(exported, sort_keys=True)
    return f"{address.collection}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _collection_of(address: Address) -> str | None:
    """The collection that the alias stands for; None where there is no such alias.

    Raises RetrievalError where no export, of any version, made it.
    """
    try:
        raw = store_description.raw_description(address)
    except milvus.AbsentError:
        return None
    if store_description.alias_of(raw) != address.collection:
        raise store_description.not_ours(address)
    return raw["collection_name"]


def _prepare(index: Index, address: Address, name: str) -> None:
    """Make the collection and its indexes where they are missing, and load it."""
    types = milvus_client.library().DataType
    parameters = {"vector": {"index_type": "FLAT", "metric_type": "IP"}}
    if len(index) > MAX_FLAT:
        # Not for fewer: milvus-lite cannot open an inverted index that a kill has cut off.
        inverted = {"index_type": "INVERTED"}
        approximate = {"index_type": "AUTOINDEX", "metric_type": "IP"}
        parameters = {"vector": approximate, "name": inverted, "sha256": inverted}

    def create(client, timeout: float) -> None:
        if client.has_collection(name, timeout=timeout):
            return
        extra = store_description.Extra(
            alias=address.collection,
            nearest=[float(value) for value in index.nearest_sample],
            pictures=index.has_digests,
            folder=str(index.path.resolve()),
        )
        # In ASCII: a skipped file may have a name that is no text, which no message can hold.
        manifest = json.dumps(index.manifest)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("position", types.INT64, is_primary=True)
        schema.add_field("name", types.VARCHAR, max_length=LONGEST_NAME)
        schema.add_field("sha256", types.VARCHAR, max_length=64)
        schema.add_field("width", types.INT64)
        schema.add_field("height", types.INT64)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=index.width)
        client.create_collection(
            name,
            schema=schema,
            properties={
                store_description.MANIFEST: manifest,
                store_description.EXTRA: extra.write(),
            },
            timeout=timeout,
        )

    def create_indexes(client, timeout: float) -> None:
        for field in parameters.keys() - client.list_indexes(name, timeout=timeout):
            params = client.prepare_index_params()
            params.add_index(field, index_name=field, **parameters[field])
            client.create_index(name, params, timeout=timeout, sync=False)

    _call(address, create)
    _call(address, create_indexes)
    milvus.load(address, name, LONG_PATIENCE)


def _count(address: Address, name: str, where: str = "") -> int:
    answer = _call(
        address,
        lambda c, t: c.query(
            name,
            filter=where,
            output_fields=["count(*)"],
            consistency_level="Strong",
            timeout=t,
        ),
    )
    try:
        return int(answer[0]["count(*)"])
    except milvus_client.damage() as error:
        raise RetrievalError(
            f"The store {address} does not say how many rows it has; export again."
        ) from error


def _move_alias(client, name: str, alias: str, timeout: float) -> None:
    if alias in client.list_aliases(timeout=timeout)["aliases"]:
        client.alter_alias(name, alias, timeout=timeout)
    else:
        client.create_alias(name, alias, timeout=timeout)


def _drop_others(address: Address, name: str) -> None:
    """Drop the collections of earlier exports to this alias, finished or not.

    None is dropped where the alias has moved: another export has finished, and its collection is
    one of the others.
    """
    pattern = re.compile(rf"{re.escape(address.collection)}_[0-9a-f]{{12}}")
    for other in _call(address, lambda c, t: c.list_collections(timeout=t)):
        if other == name or not pattern.fullmatch(other):
            continue
        with contextlib.suppress(RetrievalError):  # not ours
            described = store_description.describe(replace(address, collection=other))
            if described.extra.alias == address.collection and _collection_of(address) == name:
                _call(address, lambda c, t, other=other: c.drop_collection(other, timeout=t))


def _call(address: Address, work):
    return milvus.call(address, work, LONG_PATIENCE)
