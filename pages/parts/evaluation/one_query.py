"""One query: its picture, and the ranked lists of the methods."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts import cards, loaders
from pages.parts.evaluation.link import view_of
from pages.parts.evaluation.runs import Measured
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import explain

SHOWN = 12, 8  # pictures of a ranked list: of one method, of two side by side
state = st.session_state


def asked_picture(collection: Collection, number: int) -> None:
    """The query picture with its box."""
    asked = collection.queries[number]
    try:
        jpeg, size = loaders.view(collection.path(asked.name), 800)
    except RetrievalError:
        name = plain(Path(asked.name).name)
        st.info(f"No picture of {name} here.", icon=":material/hide_image:")
        return
    alt = f"Query {asked.name}" + (" with its box" if asked.box else "")
    st.image(cards.boxed(jpeg, size, asked.box), width="stretch", alt=alt)
    cards.credit_line(collection.credits.get(asked.name))


def ranked_list(
    collection: Collection, one: Measured, number: int, protocol: str, alone: bool
) -> None:
    """The best pictures of a stored ranking, each marked right, wrong or left out of the score."""
    ranking = one.run.ranks[:, number]
    kinds = explain(ranking, collection.queries[number].labels, protocol).kinds
    hits = [(n, collection.names[ranking[n]], str(kinds[n])) for n in range(len(kinds))]
    hits = hits[: SHOWN[not alone]]
    if not collection.has_pictures:
        marks = cards.VERDICTS
        st.dataframe(
            [
                {"Rank": n + 1, "": f"{marks[kind].symbol} {marks[kind].label}", "Picture": name}
                for n, name, kind in hits
            ],
            hide_index=True,
            height="content",
            key=f"names-{one.id}",
        )
        return
    with cards.grid(4 if alone else 2, f"hits-{one.id}"):
        for n, name, kind in hits:
            short = plain(Path(name).name)
            label = f"{n + 1}: {short}, {cards.VERDICTS[kind].label.lower()}"
            cards.card(
                collection,
                name,
                f"**{n + 1}** :small[{short}]",
                label,
                f"{one.id}-{n}",
                kind,
                lambda *args: state.update({"eval-enlarged": args}),
                (name, f"Rank **{n + 1}** of {plain(one.label)}: {plain(name)}"),
            )


@st.dialog("Query and result", width="large")
def large(collection: Collection, number: int, name: str, caption: str) -> None:
    asked, found = st.columns(2)
    with asked:
        asked_picture(collection, number)
        st.markdown(f"Query: {plain(collection.queries[number].name)}")
    with found:
        cards.picture(collection, name, 1000)
        st.markdown(caption)
        cards.credit_line(collection.credits.get(name))
        st.page_link(
            "pages/keypoints.py",
            label="See the matches",
            icon=":material/scatter_plot:",
            query_params=view_of(collection, number) | {"view": "pair", "result": name},
        )
