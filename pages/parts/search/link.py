"""The address of the search page: following a link, and writing the view into the address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from pages.parts import address, notices, own_pictures, query
from pages.parts.plain import plain
from retrieval import methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import PROTOCOLS
from retrieval.ranking import chain

ALL = "all"
MIN_COUNT, MAX_COUNT = 3, 60  # results on show
LAYOUTS = {"grid": "Pictures", "list": "List"}
MAX_FILTER_LENGTH = 500  # characters
state = st.session_state


def min_score_key(method: str) -> str:
    """The key under which the session keeps the lowest score on show, one for each method."""
    return f"least-{method}"


def follow_link(titles: Mapping[str, str]) -> None:
    """Put the query parameters of the address into the session, before any widget is drawn.

    titles: name → title of the collections that can be opened here.
    """
    parameters = address.new_link(titles, "link", "collection")
    if not parameters:
        return
    if parameters.get("method") in (*methods.METHODS, ALL):
        state.method = parameters["method"]
    elif "method" in parameters:
        st.warning(
            f"This link asks for the method {plain(parameters['method'])}, which is unknown. "
            "Choose another method."
        )
    if parameters.get("judge") in PROTOCOLS:
        state.judge = parameters["judge"]
    elif "judge" in parameters:
        st.warning(
            f"This link asks for the protocol {plain(parameters['judge'])}, which is unknown. "
            "Choose another under *Options*."
        )
    if parameters.get("count", "").isdecimal():
        state.count = min(max(int(parameters["count"][:4]), MIN_COUNT), MAX_COUNT)
    # Other links leave the layout as it is; the addresses that Back brings do not name the usual.
    layout = parameters.get("layout", "grid" if address.goes_back() else "")
    if layout in LAYOUTS:
        state.layout = layout
    state.fold = parameters.get("fold") == "yes"
    state.hide = parameters.get("hide") == "yes"
    state.pop("revealed", None)
    try:
        state.then = ",".join(chain.parse_chain(parameters.get("then", "")))
    except RetrievalError as error:
        state.then = ""
        st.warning(f"{notices.sentence(error)} Nothing is re-ranked now.")
    state.where, state.filtered = (
        parameters.get("where", "")[:MAX_FILTER_LENGTH],
        state.get("collection"),
    )
    for method in methods.METHODS:
        state[min_score_key(method)] = None
    if parameters.get("method") in methods.METHODS:
        state[min_score_key(parameters["method"])] = address.parse_number(
            parameters.get("least", "")
        )
    state.linked = (
        (parameters["query"], parameters.get("box", "")) if "query" in parameters else None
    )
    # Back to before the first search. The address of a visitor's own picture names no query either,
    # nor may that of another page, see ``new_link``.
    own = parameters.get("collection") == own_pictures.NAME
    own = own or state.get("source") not in (query.PREPARED, query.DATABASE)
    written_here = "count" in parameters
    if state.linked is None and address.goes_back() and written_here and not own:
        state.searched = False


def follow_query(collection: Collection) -> None:
    """Choose the query and the box of the address, once the collection is open."""
    if linked := state.pop("linked", None):
        query.follow(collection, *linked)


def write_link(collection: Collection, query_picture: query.QueryPicture | None) -> None:
    """Mirror the view in the address. A visitor's own pictures cannot be part of it."""
    link = {"method": state.method, "count": str(state.count)}
    if state.then:
        link["then"] = state.then
    if state.layout != "grid":
        link["layout"] = state.layout
    if state.fold:
        link["fold"] = "yes"
    if state.get("where") and collection.name != own_pictures.NAME:
        link["where"] = state.where
    if state.get(min_score_key(state.method)) is not None:
        link["least"] = f"{state[min_score_key(state.method)]:g}"
    if collection.protocols:
        link["judge"] = state.judge
        if state.hide:
            link["hide"] = "yes"
    link["collection"] = collection.name
    shared = collection.name != own_pictures.NAME and state.get("searched")
    if shared and query_picture and isinstance(query_picture.source, Path):
        link["query"] = query_picture.name
        if state.box:
            link["box"] = state.box
    address.keep_link("link", link)
