"""The address of the evaluation page: what it asks for, and what it is set to."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from pages.parts import own_pictures, query
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.evaluation import PROTOCOLS

state = st.session_state


def follow_link(titles: Mapping[str, str]) -> None:
    """Put what the address asks for into the session, before any widget is drawn."""
    parameters = query.new_link(titles, "eval-link", "eval-collection")
    if not parameters:
        return
    if parameters.get("protocol") in PROTOCOLS:
        state["eval-protocol"] = parameters["protocol"]
    state["eval-whole"] = parameters.get("boxes") == "no"
    for key in ("method", "against"):
        if key in parameters:
            state[f"eval-{key}"] = parameters[key]
    state["eval-asked"] = (
        (parameters["query"], parameters.get("box", "")) if "query" in parameters else None
    )


def follow_query(collection: Collection) -> None:
    """The rest of a link, which needs the collection: the query."""
    linked = state.pop("eval-asked", None)
    if not linked:
        return
    name, box = linked
    same = [n for n, one in enumerate(collection.queries) if one.name == name]
    if same:
        state["eval-query"] = min(
            same, key=lambda n: query.box_as_text(collection.queries[n].box) != box
        )
    else:
        st.warning(f"This link asks for {plain(name)}, which is no query here.")


def view_of(collection: Collection, number: int) -> dict[str, str]:
    """Collection and query, as the address of this page and of the search page has them."""
    one_query = collection.queries[number]
    view = {"collection": collection.name, "query": one_query.name}
    return view | ({"box": query.box_as_text(one_query.box)} if one_query.box else {})


def write_link(view: Mapping[str, str]) -> None:
    """Mirror the view in the address. A visitor's own pictures cannot be part of it."""
    own = view["collection"] == own_pictures.NAME
    link = {
        **({"collection": own_pictures.NAME} if own else view),
        "protocol": state["eval-protocol"],
        "method": state["eval-method"],
        "against": state["eval-against"],
    }
    if state.get("eval-whole"):
        link["boxes"] = "no"
    query.keep_link("eval-link", link)
