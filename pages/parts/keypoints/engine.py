"""Local features as a collection is searched and checked with them: those of DELF, and XFeat's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import streamlit as st

from pages.parts import extraction, loaders, own_pictures
from pages.parts.plain import plain
from pages.parts.query import QueryPicture
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.index import Index
from retrieval.methods.base import LocalFeatures, as_local
from retrieval.networks import checkpoints


class Engine(Protocol):
    """Something that finds keypoints. checkpoint: its network. score: what its keypoints carry."""

    title: str
    score: str

    @property
    def checkpoint(self) -> str: ...

    def features(self, source: Path | bytes, key: str, box: Box | None = None) -> LocalFeatures: ...

    def of_result(self, other: QueryPicture) -> LocalFeatures:
        """Features of a picture as the search compares a query with them."""


@dataclass(frozen=True)
class Delf:
    """Which DELF: that of the index, where there is one."""

    index: Index | None
    checkpoint: str
    settings: Mapping
    title = "DELF"
    score = "Attention score"

    def features(self, source: Path | bytes, key: str, box: Box | None = None) -> LocalFeatures:
        return extraction.delf(source, key, box, self.checkpoint, self.settings)

    def stored(self, name: str) -> LocalFeatures | None:
        """No network is needed for it."""
        if self.index is None or name not in self.index.positions:
            return None
        return as_local(self.index.features(self.index.positions[name]))

    def of_result(self, other: QueryPicture) -> LocalFeatures:
        stored = self.stored(other.name) if isinstance(other.source, Path) else None
        return stored or self.features(other.source, other.key)


@dataclass(frozen=True)
class XFeat:
    """The features that check what a search found. indexed: an index of the collection."""

    collection: Collection
    indexed: Path | None
    checkpoint = "xfeat"
    title = "XFeat"
    score = "Keypoint score"

    def features(self, source: Path | bytes, key: str, box: Box | None = None) -> LocalFeatures:
        return extraction.xfeat(source, key, box)

    def of_result(self, other: QueryPicture) -> LocalFeatures:
        if self.indexed is not None and isinstance(other.source, Path):
            stored = extraction.xfeat_stored(self.indexed, self.collection, other.name)
            if stored is not None:
                return stored
        most = checkpoints.REGISTRY["xfeat"].settings["keypoints"]
        return self.features(other.source, other.key)[:most]


def delf_of(collection: Collection) -> Delf:
    """DELF as the collection is indexed with it, or as it comes."""
    paths = own_pictures.indexes(collection)
    if "delf" in paths:
        try:
            opened = loaders.index_of(paths["delf"], collection)
            return Delf(opened, opened.checkpoint, opened.settings)
        except RetrievalError as error:
            st.warning(plain(str(error)), icon=":material/warning:")
    return Delf(None, checkpoints.of_method("delf")[0].id, {})


def xfeat_of(collection: Collection) -> XFeat:
    for path in own_pictures.indexes(collection).values():
        try:
            loaders.index_of(path, collection)
        except RetrievalError:  # the search page says what is wrong with it
            continue
        return XFeat(collection, path)
    return XFeat(collection, None)
