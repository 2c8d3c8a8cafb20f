"""Figures as bytes of PNG and SVG files."""

from __future__ import annotations

import io
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from retrieval.errors import RetrievalError
from retrieval.figures.style import darken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {"png": "image/png", "svg": "image/svg+xml"}  # suffix → MIME type
DPI = 160  # pixels of a PNG per inch of the figure
_DRAWING = Lock()  # text layout in matplotlib is not safe in several threads


def encode(figure: Figure, kind: str, dark: bool = False) -> bytes:
    """A figure as the bytes of a file. The same figure gives the same bytes.

    kind: 'png' or 'svg'. dark: for the app's dark theme; files to download and print stay white.
    """
    buffer = io.BytesIO()
    with _DRAWING:
        import matplotlib

        if dark:
            darken(figure)

        with matplotlib.rc_context({"svg.hashsalt": "retrieval"}):
            figure.savefig(
                buffer, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None
            )
    return buffer.getvalue()


def is_figure(path: Path) -> bool:
    """Whether a file is a figure of matplotlib, ours or another: it says so at the beginning.

    Raises OSError.
    """
    with path.open("rb") as file:
        return b"Matplotlib" in file.read(2000)


def format_of(path: Path) -> str:
    """'png' or 'svg', by the suffix of a path. Raises RetrievalError for any other."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise RetrievalError(f"{path} must end in .png or .svg.")
    return kind
