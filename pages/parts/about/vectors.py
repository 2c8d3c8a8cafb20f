"""SIR and CNN-IRwNHA step by step, with steps that can be changed."""

from __future__ import annotations

import os

import altair
import numpy as np
import streamlit as st

from pages.parts import axes, extraction, loaders, notices
from pages.parts.about import feedback, steps
from pages.parts.about.followed_query import FollowedQuery, leave_fragment
from retrieval import images, index
from retrieval.errors import RetrievalError
from retrieval.evaluation import ablation
from retrieval.evaluation.ablation import Ablation, Steps, l2, project
from retrieval.figures import steps as step_figures
from retrieval.figures.style import COLOURS
from retrieval.index import Index

SIDE = 300  # pixels of the longer side of the input on show
# The input of the layer after pooling.
NORMALISED = r"\hat{\mathbf{f}} = \frac{\mathbf{f}}{\lVert \mathbf{f} \rVert}, \qquad "


def _opened(method: str, followed: FollowedQuery) -> tuple[Index, Steps, Ablation | None]:
    """The index of a method, the steps of the picture, and the variants of the index.

    None in place of variants that are missing or do not fit. Ends the page without an index.
    """
    paths = index.find(followed.collection.name)
    if method not in paths:
        notices.no_index(followed.collection, method)
        st.stop()
    path = paths[method]
    with notices.errors_shown():
        opened = loaders.index_of(path, followed.collection)
        described = extraction.steps(
            path, followed.collection, followed.query_picture, followed.box
        )
    try:
        variants = loaders.variants(path, followed.collection)
    except RetrievalError as error:  # of an earlier index: the other steps can be shown
        st.warning(notices.sentence(error))
        return opened, described, None
    again = f"`python -m retrieval ablate {os.path.relpath(path)}`"
    if variants is not None and not variants.fits(described):
        st.warning(f"The variants of this index were computed with another network; run {again}")
        return opened, described, None
    if variants is None and opened.in_store:
        st.info("This index is in a store, so its steps cannot be changed here.")
    elif variants is None:
        st.info(f"The steps can be changed once the variants of this index are computed: {again}")
    return opened, described, variants


def _steps(followed: FollowedQuery, opened: Index) -> Steps:
    """The steps of the picture, for a fragment: the page runs again where the index was replaced.

    What a fragment is given stays in memory as long as its tab is open. The feature maps would be
    1.7 MB of each tab, and over 20 MB with a ResNet-101 of 1024 pixels.
    """
    with notices.errors_shown():
        if loaders.index_of(opened.path, followed.collection) is not opened:
            st.rerun()
        return extraction.steps(
            opened.path, followed.collection, followed.query_picture, followed.box
        )


def _input(followed: FollowedQuery, opened: Index, described: Steps) -> None:
    """Draw the two steps that both methods begin with: the input and the feature map."""
    picture = steps.cut(followed, SIDE)
    settings = loaders.settings_of(opened)
    if settings.get("enlarge"):
        resized = (
            f"resized so that its longer side has {settings['size']} pixels. A small picture is "
            f"enlarged, at most {images.MAX_ENLARGED:g} times."
        )
    else:
        resized = f"shrunk until its longer side has at most {settings['size']} pixels."
    channels, height, width = described.maps[0].shape
    kept = " Only the box is kept." if followed.box else ""
    with steps.step(
        1,
        "Input",
        f"The picture is {resized}{kept} "
        "Every picture of the collection went through the same steps when the index was made.",
    ):
        st.image(picture, alt="What the network sees")
    with steps.step(
        2,
        "Feature map",
        f"The network computes {channels:,} numbers at each of {height} × {width} places of the "
        "picture. One of these numbers, at all places, is a **channel**. A channel responds to one "
        "kind of thing, perhaps arches, rows of windows or leaves. Nobody chose these things: the "
        "network learned them.",
    ):
        steps.channels(picture, described.maps[0], described.pooled(described.exponent))


def sir(followed: FollowedQuery) -> Index:
    """Draw all steps of SIR. Returns its index."""
    opened, described, variants = _opened("sir", followed)
    channels = len(described.maps[0])
    _input(followed, opened, described)
    has_root = described.power == 0.5
    average = r"\frac{1}{h\,w} \sum_{i=1}^{h} \sum_{j=1}^{w} X_c(i, j)"
    rooted = rf"\sqrt{{{average}}}"
    with steps.step(
        3,
        "Average pooling",
        f"Each channel is averaged over all places. That leaves {channels:,} numbers, and where in "
        "the picture anything was is lost. Sky, trees and people count as much as the building."
        + (" The square root keeps a few large numbers from deciding alone." if has_root else ""),
        rf"f_c = {rooted if has_root else average}",
    ):
        steps.strip(described.pooled(1.0), f"The {channels:,} numbers, brought to length 1.")
    if variants is not None and described.layer is not None:
        _sir_layer(followed, opened, variants)
    return opened


@st.fragment
def _sir_layer(followed: FollowedQuery, opened: Index, variants: Ablation) -> None:
    leave_fragment()
    described = _steps(followed, opened)
    assert described.layer is not None
    units = len(described.layer[1])
    with steps.step(
        4,
        f"Fully connected layer of {units} units",
        "Each unit is a weighted sum of all numbers before it. The weights were learned by telling "
        "landmarks apart: what does not help there gets little weight. Turn the layer off to "
        "compare the averages themselves.",
        NORMALISED + r"\mathbf{d} = \frac{W\hat{\mathbf{f}} + \mathbf{b}}"
        r"{\lVert W\hat{\mathbf{f}} + \mathbf{b} \rVert}",
    ):
        on = st.toggle(f"{units}-unit layer", value=True, key="about-layer")
        vector = project(described.pooled(1.0), described.layer if on else None)
        steps.strip(vector, f"The descriptor: {len(vector):,} numbers.")
    with steps.step(
        5,
        "Nearest neighbours",
        "The score of a picture is the cosine of the angle between its descriptor and that of the "
        "query: 1 for the same direction, about 0 for nothing in common. Both have length 1, so it "
        "is the sum of the products of their numbers. Click a picture to follow it instead.",
        r"s(a, b) = \mathbf{d}_a \cdot \mathbf{d}_b = \sum_{k} d_{a,k}\, d_{b,k}",
    ):
        steps.neighbours(followed, opened.names, variants.scores(described, 1.0, on), "sir")
        _map_caption(
            followed,
            opened,
            f"layer off **{variants.maps[0, 0]:.1%}**, on **{variants.maps[0, 1]:.1%}**",
        )


def _map_caption(followed: FollowedQuery, opened: Index, values: str) -> None:
    """A caption with the mAP of variants over all queries of the collection. values: Markdown."""
    if ablation.PROTOCOL in followed.collection.protocols:
        st.caption(
            f"mAP (Medium) over all queries that have a right picture: {values}. "
            f"Measured with `python -m retrieval ablate {os.path.relpath(opened.path)}`, on "
            "descriptors that are stored with 8 bits a number. The page Evaluation uses exact "
            "ones: its mAP may differ by 0.1 points."
        )


def gem(followed: FollowedQuery) -> Index:
    """Draw all steps of CNN-IRwNHA. Returns its index."""
    opened, described, variants = _opened("cnn-irwnha", followed)
    _input(followed, opened, described)
    if variants is not None:
        _pooling(followed, opened, variants)
        _scales(followed, opened, variants)
        scales = range(len(described.maps))
        descriptor = l2(np.mean([described.at_scale(scale) for scale in scales], axis=0))
        feedback.section(6, followed, opened, descriptor)
    return opened


def _exponent(p: float, own: float) -> str:
    """An exponent of GeM for readers. own: the one that the network learned."""
    if np.isinf(p):
        return "∞, maximum"
    text = f"{p:.3g}"
    return f"{text}, learned" if p == own else f"{text}, average" if p == 1 else text


@st.fragment
def _pooling(followed: FollowedQuery, opened: Index, variants: Ablation) -> None:
    leave_fragment()
    described = _steps(followed, opened)
    channels = len(described.maps[0])
    with steps.step(
        3,
        "GeM pooling",
        "The generalised mean turns each channel into one number. With the exponent p = 1 it is "
        "the average: every place counts. The larger p, the more the strong places decide. With "
        "p = ∞ it is the maximum: one place decides for its channel. The network learned its own p "
        "together with its weights. **Move the slider and watch the ranking.**",
        r"f_c = \Bigl( \frac{1}{h\,w} \sum_{i,j} X_c(i, j)^{\,p} \Bigr)^{1/p}",
    ):
        p = st.select_slider(
            "Exponent p",
            variants.exponents.tolist(),
            described.exponent,
            format_func=lambda value: _exponent(value, described.exponent),
            key="about-p",
        )
        left, right = st.columns(2, gap="medium", vertical_alignment="center")
        shares = described.shares(p)
        left.image(
            step_figures.overlay(steps.cut(followed, SIDE), shares),
            alt="How much places count",
        )
        top = np.sort(shares.ravel())[::-1]
        tenth = max(1, round(0.1 * top.size))
        right.caption(
            "Yellow: how much each place counts. The strongest tenth of the places has "
            f"**{top[:tenth].sum() / top.sum():.0%}** of the weight."
        )
        steps.strip(described.pooled(p), f"The {channels:,} pooled numbers, brought to length 1.")
        st.markdown("Nearest neighbours by the cosine of these numbers, at one scale:")
        steps.neighbours(followed, opened.names, variants.scores(described, p, False), "gem")
    if described.layer is not None:
        _whitening(followed, opened, described, variants, p)


def _whitening(
    followed: FollowedQuery, opened: Index, described: Steps, variants: Ablation, p: float
) -> None:
    assert described.layer is not None
    with steps.step(
        4,
        "Whitening",
        "Many channels rise and fall together, so what they share counts many times. Whitening "
        "turns and stretches the space: directions in which pictures of one place differ then "
        f"count little. {len(described.layer[1])} of {len(described.maps[0]):,} directions are "
        "kept. It was learned from pairs of matching photographs, pooled with the learned p; with "
        "another p the same whitening is used.",
        NORMALISED + r"\mathbf{d} = \frac{P\,(\hat{\mathbf{f}} - \boldsymbol{\mu})}"
        r"{\lVert P\,(\hat{\mathbf{f}} - \boldsymbol{\mu}) \rVert}",
    ):
        on = st.toggle("Whitening", value=True, key="about-whitening")
        vector = project(described.pooled(p), described.layer if on else None)
        steps.strip(vector, f"The descriptor of one scale: {len(vector):,} numbers.")
        steps.neighbours(followed, opened.names, variants.scores(described, p, on), "whitening")
        if ablation.PROTOCOL in followed.collection.protocols:
            st.altair_chart(
                _map_chart(variants, described.exponent, p, on),
                alt="Mean average precision by exponent, with and without whitening",
            )
            _map_caption(followed, opened, "the chart, at one scale")


def _map_chart(variants: Ablation, own: float, p: float, on: bool) -> altair.LayerChart:
    labels = [_exponent(value, own) for value in variants.exponents]
    variant_names = ["Without whitening", "With whitening"]
    rows = [
        {
            "p": label,
            "mAP": 100 * float(value),
            "Variant": variant_names[with_layer],
            "now": bool(exponent == p and with_layer == on),
        }
        for label, exponent, pair in zip(labels, variants.exponents, variants.maps, strict=True)
        for with_layer, value in enumerate(pair)
    ]
    legend = altair.Legend(orient="top", title=None, symbolSize=120)
    x_axis = altair.Axis(labelAngle=0, labelExpr="split(datum.label, ', ')")  # in two lines
    base = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X("p:N", sort=labels, title="Exponent p", axis=x_axis),
        y=altair.Y("mAP:Q", title="mAP, %", scale=altair.Scale(zero=False), axis={"tickCount": 4}),
        color=altair.Color(
            "Variant:N", scale=altair.Scale(domain=variant_names, range=[COLOURS[1], COLOURS[0]]),
            legend=legend,
        ),
        tooltip=["Variant:N", "p:N", altair.Tooltip("mAP:Q", format=".2f")],
    )  # fmt: skip
    points = base.mark_point(filled=True, opacity=1).encode(
        size=altair.condition("datum.now", altair.value(320), altair.value(70)),
        shape=altair.Shape(
            "Variant:N",
            scale=altair.Scale(domain=variant_names, range=["square", "circle"]),
            legend=legend,
        ),
    )
    return (
        (base.mark_line(strokeWidth=2) + points)
        .properties(height=260)
        .configure_axis(**axes.READABLE)
    )


@st.fragment
def _scales(followed: FollowedQuery, opened: Index, variants: Ablation) -> None:
    leave_fragment()
    factors = loaders.settings_of(opened)["scales"]
    if len(factors) == 1:
        return
    described = _steps(followed, opened)
    factors_text = ", ".join(f"×{factor:.3g}" for factor in factors)
    with steps.step(
        5,
        f"{len(factors)} scales",
        f"The picture goes through the network in several sizes ({factors_text}): a building may "
        "be small in one photograph and large in another. The descriptors are averaged. With all "
        "scales, the learned p and whitening, the result is the descriptor of the search page.",
        r"\mathbf{d} = \frac{\sum_s \mathbf{d}_s}{\lVert \sum_s \mathbf{d}_s \rVert}",
    ):
        count = st.segmented_control(
            "Scales",
            range(1, len(factors) + 1),
            default=len(factors),
            required=True,
            key="about-scales",
        )
        vector = l2(np.mean([described.at_scale(scale) for scale in range(count)], axis=0))
        steps.strip(vector, f"The descriptor from {count} of {len(factors)} scales.")
        steps.neighbours(
            followed, opened.names, variants.scores_of_scales(described, count), "scales"
        )
        values = ", ".join(
            f"{n} {'scale' if n == 1 else 'scales'} **{value:.1%}**"
            for n, value in enumerate(variants.scale_maps, 1)
        )
        _map_caption(followed, opened, values)
