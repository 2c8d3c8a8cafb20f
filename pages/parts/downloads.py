"""What a section shows, to take away: its table as CSV, its figure as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from pages.parts import loaders
from pages.parts.cache import Cache, Part
from retrieval.figures import files as figure_files
from retrieval.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FIGURE_WIDTH = 820  # px; on narrower screens a figure takes what there is


def as_csv(rows: Iterable[Mapping]) -> bytes:
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return table(columns, ([row.get(key, "") for key in columns] for row in rows))


def download(label: str, data: Callable[[], bytes], name: str, mime: str) -> None:
    st.download_button(
        label,
        data,
        name,
        mime,
        key=f"get-{name}",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
    )


def downloads(name: str, rows: list[dict], draw: Callable[[str], bytes] | None = None) -> None:
    """Buttons for the numbers and for the figure of a section. draw: kind → file."""
    with st.container(horizontal=True, gap="small"):
        download("CSV", lambda: as_csv(rows), f"{name}.csv", "text/csv")
        if draw is not None:
            for kind, mime in figure_files.FORMATS.items():
                download(kind.upper(), partial(draw, kind), f"{name}.{kind}", mime)


def figure(
    name: str,
    cache: Cache | Part,
    key: tuple,
    draw: Callable[[], Figure],
    alt: str,
    rows: list[dict],
) -> None:
    """A figure as it is downloaded, with its downloads. cache: from ``loaders.cache_for``."""
    with st.container(key=f"plot-{name}"):
        st.image(loaders.figure_on_page(cache, key, draw), width=FIGURE_WIDTH, alt=alt)
    downloads(name, rows, lambda kind: loaders.figure_file(kind, cache, key, draw))
