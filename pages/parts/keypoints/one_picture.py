"""The view "One picture": keypoints, receptive fields and attention of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.parts import extraction, notices, query
from pages.parts.keypoints import figures
from pages.parts.keypoints.extractors import DelfExtractor, Extractor, XFeatExtractor
from pages.parts.keypoints.figures import digest, keypoint_rows, open_picture, show_figure
from pages.parts.keypoints.link import BOTH, COUNT_BOUNDS, FEATURES, LOOKS
from pages.parts.keypoints.two_checkpoints import compare_checkpoints
from pages.parts.terms import explained
from retrieval.collections import Collection
from retrieval.collections.credits import with_credits
from retrieval.figures import local_features as plots
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints

state = st.session_state


def show_one_picture(
    collection: Collection, delf: DelfExtractor, xfeat: XFeatExtractor
) -> query.QueryPicture | None:
    """Choose a picture on the left, and show its local features on the right.

    Returns the picture; None where none is chosen yet.
    """
    query_column, result_column = st.columns([1, 2], gap="medium")
    # Errors in the left column are shown in the right one, here and below.
    with result_column, notices.errors_shown(), query_column:
        query_picture = query.choose_picture(collection)
        if query_picture is None:
            result_column.info("Choose a picture.")
            return None
        st.segmented_control(
            "Features",
            FEATURES,
            format_func=FEATURES.__getitem__,
            key="kp-features",
            required=True,
            help="**DELF** finds places that tell landmarks apart; a search uses it. **XFeat** "
            "finds corners that can be found again in another picture; it only checks the results "
            "of a search.",
            persist_state="session",
        )
    if state["kp-features"] == "delf":
        show_delf(query_picture, delf, query_column, result_column)
        return query_picture
    with result_column, notices.errors_shown(), query_column:
        count = choose_count()
        extractors: list[Extractor] = [delf, xfeat] if state["kp-features"] == BOTH else [xfeat]
    with result_column, notices.errors_shown():
        for column, extractor in zip(st.columns(len(extractors)), extractors, strict=True):
            with column:
                features = (
                    delf.database_features(query_picture)  # those of an index need no network
                    if extractor is delf
                    else extractor.features(query_picture.source, query_picture.key)
                )
                st.markdown(f"**{extractor.title}**")
                show_keypoints(query_picture, extractor, features, features[:count])
    return query_picture


def show_delf(
    query_picture: query.QueryPicture,
    delf: DelfExtractor,
    query_column: DeltaGenerator,
    result_column: DeltaGenerator,
) -> None:
    """Show DELF's keypoints, receptive fields or attention; below, those of another checkpoint."""
    with result_column, notices.errors_shown(), query_column:
        features = delf.database_features(query_picture)
        look = st.segmented_control(
            "Show",
            LOOKS,
            format_func=LOOKS.__getitem__,
            key="kp-look",
            required=True,
            help=explained("keypoint", "descriptor", "receptive field", "attention"),
            persist_state="session",
        )
        shown = choose_keypoints(features) if look == "keypoints" else features
        level = choose_level(delf) if look == "attention" else None
    stem = f"{Path(query_picture.name).stem}-{look}"
    provenance = f"{Path(query_picture.name).name} · {delf.checkpoint}"
    note = with_credits(provenance, query_picture.credit)
    with result_column, notices.errors_shown():
        if level is not None:
            show_attention(query_picture, delf, level, note, stem)
        elif look == "keypoints" or not len(shown):
            show_keypoints(query_picture, delf, features, shown)
        else:
            show_receptive_fields(query_picture, delf, shown, note, stem)
    if look != "attention" and not len(shown):
        return
    if look == "keypoints":
        show_histograms(query_picture, features, provenance, stem)
    if look != "fields":
        compare_checkpoints(query_picture, delf, features, level)


def show_keypoints(
    query_picture: query.QueryPicture,
    extractor: Extractor,
    features: LocalFeatures,
    shown: LocalFeatures,
) -> None:
    """Draw keypoints on their picture, or say why there are none.

    shown: those of ``features`` to draw.
    """
    if not len(shown):
        st.info(
            f"{extractor.title} finds no keypoint here: the picture is blank or too small."
            if not len(features)
            else "No keypoint is left: lower the limit of attention or choose more levels."
        )
        return
    provenance = f"{Path(query_picture.name).name} · {extractor.checkpoint}, {len(shown)} keypoints"
    figures.show_keypoint_figure(
        query_picture,
        extractor,
        shown,
        f"{Path(query_picture.name).stem}-{extractor.title.lower()}-keypoints",
        with_credits(provenance, query_picture.credit),
        f"{len(shown)} keypoints of {extractor.title}",
    )
    is_delf = isinstance(extractor, DelfExtractor)
    circles = (
        "A large circle is a keypoint that was found in a small copy of the picture: it describes "
        "a large part of the picture."
        if is_delf
        else "XFeat looks at the picture in one size, so all circles are equal."
    )
    checkpoint = checkpoints.registered(extractor.title.lower(), extractor.checkpoint)
    st.caption(
        f"{len(shown):,} of {len(features):,} keypoints. {circles} "
        f"Trained on: {checkpoint.trained_on}.",
        help=explained("checkpoint") if is_delf else None,
    )


def show_histograms(
    query_picture: query.QueryPicture, features: LocalFeatures, provenance: str, stem: str
) -> None:
    """Show how many keypoints have which attention, and which pyramid level.

    provenance: the small print, but for the number of keypoints. stem: of the files to download.
    """
    st.subheader("How strong, and at which scale", anchor=False)
    levels, counts = np.unique(features.scales.round(2), return_counts=True)
    rows = [
        {"scale": round(float(level), 2), "keypoints": int(count)}
        for level, count in zip(levels, counts, strict=True)
    ]
    with st.container(key="plot-histograms"):
        show_figure(
            f"{stem}-histograms",
            query_picture.source,
            ("histograms", query_picture.key, provenance, digest(features)),
            lambda: plots.histograms(features, f"{provenance}, all {len(features)} keypoints"),
            "Histograms of attention and scale",
            rows,
        )


def choose_count() -> int:
    """Draw the slider for the number of keypoints to show."""
    return st.slider(
        "Strongest keypoints", *COUNT_BOUNDS, step=10, key="kp-count", persist_state="session"
    )


def choose_keypoints(features: LocalFeatures) -> LocalFeatures:
    """Draw the controls that filter keypoints, and return those that pass."""
    count = choose_count()
    keep = np.ones(len(features), bool)
    if len(features) > 1 and features.scores[-1] < features.scores[0]:
        low, high = float(np.floor(features.scores[-1])), float(np.ceil(features.scores[0]))
        levels = np.unique(features.scales.round(2)).tolist()
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


def choose_level(delf: DelfExtractor) -> float:
    """Draw the slider for the pyramid level; 0.5: half the size of ×1."""
    known = checkpoints.find("delf", delf.checkpoint).settings.get("scales")
    scales = delf.settings.get("scales") or known or [0.25, 0.5, 1.0, 2.0]
    return st.select_slider(
        "Pyramid level",
        scales,
        1.0 if 1.0 in scales else scales[0],
        format_func="×{:.2g}".format,
        help=explained("pyramid level"),
    )


def show_receptive_fields(
    query_picture: query.QueryPicture,
    delf: DelfExtractor,
    features: LocalFeatures,
    note: str,
    stem: str,
) -> None:
    """Draw the receptive field, a square, of the strongest keypoint of each pyramid level.

    note: the small print. stem: of the files to download.
    """
    # Features have their strongest keypoint first.
    _, first_of_level = np.unique(features.scales.round(2), return_index=True)
    best = features[np.sort(first_of_level)]
    picture, size = open_picture(query_picture.source, query_picture.name)
    sides = extraction.field_sides(best, size, None, delf.checkpoint, delf.settings)
    if sides is None:
        st.info("This checkpoint does not tell how much of the picture each keypoint sees.")
        return
    show_figure(
        stem,
        query_picture.source,
        ("fields", query_picture.key, note, digest(best)),
        lambda: plots.receptive_fields(picture, best, sides, note, size),
        "Receptive fields",
        [
            row | {"side": round(float(side), 1)}
            for row, side in zip(keypoint_rows(best), sides, strict=True)
        ],
    )
    reach = sides[:, None] / 2
    around = (best.keypoints <= reach) & (best.keypoints >= np.array(size) - reach)
    unseen = int(around.all(axis=1).sum())
    st.caption(
        "The strongest keypoint of each pyramid level, and the square of the picture that its "
        "descriptor depends on, its receptive field. The middle of the square counts most."
        + (f" The whole picture lies inside {unseen} of the {len(best)} squares." if unseen else "")
    )


def show_attention(
    query_picture: query.QueryPicture, delf: DelfExtractor, level: float, note: str, stem: str
) -> None:
    """Draw the attention of one level over the picture.

    note, stem: as for ``show_receptive_fields``.
    """
    level_note = f"{note}, pyramid scale {level:.2g}"
    there = figures.show_attention_figure(
        query_picture, delf, level, f"{stem}-{level:g}", level_note, "Attention map"
    )
    if not there:
        st.info("This checkpoint has no attention map of this level of the picture.")
        return
    st.caption(
        "Attention at every place of the picture. DELF keeps the places with the highest attention "
        "as keypoints."
    )
