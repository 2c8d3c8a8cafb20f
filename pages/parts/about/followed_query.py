"""The picture that the page "How it works" follows through the methods, and its link."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import streamlit as st

from pages.parts import address, cards, choose, loaders, notices, query
from pages.parts.judging import Judged, judge
from pages.parts.plain import plain
from retrieval import images
from retrieval.collections import Collection
from retrieval.collections.ground_truth import usual_protocol
from retrieval.images import Box

state = st.session_state


class FollowedQuery(NamedTuple):
    """The query whose way through a method is shown. judged: its right answers, or why they are
    not known.
    """

    collection: Collection
    query_picture: query.QueryPicture
    box: Box | None
    judged: Judged | str


def follow_link(parts: dict[str, str], maps: dict[str, str]) -> None:
    """Put the settings in the address into the session, before any widget is drawn.

    parts: of the page, maps: kinds of map; name → title.
    """
    parameters = address.new_link(loaders.collection_titles(), "about-link", "about-collection")
    if (part := parameters.get("part")) in parts:
        state["about-part"] = part
    elif part:
        st.warning(f"This link asks for the part {plain(part)}, which is unknown. Choose another.")
    if "query" in parameters:
        state["about-query"] = state["about-linked"] = parameters["query"]
    if parameters.get("map") in maps:
        state["map-kind"] = parameters["map"]


def write_link(followed: FollowedQuery) -> None:
    link = {"part": state["about-part"]}
    if isinstance(followed.query_picture.source, Path):
        link |= {"collection": followed.collection.name, "query": followed.query_picture.name}
    if link["part"] == "map":
        link["map"] = state["map-kind"]
    address.keep_link("about-link", link)


def pick() -> FollowedQuery:
    """Draw the picture that the methods are shown with, and the controls that choose it."""
    state.pop("about-asked", None)
    titles = loaders.collection_titles()
    if not titles:
        notices.nothing_here()
    if state.get("collection") == address.OWN_PICTURES:
        st.caption(
            "Your own pictures are not in this list. Follow one of them with “A picture of yours”."
        )
    left, right = st.columns([1, 4], gap="medium", vertical_alignment="center")
    with right:
        only = next(iter(titles)) if len(titles) == 1 else None
        name = only or choose.collection(titles, "about-collection")
        with notices.errors_shown():
            collection = loaders.collection(name)
            query_picture = _chosen_picture(collection)
        if isinstance(query_picture.source, Path) and not collection.has_pictures:
            st.info(
                f"The pictures of {collection.title} are not on this machine. Choose another "
                "collection, or follow a picture of yours."
            )
            st.stop()
        st.caption(
            "The box is the query: the network sees nothing outside of it."
            if query_picture.own_box
            else "The whole picture is the query."
        )
    with left, notices.errors_shown():
        jpeg, size = loaders.view(query_picture.source, 240, query_picture.name)
        st.image(
            cards.boxed(jpeg, size, query_picture.own_box), alt=query_picture.name, width="content"
        )
        cards.credit_line(query_picture.credit)
    protocol = usual_protocol(collection.protocols)
    judged = judge(collection, query_picture, query_picture.own_box, protocol)
    with right:
        st.caption(judged if isinstance(judged, str) else f"{judged.sentence}.")
    return FollowedQuery(collection, query_picture, query_picture.own_box, judged)


def _chosen_picture(collection: Collection) -> query.QueryPicture:
    prepared = {entry.name: number for number, entry in enumerate(collection.queries)}
    labels = query.labels(collection.queries)
    names = [*prepared, *(name for name in collection.names if name not in prepared)]
    if state.pop("about-linked", names[0]) not in names:
        st.warning(
            f"This link asks for {plain(state['about-query'])}, which is not in the "
            "collection. Choose another picture."
        )
    if state.get("about-query") not in names:
        state["about-query"] = names[0]

    def label(name: str) -> str:
        return labels[prepared[name]] if name in prepared else name

    name = st.selectbox(
        "Picture to follow", names, format_func=label, key="about-query", persist_state="session"
    )
    with st.popover("A picture of yours", icon=":material/upload:"):
        suffixes = [suffix[1:] for suffix in sorted(images.SUFFIXES)]
        file = st.file_uploader("It stays in this tab.", suffixes, key="about-upload")
    if file:
        return query.QueryPicture(file.name, file.getvalue())
    if name in prepared:
        return query.prepared(collection, prepared[name])
    return query.in_database(collection, name)


def ask(name: str) -> None:
    """Callback of a result: follow that picture."""
    state["about-query"] = name
    state["about-asked"] = True


def leave_fragment() -> None:
    """First in a fragment: run the whole page where a result in it was clicked."""
    if state.pop("about-asked", False):
        st.rerun()
