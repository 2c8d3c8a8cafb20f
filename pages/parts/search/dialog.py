"""A dialog with a query and one result, large: why it was found, and buttons to other results."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts import cards, notices, own_pictures, query
from pages.parts.keys import key_about
from pages.parts.plain import plain
from pages.parts.search import filters, reranking
from pages.parts.search.answer import Search, score_text
from pages.parts.search.why import explain_result, show_geometry, show_inliers
from retrieval import methods
from retrieval.ranking.verification import PAIR_MATCHERS

state = st.session_state


@st.dialog("Why this result?", width="large")
def show_result(search: Search) -> None:
    """Open a dialog with the result in ``state.result``: a method, and a rank from 0."""
    collection, query_picture, judged = search.collection, search.query_picture, search.judged
    state.result = state.pop("enlarged", state.get("result"))
    name, n = state.result
    path = own_pictures.indexes(collection).get(name)
    if path is None:  # removed while this dialog was open
        notices.no_index(collection, name)
        st.stop()
    with notices.errors_shown():
        ranking = search.ranking(name, path)
    hit = ranking.names[n]
    title = f"Rank **{n + 1}** · {methods.METHODS[name].title} · {score_text(ranking, n)}"
    title += reranking.moved_text(ranking, n)
    if judged and (verdict := judged.verdict(hit)):
        title += f" · {cards.VERDICTS[verdict].symbol} {cards.VERDICTS[verdict].label}"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(title, width="stretch")
        with st.container(horizontal=True, width="content", wrap=False):
            _step("Previous", ":material/chevron_left:", n - 1, len(ranking))
            _step("Next", ":material/chevron_right:", n + 1, len(ranking))
    reranking.show_history(ranking, n)
    query_column, result_column = st.columns(2)
    with query_column:
        cards.credit_line(query_picture.credit, f"Query: {plain(query_picture.name)}")
    with result_column:
        named = "Result" if search.hidden else f"Result: {plain(hit)}"
        cards.credit_line(collection.credits.get(hit), named)
    with notices.errors_shown():
        explain_result(search, path, hit)
        if name == "delf" and judged and not reranking.chosen_chain():
            show_inliers(ranking, judged, n)
        matchers = [name for name in reranking.chosen_chain() if name in PAIR_MATCHERS]
        if matchers:
            show_geometry(search, path, hit, matchers[-1])
    if not search.hidden:
        filters.show_values(collection.metadata.get(hit))
    with st.container(horizontal=True, vertical_alignment="center"):
        # A picture of the visitor's own stays in the session; it cannot be part of a link.
        view = {"view": "pair", "collection": collection.name, "result": hit}
        if isinstance(query_picture.source, Path):
            view |= {"query": query_picture.name} | ({"box": state.box} if state.box else {})
        st.page_link(
            "pages/keypoints.py",
            label="See the matches",
            icon=":material/scatter_plot:",
            query_params=view,
        )
        if st.button(
            "Make it the next query",
            key=key_about("next", hit),
            type="primary",
            on_click=query.ask_database,
            args=(hit,),
        ):
            st.rerun()


def _step(label: str, icon: str, n: int, count: int) -> None:
    """A button to the result before or after this one."""
    st.button(
        label,
        key=f"step-{label}",
        icon=icon,
        disabled=not 0 <= n < count,
        on_click=lambda: state.update(enlarged=(state.result[0], n)),
    )
