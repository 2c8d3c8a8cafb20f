"""All queries together: curves, histogram, landmarks, hardest and easiest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import streamlit as st

from pages.parts import cards, query
from pages.parts.downloads import downloads, figure
from pages.parts.evaluation.query_chart import open_query
from pages.parts.evaluation.runs import LabelledRun, figure_cache, file_stem, stated_title
from pages.parts.evaluation.tables import query_rows
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.evaluation import RECALL_LEVELS, Scores
from retrieval.figures import evaluation as plots

EXTREMES = 5  # hardest queries on show, and as many easiest
CURVES, DISTRIBUTION, LANDMARKS, HARDEST = VIEWS = (
    "Precision and recall",
    "Distribution",
    "Landmarks",
    "Hardest and easiest",
)


def show_all_queries(
    collection: Collection,
    all_runs: list[LabelledRun],
    compared: list[LabelledRun],
    protocol: str,
) -> None:
    """Choose a view of all queries together, and show it.

    compared: the runs that the page compares, which are also the first of ``all_runs``. Curves show
    all of them, the other views those compared.
    """
    st.session_state.setdefault("eval-together", CURVES)
    st.segmented_control(
        "All queries together",
        VIEWS,
        key="eval-together",
        required=True,
        label_visibility="collapsed",
        persist_state="session",
    )
    view: str = st.session_state["eval-together"]
    shown = all_runs if view == CURVES else compared
    scores = {entry.label: entry.run.scores[protocol] for entry in shown}
    note = plots.provenance(
        stated_title(collection), protocol, [entry.run.record for entry in shown]
    )
    key = (view, collection.name, protocol, *(entry.cache_key for entry in shown))
    cache = figure_cache(collection, shown)
    name = f"{file_stem(collection)}-{protocol}-{view.split()[0].lower()}"
    if view == CURVES:
        st.markdown(
            "Going down a ranking, **recall** is the share of the right pictures found so far, and "
            "**precision** the share of the results so far that are right. A curve shows the best "
            "precision at this recall or a higher one, as a mean over the queries. Higher is "
            "better."
        )
        figure(
            name,
            cache,
            key,
            lambda: plots.curves(scores, note),
            "Precision over recall",
            _curve_rows(scores),
        )
    elif view == DISTRIBUTION:
        st.markdown(
            "How many queries have a low AP and how many a high one, which their mean hides, for "
            "the methods compared above."
        )
        rows = query_rows(collection, scores, plots.queries_order(scores, "AP"))
        figure(name, cache, key, lambda: plots.distribution(scores, note), "Histogram of AP", rows)
    elif view == LANDMARKS:
        st.markdown(
            "The mean of the AP over the queries of each landmark, for the methods compared above."
        )
        figure(
            name,
            cache,
            key,
            lambda: plots.landmarks(scores, collection.queries, note),
            "Mean AP of each landmark",
            _landmark_rows(scores, collection),
        )
    else:
        order = plots.queries_order(scores, "AP")
        first = compared[0]
        hardest, easiest = order[::-1][:EXTREMES], order[:EXTREMES]
        for title, numbers in (("Hardest", hardest), ("Easiest", easiest)):
            st.markdown(f"**{title} for {plain(first.label)}**")
            _show_queries(collection, first.run.scores[protocol], numbers, title)
        st.caption(plain(note))
        downloads(name, query_rows(collection, scores, order))


def _curve_rows(scores: Mapping[str, Scores]) -> list[dict]:
    """A row for each level of recall: the precision of each run."""
    return [
        {"Recall": float(level)}
        | {
            f"Precision {label}": round(float(scored.curve[n]), 6)
            for label, scored in scores.items()
        }
        for n, level in enumerate(RECALL_LEVELS)
    ]


def _landmark_rows(scores: Mapping[str, Scores], collection: Collection) -> list[dict]:
    """A row for each landmark: the mean AP of each run."""
    means = {label: scored.by_landmark(collection.queries) for label, scored in scores.items()}
    return [
        {"Landmark": landmark}
        | {f"Mean AP {label}": round(of_run[landmark], 6) for label, of_run in means.items()}
        for landmark in next(iter(means.values()))
    ]


def _show_queries(
    collection: Collection, scores: Scores, numbers: Iterable[int], title: str
) -> None:
    """Queries as cards that open them, or as a table where the pictures are not here."""
    if not collection.has_pictures:
        rows = query_rows(collection, {"": scores}, numbers)
        st.dataframe(rows, hide_index=True, key=f"edge-{title}")
        return
    labels = query.labels(collection.queries)
    with cards.grid(EXTREMES, f"edge-{title}"):
        for number in map(int, numbers):
            label = plain(labels[number])
            cards.card(
                collection,
                collection.queries[number].name,
                f"AP **{scores.aps[number]:.3f}** :small[{label}]",
                label=f"Open {label}",
                key=f"edge-{title}-{number}",
                on_click=partial(open_query, number),
            )
