"""The control that chooses a collection."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

state = st.session_state


def collection(titles: Mapping[str, str], key: str, help: str | None = None) -> str:
    """Draw the select box "Collection" and return the name of the chosen collection.

    titles: name → title of the collections to choose from; there is at least one. key: of the
    widget. It begins with the collection that the search page shows, or else with the first one.
    """
    if state.get(key) not in titles:
        searched = state.get("collection")
        state[key] = searched if searched in titles else next(iter(titles))
    return st.selectbox(
        "Collection",
        titles,
        format_func=titles.__getitem__,
        key=key,
        help=help,
        persist_state="session",
    )
