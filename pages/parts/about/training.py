"""How the embedded checkpoints were trained, and what the training of one of them changed."""

from __future__ import annotations

import json
from typing import Any

import altair
import streamlit as st

from pages.parts import axes, loaders, notices
from pages.parts.about import followed_query, steps
from pages.parts.terms import explained
from retrieval import index
from retrieval.figures.style import COLOURS
from retrieval.methods import METHODS
from retrieval.networks import checkpoints

BEFORE, AFTER = "gem-lite0-imagenet", "gem-lite0"
CROSS_ENTROPY = r"L = -\log \frac{e^{\,y_{c}}}{\sum_{k} e^{\,y_k}}"
# The loss that each stage minimises: in words, and as formulas.
LOSSES = {
    ("sir", "layer"): (
        "Cross-entropy: a classifier on top of the layer gives a number y for each landmark; c is "
        "the right landmark. The classifier is dropped after the training. Epoch 0 is the layer "
        "before it: a discriminant analysis of the features, which does most of the work.",
        CROSS_ENTROPY,
    ),
    ("delf", "trunk"): (
        "Cross-entropy: the trunk, which makes the features, learns to tell landmarks apart. With "
        "correspondences it also learns which places of two photographs are the same.",
        CROSS_ENTROPY,
    ),
    ("delf", "attention"): (
        "Cross-entropy: landmarks are told apart by the mean of all features, each weighted by its "
        "attention. The features stay as they are: only attention and classifier learn.",
        CROSS_ENTROPY,
        r"\mathbf{y} = W \, \frac{1}{N} \sum_{n} \alpha_\theta(\mathbf{f}_n)\, \mathbf{f}_n",
        r"\frac{\partial L}{\partial \theta} = \frac{\partial L}{\partial \mathbf{y}} \sum_{n} "
        r"\frac{\partial \mathbf{y}}{\partial \alpha_n} \frac{\partial \alpha_n}{\partial \theta}",
    ),
    ("cnn-irwnha", "trunk"): (
        "Contrastive: the distance δ of matching pairs (Y = 1) is made small. Pictures of other "
        "landmarks that look alike (Y = 0) are pushed apart, up to the margin τ.",
        r"L = \tfrac{1}{2} \bigl( Y \delta^2 + (1 - Y) \max(0, \tau - \delta)^2 \bigr)",
        r"\delta = \lVert \mathbf{d}_i - \mathbf{d}_j \rVert",
    ),
}
PLACES_FOUND = "places found again"
HELD_OUT = "mAP"


def section() -> None:
    """Draw the training of the checkpoints in use, and one query before and after it."""
    st.markdown(
        "The networks started with weights from ImageNet. Then they were trained on photographs of "
        "landmarks, in rounds that are called **epochs**. The training makes the **loss** small, a "
        "number that is high where the network is wrong. Whether the search gets better is "
        "measured on landmarks that were **held out**: the network never learns from them. For "
        "their mAP each held-out photograph is a query among the others, with one descriptor, one "
        "scale and no whitening, so it differs from the mAP of the page *Evaluation*. Epoch 0 is "
        "before the training; the epoch with the best value is kept (large mark)."
    )
    for method in ("cnn-irwnha", "sir", "delf"):
        checkpoint = checkpoints.find(method)
        record = checkpoint.path.with_suffix(".json")
        if record.is_file():
            _training_run(checkpoint, json.loads(record.read_text("utf-8")))
    st.subheader("Before and after", anchor=False)
    followed = followed_query.pick()
    followed_query.write_link(followed)
    _before_after(followed)


def _training_run(checkpoint: checkpoints.Checkpoint, record: dict[str, Any]) -> None:
    st.subheader(
        f"{METHODS[checkpoint.method].title}: {checkpoint.id}",
        anchor=False,
        help=explained("checkpoint"),
    )
    epochs = record["epochs"]
    stages = list(dict.fromkeys(row["stage"] for row in epochs))
    for stage in stages:
        own = [row for row in epochs if row["stage"] == stage]
        text, *formulas = LOSSES[checkpoint.method, stage]
        st.markdown(f"**Stage {stage}.** Loss: {text}" if len(stages) > 1 else f"Loss: {text}")
        for formula in formulas:
            st.latex(formula)
        found_again = stage == "trunk" and record["settings"].get("trunk") == "correspondences"
        measure = PLACES_FOUND if found_again else HELD_OUT
        best = max(own, key=lambda row: row["validation"])["epoch"]
        last = own[-1]["epoch"]
        for column, (key, title, colour) in zip(
            st.columns(2),
            (
                ("loss", "Loss", COLOURS[1]),
                ("validation", f"Held-out landmarks: {measure}", COLOURS[0]),
            ),
            strict=True,
        ):
            column.altair_chart(
                _curve(own, key, title, colour, best, last),
                key=f"curve-{checkpoint.id}-{stage}-{key}",
                alt=f"{title} by epoch: "
                + ", ".join(f"{row[key]:.3f}" for row in own if row[key] is not None),
            )
        first, most = own[0]["validation"], own[best]["validation"]
        st.markdown(f"Held-out landmarks, {measure}: **{first:.1%}** before, **{most:.1%}** after.")
    labels = "their landmarks (or none)" if record["labels"] == "landmark" else record["labels"]
    st.caption(
        f"Learned from {record['pictures']:,} photographs, labels: {labels}; {record['held_out']} "
        f"photographs of other landmarks were held out. Began with {record['from']}. The command "
        f"needs these photographs in a folder {record['collection']}; we may not pass them on."
    )
    st.code(f"{record['command']} --out {checkpoint.id}.pth", language=None, wrap_lines=True)


def _curve(
    rows: list[dict[str, Any]], key: str, title: str, colour: str, best: int, last: int
) -> altair.LayerChart:
    points = [
        {"Epoch": row["epoch"], "value": row[key], "best": row["epoch"] == best}
        for row in rows
        if row[key] is not None
    ]
    base = altair.Chart(altair.Data(values=points)).encode(
        x=altair.X(
            "Epoch:Q",
            scale=altair.Scale(domain=[0, last]),
            axis=altair.Axis(values=list(range(last + 1)), format="d"),
        ),
        y=altair.Y(
            "value:Q",
            axis=altair.Axis(
                title=title,
                titleAngle=0,
                titleAlign="left",
                titleX=0,
                titleY=-12,
                tickCount=4,
                format="~%" if key == "validation" else "~g",
            ),
            scale=altair.Scale(zero=False),
        ),
        tooltip=["Epoch:Q", altair.Tooltip("value:Q", title=title, format=".4f")],
    )
    line = base.mark_line(color=colour, strokeWidth=2)
    marks = base.mark_point(filled=True, opacity=1, color=colour).encode(
        size=altair.condition("datum.best", altair.value(260), altair.value(60))
    )
    return (line + marks).properties(height=220).configure_axis(**axes.READABLE)


def _before_after(followed: followed_query.FollowedQuery) -> None:
    """Draw the same query with the network of CNN-IRwNHA before and after its training."""
    paths = {
        path.name: path
        for method, path in index.find_all(followed.collection.name)
        if method == "cnn-irwnha"
    }
    if not {BEFORE, AFTER} <= paths.keys():
        return
    st.markdown(
        "This picture, searched with the network of CNN-IRwNHA before and after it was "
        "trained. Both have GeM pooling, three scales, and a whitening learned from the same "
        "photographs; only the network and its exponent p were trained further."
    )
    for name, title in ((BEFORE, "Before"), (AFTER, "After")):
        st.markdown(f"**{title}** · {name}")
        with notices.errors_shown():
            ranking = loaders.search(
                paths[name], "cnn-irwnha", followed.collection, followed.query_picture, followed.box
            )
        steps.show(
            followed, ranking, [f"{score:.2f}" for score in ranking.scores[: steps.RESULTS]], name
        )
