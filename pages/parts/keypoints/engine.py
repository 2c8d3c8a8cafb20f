"""DELF as a collection is indexed with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from pages.parts import loaders, own_pictures
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.index import Index
from retrieval.methods.base import LocalFeatures, as_local


@dataclass(frozen=True)
class Engine:
    """Which DELF: that of the index, where there is one."""

    index: Index | None
    checkpoint: str | None
    settings: Mapping

    def features(self, source: Path | bytes, key: str, box: Box | None = None) -> LocalFeatures:
        return loaders.local_features(source, key, box, self.checkpoint, self.settings)

    def stored(self, name: str) -> LocalFeatures | None:
        """Features of a database picture as the index keeps them: no network is needed."""
        if self.index is None or name not in self.index.positions:
            return None
        return as_local(self.index.features(self.index.positions[name]))


def engine_of(collection: Collection) -> Engine:
    """DELF as the collection is indexed with it, or as it comes."""
    paths = own_pictures.indexes(collection)
    if "delf" in paths:
        try:
            opened = loaders.index_of(paths["delf"], collection)
            return Engine(opened, opened.checkpoint, opened.settings)
        except RetrievalError as error:
            st.warning(str(error), icon=":material/warning:")
    return Engine(None, None, {})
