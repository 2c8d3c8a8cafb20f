"""A query and one of its results, large."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts import cards, loaders, own_pictures, query
from retrieval.collections import Collection
from retrieval.images import Box

state = st.session_state


@st.dialog("Query and result", width="large")
def large(
    collection: Collection, question: query.Question, box: Box | None, name: str, caption: str
) -> None:
    asked, found = st.columns(2)
    with asked:
        jpeg, size = loaders.view(question.source, 1000, question.name)
        st.image(cards.boxed(jpeg, size, box), width="stretch", alt="Query")
        st.markdown(f"Query · {cards.plain(question.name)}")
        cards.credit_line(question.credit)
    with found:
        cards.picture(collection, name, 1000)
        st.markdown(caption)
        cards.credit_line(collection.credits.get(name))
        if (
            state.method in ("delf", "all")
            and collection.name != own_pictures.NAME
            and isinstance(question.source, Path)
        ):
            view = {"view": "pair", "collection": collection.name, "query": question.name}
            view |= {"result": name} | ({"box": state.box} if state.box else {})
            st.page_link(
                "pages/keypoints.py",
                label="See the matches",
                icon=":material/scatter_plot:",
                query_params=view,
            )
        if st.button(
            "Make it the next query",
            key="next",
            type="primary",
            width="stretch",
            on_click=query.ask_database,
            args=(name,),
        ):
            st.rerun()
