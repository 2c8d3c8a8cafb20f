"""Pairs of pictures of the embedded collection that teach what matching can and cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import streamlit as st

from pages.parts.keypoints.matching import MATCHERS
from retrieval.collections import Collection


class Preset(NamedTuple):
    """Two pictures, and what to say about them. agree: matchers with enough inliers."""

    query: str
    result: str
    title: str
    sentence: str
    agree: frozenset[str]


PRESETS = (
    Preset(
        "museum_009.jpg",
        "museum_012.jpg",
        "The same building at dusk",
        "The light, the camera and the crowd differ, and still all three find enough inliers: "
        "XFeat more than DELF, and LighterGlue the most.",
        frozenset({"delf", "xfeat", "lighterglue"}),
    ),
    Preset(
        "exchange_013.jpg",
        "museum_014.jpg",
        "Look-alikes",
        "Two buildings with the same columns and the same gable. DELF and LighterGlue take them "
        "for one, with few inliers above the limit; XFeat does not. Geometry can be wrong.",
        frozenset({"delf", "lighterglue"}),
    ),
    Preset(
        "belltower_001.jpg",
        "bridge_006.jpg",
        "Unrelated",
        "DELF finds about a hundred matches here as well. They mean nothing: almost none of "
        "them fit one transformation.",
        frozenset(),
    ),
)


def presets(collection: Collection, chosen: tuple[str, str]) -> None:
    """Links to the pairs, where their pictures are; the sentence of the pair on show."""
    known = {*collection.names, *(asked.name for asked in collection.queries)}
    if not all({one.query, one.result} <= known for one in PRESETS):
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("Pairs to try", width="content")
        for one in PRESETS:
            st.page_link(
                "pages/keypoints.py",
                label=one.title,
                query_params=link(collection, one),
                width="content",
            )
    for one in PRESETS:
        if (one.query, one.result) == chosen:
            st.info(one.sentence, icon=":material/school:")


def link(collection: Collection, one: Preset) -> Mapping[str, str]:
    view = {"view": "pair", "collection": collection.name, "by": ",".join(MATCHERS)}
    return view | {"query": one.query, "result": one.result}
