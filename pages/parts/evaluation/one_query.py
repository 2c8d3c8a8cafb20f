"""One query: its picture, and the ranked lists of the methods."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from pages.parts import cards, loaders
from pages.parts.evaluation.link import query_parameters
from pages.parts.evaluation.runs import LabelledRun
from pages.parts.keys import key_about
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import explain

MAX_RESULTS_ALONE, MAX_RESULTS_BESIDE = 12, 8  # of one method, and of each of two side by side
QUERY_SIDE, RESULT_SIDE = 800, 1000  # pixels of the longer side of a picture on show
state = st.session_state


def show_query_picture(collection: Collection, number: int) -> None:
    """Show the picture of a query with its box. number: of the query."""
    prepared_query = collection.queries[number]
    try:
        jpeg, size = loaders.view(collection.path(prepared_query.name), QUERY_SIDE)
    except RetrievalError:
        name = plain(Path(prepared_query.name).name)
        st.info(f"No picture of {name} here.", icon=":material/hide_image:")
        return
    alt = f"Query {prepared_query.name}" + (" with its box" if prepared_query.box else "")
    st.image(cards.boxed(jpeg, size, prepared_query.box), width="stretch", alt=alt)
    cards.credit_line(collection.credits.get(prepared_query.name))


def show_ranked_list(
    collection: Collection, entry: LabelledRun, number: int, protocol: str, alone: bool
) -> None:
    """Show the best pictures of a run for a query, each marked right, wrong or left out.

    alone: whether there is no other list beside this one.
    """
    ranking = entry.run.ranks[:, number]
    kinds = explain(ranking, collection.queries[number].labels, protocol).kinds
    kinds = kinds[: MAX_RESULTS_ALONE if alone else MAX_RESULTS_BESIDE]
    results = [
        (rank, collection.names[position], str(kind))
        for rank, (position, kind) in enumerate(zip(ranking, kinds, strict=False), 1)
    ]
    if not collection.has_pictures:
        marks = cards.VERDICTS
        st.dataframe(
            [
                {"Rank": rank, "": f"{marks[kind].symbol} {marks[kind].label}", "Picture": name}
                for rank, name, kind in results
            ],
            hide_index=True,
            height="content",
            key=f"names-{entry.run_id}",
        )
        return
    with cards.grid(4 if alone else 2, f"hits-{entry.run_id}"):
        for rank, name, kind in results:
            short = plain(Path(name).name)
            # The page opens it only where it still shows this query.
            about = shown_query(collection, number)
            large = about, name, f"Rank **{rank}** of {plain(entry.label)}: {plain(name)}"
            cards.card(
                collection,
                name,
                f"**{rank}** :small[{short}]",
                label=f"{rank}: {short}, {cards.VERDICTS[kind].label.lower()}",
                key=key_about(f"{entry.run_id}-{rank}", about, name),
                on_click=partial(state.update, {"eval-enlarged": large}),
                verdict=kind,
            )


def shown_query(collection: Collection, number: int) -> tuple:
    """What stands for a query that the page shows. number: of the query."""
    return collection.name, collection.root, number


@st.dialog("Query and result", width="large")
def show_large(collection: Collection, number: int, name: str, caption: str) -> None:
    """Open a dialog with a query and a result.

    number: of the query. name: of the result. caption: Markdown below the result.
    """
    query_column, result_column = st.columns(2)
    with query_column:
        show_query_picture(collection, number)
        st.markdown(f"Query: {plain(collection.queries[number].name)}")
    with result_column:
        cards.picture(collection, name, RESULT_SIDE)
        st.markdown(caption)
        cards.credit_line(collection.credits.get(name))
        st.page_link(
            "pages/keypoints.py",
            label="See the matches",
            icon=":material/scatter_plot:",
            query_params=query_parameters(collection, number) | {"view": "pair", "result": name},
        )
