"""Six searches in the embedded collection that show what each method can and cannot do."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st

from pages.parts import query
from pages.parts.search.link import ALL
from retrieval.collections import Collection
from retrieval.images import Box
from retrieval.methods import METHODS

state = st.session_state


class Stop(NamedTuple):
    """A search, and the sentence to say about it.

    right: of the first ten answers of SIR, DELF and CNN-IRwNHA, under Medium. part: of "How it
    works", where the same picture shows the reason.
    """

    name: str
    title: str
    sentence: str
    right: tuple[int, int, int]
    part: str


STOPS = (
    Stop(
        "hall_004.jpg",
        "Details tell buildings apart",
        "SIR describes a picture by one list of numbers, and similar buildings have similar lists: "
        "four of its first ten are wrong. DELF compares hundreds of places: all ten are right.",
        (6, 10, 6),
        "delf",
    ),
    Stop(
        "observatory_007.jpg",
        "A part of a building",
        "The query shows only a part of the building. SIR has five right pictures in ten, DELF and "
        "CNN-IRwNHA have nine.",
        (5, 9, 9),
        "cnn-irwnha",
    ),
    Stop(
        "museum_017.jpg",
        "A look-alike",
        "This is the museum. Another building, the exchange, has the same style and stone: it is "
        "SIR's first answer.",
        (6, 7, 8),
        "sir",
    ),
    Stop(
        "exchange_019.jpg",
        "Hard for all three",
        "Now the other way round: this is the exchange, and CNN-IRwNHA's second and third answer "
        "are the museum. SIR has three right pictures in ten, CNN-IRwNHA four, DELF five.",
        (3, 5, 4),
        "cnn-irwnha",
    ),
    Stop(
        "priory_007.jpg",
        "Two measures disagree",
        "SIR has seven right pictures in ten, DELF only four. But DELF's four come before any "
        "wrong one, so its average precision (AP) is higher.",
        (7, 4, 6),
        "delf",
    ),
    Stop(
        "belltower_013.jpg",
        "Black and white",
        "This picture has no colour. DELF and CNN-IRwNHA have six right pictures in ten, SIR has "
        "five.",
        (5, 6, 6),
        "sir",
    ),
)


def show_tour(collection: Collection) -> None:
    """Invite to the tour, and list its stops, where the collection has their pictures."""
    if not _is_here(collection):
        return
    with st.container(horizontal=True, gap="small"):
        if st.button("Start the tour", key="tour", type="primary", icon=":material/tour:"):
            st.switch_page("pages/search.py", query_params=_address(collection, STOPS[0]))
        with st.popover("Its six searches"):
            for number, stop in enumerate(STOPS, 1):
                with st.container(horizontal=True, gap="small"):
                    _link_to_search(collection, stop, f"**{number} · {stop.title}**")
                    _link_to_steps(collection, stop)
                if not state.hide:
                    st.markdown(stop.sentence)


def show_guide(
    collection: Collection, query_picture: query.QueryPicture, box: Box | None, hidden: bool
) -> None:
    """Show the sentence of a stop of the tour beside its answers, and a link that goes on.

    hidden: whether right and wrong are hidden; then a question takes the place of the sentence.
    """
    names = [stop.name for stop in STOPS]
    if (
        query_picture.name not in names
        or isinstance(query_picture.source, bytes)
        or not _is_here(collection)
    ):
        return
    n = names.index(query_picture.name)
    # The sentence is about one search: with this box, this protocol, and nothing after it.
    same_box = query.box_as_text(box) == query.box_as_text(query_picture.own_box)
    as_told = same_box and not state.then and not state.get("where") and state.judge == "medium"
    with st.container(border=True, gap="xsmall", key="tour-guide"):
        # Not "you changed it": some came by an address and never began the tour.
        sentence = "The tour searches with this picture too, with another box or other options."
        if as_told:
            sentence = STOPS[n].sentence
        if as_told and hidden:
            sentence = "Guess first: which results show the same place as your picture?"
        st.markdown(f"**Tour, {n + 1} of {len(STOPS)} · {STOPS[n].title}.** {sentence}")
        with st.container(horizontal=True, gap="small"):
            if not as_told:
                _link_to_search(collection, STOPS[n], "The search of the tour", ":material/undo:")
            if n > 0:
                _link_to_search(collection, STOPS[n - 1], "Previous", ":material/arrow_back:")
            if n + 1 < len(STOPS):
                _link_to_search(collection, STOPS[n + 1], "Next", ":material/arrow_forward:")
            else:
                st.page_link(
                    "pages/evaluation.py",
                    label="All queries: how good is each method?",
                    icon=":material/arrow_forward:",
                    query_params={"collection": collection.name},
                )
            _link_to_steps(collection, STOPS[n])


def _is_here(collection: Collection) -> bool:
    """Whether the collection has the pictures of all stops."""
    known = {*collection.names, *(prepared_query.name for prepared_query in collection.queries)}
    return all(stop.name in known for stop in STOPS)


def _address(collection: Collection, stop: Stop) -> dict[str, str]:
    """The query parameters of the search of a stop."""
    link = {"collection": collection.name, "method": ALL, "query": stop.name}
    if state.hide:
        link["hide"] = "yes"
    for prepared_query in collection.queries:
        if prepared_query.name == stop.name and prepared_query.box:
            link["box"] = query.box_as_text(prepared_query.box)
    return link


def _link_to_search(
    collection: Collection, stop: Stop, label: str, icon: str | None = None
) -> None:
    link = _address(collection, stop)
    st.page_link("pages/search.py", label=label, icon=icon, query_params=link)


def _link_to_steps(collection: Collection, stop: Stop) -> None:
    st.page_link(
        "pages/about.py",
        label=f"{METHODS[stop.part].title} step by step",
        icon=":material/school:",
        query_params={"collection": collection.name, "query": stop.name, "part": stop.part},
    )
