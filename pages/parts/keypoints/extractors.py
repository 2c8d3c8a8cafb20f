"""Local features as the search uses them: those of DELF, and those of XFeat for re-ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import streamlit as st

from pages.parts import extraction, loaders, notices, own_pictures
from pages.parts.query import QueryPicture
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.index import Index
from retrieval.methods.base import LocalFeatures, as_local
from retrieval.networks import checkpoints


class Extractor(Protocol):
    """Finds keypoints in a picture.

    title: its name on the page. checkpoint: the id of its network. score_label: what the score of
    a keypoint is, in words.
    """

    title: str
    score_label: str

    @property
    def checkpoint(self) -> str: ...

    def features(self, source: Path | bytes, key: str, box: Box | None = None) -> LocalFeatures:
        """The features of a picture, or of a box in it. key: stands for the picture in caches."""

    def database_features(self, picture: QueryPicture) -> LocalFeatures:
        """The features of a result that the search uses: the stored ones, where there are some."""


@dataclass(frozen=True)
class DelfExtractor:
    """DELF with the checkpoint and settings of ``index``, or without an index those given."""

    index: Index | None
    checkpoint: str
    settings: Mapping
    title = "DELF"
    score_label = "Attention score"

    def features(self, source: Path | bytes, key: str, box: Box | None = None) -> LocalFeatures:
        return extraction.delf(source, key, box, self.checkpoint, self.settings)

    def database_features(self, picture: QueryPicture) -> LocalFeatures:
        if self.index and picture.own_name in self.index.positions:
            return as_local(self.index.features(self.index.positions[picture.name]))
        return self.features(picture.source, picture.key)


@dataclass(frozen=True)
class XFeatExtractor:
    """XFeat, whose features re-ranking by geometry compares.

    index_path: an index of the collection, beside which they are stored; None where there is none.
    """

    collection: Collection
    index_path: Path | None
    checkpoint = "xfeat"
    title = "XFeat"
    score_label = "Keypoint score"

    def features(self, source: Path | bytes, key: str, box: Box | None = None) -> LocalFeatures:
        return extraction.xfeat(source, key, box)

    def database_features(self, picture: QueryPicture) -> LocalFeatures:
        if self.index_path is not None and isinstance(picture.source, Path):
            stored = extraction.xfeat_stored(self.index_path, self.collection, picture.name)
            if stored is not None:
                return stored
        # A query has more keypoints than a picture of the database.
        max_keypoints = checkpoints.REGISTRY["xfeat"].settings["keypoints"]
        return self.features(picture.source, picture.key)[:max_keypoints]


def delf_extractor(collection: Collection) -> DelfExtractor:
    """DELF as the collection's index has it; without an index, with the default checkpoint."""
    paths = own_pictures.indexes(collection)
    if "delf" in paths:
        try:
            index = loaders.index_of(paths["delf"], collection)
            return DelfExtractor(index, index.checkpoint, index.settings)
        except RetrievalError as error:
            st.warning(notices.sentence(error), icon=":material/warning:")
    return DelfExtractor(None, checkpoints.of_method("delf")[0].id, {})


def xfeat_extractor(collection: Collection) -> XFeatExtractor:
    """XFeat with the first index of the collection that can be read."""
    for path in own_pictures.indexes(collection).values():
        try:
            loaders.index_of(path, collection)
        except RetrievalError:  # the search page shows this error
            continue
        return XFeatExtractor(collection, path)
    return XFeatExtractor(collection, None)
