"""AP of every query as a chart; a click opens one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import altair
import streamlit as st

from pages.parts.evaluation.tables import query_rows
from retrieval.collections import Collection
from retrieval.evaluation import Scores
from retrieval.figures import evaluation as plots

SORTED = {
    "collection": "landmark, as in the collection",
    "AP": "AP of the first method, the best first",
    "difference": "the first method's lead over the second",
}
state = st.session_state


def chart(collection: Collection, scores: Mapping[str, Scores], by: str, chosen: int):
    """AP of every query to hover over and to click on: bars, or dots for two methods."""
    order = [int(number) for number in plots.queries_order(scores, by)]
    labels = list(scores)
    data = []
    for place, (number, row) in enumerate(
        zip(order, query_rows(collection, scores, order), strict=True)
    ):
        row = row | {"number": number, "place": place, "top": 1, "chosen": number == chosen}
        row["Query"] = Path(row["Query"]).name
        row["Landmark"] = row["Landmark"].replace("_", " ")
        data.append(row | {f"ap{n}": row[label] for n, label in enumerate(labels)})
    base = altair.Chart().encode(
        x=altair.X(
            "place:O",
            axis=altair.Axis(labels=False, ticks=False),
            title=f"{len(order)} queries, by {SORTED[by]}",
            scale=altair.Scale(paddingInner=0.15),
        )
    )
    axis = altair.Axis(title="Average precision (0 to 1)", tickCount=5)
    scale = altair.Scale(domain=[0, 1])
    layers = []
    if len(labels) == 1:
        if state["eval-colour"] == "Landmark":
            colour: altair.Color | altair.ColorValue = altair.Color(
                "Landmark:N",
                sort=None,
                scale=altair.Scale(scheme="tableau20"),
                legend=altair.Legend(orient="bottom", columns=4, title=None, symbolLimit=0),
            )
        else:
            colour = altair.ColorValue(plots.COLOURS[0])
        layers.append(
            base.mark_bar().encode(y=altair.Y("ap0:Q", axis=axis, scale=scale), color=colour)
        )
    else:
        layers.append(
            base.mark_rule(color="#8a949e", strokeWidth=2).encode(
                y=altair.Y("ap0:Q", axis=axis, scale=scale), y2="ap1:Q"
            )
        )
        colours = altair.Scale(domain=labels, range=list(plots.COLOURS[:2]))
        shapes = altair.Scale(domain=labels, range=["circle", "square"])
        legend = altair.Legend(orient="top", title=None, symbolSize=140)
        for n, label in enumerate(labels):
            layers.append(
                base.transform_calculate(Method=f"{label!r}")
                .mark_point(filled=True, opacity=1, size=80)
                .encode(
                    y=altair.Y(f"ap{n}:Q", axis=axis, scale=scale),
                    color=altair.Color("Method:N", scale=colours, legend=legend, title=None),
                    shape=altair.Shape("Method:N", scale=shapes, legend=legend, title=None),
                )
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
    return altair.layer(*layers, data=altair.Data(values=data)).properties(height=320)


def picked() -> None:
    """Callback of the chart: a click on a query opens it, a click beside them changes nothing."""
    points = state["eval-chart"]["selection"]["pick"]
    if points:
        state["eval-query"] = points[0]["number"]


def choose(number: int) -> None:
    """Callback: open a query."""
    state["eval-query"] = number
