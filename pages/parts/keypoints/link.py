"""The address of the keypoint page: reads its settings, and writes those of the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts import address, own_pictures, query
from pages.parts.keypoints.matching import MATCHERS, MODELS, SIMILARITY_BOUNDS, TOLERANCE_BOUNDS
from retrieval.collections import Collection
from retrieval.ranking import geometry, verification

# The choices: values in the address → labels on the page.
VIEWS = {"sees": "One picture", "pair": "Two pictures"}
BOTH = "both"
FEATURES = {"delf": "DELF", "xfeat": "XFeat", BOTH: "Side by side"}
LOOKS = {"keypoints": "Keypoints", "fields": "Receptive fields", "attention": "Attention map"}
CHOICES = {"view": VIEWS, "features": FEATURES, "look": LOOKS, "model": MODELS}
COUNT_BOUNDS = 10, 1000  # keypoints
BOUNDS = {
    "similarity": SIMILARITY_BOUNDS,
    "tolerance": TOLERANCE_BOUNDS,
    "count": COUNT_BOUNDS,
}
# Where the second picture comes from.
FROM_COLLECTION, UPLOAD = "From the collection", "Upload"
DEFAULTS: dict[str, Any] = {
    "kp-view": "sees",
    "kp-features": "delf",
    "kp-look": "keypoints",
    "kp-count": 200,
    "kp-by": ["delf", "xfeat"],
    "kp-similarity": geometry.MIN_SIMILARITY,
    "kp-tolerance": 100 * geometry.TOLERANCE,
    "kp-model": "affine",
    "kp-xfeat-similarity": verification.MIN_SIMILARITY,
    "kp-xfeat-tolerance": 100 * verification.TOLERANCE,
    "kp-xfeat-model": "homography",
}
# Parameters of the address, of each view: the session has them as "kp-" and the name.
ONE_PICTURE = ("features", "look", "count")
GEOMETRY = ("similarity", "tolerance", "model")
TWO_PICTURES = ("by", *GEOMETRY, *(f"xfeat-{name}" for name in GEOMETRY))
state = st.session_state


def follow_link(titles: Mapping[str, str]) -> None:
    """Put the settings in the address into the session, before any widget is drawn.

    titles: name → title of the collections that can be opened here.
    """
    parameters = address.new_link(titles, "kp-link", "collection")
    if not parameters:
        return
    if address.goes_back():  # to an address that does not name the usual settings of its view
        for name in TWO_PICTURES if parameters.get("view") == "pair" else ONE_PICTURE:
            state[f"kp-{name}"] = DEFAULTS[f"kp-{name}"]
    for name in ("view", *ONE_PICTURE, *TWO_PICTURES):
        text, kind = parameters.get(name, ""), name.removeprefix("xfeat-")
        if kind in CHOICES and text in CHOICES[kind]:
            state[f"kp-{name}"] = text
        elif kind in BOUNDS and (number := address.parse_number(text)) is not None:
            least, most = BOUNDS[kind]
            number = min(max(number, least), most)
            state[f"kp-{name}"] = round(number / 10) * 10 if kind == "count" else number
    asked_matchers = parameters.get("by", "").split(",")
    if known_matchers := [name for name in MATCHERS if name in asked_matchers]:
        state["kp-by"] = known_matchers
    if "result" in parameters:
        state["kp-result"], state["kp-other"] = parameters["result"], FROM_COLLECTION
        state["kp-linked"] = parameters["result"]
    state["kp-linked-query"] = (
        (parameters["query"], parameters.get("box", "")) if "query" in parameters else None
    )


def has_usual_settings(features: str) -> bool:
    """Whether 'delf' or 'xfeat' is matched and verified as a search does it."""
    names = (name if features == "delf" else f"{features}-{name}" for name in GEOMETRY)
    return all(state[f"kp-{name}"] == DEFAULTS[f"kp-{name}"] for name in names)


def write_link(collection: Collection, query_picture: query.QueryPicture | None) -> None:
    """Mirror the view in the address. A visitor's own pictures cannot be part of it."""
    link = {"view": state["kp-view"]}
    for name in TWO_PICTURES if link["view"] == "pair" else ONE_PICTURE:
        value = state[f"kp-{name}"]
        if value != DEFAULTS[f"kp-{name}"]:
            if isinstance(value, list):
                value = ",".join(value)
            link[name] = value if isinstance(value, str) else f"{value:g}"
    if collection.name != own_pictures.NAME:
        link["collection"] = collection.name
        if query_picture and isinstance(query_picture.source, Path):
            link["query"] = query_picture.name
            if link["view"] == "pair":
                if state.get("box"):
                    link["box"] = state.box
                if state.get("kp-other") == FROM_COLLECTION and state.get("kp-result"):
                    link["result"] = state["kp-result"]
    address.keep_link("kp-link", link)
