"""Figures of local features on the page, with what is drawn as a table."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st
from PIL import Image

from pages.parts import loaders
from pages.parts.downloads import downloads
from retrieval.figures import local_features as plots_local
from retrieval.methods.base import LocalFeatures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retrieval.methods.delf import Attention


INCH = 84  # pixels of the page that an inch of a figure takes


def pixels(source: Path | bytes, name: str) -> tuple[Image.Image, tuple[int, int]]:
    """A picture to draw on, and the size it really has."""
    jpeg, size = loaders.view(source, plots_local.MAX_SIDE, name)
    return Image.open(io.BytesIO(jpeg)), size


def figure(name: str, key: tuple, draw: Callable[[], Figure], alt: str, rows: list[dict]) -> None:
    """A figure at its size in inches, so that a tall picture fits the screen; its downloads.

    key: stands, with the rows, for all that is drawn.
    """
    key = *key, hashlib.sha256(repr(rows).encode()).hexdigest()
    with st.spinner("Drawing"):
        png = loaders.figure_on_page(key, draw)
    width = Image.open(io.BytesIO(png)).width
    st.image(png, width=round(width / 160 * INCH), alt=alt)
    downloads(name, rows, lambda kind: loaders.figure_file(kind, key, draw))


def attention_rows(found: Attention) -> list[dict]:
    return [
        {"x": round(float(x), 1), "y": round(float(y), 1), "attention": float(score)}
        for y, line in zip(found.y, found.scores, strict=True)
        for x, score in zip(found.x, line, strict=True)
    ]


def rows_of(features: LocalFeatures) -> list[dict]:
    columns = (features.keypoints, features.scales, features.scores)
    return [
        {
            "x": round(float(x), 2),
            "y": round(float(y), 2),
            "scale": round(float(scale), 4),
            "attention": round(float(score), 4),
        }
        for (x, y), scale, score in zip(*columns, strict=True)
    ]
