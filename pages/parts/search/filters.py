"""A filter by metadata: it shows only pictures that have a value in the table beside them."""

from __future__ import annotations

import json

import streamlit as st

from pages.parts.keys import key_about
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.collections.metadata import Values, choices
from retrieval.index import finding

state = st.session_state


def choose_filter(collection: Collection) -> None:
    """Draw the select of columns and their values; any other filter can be typed into it."""
    key = key_about("where", collection.name, collection.root)
    # Another collection has other columns. A link knows only its name.
    if state.get("filtered") not in (collection.name, key):
        state.where = ""
    state.filtered = key
    if not collection.metadata and not finding.in_stores():
        return
    titles = {
        f"{column} == {json.dumps(value, ensure_ascii=False)}": f"{_words(column)}: {value}"
        for column, values in choices(collection.metadata).items()
        for value in values
    }
    options = ["", *titles]
    if state.get("where") and state.where not in titles:
        options.append(state.where)
    state[key] = state.where
    st.selectbox(
        "Only pictures with",
        options,
        format_func=lambda where: titles.get(where, where) or "Any value",
        key=key,
        on_change=_use_filter,
        args=(key,),
        accept_new_options=True,
        help="Search only in pictures with these metadata. Type a filter of your own as "
        '`landmark == "chapel" and season == "snow"`.',
        persist_state="session",
    )


def _use_filter(key: str) -> None:
    """Callback of the select. key: of the select, one for each collection."""
    if state.get("filtered") == key:
        state.where = state[key]


def show_filter() -> None:
    """Show the filter in use, as a button that removes it."""
    if state.get("where"):
        st.button(
            f"Only {plain(state.where)}",
            key="clear-where",
            icon=":material/close:",
            help="Search in all pictures again",
            on_click=lambda: state.update(where=""),
        )


def show_values(values: Values | None) -> None:
    """Show the values of a picture in the table, in one line of small print."""
    if values:
        parts = (f"{plain(_words(key))} **{plain(str(value))}**" for key, value in values.items())
        st.caption(" · ".join(parts))


def _words(column: str) -> str:
    return column.replace("_", " ").strip()
