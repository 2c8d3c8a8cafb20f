"""The same picture through two checkpoints of DELF."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st
from PIL import Image

from pages.parts import extraction, loaders, query
from pages.parts.keypoints.extractors import DelfExtractor
from pages.parts.keypoints.figures import attention_rows, keypoint_rows, show_figure
from retrieval.collections.credits import with_credits
from retrieval.figures import local_features as plots
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints

state = st.session_state


def compare_checkpoints(
    query_picture: query.QueryPicture,
    delf: DelfExtractor,
    features: LocalFeatures,
    picture: Image.Image,
    size: tuple[int, int],
    level: float | None,
) -> None:
    """Offer another checkpoint of DELF, and draw what both find side by side.

    features: of the picture by ``delf``. size: (width, height) of the original of ``picture``.
    level: the pyramid level of the attention maps to draw; None for keypoints.
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
    compared = [(delf.checkpoint, delf.settings), (other.id, {})]
    stem = Path(query_picture.name).stem
    for column, (name, settings) in zip(st.columns(2), compared, strict=True):
        with column, loaders.errors_shown():
            st.markdown(f"**{name}**  \n:small[{checkpoints.find('delf', name).trained_on}]")
            if level is not None:
                attention = extraction.attention(
                    query_picture.source, query_picture.key, level, name, settings
                )
                note = f"{Path(query_picture.name).name} · {name}, pyramid scale {level:.2g}"
                note = with_credits(note, query_picture.credit)
                if attention is None:
                    st.info("This checkpoint has no attention map of this level.")
                    continue
                show_figure(
                    f"{stem}-{name}-attention",
                    ("attention", query_picture.key, note),
                    partial(plots.attention_map, picture, attention, note, size),
                    f"Attention map of {name}",
                    attention_rows(attention),
                )
                continue
            if name != delf.checkpoint:
                features = extraction.delf(
                    query_picture.source, query_picture.key, None, name, settings
                )
            strongest = features[: state["kp-count"]]
            note = f"{Path(query_picture.name).name} · {name}, {len(strongest)} keypoints"
            note = with_credits(note, query_picture.credit)
            show_figure(
                f"{stem}-{name}-keypoints",
                ("keypoints", query_picture.key, note),
                partial(plots.keypoints, picture, strongest, note, size),
                f"{len(strongest)} keypoints of {name}",
                keypoint_rows(strongest),
            )
