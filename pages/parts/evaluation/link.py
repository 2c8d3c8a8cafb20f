"""The address of the evaluation page: reads its settings, and writes those of the page."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from pages.parts import address, own_pictures, query
from pages.parts.evaluation.all_queries import CURVES, VIEWS
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.collections.ground_truth import usual_protocol

state = st.session_state


def follow_link(titles: Mapping[str, str]) -> None:
    """Put the settings in the address into the session, before any widget is drawn.

    titles: name → title of the collections that can be opened here.
    """
    parameters = address.new_link(titles, "eval-link", "eval-collection")
    if not parameters:
        return
    state["eval-linked-protocol"] = parameters.get("protocol")
    state["eval-whole"] = parameters.get("boxes") == "no"
    state["eval-order"] = parameters.get("order", "AP")
    view = parameters.get("together")
    state["eval-together"] = view if view in VIEWS else CURVES
    for name in ("method", "against"):
        if name in parameters:
            state[f"eval-{name}"] = parameters[name]
    state["eval-linked"] = (
        (parameters["query"], parameters.get("box", "")) if "query" in parameters else None
    )


def follow_protocol(collection: Collection) -> None:
    """Choose the protocol in the address, or where there is none, keep it or take the usual one."""
    linked = state.pop("eval-linked-protocol", None)
    if linked in collection.protocols:
        state["eval-protocol"] = linked
    elif linked:
        st.warning(
            f"This link asks for the protocol {plain(linked)}, which {plain(collection.title)} "
            "does not have. Choose another one."
        )
    if state.get("eval-protocol") not in collection.protocols:
        state["eval-protocol"] = usual_protocol(collection.protocols)


def follow_query(collection: Collection) -> None:
    """Choose the query in the address, which can be read only when the collection is open."""
    linked = state.pop("eval-linked", None)
    if not linked:
        return
    name, box = linked
    numbers = [n for n, prepared in enumerate(collection.queries) if prepared.name == name]
    if numbers:
        # Where queries share a picture, the one with this box.
        numbers.sort(key=lambda n: query.box_as_text(collection.queries[n].box) != box)
        state["eval-query"] = numbers[0]
    else:
        st.warning(f"This link asks for {plain(name)}, which is no query here.")


def query_parameters(collection: Collection, number: int) -> dict[str, str]:
    """Collection and query, as the addresses of this page and of the search page have them.

    number: of the query.
    """
    prepared_query = collection.queries[number]
    parameters = {"collection": collection.name, "query": prepared_query.name}
    return parameters | (
        {"box": query.box_as_text(prepared_query.box)} if prepared_query.box else {}
    )


def write_link(parameters: Mapping[str, str]) -> None:
    """Mirror the view in the address. A visitor's own pictures cannot be part of it.

    parameters: see ``query_parameters``.
    """
    own = parameters["collection"] == own_pictures.NAME
    link = {
        **({"collection": own_pictures.NAME} if own else parameters),
        "protocol": state["eval-protocol"],
        "method": state["eval-method"],
        "against": state["eval-against"],
    }
    if state["eval-order"] != "AP":
        link["order"] = state["eval-order"]
    if (view := state.get("eval-together", CURVES)) != CURVES:
        link["together"] = view
    if state.get("eval-whole"):
        link["boxes"] = "no"
    address.keep_link("eval-link", link)
