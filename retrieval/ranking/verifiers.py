"""Local features of the query and of database pictures, for the re-rankers that check geometry.

Features of database pictures come from an index of keypoints that lies beside the index that is
searched (``python -m retrieval index … --verifier xfeat``), found by the SHA-256 of each picture.
Where it has none, pictures are described when they are needed, and remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from retrieval import images, methods
from retrieval.collections import PRECOMPUTED, Collection
from retrieval.errors import RetrievalError
from retrieval.index import finding, store
from retrieval.index.store import Index
from retrieval.methods.base import LocalFeatures, Method, as_local
from retrieval.networks import checkpoints
from retrieval.ranking.ranking import Query

QUERY_KEYPOINTS = 1024  # of a query, at most; a database picture has fewer, see the registry
Version = tuple[int, int] | None  # see ``store.version_of``
MISSING = (
    "their features are not beside the index, and the pictures cannot be read; index them again "
    "with --verifier xfeat."
)
REMEMBERED = 4000  # pictures described on demand: 0.15 GB of memory at most


def beside(path: Path) -> list[Path]:
    """Where the index of keypoints that belongs to an index may lie, the best place first."""
    return [path.with_name("xfeat"), path.with_name(f"{path.name}.xfeat")]


def place(index_path: Path) -> Path:
    """Where ``index --verifier xfeat`` puts it: one for all indexes of an installed collection."""
    shared = PRECOMPUTED in index_path.resolve().parents
    return beside(index_path)[0 if shared else 1]


@lru_cache(maxsize=1)
def xfeat() -> Method:
    """XFeat with as many keypoints as a query has; loaded once."""
    return methods.load_record(checkpoints.REGISTRY["xfeat"], keypoints=QUERY_KEYPOINTS)


def method_of(index: Index) -> Method:
    """The method that made an index; loaded once."""
    return _method(index.path, store.version_of(index.path))


@lru_cache(maxsize=2)
def _method(path: Path, version: Version) -> Method:
    return methods.for_index(_load(path, version))


def of_query(query: Query, name: str, method: Callable[[], Method]) -> LocalFeatures | None:
    """Local features of the query; None where the picture itself is not known."""
    if name not in query.local:
        if query.picture is None:
            return None
        query.local[name] = as_local(method().describe(query.picture, query.box))
    return query.local[name]


class Database:
    """Features of the pictures of an index, by their position in it.

    collection: where pictures are found whose features are not kept; None where there are none.
    missing: positions that were asked for and have no features.
    """

    def __init__(self, index: Index, collection: Collection | None):
        self.index, self.collection = index, collection
        self.kept = _keypoints_beside(self.index.path)
        self.missing: set[int] = set()

    def features(self, position: int) -> LocalFeatures | None:
        """XFeat's features of one picture; None where there are none and it cannot be read."""
        found = self._find(position)
        if found is None:
            self.missing.add(position)
        return found

    @property
    def note(self) -> str:
        """A sentence on the pictures that have no features, and what to do; '' where all have."""
        if not self.missing:
            return ""
        name = self.index.names[min(self.missing)]
        return f"Some pictures, as {name}, could not be compared: {MISSING}"

    def _find(self, position: int) -> LocalFeatures | None:
        digest = self.index.digests[position]
        if self.kept is not None and digest in self.kept[1]:
            index, positions = self.kept
            return as_local(index.features(positions[digest]))
        if self.collection is None or not digest:
            return None
        try:
            path = self.collection.path(self.index.names[position])
            keypoints, descriptors, scores = _described(path, digest)
        except RetrievalError:
            return None
        ones = np.ones(len(scores), np.float32)
        return LocalFeatures(keypoints, ones, scores, store.dequantise(descriptors))


@lru_cache(maxsize=REMEMBERED)
def _described(path: Path, digest: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints, int8 descriptors and scores of a picture, as an index of keypoints has them."""
    most = checkpoints.REGISTRY["xfeat"].settings["keypoints"]
    found = as_local(xfeat().describe(images.read(path)))[:most]
    return found.keypoints, store.quantise(found.descriptors), found.scores


def _keypoints_beside(path: Path) -> tuple[Index, dict[str, int]] | None:
    for candidate in beside(path):
        if (candidate / "manifest.json").is_file():
            return _keypoints(candidate, store.version_of(candidate))
    return None


@lru_cache(maxsize=4)
def _keypoints(path: Path, version: Version) -> tuple[Index, dict[str, int]]:
    index = _load(path, version)
    if (
        index.kind != methods.XFEAT.kind
        or index.arrays["descriptors"].shape[1] != 64
        # It may be a stranger's: LighterGlue takes the square of their number.
        or np.diff(index.arrays["offsets"]).max(initial=0) > QUERY_KEYPOINTS
    ):
        raise RetrievalError(f"{path} is not an index of keypoints; move it away.")
    index.check_checkpoint(checkpoints.REGISTRY["xfeat"])
    return index, {digest: position for position, digest in enumerate(index.digests)}


def delf_beside(path: Path) -> Index | None:
    """The first DELF index in the folder of an index, its default checkpoint before others."""
    for method, found in finding.find_all(path.parent.name, path.parent.parent):
        if method == "delf":
            return _load(found, store.version_of(found))
    return None


@lru_cache(maxsize=8)
def _load(path: Path, version: Version) -> Index:
    return store.load(path)
