"""The scroll position of a page: restored on the way back, moved to the answer of a click."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

_scroll = st.components.v2.component(
    "scroll", html="<span></span>", js=Path(__file__).with_suffix(".js").read_text("utf-8")
)


def keep() -> None:
    """Restore the scroll position where a visitor comes back to a page. Call it once a page."""
    show, number = st.session_state.get("scroll-show", ("", 0))
    with st.container(key="scroll"):
        _scroll(key="scroll-keeper", data={"show": show, "number": number})


def here(content_id: str) -> None:
    """Scroll to this place of the page, once for each ``content_id`` of the content below it."""
    with st.container(key="scroll-here"):
        _scroll(key="scroll-to-here", data={"show": "scroll-here", "number": content_id})


def show(key: str) -> None:
    """In a callback: bring the container of this key into view."""
    number = st.session_state.get("scroll-show", ("", 0))[1]
    st.session_state["scroll-show"] = key, number + 1


def page_numbers(pages: int, key: str, container: str) -> None:
    """The numbers below a list of several pages; a click brings its beginning into view.

    key: of the number of the page in the session. container: key of that of the list.
    """
    if pages > 1:
        st.pagination(pages, key=key, on_change=show, args=(container,), persist_state="session")
