"""The address of the keypoint page: what it asks for, and what it is set to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from pages.parts import own_pictures, query
from retrieval.collections import Collection
from retrieval.ranking.geometry import MIN_SIMILARITY, TOLERANCE

VIEWS = {"sees": "What DELF sees", "pair": "Two pictures"}
LOOKS = {"keypoints": "Keypoints", "fields": "Receptive fields", "attention": "Attention map"}
MODELS = {"affine": "Affine", "homography": "Homography"}
HERE, UPLOAD = "From the collection", "Upload"
DEFAULTS = {
    "kp-view": "sees",
    "kp-look": "keypoints",
    "kp-count": 200,
    "kp-similarity": MIN_SIMILARITY,
    "kp-tolerance": 100 * TOLERANCE,
    "kp-model": "affine",
}
state = st.session_state


def follow_link(shelf: Mapping[str, str]) -> None:
    """Put what the address asks for into the session, before any widget is drawn."""
    asked = query.newly_asked(shelf, "kp-link", "collection")
    if not asked:
        return
    for key, options in (("view", VIEWS), ("look", LOOKS), ("model", MODELS)):
        if asked.get(key) in options:
            state[f"kp-{key}"] = asked[key]
    for key, least, most in (("similarity", 0.3, 0.95), ("tolerance", 0.5, 5), ("count", 10, 1000)):
        try:
            value = min(max(float(asked[key]), least), most)
        except (KeyError, ValueError):
            continue
        if not math.isfinite(value):  # of "nan" there is no least and no most
            continue
        state[f"kp-{key}"] = round(value / 10) * 10 if key == "count" else value
    if "result" in asked:
        state["kp-result"], state["kp-other"] = asked["result"], HERE
    state["kp-asked"] = (asked["query"], asked.get("box", "")) if "query" in asked else None


def write_link(collection: Collection, question: query.Question | None) -> None:
    """Mirror the view in the address. A visitor's own pictures cannot be part of it."""
    link = {"view": state["kp-view"]}
    keys = ("similarity", "tolerance", "model") if link["view"] == "pair" else ("look", "count")
    for key in keys:
        value = state[f"kp-{key}"]
        if value != DEFAULTS[f"kp-{key}"]:
            link[key] = value if isinstance(value, str) else f"{value:g}"
    if collection.name != own_pictures.NAME:
        link["collection"] = collection.name
        if question and isinstance(question.source, Path):
            link["query"] = question.name
            if link["view"] == "pair":
                if state.get("box"):
                    link["box"] = state.box
                if state.get("kp-other") == HERE and state.get("kp-result"):
                    link["result"] = state["kp-result"]
    state["kp-link"] = link
    if link != st.query_params.to_dict():
        st.query_params.from_dict(link)
