"""Elements that the parts of "How it works" share: a numbered step, channels, neighbours."""

from __future__ import annotations

import io
import math
from functools import partial

import numpy as np
import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from pages.parts import cards, loaders
from pages.parts.about.followed_query import FollowedQuery, ask
from pages.parts.keys import key_about
from pages.parts.plain import plain
from retrieval import images
from retrieval.figures import steps as step_figures
from retrieval.ranking.ranking import Ranking

CHANNELS, COLUMNS = 8, 4  # of a mosaic of feature maps
MOSAIC_SIDE = 300  # pixels of the longer side of a picture in it
RESULTS = 10  # pictures of a ranking on show


def step(number: int, title: str, text: str, formula: str = "") -> DeltaGenerator:
    """Draw the text of a step. Returns the container for its pictures."""
    text_column, picture_column = st.columns([1, 2], gap="medium")
    with text_column:
        st.subheader(f"{number} · {title}", anchor=False)
        st.markdown(text)
        if formula:
            st.latex(formula)
    return picture_column.container(key=f"step-{number}")


def cut(followed: FollowedQuery, side: int) -> Image.Image:
    """The query cropped to its box, ``side`` pixels on the longer side."""
    jpeg, size = loaders.view(followed.query_picture.source, 1000, followed.query_picture.name)
    picture: Image.Image = Image.open(io.BytesIO(jpeg))
    if followed.box:
        factor = picture.width / size[0]
        x1, y1, x2, y2 = (value * factor for value in images.check_box(followed.box, size))
        picture = picture.crop((int(x1), int(y1), math.ceil(x2), math.ceil(y2)))
    picture.thumbnail((side, side))
    return picture


def channels(picture: Image.Image, features: np.ndarray, strength: np.ndarray) -> None:
    """The strongest channels of a feature map (C, h, w) over the picture. strength: (C,)."""
    order = np.argsort(-strength)[:CHANNELS]
    small = picture.copy()
    small.thumbnail((MOSAIC_SIDE, MOSAIC_SIDE))
    pictures = [step_figures.overlay(small, features[channel]) for channel in order]
    text = f"The {len(order)} strongest of {len(features):,} channels"
    st.image(step_figures.mosaic(pictures, COLUMNS), width="stretch", alt=text)
    st.caption(f"{text}. Yellow: the channel responds to what is there.")


def strip(vector: np.ndarray, text: str) -> None:
    """A descriptor as a strip of colours."""
    st.image(step_figures.strip(vector), alt=text, width="stretch")
    signed = " Orange is above zero, blue below." if (vector < 0).any() else ""
    st.caption(f"{text} The stronger the colour, the further from zero.{signed}")


def ranked(followed: FollowedQuery, names: tuple[str, ...], scores: np.ndarray) -> Ranking:
    """The pictures by their scores, without the query. names: of the index; scores: of each."""
    order = np.argsort(-scores, kind="stable")
    ranking = Ranking(order, scores[order], tuple(names[n] for n in order), None, {}, {})
    own = followed.query_picture.own_name
    return ranking.without(own) if own else ranking


def neighbours(
    followed: FollowedQuery, names: tuple[str, ...], scores: np.ndarray, key: str
) -> None:
    """Draw the pictures with the highest scores, and the quality of the whole ranking."""
    ranking = ranked(followed, names, scores)
    show(followed, ranking, [f"{score:.2f}" for score in ranking.scores[:RESULTS]], key)


def show(followed: FollowedQuery, ranking: Ranking, captions: list[str], key: str) -> None:
    """A ranking as a strip of its first pictures."""
    judged = None if isinstance(followed.judged, str) else followed.judged
    if judged:
        first = ranking.names[:RESULTS]
        right = sum(judged.verdict(name) == "positive" for name in first)
        value = judged.average_precision(ranking)
        st.markdown(
            f"**{right} of the first {len(first)} right** · average precision **{value:.2f}**"
        )
    with st.container(horizontal=True, gap="xsmall", key=f"strip-about-{key}"):
        for n, (name, caption) in enumerate(zip(ranking.names, captions, strict=False)):
            verdict = judged.verdict(name) if judged else None
            label = f"{n + 1}: {plain(name)}"
            if verdict:
                label += f", {cards.VERDICTS[verdict].label.lower()}"
            cards.card(
                followed.collection,
                name,
                f"**{n + 1}** · {caption}",
                label=label,
                key=key_about(f"about-{key}-{n}", name),
                on_click=partial(ask, name),
                verdict=verdict,
                tip=f"{plain(name)}: click to follow this picture",
            )
