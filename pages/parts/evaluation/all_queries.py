"""All queries together: curves, histogram, landmarks, hardest and easiest."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from pages.parts import cards, query
from pages.parts.downloads import downloads, figure
from pages.parts.evaluation.query_chart import choose
from pages.parts.evaluation.runs import Measured
from pages.parts.evaluation.tables import query_rows
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.evaluation import Scores
from retrieval.figures import evaluation as plots

EDGE = 5  # hardest and easiest queries
TOGETHER = ("Precision and recall", "Distribution", "Landmarks", "Hardest and easiest")


def together(
    collection: Collection, everything: list[Measured], wanted: list[Measured], protocol: str
) -> None:
    """everything: what the chart of the queries shows, first what is ``wanted``: compared."""
    what = st.segmented_control(
        "All queries together",
        TOGETHER,
        key="eval-together",
        required=True,
        default=TOGETHER[0],
        label_visibility="collapsed",
        persist_state="session",
    )
    shown = everything if what == TOGETHER[0] else wanted
    scores = {one.label: one.run.scores[protocol] for one in shown}
    note = plots.provenance(collection.title, protocol, [one.run.record for one in shown])
    key = (what, collection.name, protocol, *(one.key for one in shown))
    name = f"{collection.name}-{protocol}-{what.split()[0].lower()}"
    order = plots.queries_order(scores, "AP")
    if what == TOGETHER[0]:
        st.markdown(
            "How many of the first results are right (precision) by the time a share of all right "
            "pictures is found (recall): the mean over the queries. Higher is better."
        )
        levels = [n / 100 for n in range(101)]
        rows = [
            {"Recall": level} | {label: round(one.curve[n], 6) for label, one in scores.items()}
            for n, level in enumerate(levels)
        ]
        figure(name, key, lambda: plots.curves(scores, note), "Precision over recall", rows)
    elif what == TOGETHER[1]:
        st.markdown(
            "How many queries have a low AP and how many a high one, which their mean hides."
        )
        rows = query_rows(collection, scores, order)
        figure(name, key, lambda: plots.distribution(scores, note), "Histogram of AP", rows)
    elif what == TOGETHER[2]:
        means = {label: one.by_landmark(collection.queries) for label, one in scores.items()}
        rows = [
            {"Landmark": landmark}
            | {label: round(one[landmark], 6) for label, one in means.items()}
            for landmark in next(iter(means.values()))
        ]
        figure(
            name,
            key,
            lambda: plots.landmarks(scores, collection.queries, note),
            "Mean AP of each landmark",
            rows,
        )
    else:
        rows = query_rows(collection, scores, order)
        for title, numbers in (("Hardest", order[::-1][:EDGE]), ("Easiest", order[:EDGE])):
            st.markdown(f"**{title} for {plain(wanted[0].label)}**")
            edge(collection, wanted[0].run.scores[protocol], numbers, title)
        st.caption(plain(note))
        downloads(name, rows)


def edge(collection: Collection, scores: Scores, numbers: Iterable[int], title: str) -> None:
    """Queries as cards that open them, or as names where the pictures are not here."""
    if not collection.has_pictures:
        st.dataframe(
            query_rows(collection, {"AP": scores}, numbers), hide_index=True, key=f"edge-{title}"
        )
        return
    with cards.grid(EDGE, f"edge-{title}"):
        for number in map(int, numbers):
            label = plain(query.label(collection.queries[number]))
            cards.card(
                collection,
                collection.queries[number].name,
                f"AP **{scores.aps[number]:.3f}** :small[{label}]",
                f"Open {label}",
                f"edge-{title}-{number}",
                None,
                choose,
                (number,),
            )
