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
    asked = query.new_link(titles, "eval-link", "eval-collection")
    if not asked:
        return
    if asked.get("protocol") in PROTOCOLS:
        state["eval-protocol"] = asked["protocol"]
    state["eval-whole"] = asked.get("boxes") == "no"
    for key in ("method", "against"):
        if key in asked:
            state[f"eval-{key}"] = asked[key]
    state["eval-asked"] = (asked["query"], asked.get("box", "")) if "query" in asked else None


def follow_query(collection: Collection) -> None:
    """The rest of a link, which needs the collection: the query."""
    asked = state.pop("eval-asked", None)
    if not asked:
        return
    name, box = asked
    same = [n for n, one in enumerate(collection.queries) if one.name == name]
    if same:
        state["eval-query"] = min(
            same, key=lambda n: query.box_as_text(collection.queries[n].box) != box
        )
    else:
        st.warning(f"This link asks for {plain(name)}, which is no query here.")


def view_of(collection: Collection, number: int) -> dict[str, str]:
    """Collection and query, as the address of this page and of the search page has them."""
    asked = collection.queries[number]
    view = {"collection": collection.name, "query": asked.name}
    return view | ({"box": query.box_as_text(asked.box)} if asked.box else {})


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
