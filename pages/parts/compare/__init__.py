"""Two pictures compared in the browser: heat maps, matches, one laid over the other."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import streamlit as st
from PIL import Image

from retrieval.figures.steps import BELOW_ZERO, OVERLAY_COLOUR
from retrieval.methods.places import Places, pairs

HERE = Path(__file__).parent
CSS = (HERE / "compare.css").read_text("utf-8")


def _component(name: str, html: str):
    # The Tab key of a dialog does not enter a shadow root, which isolated styles need.
    return st.components.v2.component(
        name,
        html=f'<div class="compare">{html}</div>',
        css=CSS,
        js=(HERE / f"{name}.js").read_text("utf-8"),
        isolate_styles=False,
    )


_SIDE = '<div class="side"><img draggable="false"><canvas></canvas></div>'
_heat = _component("heat", f'<div class="pair">{_SIDE * 2}</div><div class="row note"></div>')
_matches = _component(
    "matches",
    '<svg role="img"></svg><div class="row"><label><input type="checkbox"> Show outliers</label>'
    '<span class="note"></span></div>',
)
_aligned = _component(
    "aligned",
    '<div class="over"><img alt="Second picture"><img alt="First picture, aligned"></div>'
    '<div class="row"><span>Second</span><input type="range" min="0" max="100" value="50" '
    'aria-label="How much of the first picture"><span>First</span><button>Blink</button></div>',
)


def uri(picture: bytes | Image.Image) -> str:
    """A picture as a data URL."""
    kind = "jpeg"
    if not isinstance(picture, bytes):
        buffer = io.BytesIO()
        # A third of the usual method's time, and 5 % more bytes.
        picture.save(buffer, "WEBP", quality=80, method=2)
        picture, kind = buffer.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def heat(
    shown: tuple[bytes, bytes],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    places: tuple[Places, Places],
    note: str,
    key: str,
) -> None:
    """What the places of two pictures add to their score. shown: JPEGs; sizes: of the originals."""
    parts = pairs(*places)
    step = float(np.abs(parts).max()) / 32767 or 1.0
    whole = np.round(parts / step).astype("<i2")
    _heat(
        key=key,
        data={
            "parts": base64.b64encode(whole.tobytes()).decode(),
            "step": step,
            "note": note,
            "colours": (OVERLAY_COLOUR, BELOW_ZERO),
            "sides": [
                {"src": uri(jpeg), "alt": alt, "size": size, "box": side.box, "grid": side.shape}
                for jpeg, alt, size, side in zip(
                    shown, ("Query", "Result"), sizes, places, strict=True
                )
            ],
        },
    )


class Lines(NamedTuple):
    """M matches between two pictures, to be drawn as lines.

    points: (M, 2) of each picture in pixels of the originals; similarity (M,); inliers (M,) bool.
    outlines: corners (4, 2) of the query box and of where it lies in the second picture.
    sides: (M,) of each picture, of the square that each keypoint sees.
    """

    points: tuple[np.ndarray, np.ndarray]
    similarity: np.ndarray
    inliers: np.ndarray
    outlines: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    sides: tuple[np.ndarray, np.ndarray] | None = None


def matches(shown: Sequence[tuple[bytes, tuple[int, int]]], lines: Lines, key: str) -> None:
    """Matches between two pictures as lines.

    shown: of both pictures a JPEG, and (width, height) of the original.
    """
    inliers = lines.inliers
    sides = lines.sides or ([0.0] * len(inliers),) * 2
    frame = " Yellow: the query, and where it lies in the other picture."
    rows = zip(*lines.points, lines.similarity, inliers, *sides, strict=True)
    _matches(
        key=key,
        data={
            "label": f"{np.sum(inliers)} of {len(inliers)} matches are inliers, drawn as lines",
            "note": "Point at a line to see that match alone. A click or tap keeps it."
            + ("" if lines.outlines[1] is None else frame),
            "sides": [
                {
                    "src": uri(jpeg),
                    "size": size,
                    "outline": None if corners is None else _plain(corners),
                }
                for (jpeg, size), corners in zip(shown, lines.outlines, strict=True)
            ],
            "matches": [
                {
                    "a": _plain(a),
                    "b": _plain(b),
                    "similarity": float(alike),
                    "inlier": bool(inlier),
                    "sides": [float(side) for side in seen],
                }
                for a, b, alike, inlier, *seen in rows
            ],
        },
    )


def aligned(below: Image.Image, above: Image.Image, key: str) -> None:
    """The first picture, moved onto the second. above: with an alpha channel, of the same size."""
    _aligned(key=key, data={"below": uri(below), "above": uri(above), "size": below.size})


def _plain(points: np.ndarray) -> list:
    return np.round(np.asarray(points, float), 1).tolist()
