"""What several pages say where they cannot show what was asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import streamlit as st

from pages.parts import own_uploads
from pages.parts.plain import plain
from retrieval import methods
from retrieval.collections import PRECOMPUTED, Collection, data_folder
from retrieval.errors import RetrievalError
from retrieval.index import finding


def sentence(error: RetrievalError) -> str:
    """The text of a page about an error: visitors are not told where on this machine files are."""
    text = re.sub(rf"\S*{own_uploads.FOLDER_PREFIX}[^/\\]*[/\\]", "", str(error))
    for folder in (PRECOMPUTED.parent, data_folder()):
        text = text.replace(f"{folder}{os.sep}", "")
    return plain(text)


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show a RetrievalError raised inside as one sentence, and end the page there."""
    try:
        yield
    except RetrievalError as error:
        st.error(sentence(error), icon=":material/error:")
        st.stop()


def stores_away() -> None:
    """Name the stores that cannot be opened; their indexes are left out of the page."""
    errors: list[RetrievalError] = []
    with errors_shown():
        finding.in_stores(errors)
    for error in errors:
        st.error(sentence(error), icon=":material/error:")


def nothing_here() -> NoReturn:
    """Say that there is no collection, link to the pages that bring one, and end the page."""
    st.info("There is no collection on this machine yet.")
    st.page_link(
        "pages/search.py",
        label="Search in pictures of your own",
        icon=":material/add_photo_alternate:",
    )
    st.page_link(
        "pages/collections.py",
        label="Download a collection",
        icon=":material/photo_library:",
    )
    st.stop()


def no_index(collection: Collection, method: str) -> None:
    """Say that a collection has no index of a method, and which command makes it."""
    st.info(
        f"There is no {methods.METHODS[method].title} index of {plain(collection.title)} on this "
        f"machine yet. This command makes it: "
        f"`python -m retrieval index {collection.name} --method {method}`"
    )
