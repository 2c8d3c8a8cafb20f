"""Before a search: the pictures to start from."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts import cards, query
from retrieval.collections import Collection

PER_PAGE = 24
state = st.session_state


def browse(collection: Collection) -> None:
    """Before a search: the pictures to start from."""
    st.subheader("Click a picture to search with it", anchor=False)
    prepared = state.source == query.PREPARED
    choices = range(len(collection.queries)) if prepared else collection.names
    pages = -(-len(choices) // PER_PAGE)
    page = state.get("page", 1)
    if page > pages:
        page = state.page = 1
    with cards.grid(3, "browse"):
        for n, choice in enumerate(choices[(page - 1) * PER_PAGE : page * PER_PAGE]):
            one = collection.queries[choice] if prepared else None
            label = cards.plain(query.label(one) if one else Path(choice).name)
            cards.card(
                collection,
                one.name if one else choice,
                f":small[{label}]",
                f"Search with {label}",
                f"browse-{n}",
                None,
                query.ask_prepared if one else query.ask_database,
                (choice,),
            )
    if pages > 1:
        st.pagination(pages, key="page")
