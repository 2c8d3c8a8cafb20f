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

SORTED = {
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
ONE = "one-query"  # the container that a click brings into view
state = st.session_state


def legend(labels: list[str], chosen: int) -> None:
    """Which mark is which run; the first ``chosen`` are compared, the others are beside them."""
    marks = []
    for n, (label, style) in enumerate(plots.styles(labels).items()):
        weight, alpha = (600, 1) if n < chosen else (400, 0.75)
        marks.append(
            f'<span style="font-weight:{weight}"><span style="color:{style.colour};opacity:{alpha}'
            f'">{SHAPES[style.marker][1]}</span> {html.escape(label)}</span>'
        )
    st.html(f'<div class="legend">{"".join(marks)}</div>')


def chart(
    collection: Collection, scores: Mapping[str, Scores], two: int, by: str, chosen: int
) -> altair.LayerChart | altair.FacetChart:
    """AP of every query to hover over and to click on: a dot for each run.

    two: how many runs, the first of ``scores``, are compared: large dots with a line between them.
    """
    order = [int(number) for number in plots.queries_order(scores, by)]
    labels = list(scores)
    data = []
    for column, (number, row) in enumerate(
        zip(order, query_rows(collection, scores, order), strict=True)
    ):
        row = row | {"number": number, "place": column, "top": 1, "chosen": number == chosen}
        row["Query"] = Path(row["Query"]).name
        row["Landmark"] = row["Landmark"].replace("_", " ")
        data.append(row | {f"ap{n}": row[label] for n, label in enumerate(labels)})
    base = altair.Chart().encode(
        x=altair.X(
            "place:O",
            axis=_landmarks(data) if by == "collection" else _unlabelled(len(order), by),
            scale=altair.Scale(paddingInner=0.15),
        )
    )
    axis = altair.Axis(title="Average precision (0 to 1)", tickCount=5)
    scale = altair.Scale(domain=[0, 1])
    layers = []
    if by == "collection":  # every other landmark on a band of grey
        layers.append(
            base.transform_filter("datum.band")
            .mark_bar(color="#7a8692", opacity=0.12, width=altair.RelativeBandSize(1.18))
            .encode(y=altair.Y("top:Q", axis=axis, scale=scale))
        )
    if two > 1:
        layers.append(
            base.mark_rule(color="#8a949e", strokeWidth=2).encode(
                y=altair.Y("ap0:Q", axis=axis, scale=scale), y2="ap1:Q"
            )
        )
    for n, style in reversed([*enumerate(plots.styles(labels).values())]):
        size, opacity = (90, 1) if n < two else (40, 0.75)
        layers.append(
            base.mark_point(
                filled=True,
                color=style.colour,
                shape=SHAPES[style.marker][0],
                size=size,
                opacity=opacity,
            ).encode(y=altair.Y(f"ap{n}:Q", axis=axis, scale=scale))
        )
    # The whole column answers to the mouse, however small its mark is.
    tips = [altair.Tooltip(f"{key}:N") for key in ("Query", "Landmark")]
    tips += [
        altair.Tooltip(f"ap{n}:Q", title=f"AP {label}", format=".3f")
        for n, label in enumerate(labels)
    ]
    pick = altair.selection_point("pick", fields=["number"], on="click")
    layers.append(
        base.mark_bar(color="#7a8692", cursor="pointer", width=altair.RelativeBandSize(1.18))
        .encode(
            y=altair.Y("top:Q", axis=axis, scale=scale),
            opacity=altair.condition("datum.chosen", altair.value(0.3), altair.value(0)),
            tooltip=[*tips, altair.Tooltip("Right pictures:Q")],
        )
        .add_params(pick)
    )
    height = 400 if by == "collection" else 320  # with the names of landmarks
    whole = altair.layer(*layers, data=altair.Data(values=data)).properties(height=height)
    return whole.configure_axis(**axes.READABLE)


def _unlabelled(count: int, by: str) -> altair.Axis:
    return altair.Axis(labels=False, ticks=False, title=f"{count} queries, by {SORTED[by]}")


def _landmarks(data: list[dict]) -> altair.Axis:
    """An axis with the name of each landmark below the middle of its queries; marks the bands."""
    names = {}
    for n, (landmark, group) in enumerate(groupby(data, lambda row: row["Landmark"])):
        rows = list(group)
        for row in rows:
            row["band"] = n % 2 == 1
        names[rows[len(rows) // 2]["place"]] = landmark or "without a name"
    return altair.Axis(
        values=list(names),
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelAngle=-45,
        labelOverlap=False,
        ticks=False,
        title=f"{len(data)} queries, by landmark",
    )


def picked() -> None:
    """Callback of the chart: a click on a query opens it, a click beside them changes nothing."""
    points = state["eval-chart"]["selection"]["pick"]
    if points:
        choose(points[0]["number"])


def choose(number: int) -> None:
    """Callback: open a query."""
    state["eval-query"] = number
    scroll.show(ONE)
