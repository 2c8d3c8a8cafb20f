"""Pairs of pictures of the embedded collection that show where matching works and fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import streamlit as st

from pages.parts.keypoints.link import has_usual_settings
from pages.parts.keypoints.matching import MATCHERS
from retrieval.collections import Collection

FEATURES = ("delf", "xfeat")  # that the matchers use


class Preset(NamedTuple):
    """Two pictures and an explanation.

    query, result: their names. confirmed_by: the matchers of MATCHERS that find enough inliers.
    """

    query: str
    result: str
    title: str
    sentence: str
    confirmed_by: frozenset[str]


PRESETS = (
    Preset(
        "museum_009.jpg",
        "museum_012.jpg",
        "The same building at dusk",
        "The light, the camera and the crowd differ, and still all three find inliers: DELF a few, "
        "XFeat more, and LighterGlue the most.",
        frozenset({"delf", "xfeat", "lighterglue"}),
    ),
    Preset(
        "exchange_013.jpg",
        "museum_014.jpg",
        "Look-alikes",
        "Two buildings with the same columns and the same gable. DELF and LighterGlue take them "
        "for one; XFeat finds too few inliers. Geometry can be wrong.",
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


def show_presets(collection: Collection, chosen: tuple[str, str]) -> None:
    """Link to the pairs, where the collection has them, and explain the pair on show
    where the settings are those that the explanation is about.

    chosen: names of the query picture and of the second picture.
    """
    names = {*collection.names, *(prepared.name for prepared in collection.queries)}
    if not all({preset.query, preset.result} <= names for preset in PRESETS):
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("Pairs to try", width="content")
        for preset in PRESETS:
            st.page_link(
                "pages/keypoints.py",
                label=preset.title,
                query_params=link_parameters(collection, preset),
                width="content",
            )
    for preset in PRESETS:
        if (preset.query, preset.result) == chosen and all(map(has_usual_settings, FEATURES)):
            st.info(preset.sentence, icon=":material/school:")


def link_parameters(collection: Collection, preset: Preset) -> Mapping[str, str]:
    """The address of a pair, compared by all matchers.

    It has the empty box of the whole picture, which ``write_link`` leaves out: a link to the page
    that is open does not change the address in the browser, so the page has to write another.
    """
    return {
        "view": "pair",
        "collection": collection.name,
        "by": ",".join(MATCHERS),
        "query": preset.query,
        "box": "",
        "result": preset.result,
    }
