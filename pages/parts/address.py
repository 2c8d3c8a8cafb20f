"""The address of a page: finds out whether there is a new one to follow, and writes the view."""

from __future__ import annotations

import math
from collections.abc import Mapping

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from pages.parts.plain import plain

OWN_PICTURES = "mine"  # in an address: the visitor's own pictures as a collection
NO_OWN_PICTURES = (
    "No pictures of yours are in this tab. They stay in the tab that brought them until it is "
    "closed or reloaded, loses its connection for two minutes, or the app is restarted. Bring them "
    "again here."
)
MAX_BEFORE = 20  # addresses of a page that its browser may not have received yet
state = st.session_state


def new_link(titles: Mapping[str, str], mark: str, collection_key: str) -> dict[str, str]:
    """The query parameters of the address, if they are new; puts their collection in the session.

    titles: name → title of the collections that can be opened.
    mark: of the page. A number that stands for the parameters that a page last followed or wrote
    is kept in the session by its mark.
    collection_key: session key of the collection.
    Returns {} where nothing is new, for a late address or that of another page, and where the
    collection is not on this machine; then the page shows a warning.
    """
    parameters = st.query_params.to_dict()
    number, last = _number_of(parameters), _numbers().get(mark)
    is_new = parameters and number != last
    if is_new and _is_behind(number, mark):
        return {}
    if is_new and _is_of_another_page(number, mark):
        state["written-before"] = mark, [number]
        return {}
    # A link to the open page leaves the browser at the former address until the page has written.
    state["written-before"] = mark, ([last] if is_new else [])
    if not is_new:
        return {}
    _numbers()[mark] = number
    if "collection" in parameters and parameters["collection"] not in titles:
        name = parameters["collection"]
        st.warning(
            NO_OWN_PICTURES
            if name == OWN_PICTURES
            else f"This link asks for the collection {plain(name)}, which is not on this machine. "
            "Choose another collection."
        )
        return {}
    if "collection" in parameters:
        state[collection_key] = parameters["collection"]
    return parameters


def _is_behind(number: int, mark: str) -> bool:
    """Whether the browser sent this address before it received one that was written later.

    Each click brings the address of the browser. Of two quick clicks, the second may still bring
    that from before the first: to follow it would undo both. An address that the browser's Back
    brings is to be followed.
    """
    page, before = state.get("written-before", ("", []))
    return page == mark and number in before and not goes_back()


def _is_of_another_page(number: int, mark: str) -> bool:
    """Whether Back brought a wrong address: the path of this page, the parameters of another.

    Where Streamlit's browser part receives the first address of a page before it has changed the
    path, it keeps this mixture as a step of its own. The page writes its true address there.
    """
    others = [last for other, last in _numbers().items() if other != mark]
    return goes_back() and number in others


def goes_back() -> bool:
    """Whether the browser's Back or Forward brought the address."""
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


def _numbers() -> dict[str, int]:
    """Mark of a page → the number of the address that it last followed or wrote."""
    return state.setdefault("addresses", {})


def _number_of(parameters: Mapping[str, str]) -> int:
    """A number that stands for an address.

    A forged one may have 60,000 letters: twenty of those took 5 MB of each tab.
    """
    return hash(frozenset(parameters.items()))


def keep_link(mark: str, link: dict[str, str]) -> None:
    """Write a view into the address; ``new_link`` then finds nothing new.

    mark: as for ``new_link``, which was called in this run of the page.
    """
    former, number = _numbers().get(mark), _number_of(link)
    if number != former:
        _, before = state["written-before"]
        state["written-before"] = mark, [*before, former][-MAX_BEFORE:]
        _numbers()[mark] = number
    if number != former or link != st.query_params.to_dict():
        st.query_params.from_dict(link)


def parse_number(text: str) -> float | None:
    """The finite number in a text of a link; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
