"""AP of every query as a chart; a click opens one."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import altair
import streamlit as st

from pages.parts import axes, scroll
from pages.parts.evaluation.tables import query_rows
from retrieval.collections import Collection
from retrieval.evaluation import Scores
from retrieval.figures import evaluation as plots

ORDER_TITLES = {
    "AP": "AP of the first method, the best first",
    "difference": "the first method's lead over the second",
}
# The markers of the figures, as Vega calls them and as a letter.
SHAPES = {
    "o": ("circle", "●"),
    "s": ("square", "■"),
    "^": ("triangle-up", "▲"),
    "D": ("diamond", "◆"),
    "v": ("triangle-down", "▼"),
    "P": ("cross", "✚"),
    "X": ("triangle-left", "◀"),
    "*": ("triangle-right", "▶"),
}
MAX_COLUMNS = 2000  # queries of a chart; 100,000 took 36 s and 12 MB a click
GREY = "#7a8692"  # of the bands behind landmarks, and of the chosen query
BAND_WIDTH = altair.RelativeBandSize(1.18)  # no gap between columns
QUERY_CONTAINER = "one-query"  # the key of the container that a click brings into view
state = st.session_state


def show_legend(labels: list[str], compared: int) -> None:
    """Show which mark is which run. compared: how many, the first ones, are compared; in bold."""
    marks = []
    for n, (label, style) in enumerate(plots.styles(labels).items()):
        weight = 600 if n < compared else 400
        marks.append(
            f'<span style="font-weight:{weight}"><span style="color:{style.colour}">'
            f"{SHAPES[style.marker][1]}</span> {html.escape(label)}</span>"
        )
    st.html(f'<div class="legend">{"".join(marks)}</div>')


def ap_chart(
    collection: Collection, scores: Mapping[str, Scores], compared: int, by: str, chosen: int
) -> altair.LayerChart | altair.FacetChart:
    """AP of every query to hover over and to click on: a column a query, with a mark for each run.

    compared: how many runs, the first of ``scores``, are compared; they have large marks, and two
    have a line between them. by: the order, see ``plots.queries_order``. chosen: number of the
    query to highlight.
    """
    numbers = plots.queries_order(scores, by)
    order = [int(number) for number in numbers[:MAX_COLUMNS]]
    count = "1 query" if len(numbers) == 1 else f"{len(numbers):,} queries"
    if len(order) < len(numbers):
        count = f"The first {len(order):,} of {count}"
    labels = list(scores)
    data = []
    rows = query_rows(collection, scores, order)
    for column, (number, row) in enumerate(zip(order, rows, strict=True)):
        highlight = number == chosen and len(order) > 1  # else all of the chart would be grey
        row = row | {"number": number, "column": column, "top": 1, "chosen": highlight}
        row["Query"] = Path(row["Query"]).name
        row["Landmark"] = row["Landmark"].replace("_", " ")
        data.append(row | {f"ap{n}": row[f"AP {label}"] for n, label in enumerate(labels)})
    by_landmark = by == "collection"
    base = altair.Chart().encode(
        x=altair.X(
            "column:O",
            axis=_landmark_axis(data, count) if by_landmark else _unlabelled_axis(count, by),
            scale=altair.Scale(paddingInner=0.15),
        )
    )
    layers = [*_marks(base, labels, compared), _columns(base, labels)]
    if by_landmark:
        layers.insert(0, _bands(base))
    height = 400 if by_landmark else 320  # pixels; names of landmarks take room
    chart = altair.layer(*layers, data=altair.Data(values=data)).properties(height=height)
    return chart.configure_axis(**axes.READABLE)


def _height(field: str) -> altair.Y:
    return altair.Y(
        f"{field}:Q",
        axis=altair.Axis(title="Average precision (0 to 1)", tickCount=5),
        scale=altair.Scale(domain=[0, 1]),
    )


def _bands(base: altair.Chart) -> altair.Chart:
    """A grey band behind every other landmark."""
    return (
        base.transform_filter("datum.band")
        .mark_bar(color=GREY, opacity=0.12, width=BAND_WIDTH)
        .encode(y=_height("top"))
    )


def _marks(base: altair.Chart, labels: list[str], compared: int) -> list[altair.Chart]:
    """A mark for each run, that of the first one on top, and a line between two compared runs."""
    layers = []
    if compared > 1:
        layers.append(
            base.mark_rule(color="#8a949e", strokeWidth=2).encode(y=_height("ap0"), y2="ap1:Q")
        )
    for n, style in reversed([*enumerate(plots.styles(labels).values())]):
        layers.append(
            base.mark_point(
                filled=True,
                color=style.colour,
                shape=SHAPES[style.marker][0],
                size=90 if n < compared else 40,
                opacity=1,
            ).encode(y=_height(f"ap{n}"))
        )
    return layers


def _columns(base: altair.Chart, labels: list[str]) -> altair.Chart:
    """A column a query, for the mouse: the marks themselves may be too small to point at."""
    tooltips = [altair.Tooltip(f"{key}:N") for key in ("Query", "Landmark")]
    tooltips += [
        altair.Tooltip(f"ap{n}:Q", title=f"AP {label}", format=".3f")
        for n, label in enumerate(labels)
    ]
    tooltips.append(altair.Tooltip("Right pictures:Q"))
    return (
        base.mark_bar(color=GREY, cursor="pointer", width=BAND_WIDTH)
        .encode(
            y=_height("top"),
            opacity=altair.condition("datum.chosen", altair.value(0.3), altair.value(0)),
            tooltip=tooltips,
        )
        .add_params(altair.selection_point("pick", fields=["number"], on="click"))
    )


def _unlabelled_axis(count: str, by: str) -> altair.Axis:
    return altair.Axis(labels=False, ticks=False, title=f"{count}, by {ORDER_TITLES[by]}")


def _landmark_axis(data: list[dict], count: str) -> altair.Axis:
    """An axis with the name of each landmark below the middle of its queries.

    Marks in ``data`` the rows of every other landmark: "band".
    """
    names = {}
    for n, (landmark, group) in enumerate(groupby(data, lambda row: row["Landmark"])):
        rows = list(group)
        for row in rows:
            row["band"] = n % 2 == 1
        names[rows[len(rows) // 2]["column"]] = landmark or "without a name"
    return altair.Axis(
        values=list(names),
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelAngle=-45,
        labelOverlap=False,
        ticks=False,
        title=f"{count}, by landmark",
    )


def open_clicked(key: str) -> None:
    """Callback of the chart: a click on a query opens it, a click beside them changes nothing.

    key: of the chart. That of a page that was left opens nothing in another collection.
    """
    points = state[key]["selection"]["pick"] if state["eval-chart"] == key else []
    if points:
        open_query(points[0]["number"])


def open_query(number: int) -> None:
    """Callback: open a query, and bring it into view."""
    state["eval-query"] = number
    scroll.show(QUERY_CONTAINER)
