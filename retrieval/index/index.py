"""An index of a collection, once it is open: its content and its search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval import files
from retrieval.errors import RetrievalError
from retrieval.index import approximate, layout
from retrieval.index.layout import AGAIN, EXACT, Part
from retrieval.methods.base import Features, LocalFeatures, as_vector
from retrieval.networks import checkpoints

if TYPE_CHECKING:
    from retrieval.collections import Collection
    from retrieval.index.neighbours import Neighbours


class Index:
    """A loaded index. Immutable; arrays stay on disk until they are touched.

    whole_positions: (N,) int64, where this index holds a part of another one: the position of each
    picture in that; None where this is the whole.
    origin: what a part adds to the provenance of a ranking.
    in_store: whether a store holds it, and the folder at ``path`` only stands for that.
    """

    in_store = False
    whole_positions: np.ndarray | None = None
    origin: Mapping[str, Any] = {}

    def __init__(self, path: Path, manifest: dict, images: list[dict], arrays: Mapping):
        self.path = path
        self.manifest = manifest
        self.arrays = arrays
        self.near: dict[int, tuple] = {}  # what ``neighbours.find`` has found so far
        self.names: tuple[str, ...] = tuple(image["name"] for image in images)
        self.digests: tuple[str, ...] = tuple(image["sha256"] for image in images)
        # (N, 2) int64: width and height of each original picture in pixels
        self.sizes = np.array([(image["width"], image["height"]) for image in images], np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        """The path of the index, for messages."""
        return str(self.path)

    @property
    def kind(self) -> str:
        return self.manifest["kind"]

    @property
    def method(self) -> str:
        return self.manifest["method"]

    @property
    def checkpoint(self) -> str:
        return self.manifest["checkpoint"]["id"]

    @property
    def part(self) -> Part:
        """Which part of an index it is; a whole one is part 1 of 1."""
        return Part(**self.manifest.get("part", {}))

    @property
    def settings(self) -> dict[str, Any]:
        return self.manifest["settings"]

    @property
    def search(self) -> str:
        """How the pictures are searched: 'exact', or a key of ``approximate.KINDS``."""
        return layout.search_of(self.manifest)

    @property
    def search_stated(self) -> str:
        """``search`` for readers, with the recall that was measured when the index was made."""
        if self.search == EXACT:
            return EXACT
        recall = self.manifest["search"]["recall_at_10"]
        return f"{self.search}, recall@10 {recall:.3f}"

    @property
    def width(self) -> int:
        """How many numbers a descriptor has."""
        return self.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (N, D) of the descriptors: of all pictures, or of all keypoints."""
        return self.arrays["descriptors"].shape

    @property
    def local(self) -> Path:
        """The folder of the index; local features of the same pictures may lie beside it."""
        return self.path

    @property
    def has_digests(self) -> bool:
        """Whether the SHA-256 of its pictures are known: published descriptors come without."""
        return any(self.digests)

    @property
    def brings_queries(self) -> bool:
        """Whether it holds the descriptors of its queries, as published descriptors do."""
        return "queries_sha256" in self.settings

    # A search ranks the ``shortlist`` of an index: a part of it where the index lies in a store
    # (``stored.StoredIndex``) or has an approximate search, and else the index itself.

    filters = False  # whether a shortlist can be filtered: a folder holds no metadata

    def shortlist(self, features: Features, depth: int, where: str = "") -> Index:
        """An index of the pictures most like a query, to be ranked exactly.

        depth: how many pictures it has at least, where the index has so many. where: a filter by
        metadata, for an index with ``filters``.
        """
        if self.search == EXACT:
            return self
        count = min(max(depth, approximate.SHORTLIST), len(self))
        descriptor = as_vector(features)
        self.check_width(descriptor)
        positions = np.sort(self.searcher.rank(descriptor, count)[0])
        images = [self.image(position) for position in positions.tolist()]
        origin = {"search": self.search_stated, "shortlist": count}
        return Excerpt(self, positions, images, self.arrays["descriptors"][positions], origin)

    def size(self, position: int) -> tuple[int, int]:
        """(width, height) of an original picture, in pixels."""
        width, height = self.sizes[position].tolist()
        return width, height

    def image(self, position: int) -> dict[str, Any]:
        """The entry of a picture in images.json."""
        width, height = self.size(position)
        name, sha256 = self.names[position], self.digests[position]
        return {"sha256": sha256, "width": width, "height": height, "name": name}

    def holding(self, name: str) -> Index:
        """An index in memory that holds this picture; of a folder, the index itself."""
        return self

    def first(self, count: int) -> Index:
        """An index in memory that holds the first ``count`` pictures; of a folder, all of it."""
        return self

    @cached_property
    def positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def name_of(self, data: bytes) -> str | None:
        """The name of the picture whose file has these bytes; None where the index lacks it."""
        sha256 = layout.digest(data)
        return self.names[self.digests.index(sha256)] if sha256 in self.digests else None

    def digest_of(self, name: str) -> str:
        """SHA-256 of the file of a picture as it was indexed; '' where the index does not know."""
        position = self.positions.get(name)
        return "" if position is None else self.digests[position]

    @cached_property
    def searcher(self):
        """The searcher of the index, made at the first query.

        Its ``rank(query, top)`` returns positions and scores (top,), best first. The query is a
        descriptor (D,), or for DELF the descriptors (n, d) of its keypoints.
        """
        if self.kind == "global":
            descriptors = self.arrays["descriptors"]
            if self.search != EXACT:
                return approximate.KINDS[self.search].of(descriptors, self.arrays)
            from retrieval.index.vectors import ExactSearcher

            return ExactSearcher(descriptors)
        from retrieval.index.asmk import InvertedFile

        return InvertedFile.of(self.arrays)

    @cached_property
    def neighbours(self) -> Neighbours:
        """The nearest pictures of each picture, computed when first needed and kept on disk."""
        from retrieval.index import neighbours

        return neighbours.of(self)

    @cached_property
    def nearest_sample(self) -> np.ndarray:
        """Similarity of some pictures of the index to their nearest: (n,) float32."""
        from retrieval.index import neighbours

        return neighbours.nearest_sample(self)

    def features(self, position: int) -> Features:
        """Features of one database picture, as float32."""
        if self.kind == "global":
            return self.arrays["descriptors"][position].astype(np.float32)
        rows = slice(*self.arrays["offsets"][position : position + 2])
        return LocalFeatures(
            self.arrays["keypoints"][rows].astype(np.float32),
            self.arrays["scales"][rows].astype(np.float32),
            self.arrays["scores"][rows].astype(np.float32),
            layout.dequantise(self.arrays["descriptors"][rows]),
        )

    def check_width(self, descriptors: np.ndarray) -> None:
        """Refuse descriptors (…, D) of another length than those of the index."""
        if descriptors.shape[-1] != self.width:
            raise RetrievalError(
                f"The index {self} holds descriptors of {self.width} numbers and not of "
                f"{descriptors.shape[-1]}; index the collection again."
            )

    def check_collection(self, collection: Collection) -> None:
        """Refuse a collection whose list of pictures is not the one that was indexed."""
        if self.manifest["collection"]["fingerprint"] != collection.fingerprint:
            raise RetrievalError(
                f"The index {self} was made of another list of pictures than {collection.title} "
                "has now; index the collection again."
            )

    def digest_on_disk(self) -> str:
        """SHA-256 of the file of the manifest, by which results name the index they are of.

        Raises RetrievalError where another index has taken its place since this was loaded.
        """
        try:
            data = files.read(self.path / "manifest.json")
            same = json.loads(data) == self.manifest
        except (OSError, ValueError, RecursionError):
            same = False
        if not same:
            raise RetrievalError(
                f"The index {self} was replaced or removed meanwhile, so nothing was kept; run "
                "the same again."
            )
        return layout.digest(data)

    def check_checkpoint(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Refuse weights that are not those of the index, before they are loaded."""
        stated = self.manifest["checkpoint"]
        if stated != {"id": checkpoint.id, "sha256": checkpoint.sha256}:
            self._refuse(
                f"checkpoint {self.checkpoint} ({stated['sha256'][:8]})",
                f"{checkpoint.id} ({checkpoint.sha256[:8]})",
            )

    def check_method(self, method) -> None:
        """Refuse a query method whose numbers cannot be compared with those in the index."""
        identity = layout.identity(method)
        if self.method != identity["method"]:
            self._refuse(f"method {self.method}", str(identity["method"]))
        self.check_checkpoint(method.checkpoint)
        # A setting that is newer than the index had the default value when it was made.
        stated = {**getattr(method, "defaults", {}), **self.settings}
        wanted = identity["settings"]
        differ = [key for key in stated | wanted if stated.get(key) != wanted.get(key)]
        if differ:
            was, wants = (
                ", ".join(f"{key} {layout.short(settings.get(key))}" for key in differ)
                for settings in (stated, wanted)
            )
            self._refuse(was, wants)

    def _refuse(self, was: str, wants: str) -> None:
        raise RetrievalError(f"The index {self} was made with {was}, not {wants}{AGAIN}.")


class Excerpt(Index):
    """Some pictures of an index, in memory, to be ranked exactly.

    They are in the order of the index, so that equal scores rank as in the whole. Their neighbours
    are not kept on disk.
    """

    search = EXACT

    def __init__(
        self,
        index: Index,
        positions: np.ndarray,
        images: list[dict],
        descriptors: np.ndarray,
        origin: Mapping[str, Any],
    ):
        super().__init__(index.local, index.manifest, images, {"descriptors": descriptors})
        self.whole_positions = positions
        self.origin = origin

    @cached_property
    def neighbours(self) -> Neighbours:
        from retrieval.index import neighbours

        return neighbours.find(self)
