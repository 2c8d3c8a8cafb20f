"""The address of the keypoint page: what it asks for, and what it is set to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from pages.parts import own_pictures, query
from pages.parts.keypoints.matching import MATCHERS, MODELS
from retrieval.collections import Collection
from retrieval.ranking import geometry, verification

VIEWS = {"sees": "One picture", "pair": "Two pictures"}
BOTH = "both"
FEATURES = {"delf": "DELF", "xfeat": "XFeat", BOTH: "Side by side"}
LOOKS = {"keypoints": "Keypoints", "fields": "Receptive fields", "attention": "Attention map"}
HERE, UPLOAD = "From the collection", "Upload"
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
ONE = ("features", "look", "count")
GEOMETRY = ("similarity", "tolerance", "model")
PAIR = ("by", *GEOMETRY, *(f"xfeat-{what}" for what in GEOMETRY))
LIMITS = {"similarity": (0.3, 0.95), "tolerance": (0.25, 5), "count": (10, 1000)}
CHOICES = {"view": VIEWS, "features": FEATURES, "look": LOOKS, "model": MODELS}
state = st.session_state


def follow_link(titles: Mapping[str, str]) -> None:
    """Put what the address asks for into the session, before any widget is drawn."""
    parameters = query.new_link(titles, "kp-link", "collection")
    if not parameters:
        return
    for name in ("view", *ONE, *PAIR):
        text, kind = parameters.get(name, ""), name.removeprefix("xfeat-")
        if kind in CHOICES and text in CHOICES[kind]:
            state[f"kp-{name}"] = text
        elif kind in LIMITS and (value := query.parse_number(text)) is not None:
            least, most = LIMITS[kind]
            value = min(max(value, least), most)
            state[f"kp-{name}"] = round(value / 10) * 10 if kind == "count" else value
    if by := [one for one in MATCHERS if one in parameters.get("by", "").split(",")]:
        state["kp-by"] = by
    if "result" in parameters:
        state["kp-result"], state["kp-other"] = parameters["result"], HERE
        state["kp-linked"] = parameters["result"]
    state["kp-asked"] = (
        (parameters["query"], parameters.get("box", "")) if "query" in parameters else None
    )


def write_link(collection: Collection, query_picture: query.QueryPicture | None) -> None:
    """Mirror the view in the address. A visitor's own pictures cannot be part of it."""
    link = {"view": state["kp-view"]}
    for key in PAIR if link["view"] == "pair" else ONE:
        value = state[f"kp-{key}"]
        if value != DEFAULTS[f"kp-{key}"]:
            if isinstance(value, list):
                value = ",".join(value)
            link[key] = value if isinstance(value, str) else f"{value:g}"
    if collection.name != own_pictures.NAME:
        link["collection"] = collection.name
        if query_picture and isinstance(query_picture.source, Path):
            link["query"] = query_picture.name
            if link["view"] == "pair":
                if state.get("box"):
                    link["box"] = state.box
                if state.get("kp-other") == HERE and state.get("kp-result"):
                    link["result"] = state["kp-result"]
    query.keep_link("kp-link", link)
