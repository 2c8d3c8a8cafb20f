"""The address of the search page: what it asks for, and what it is set to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from pages.parts import own_pictures, query
from retrieval import methods
from retrieval.collections import Collection
from retrieval.evaluation import PROTOCOLS

ALL = "all"
FEWEST, MOST = 3, 60
state = st.session_state


def follow_link(shelf: Mapping[str, str]) -> None:
    """Put what the address asks for into the session, before any widget is drawn."""
    asked = query.newly_asked(shelf, "link", "collection")
    if not asked:
        return
    if asked.get("method") in (*methods.METHODS, ALL):
        state.method = asked["method"]
    if asked.get("judge") in PROTOCOLS:
        state.judge = asked["judge"]
    if asked.get("count", "").isdecimal():
        state.count = min(max(int(asked["count"][:4]), FEWEST), MOST)
    try:
        state.least = float(asked["least"])
    except (KeyError, ValueError):
        state.least = None
    state.asked = (asked["query"], asked.get("box", "")) if "query" in asked else None


def follow_query(collection: Collection) -> None:
    """The rest of a link, which needs the collection: query and box."""
    if asked := state.pop("asked", None):
        query.follow(collection, *asked)


def write_link(collection: Collection, question: query.Question | None) -> None:
    """Mirror the view in the address. A visitor's own pictures cannot be part of it."""
    link = {"method": state.method, "count": str(state.count)}
    if state.get("least") is not None:
        link["least"] = f"{state.least:g}"
    if collection.protocols:
        link["judge"] = state.judge
    if collection.name != own_pictures.NAME:
        link["collection"] = collection.name
        if state.get("searched") and question and isinstance(question.source, Path):
            link["query"] = question.name
            if state.box:
                link["box"] = state.box
    state.link = link
    if link != st.query_params.to_dict():
        st.query_params.from_dict(link)
