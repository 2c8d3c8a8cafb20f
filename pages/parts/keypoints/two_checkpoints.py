"""The same picture through two checkpoints of DELF."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts import notices, query
from pages.parts.keypoints import figures
from pages.parts.keypoints.extractors import DelfExtractor
from retrieval.collections.credits import with_credits
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints

state = st.session_state


def compare_checkpoints(
    query_picture: query.QueryPicture,
    delf: DelfExtractor,
    features: LocalFeatures,
    level: float | None,
) -> None:
    """Offer another checkpoint of DELF, and draw the keypoints of both side by side.

    features: of the picture by ``delf``. level: the pyramid level of the attention maps to draw;
    None for keypoints.
    """
    others = [
        checkpoint
        for checkpoint in checkpoints.of_method("delf")
        if checkpoint.available and checkpoint.id != delf.checkpoint
    ]
    if not others:
        return
    st.subheader("The same picture through two checkpoints", anchor=False)
    st.toggle("Compare with another checkpoint", key="kp-compare", persist_state="session")
    if not state["kp-compare"]:
        return
    other = others[0]
    if len(others) > 1:
        other = st.selectbox(
            "Which", others, format_func=lambda checkpoint: f"{checkpoint.id} · {checkpoint.title}"
        )
    for column, extractor in zip(
        st.columns(2), (delf, DelfExtractor(None, other.id, {})), strict=True
    ):
        with column, notices.errors_shown():
            trained_on = checkpoints.find("delf", extractor.checkpoint).trained_on
            st.markdown(f"**{extractor.checkpoint}**  \n:small[{trained_on}]")
            if level is not None:
                _show_attention(query_picture, extractor, level)
                continue
            if extractor is not delf:
                features = extractor.features(query_picture.source, query_picture.key)
            _show_keypoints(query_picture, extractor, features[: state["kp-count"]])


def _show_attention(query_picture: query.QueryPicture, delf: DelfExtractor, level: float) -> None:
    picture = Path(query_picture.name)
    note = f"{picture.name} · {delf.checkpoint}, pyramid scale {level:.2g}"
    there = figures.show_attention_figure(
        query_picture,
        delf,
        level,
        f"{picture.stem}-{delf.checkpoint}-attention",
        with_credits(note, query_picture.credit),
        f"Attention map of {delf.checkpoint}",
    )
    if not there:
        st.info("This checkpoint has no attention map of this level.")


def _show_keypoints(
    query_picture: query.QueryPicture, delf: DelfExtractor, features: LocalFeatures
) -> None:
    picture = Path(query_picture.name)
    note = f"{picture.name} · {delf.checkpoint}, {len(features)} keypoints"
    figures.show_keypoint_figure(
        query_picture,
        delf,
        features,
        f"{picture.stem}-{delf.checkpoint}-keypoints",
        with_credits(note, query_picture.credit),
        f"{len(features)} keypoints of {delf.checkpoint}",
    )
