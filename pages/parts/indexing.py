"""Index a collection, and evaluate an index, on a page that shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import streamlit as st

from pages.parts import loaders, notices, turns
from pages.parts.plain import plain
from retrieval import images, index, methods
from retrieval.collections import Collection

# Of collections with more pictures than this, only one of a client at a time has its keypoints put
# together, and two of all: that takes a second of both cores for a hundred pictures, minutes and
# 0.4 GB for 2000.
LARGE = 200


def build(
    collection: Collection, name: str, out: Path, max_pixels: int = images.MAX_PIXELS
) -> index.Index:
    """Index a collection with one method into the folder ``out``.

    max_pixels: of a picture; larger ones are left out.
    """
    method = loaders.load_method(name)
    title = methods.METHODS[name].title
    bar = st.progress(0.0, f"{title}: starting")
    start = time.monotonic()

    def progress(done: int, total: int, picture: str) -> None:
        rate = done / max(time.monotonic() - start, 1e-6)
        left = f", {(total - done) / rate:.0f} s left" if done > 2 else ""
        bar.progress(done / total, f"{title}: {done} of {total} pictures{left}")

    large = method.kind == "local" and len(collection) > LARGE
    built = index.build(
        collection,
        method,
        out,
        progress,
        max_pixels=max_pixels,
        describe=turns.describe_in_turns,
        turn=_turn if large else nullcontext,
    )
    bar.empty()
    return built


@contextmanager
def _turn() -> Iterator[None]:
    with turns.one_of_client("index"), turns.within_turn(turns.BUILDERS):
        yield


def evaluate(collection: Collection, label: str, path: Path, then: tuple[str, ...] = ()) -> None:
    """Search with all queries of a collection in the index at ``path``; the run is kept beside it.

    label: what the page calls the index. then: re-rankers.
    """
    with notices.errors_shown():
        text = f"Searching with {len(collection.queries)} queries, {plain(label)}"
        bar = st.progress(0.0, text)
        start = time.monotonic()

        def show(done: int, total: int, name: str) -> None:
            left = (time.monotonic() - start) / done * (total - done)
            bar.progress(done / total, f"{text}: {done} of {total}, {left:.0f} s left")

        loaders.evaluate(path, collection, show, then)
        bar.empty()
