"""Index a collection on a page."""

from __future__ import annotations

import time
from pathlib import Path

import streamlit as st

from pages.parts import loaders
from retrieval import images, index, methods
from retrieval.collections import Collection


def build(
    collection: Collection, name: str, out: Path, max_pixels: int = images.MAX_PIXELS
) -> index.Index:
    """Index a collection with one method into the folder ``out``, showing how far it is.

    max_pixels: of a picture; larger ones are left out.
    """
    method = loaders.taking_turns(loaders.load_method(name))
    title = methods.METHODS[name].title
    bar = st.progress(0.0, f"{title}: starting")
    start = time.monotonic()

    def progress(done: int, total: int, picture: str) -> None:
        rate = done / max(time.monotonic() - start, 1e-6)
        left = f", {(total - done) / rate:.0f} s left" if done > 2 else ""
        bar.progress(done / total, f"{title}: {done} of {total} pictures{left}")

    built = index.build(collection, method, out, progress, max_pixels=max_pixels)
    bar.empty()
    return built
