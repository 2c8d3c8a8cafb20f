"""Local features of the query and of database pictures, for the re-rankers that check geometry.

Features of database pictures come from an index of keypoints that lies beside the index that is
searched (``python -m retrieval index … --verifier xfeat``), where the SHA-256 of a picture finds
them. A picture that it lacks is described when it is needed, and its features are kept in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from retrieval import images, methods, workers
from retrieval.collections import PRECOMPUTED, Collection
from retrieval.errors import RetrievalError
from retrieval.index import Index, finding, layout, loading
from retrieval.methods.base import LocalFeatures, Method, as_local
from retrieval.networks import checkpoints
from retrieval.ranking.ranking import Query

QUERY_KEYPOINTS = 1024  # of a query, at most; for database pictures see the registry
Version = tuple[int, int] | None  # see ``loading.version_of``
MISSING = (
    "their features are not beside the index, and the pictures cannot be read or were changed; "
    "index them again with --verifier xfeat."
)
KEYPOINTS = "keypoints"  # the name of this work for ``workers.move_to_slow_workers``
CACHED_PICTURES = 4000  # described on demand: 0.15 GB of memory at most


class FeaturesError(RetrievalError):
    """Local features that lie beside an index cannot be used, which is for its owner to mend."""


@contextmanager
def _for_owner() -> Iterator[None]:
    """Turn each RetrievalError about an index that lies beside another into a FeaturesError."""
    try:
        yield
    except RetrievalError as error:
        raise FeaturesError(str(error)) from error


def candidates(path: Path) -> list[Path]:
    """Paths at which the index of keypoints of the index at ``path`` may lie, best first."""
    path = Path(os.path.abspath(path))  # Path(".") has no name
    return [path.with_name("xfeat"), path.with_name(f"{path.name}.xfeat")]


def target(index_path: Path) -> Path:
    """The path to which ``index --verifier xfeat`` writes the index of keypoints of an index.

    The indexes of an installed collection share one.
    """
    shared = PRECOMPUTED in index_path.resolve().parents
    return candidates(index_path)[0 if shared else 1]


@lru_cache(maxsize=1)
def xfeat() -> Method:
    """XFeat with QUERY_KEYPOINTS keypoints, loaded once."""
    return methods.load_record(checkpoints.REGISTRY["xfeat"], keypoints=QUERY_KEYPOINTS)


def method_of(index: Index) -> Method:
    """The method that made an index, loaded once."""
    return _method(index.path, loading.version_of(index.path))


@lru_cache(maxsize=2)
@_for_owner()
def _method(path: Path, version: Version) -> Method:
    return methods.for_index(_load(path, version))


def of_query(query: Query, name: str, method: Callable[[], Method]) -> LocalFeatures | None:
    """Local features of the query, described once; None where its picture is not known.

    name: of the verifier, the key in ``query.local``. method: called where that key is missing.
    """
    if name not in query.local:
        if query.picture is None:
            return None
        query.local[name] = as_local(method().describe(query.picture, query.box))
    return query.local[name]


class DatabaseFeatures:
    """XFeat's features of the pictures of an index, by their position in it.

    collection: where the pictures are whose features are not on disk; None where they cannot be
    read. missing: positions for which ``features`` returned None.
    """

    def __init__(self, index: Index, collection: Collection | None):
        self.index, self.collection = index, collection
        self.stored = _keypoints_beside(self.index.path)
        self.missing: set[int] = set()

    def features(self, position: int, among: Iterable[int] = ()) -> LocalFeatures | None:
        """Features of one picture; None where none are stored and it cannot be read.

        among: positions of all pictures that the caller will ask for. Those that have to be
        described become the parts of a ``workers.TakesLong``.
        """
        try:
            features = self._find(position)
        except workers.TakesLong as error:
            parts = [partial(self._find, other) for other in among]
            raise workers.TakesLong(parts, KEYPOINTS) from error
        if features is None:
            self.missing.add(position)
        return features

    @property
    def note(self) -> str:
        """What to do about pictures without features, in a sentence; '' where all have features."""
        if not self.missing:
            return ""
        name = self.index.names[min(self.missing)]
        return f"Some pictures, as {name}, could not be compared: {MISSING}"

    def _find(self, position: int) -> LocalFeatures | None:
        digest = self.index.digests[position]
        if not digest:  # an index made without pictures: nobody knows their size
            return None
        if self.stored is not None and digest in self.stored[1]:
            index, positions = self.stored
            return as_local(index.features(positions[digest]))
        if self.collection is None or self.collection.root is None:
            return None
        path = self.collection.path(self.index.names[position])
        try:
            keypoints, descriptors, scores = _described(path, digest)
        except images.PictureError:  # what else may fail is not the picture's fault
            return None
        ones = np.ones(len(scores), np.float32)
        return LocalFeatures(keypoints, ones, scores, layout.dequantise(descriptors))


@lru_cache(maxsize=CACHED_PICTURES)
def _described(path: Path, digest: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints (n, 2), int8 descriptors (n, 64) and scores (n,) of a picture, to be cached.

    They equal those that an index of keypoints would hold. digest: of the file that was indexed.
    Raises PictureError where the file is gone or has changed.
    """
    workers.move_to_slow_workers(KEYPOINTS)  # the pictures of a whole shortlist take seconds
    data = images.read_bytes(path, path.name)
    if layout.digest(data) != digest:
        raise images.PictureError(
            f"{path.name} has changed since it was indexed; index the collection again."
        )
    count = checkpoints.REGISTRY["xfeat"].settings["keypoints"]
    features = as_local(xfeat().describe(images.read(data, path.name)))[:count]
    # Rounded as in an index: a sixteenth of a pixel gave most pairs of photographs other inliers.
    keypoints, scores = (
        numbers.astype(np.float16).astype(np.float32)
        for numbers in (features.keypoints, features.scores)
    )
    return keypoints, layout.quantise(features.descriptors), scores


def keypoints_path(path: Path) -> Path | None:
    """Path of the index of keypoints of the index at ``path``; None where there is none."""
    found = (one for one in candidates(path) if (one / "manifest.json").is_file())
    return next(found, None)


def _keypoints_beside(path: Path) -> tuple[Index, dict[str, int]] | None:
    """The index of keypoints of an index, and digest → position in it; None where there is none."""
    found = keypoints_path(path)
    return _keypoints(found, loading.version_of(found)) if found else None


@lru_cache(maxsize=4)
@_for_owner()
def _keypoints(path: Path, version: Version) -> tuple[Index, dict[str, int]]:
    index = _load(path, version)
    descriptors = index.arrays["descriptors"]
    if (
        index.kind != methods.XFEAT.kind
        or (len(descriptors) and descriptors.shape[1] != 64)  # of blank pictures there are none
        # A stranger may have made it, and the time of LighterGlue grows with the square of the
        # number of keypoints.
        or np.diff(index.arrays["offsets"]).max(initial=0) > QUERY_KEYPOINTS
    ):
        raise RetrievalError(f"{path} is not an index of keypoints; move it away.")
    record = checkpoints.REGISTRY["xfeat"]
    index.check_checkpoint(record)
    if index.settings.get("enlarge", False) != record.settings["enlarge"]:
        raise RetrievalError(
            f"{path} was made before XFeat enlarged small pictures{layout.AGAIN} with "
            "--verifier xfeat."
        )
    return index, {digest: position for position, digest in enumerate(index.digests)}


def delf_beside(path: Path) -> Index | None:
    """The first DELF index in the folder of an index, its default checkpoint before others."""
    folder = Path(os.path.abspath(path)).parent
    for method, index_path in finding.find_all(folder.name, folder.parent):
        if method == "delf":
            return _load(index_path, loading.version_of(index_path))
    return None


@lru_cache(maxsize=8)
@_for_owner()
def _load(path: Path, version: Version) -> Index:
    return loading.load(path)
