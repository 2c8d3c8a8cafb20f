"""What DELF sees in one picture."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from pages.parts import extraction, loaders, query
from pages.parts.keypoints.engine import Delf, Engine, XFeat
from pages.parts.keypoints.figures import attention_rows, figure, pixels, rows_of
from pages.parts.keypoints.link import BOTH, FEATURES, LOOKS
from pages.parts.keypoints.two_checkpoints import other_checkpoints
from pages.parts.terms import explained
from retrieval.collections import Collection
from retrieval.collections.credits import with_credits
from retrieval.figures import local_features as plots_local
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints

state = st.session_state


def sees(collection: Collection, delf: Delf, xfeat: XFeat) -> query.QueryPicture | None:
    """What the local features of one picture are."""
    asking, answer = st.columns([1, 2], gap="medium")
    with answer, loaders.errors_shown(), asking:
        query_picture = query.choose_picture(collection)
        if query_picture is None:
            answer.info("Choose a picture on the left.")
            return None
        st.segmented_control(
            "Features",
            FEATURES,
            format_func=FEATURES.__getitem__,
            key="kp-features",
            required=True,
            help="**DELF** finds what landmarks are recognised by, and a search uses it. **XFeat** "
            "finds corners that can be found again in another picture; it only checks what a "
            "search found.",
            persist_state="session",
        )
    if state["kp-features"] == "delf":
        of_delf(query_picture, delf, asking, answer)
        return query_picture
    with answer, loaders.errors_shown(), asking:
        count = _count()
        engines: list[Engine] = [delf, xfeat] if state["kp-features"] == BOTH else [xfeat]
    with answer, loaders.errors_shown():
        for column, engine in zip(st.columns(len(engines)), engines, strict=True):
            with column:
                found = features_of(query_picture, engine)
                st.markdown(f"**{engine.title}**")
                drawn(query_picture, engine, found, found[:count])
    return query_picture


def features_of(query_picture: query.QueryPicture, engine: Engine) -> LocalFeatures:
    """Features of a picture; those that an index of DELF keeps need no network."""
    stored = engine.stored(query_picture.name) if isinstance(engine, Delf) else None
    if stored is not None and isinstance(query_picture.source, Path):
        return stored
    return engine.features(query_picture.source, query_picture.key)


def drawn(
    query_picture: query.QueryPicture, engine: Engine, features: LocalFeatures, shown: LocalFeatures
) -> None:
    """The keypoints of one kind on the picture, or a sentence where there are none."""
    if not len(shown):
        st.info(
            f"{engine.title} finds no keypoint here: the picture is blank or too small."
            if not len(features)
            else "No keypoint is left: lower the limit of attention or choose more levels."
        )
        return
    picture, size = pixels(query_picture.source, query_picture.name)
    numbers = f"{Path(query_picture.name).name} · {engine.checkpoint}, {len(shown)} keypoints"
    note = with_credits(numbers, query_picture.credit)
    figure(
        f"{Path(query_picture.name).stem}-{engine.title.lower()}-keypoints",
        (
            "keypoints",
            query_picture.key,
            note,
            hashlib.sha256(shown.keypoints.tobytes()).hexdigest(),
        ),
        lambda: plots_local.keypoints(picture, shown, note, size, engine.score),
        f"{len(shown)} keypoints of {engine.title}",
        rows_of(shown),
    )
    circles = (
        "A large circle is a keypoint that was found with the picture made small: it describes a "
        "large part of the picture."
        if isinstance(engine, Delf)
        else "XFeat looks at the picture in one size, so all circles are equal."
    )
    checkpoint = checkpoints.registered(engine.title.lower(), engine.checkpoint)
    st.caption(
        f"{len(shown)} of {len(features)} keypoints. {circles} "
        f"Trained on: {checkpoint.trained_on}.",
        help=explained("checkpoint") if isinstance(engine, Delf) else None,
    )


def of_delf(
    query_picture: query.QueryPicture, engine: Delf, asking: DeltaGenerator, answer: DeltaGenerator
) -> None:
    """All that can be shown of DELF: keypoints, receptive fields, attention, two checkpoints."""
    with answer, loaders.errors_shown(), asking:
        picture, size = pixels(query_picture.source, query_picture.name)
        features = features_of(query_picture, engine)
        look = st.segmented_control(
            "Show",
            LOOKS,
            format_func=LOOKS.__getitem__,
            key="kp-look",
            required=True,
            help=explained("keypoint", "descriptor", "receptive field", "attention"),
            persist_state="session",
        )
        levels = np.unique(features.scales.round(2)).tolist()
        shown = select(features, levels) if look == "keypoints" else features
        level = chosen_level(engine) if look == "attention" else None
    stem = f"{Path(query_picture.name).stem}-{look}"
    numbers = f"{Path(query_picture.name).name} · {engine.checkpoint}"
    note = with_credits(numbers, query_picture.credit)
    with answer, loaders.errors_shown():
        if level is not None:
            attention(query_picture, engine, picture, size, level, note, stem)
        elif look == "keypoints" or not len(shown):
            drawn(query_picture, engine, features, shown)
        else:
            fields(query_picture, engine, picture, size, shown, note, stem)
    if look != "attention" and not len(shown):
        return
    if look == "keypoints":
        st.subheader("How strong, and at which scale", anchor=False)
        digest = hashlib.sha256(features.keypoints.tobytes()).hexdigest()
        levels = [
            {
                "scale": level,
                "keypoints": int((features.scales.round(2) == np.float32(level)).sum()),
            }
            for level in levels
        ]
        with st.container(key="plot-histograms"):
            figure(
                f"{stem}-histograms",
                ("histograms", query_picture.key, numbers, digest),
                lambda: plots_local.histograms(
                    features, f"{numbers}, all {len(features)} keypoints"
                ),
                "Histograms of attention and scale",
                levels,
            )
    if look != "fields":
        other_checkpoints(query_picture, engine, features, picture, size, level)


def _count() -> int:
    return st.slider(
        "Strongest keypoints", 10, 1000, step=10, key="kp-count", persist_state="session"
    )


def select(features: LocalFeatures, levels: list[float]) -> LocalFeatures:
    """The keypoints that the controls ask for."""
    count = _count()
    keep = np.ones(len(features), bool)
    if len(features) > 1 and features.scores[-1] < features.scores[0]:
        low, high = (
            float(edge) for edge in (np.floor(features.scores[-1]), np.ceil(features.scores[0]))
        )
        with st.expander("Filter"):
            keep &= features.scores >= st.slider("Lowest attention", low, high, low)
            chosen = st.pills(
                "Pyramid levels",
                levels,
                default=levels,
                selection_mode="multi",
                format_func=lambda level: f"×{level:g}",
                help=explained("pyramid level"),
            )
            keep &= np.isin(features.scales.round(2), np.array(chosen, np.float32))
    return features[np.flatnonzero(keep)[:count]]


def chosen_level(engine: Delf) -> float:
    known = checkpoints.find("delf", engine.checkpoint).settings.get("scales")
    scales = engine.settings.get("scales") or known or [0.25, 0.5, 1.0, 2.0]
    return st.select_slider(
        "Pyramid level",
        scales,
        1.0 if 1.0 in scales else scales[0],
        format_func="×{:.2g}".format,
        help=explained("pyramid level"),
    )


def fields(
    query_picture: query.QueryPicture,
    engine: Delf,
    picture: Image.Image,
    size: tuple[int, int],
    shown: LocalFeatures,
    note: str,
    stem: str,
) -> None:
    """The squares that the strongest keypoint of each level sees.

    size: (width, height) of the original of ``picture``. stem: of the files to download.
    """
    _, first = np.unique(shown.scales.round(2), return_index=True)
    best = shown[np.sort(first)]
    whole = extraction.attention(
        query_picture.source, query_picture.key, 1.0, engine.checkpoint, engine.settings
    )
    if whole is None:
        st.info("This checkpoint does not tell how much of the picture each keypoint sees.")
        return
    sides = whole.side / best.scales
    figure(
        stem,
        ("fields", query_picture.key, note, best.keypoints.tobytes()),
        lambda: plots_local.fields(picture, best, sides, note, size),
        "Receptive fields",
        [
            row | {"side": round(float(side), 1)}
            for row, side in zip(rows_of(best), sides, strict=True)
        ],
    )
    st.caption(
        "The strongest keypoint of each pyramid level, and the square of the picture that its "
        "descriptor depends on, its receptive field. The middle of the square counts most."
    )


def attention(
    query_picture: query.QueryPicture,
    engine: Delf,
    picture: Image.Image,
    size: tuple[int, int],
    level: float,
    note: str,
    stem: str,
) -> None:
    """Attention of one level as a heat map. size, stem: as for ``fields``."""
    found = extraction.attention(
        query_picture.source, query_picture.key, level, engine.checkpoint, engine.settings
    )
    if found is None:
        st.info("There is no attention map of this level: the picture is too small for it.")
        return
    figure(
        f"{stem}-{level:g}",
        ("attention", query_picture.key, note, level),
        lambda: plots_local.heat(picture, found, f"{note}, pyramid scale {level:.2g}", size),
        "Attention map",
        attention_rows(found),
    )
    st.caption(
        "Attention at every place of the picture. DELF keeps the places with the highest attention "
        "as keypoints."
    )
