"""The same picture through two checkpoints of DELF."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st
from PIL import Image

from pages.parts import extraction, loaders, query
from pages.parts.keypoints.engine import Delf
from pages.parts.keypoints.figures import attention_rows, figure, rows_of
from retrieval.collections.credits import with_credits
from retrieval.figures import local_features as plots_local
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints

state = st.session_state


def other_checkpoints(
    query_picture: query.QueryPicture,
    engine: Delf,
    features: LocalFeatures,
    picture: Image.Image,
    size: tuple[int, int],
    level: float | None,
) -> None:
    """The same picture through two checkpoints: keypoints, or the attention map of a level.

    features: of the checkpoint in use. size: (width, height) of the original of ``picture``.
    """
    here = engine.checkpoint
    others = [one for one in checkpoints.of_method("delf") if one.available and one.id != here]
    if not others:
        return
    st.subheader("The same picture through two checkpoints", anchor=False)
    st.toggle("Compare with another checkpoint", key="kp-compare", persist_state="session")
    if not state["kp-compare"]:
        return
    other = others[0]
    if len(others) > 1:
        other = st.selectbox("Which", others, format_func=lambda one: f"{one.id} · {one.title}")
    pairs = [(here, engine.settings), (other.id, {})]
    stem = Path(query_picture.name).stem
    for column, (name, settings) in zip(st.columns(2), pairs, strict=True):
        with column, loaders.errors_shown():
            one = checkpoints.find("delf", name)
            st.markdown(f"**{name}**  \n:small[{one.trained_on}]")
            if level is not None:
                found = extraction.attention(
                    query_picture.source, query_picture.key, level, name, settings
                )
                note = f"{Path(query_picture.name).name} · {name}, pyramid scale {level:.2g}"
                note = with_credits(note, query_picture.credit)
                if found is None:
                    st.info("This checkpoint has no attention map of this level.")
                    continue
                figure(
                    f"{stem}-{name}-attention",
                    ("attention", query_picture.key, note),
                    partial(plots_local.heat, picture, found, note, size),
                    f"Attention map of {name}",
                    attention_rows(found),
                )
                continue
            if name != here:
                source, key = query_picture.source, query_picture.key
                features = extraction.delf(source, key, None, name, settings)
            best = features[: state["kp-count"]]
            note = f"{Path(query_picture.name).name} · {name}, {len(best)} keypoints"
            note = with_credits(note, query_picture.credit)
            figure(
                f"{stem}-{name}-keypoints",
                ("keypoints", query_picture.key, note),
                partial(plots_local.keypoints, picture, best, note, size),
                f"{len(best)} keypoints of {name}",
                rows_of(best),
            )
