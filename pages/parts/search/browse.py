"""Before a search: the pictures to choose a query from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from pages.parts import cards, query, scroll
from pages.parts.keys import key_about
from pages.parts.plain import plain
from pages.parts.search.tour import show_tour
from retrieval.collections import Collection

PER_PAGE = 24
state = st.session_state


def show_pictures(collection: Collection) -> None:
    """Show the tour and pages of pictures; a click on a picture searches with it."""
    st.markdown(
        "Search with a picture for others of the same place. **Compare all** shows three methods "
        "side by side."
    )
    show_tour(collection)
    st.subheader("Click a picture to search with it", anchor=False)
    prepared = state.source == query.PREPARED
    choices: Sequence[int | str] = range(len(collection.queries)) if prepared else collection.names
    pages = -(-len(choices) // PER_PAGE)
    shown = collection.name, state.source
    if state.get("page-of", shown) != shown:
        state.page = 1
    state["page-of"] = shown
    page = state.get("page", 1)
    if page > pages:
        page = state.page = 1
    labels = query.labels(collection.queries) if prepared else []
    with cards.grid(3, "browse"):
        for n, choice in enumerate(choices[(page - 1) * PER_PAGE : page * PER_PAGE]):
            if isinstance(choice, int):
                prepared_query = collection.queries[choice]
                name, label = prepared_query.name, plain(labels[choice])
                ask = partial(query.ask_prepared, choice)
            else:
                name, label = choice, plain(Path(choice).name)
                ask = partial(query.ask_database, choice)
            cards.card(
                collection,
                name,
                f":small[{label}]",
                label=f"Search with {label}",
                key=key_about(f"browse-{n}", shown, collection.root, choice),
                on_click=partial(_ask_in, collection.name, ask),
            )
    scroll.page_numbers(pages, "page", "grid-browse")


def _ask_in(name: str, ask: Callable[[], None]) -> None:
    """Callback of a card. name: of its collection; another one may have been chosen meanwhile."""
    if state.collection == name:
        ask()
