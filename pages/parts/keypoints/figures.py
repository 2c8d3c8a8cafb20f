"""Figures of local features on the page, and their data as tables to download."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st
from PIL import Image

from pages.parts import extraction, loaders
from pages.parts.downloads import downloads
from pages.parts.keypoints.extractors import DelfExtractor, Extractor
from pages.parts.query import QueryPicture
from retrieval.figures import files as figure_files
from retrieval.figures import local_features as plots
from retrieval.methods.base import LocalFeatures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retrieval.methods.delf import Attention


PIXELS_PER_INCH = 84  # of the page, for an inch of a figure


def open_picture(source: Path | bytes, name: str) -> tuple[Image.Image, tuple[int, int]]:
    """A copy of a picture to draw on, and the (width, height) of the original.

    Raises PictureError where it cannot be read.
    """
    jpeg, size = loaders.view(source, plots.MAX_SIDE, name)
    return Image.open(io.BytesIO(jpeg)), size


def show_figure(
    name: str,
    source: Path | bytes,
    key: tuple,
    draw: Callable[[], Figure],
    alt: str,
    rows: list[dict],
) -> None:
    """Show a figure at its size in inches, so that a tall picture fits the screen; its downloads.

    name: of the files, without suffix. source: of the picture. key: stands, with the rows, for all
    that is drawn. rows: of the CSV file.
    """
    key = *key, hashlib.sha256(repr(rows).encode()).hexdigest()
    cache = loaders.cache_for(source)
    with st.spinner("Drawing"):
        png = loaders.figure_on_page(cache, key, draw)
    inches = Image.open(io.BytesIO(png)).width / figure_files.DPI
    st.image(png, width=round(inches * PIXELS_PER_INCH), alt=alt)
    downloads(name, rows, lambda kind: loaders.figure_file(kind, cache, key, draw))


def show_keypoint_figure(
    query_picture: QueryPicture,
    extractor: Extractor,
    features: LocalFeatures,
    name: str,
    note: str,
    alt: str,
) -> None:
    """Show keypoints on their picture. name, alt: as for ``show_figure``. note: the small print."""
    picture, size = open_picture(query_picture.source, query_picture.name)
    show_figure(
        name,
        query_picture.source,
        ("keypoints", query_picture.key, note, digest(features)),
        lambda: plots.keypoints(picture, features, note, size, extractor.score_label),
        alt,
        keypoint_rows(features),
    )


def show_attention_figure(
    query_picture: QueryPicture, delf: DelfExtractor, level: float, name: str, note: str, alt: str
) -> bool:
    """Show the attention of one pyramid level over the picture; False where there is none.

    name, note, alt: as for ``show_keypoint_figure``.
    """
    attention = extraction.attention(
        query_picture.source, query_picture.key, level, delf.checkpoint, delf.settings
    )
    if attention is None:
        return False
    picture, size = open_picture(query_picture.source, query_picture.name)
    show_figure(
        name,
        query_picture.source,
        ("attention", query_picture.key, note),
        lambda: plots.attention_map(picture, attention, note, size),
        alt,
        attention_rows(attention),
    )
    return True


def digest(features: LocalFeatures) -> str:
    """A value for the key of a figure, equal only for equal keypoints."""
    return hashlib.sha256(features.keypoints.tobytes()).hexdigest()


def attention_rows(attention: Attention) -> list[dict]:
    """A row for each place of an attention map: x and y in pixels of the original."""
    return [
        {"x": round(float(x), 1), "y": round(float(y), 1), "attention": float(score)}
        for y, line in zip(attention.y, attention.scores, strict=True)
        for x, score in zip(attention.x, line, strict=True)
    ]


def keypoint_rows(features: LocalFeatures) -> list[dict]:
    """A row for each keypoint: x and y in pixels of the original, scale of its pyramid level."""
    columns = (features.keypoints, features.scales, features.scores)
    return [
        {
            "x": round(float(x), 2),
            "y": round(float(y), 2),
            "scale": round(float(scale), 4),
            "score": round(float(score), 4),
        }
        for (x, y), scale, score in zip(*columns, strict=True)
    ]
