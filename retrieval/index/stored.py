"""An index whose vectors lie in Milvus: opened like a folder, searched through the engine.

``milvus://host:port/town`` is an alias of a collection ``town_<12 hex digits>``, see
``store_description``. An export fills a new collection and moves the alias when that is complete
(``export``), so a reader finds the old index or the new one, never a part.

The engine finds a shortlist. All further steps run here, with the exact descriptors, by the same
code as for a folder: see ``StoredIndex.shortlist``.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.collections import metadata_filter
from retrieval.collections.collection import PRECOMPUTED
from retrieval.collections.names import check_name
from retrieval.errors import RetrievalError
from retrieval.index import layout, milvus, milvus_client, store_folders
from retrieval.index.index import Excerpt, Index
from retrieval.index.milvus import AbsentError, Address, NotLoadedError, RefusedError, StoreError
from retrieval.index.store_description import FIELDS, Description, describe
from retrieval.methods.base import Features, as_vector

FOLDER = "RETRIEVAL_STORE_FOLDER"  # the exported index, where it lies elsewhere on this machine
MIN_SHORTLIST = 100  # pictures; it still has those that the engine ranks a little too low
CHUNK = 1000  # rows of a request, at most
ROW = 5000  # bytes of a row, at most, besides its vector
CACHE_BYTES = 64 << 20  # of rows that were read
MAX_FIRST = 100_000  # pictures that ``first`` reads
MAX_READ = 600_000_000  # bytes of vectors and names that are read at once

Row = tuple[dict[str, Any], np.ndarray]  # name, sha256, width, height; the descriptor (D,) float16


def opened(address: Address) -> StoredIndex:
    """The index at an address, checked as far as that needs no pictures."""
    described = describe(address)
    return StoredIndex(address, described, store_folders.folder_of(address, described))


class StoredIndex(Index):
    """An index in a store. It has no arrays of its own: ``shortlist``, ``holding`` and ``first``
    give indexes in memory, with some of its pictures."""

    in_store = True
    search_stated = "by the store"
    filters = True

    def __init__(self, address: Address, described: Description, path: Path):
        self.address, self.described, self.path = address, described, path
        self.manifest = described.manifest
        self._rows: OrderedDict[int, Row] = OrderedDict()
        self._lock = threading.Lock()
        self._last: Shortlist | None = None

    def __len__(self) -> int:
        return self.manifest["pictures"]

    def __str__(self) -> str:
        return str(self.address)

    @property
    def local(self) -> Path:
        configured_folder = os.environ.get(FOLDER)
        if configured_folder:
            return Path(configured_folder)
        exported = Path(self.described.extra.folder)
        if exported.parent.is_dir():
            return exported
        return PRECOMPUTED / self.path.parent.name / self.path.name

    @property
    def has_digests(self) -> bool:
        return self.described.extra.pictures

    @cached_property
    def nearest_sample(self) -> np.ndarray:
        return np.array(self.described.extra.nearest, np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), self.described.width

    def shortlist(self, features: Features, depth: int, where: str = "") -> Shortlist:
        """The pictures that the engine finds most like a query, as an index in memory.

        features: a descriptor (D,). depth: how many pictures; at least MIN_SHORTLIST are fetched.
        where: a filter, as ``landmark == "chapel"``: see ``metadata_filter.matching``.
        The pictures are in the order of the exported index and have its descriptors. A search among
        them ranks as one in the folder, provided that the engine found the right ones.
        """
        plain = metadata_filter.for_store(where) if where else ""
        descriptor = as_vector(features)
        self.check_width(descriptor)
        limit = min(max(depth, MIN_SHORTLIST), len(self))
        try:
            results = self._call(
                lambda client, time: client.search(
                    self.described.collection,
                    data=[descriptor.astype(np.float32).tolist()],
                    anns_field="vector",
                    limit=limit,
                    filter=plain,
                    output_fields=["position"],  # else milvus-lite sends all, with the vectors
                    search_params={"metric_type": "IP"},
                    timeout=time,
                )
            )
        except RefusedError as error:
            if not where:
                raise
            raise RetrievalError(f"The filter {where} cannot be used: {error.reason}.") from error
        with self._checking():
            positions = sorted({self._position(hit) for hit in results[0]})
        if len(positions) > limit:
            raise self._damaged()
        if not positions and where:
            raise RetrievalError(
                f"No picture in {self.address.collection} fits the filter {where}: choose another "
                "filter."
            )
        if not positions:
            raise StoreError(f"{self} is empty; export the index again.")
        return self._excerpt(positions, {"filter": where} if where else {})

    def holding(self, name: str) -> Shortlist:
        positions = self._positions_of(name)
        if not positions:
            raise RetrievalError(f"{self} has no picture {name} any more; search again.")
        return self._excerpt(positions, {})

    def digest_of(self, name: str) -> str:
        rows = self._read(self._positions_of(name))
        return rows[0][0]["sha256"] if rows else ""

    def _positions_of(self, name: str) -> list[int]:
        return [position for position, other in self._names("name", name) if other == name]

    def name_of(self, data: bytes) -> str | None:
        pictures = self._names("sha256", layout.digest(data))
        return min(pictures)[1] if pictures else None

    def first(self, count: int) -> Shortlist:
        if count > MAX_FIRST:
            raise self._too_many()
        return self._excerpt(range(min(count, len(self))), {})

    def _too_many(self) -> RetrievalError:
        return RetrievalError(
            f"{self} holds {len(self):,} pictures, too many to read them all: use the index in a "
            "folder that it was exported from."
        )

    def _excerpt(self, positions: Sequence[int], filtered: dict[str, str]) -> Shortlist:
        """An index in memory of the pictures at these positions, which ascend.

        The last one is kept: where the next query has the same pictures, as in a small collection,
        their graph of neighbours and their searcher are not made again.
        """
        origin = {
            "search": self.search_stated,
            "store": self.address.collection,  # without the host: visitors see it too
            "shortlist": len(positions),
            **filtered,
        }
        last = self._last
        if last is None or (last.chosen, last.origin) != (tuple(positions), origin):
            last = Shortlist(self, positions, self._read(positions), origin)
            self._last = last
        return last

    def _read(self, positions: Sequence[int]) -> list[Row]:
        """The rows at these positions, from the cache or from the store."""
        with self._lock:
            rows = {
                position: self._rows[position] for position in positions if position in self._rows
            }
        missing = [position for position in positions if position not in rows]
        size = 0
        step = min(CHUNK, max(milvus_client.MAX_ANSWER // (4 * self.width + ROW), 1))
        for start in range(0, len(missing), step):
            chunk = missing[start : start + step]
            results = self._call(
                lambda client, time, chunk=chunk: client.query(
                    self.described.collection, ids=chunk, output_fields=[*FIELDS], timeout=time
                )
            )
            with self._checking():
                read = {self._position(row): self._checked(row) for row in results}
            # A letter of a name takes up to 4 bytes.
            size += sum(2 * self.width + 4 * len(image["name"]) for image, _ in read.values())
            if size > MAX_READ:
                raise self._too_many()
            rows |= read
        if lost := set(positions) - rows.keys():
            raise StoreError(f"{self} lacks {len(lost)} of its pictures; export the index again.")
        max_rows = max(CACHE_BYTES // (2 * self.width + 400), 1)
        with self._lock:
            for position in missing:
                self._rows[position] = rows[position]
            while len(self._rows) > max_rows:
                self._rows.popitem(last=False)
        if len({rows[position][0]["name"] for position in positions}) != len(positions):
            raise StoreError(f"{self} has a picture twice; export the index again.")
        return [rows[position] for position in positions]

    @contextmanager
    def _checking(self) -> Iterator[None]:
        """Refuses answers without the fields that were asked for, and those that do not decode."""
        try:
            yield
        except milvus_client.damage() as error:
            raise self._damaged() from error

    def _damaged(self) -> StoreError:
        return StoreError(f"A row of {self} is damaged; export the index again.")

    def _position(self, row: Mapping[str, Any]) -> int:
        position = row["position"]
        if type(position) is not int or not 0 <= position < len(self):
            raise self._damaged()
        return position

    def _checked(self, row: dict[str, Any]) -> Row:
        """A row, checked as a file would be. Raises RetrievalError where it is damaged."""
        try:
            image = {key: row[key] for key in ("name", "sha256", "width", "height")}
            vector = np.array(row["vector"], np.float32)
            check_name(image["name"])
            valid = (
                isinstance(image["sha256"], str)
                and len(image["sha256"]) in (0, 64)
                and all(self.has_digests <= image[side] < 2**31 for side in ("width", "height"))
                and vector.shape == (self.width,)
                and bool(np.linalg.norm(vector) < 1.01)
            )
        except (RetrievalError, KeyError, TypeError, ValueError):
            valid = False
        if not valid:
            raise self._damaged()
        return image, vector.astype(np.float16)

    def _names(self, field: str, value: str) -> list[tuple[int, str]]:
        """Position and name of the pictures of which a field has this value."""
        results = self._call(
            lambda client, time: client.query(
                self.described.collection,
                filter=f"{field} == {json.dumps(value, ensure_ascii=False)}",
                output_fields=["position", "name"],
                limit=MIN_SHORTLIST,
                timeout=time,
            )
        )
        with self._checking():
            return [(self._position(row), check_name(row["name"])) for row in results]

    def _call(self, work):
        try:
            try:
                return milvus.call(self.address, work, milvus.PATIENCE)
            except NotLoadedError:  # the server was started anew
                milvus.load(self.address, self.described.collection, milvus.PATIENCE)
                return milvus.call(self.address, work, milvus.PATIENCE)
        except AbsentError as error:
            # It was replaced: the folder that stands for it is brought up to date.
            opened(self.address)
            raise RetrievalError(f"{self} was replaced; search again.") from error


class Shortlist(Excerpt):
    """Some pictures of an index in a store, in memory."""

    def __init__(
        self, index: StoredIndex, positions: Sequence[int], rows: list[Row], origin: dict[str, Any]
    ):
        super().__init__(
            index,
            np.array(positions, np.int64),
            [image for image, _ in rows],
            np.stack([vector for _, vector in rows]),
            origin,
        )
        self.chosen = tuple(positions)
        self.address = index.address

    def __str__(self) -> str:
        return str(self.address)
