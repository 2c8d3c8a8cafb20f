"""Search by example: pick a collection and a picture, draw a box, see what each method finds."""

from __future__ import annotations

import streamlit as st

from pages.parts import (
    cards,
    choose,
    entrance,
    loaders,
    notices,
    own_pictures,
    own_uploads,
    query,
    scroll,
)
from pages.parts.judging import judge
from pages.parts.keys import key_about
from pages.parts.search import marking, reranking
from pages.parts.search.answer import Search, show_answers
from pages.parts.search.browse import show_pictures
from pages.parts.search.dialog import show_result
from pages.parts.search.link import ALL, follow_link, follow_query, write_link
from pages.parts.search.options import choose_options
from pages.parts.search.tour import show_guide
from pages.parts.terms import explained
from retrieval import methods

state = st.session_state

entrance.run_app_first()
own_uploads.delete_leftovers()
cards.style()
title_row = st.container(
    horizontal=True, horizontal_alignment="distribute", vertical_alignment="top", wrap=False
)
cards.title("Search by example", title_row, width="content")

titles = loaders.collection_titles()
follow_link(titles | {own_pictures.NAME: own_pictures.TITLE})
if not titles or own_pictures.current() or state.get("collection") == own_pictures.NAME:
    titles[own_pictures.NAME] = own_pictures.TITLE
state.setdefault("method", "cnn-irwnha")
state.setdefault("count", 12)
state.setdefault("layout", "grid")
state.setdefault("fold", False)
state.setdefault("hide", False)

left, right = st.columns([1, 2], gap="medium")
with left.container(horizontal=True, vertical_alignment="bottom"):
    name = choose.collection(
        titles,
        "collection",
        explained("collection", "query", "index")
        + "  \n**Town (embedded)**: Rendered pictures of an invented town. They come with the app.",
    )
    if name != own_pictures.NAME:
        st.button(
            "Use my pictures",
            key="use-own",
            on_click=own_pictures.search_own,
        )
with right.container(horizontal=True, vertical_alignment="bottom"):
    st.segmented_control(
        "Method",
        [*methods.METHODS, ALL],
        format_func=lambda name: "Compare all" if name == ALL else methods.METHODS[name].title,
        key="method",
        required=True,
        help="  \n".join(
            f"**{entry.title}**: {entry.summary}" for entry in methods.METHODS.values()
        ),
        persist_state="session",
    )
    reranking.choose_chain()

if name == own_pictures.NAME:
    own_pictures.show_section(next(iter(methods.METHODS)) if state.method == ALL else state.method)
with notices.errors_shown():
    collection = own_pictures.open_collection(name)
follow_query(collection)
if not collection.has_pictures:
    st.info(f"The pictures of {collection.title} are not on this machine; you see their names.")

with title_row.popover("Options", icon=":material/tune:"):
    choose_options(collection)

query_column, result_column = st.columns([1, 2], gap="medium")
searched = state.get("searched", False)
own_query = state.get("source") in (query.UPLOAD, query.CAMERA)  # searches without a click
with query_column.container(key="asking" if searched or own_query else "asking-idle"):
    query_picture = query.choose_picture(collection)
    # An error about the picture or the box appears beside it.
    with notices.errors_shown(), st.container(key="query-box"):
        box = query.choose_box(collection, query_picture) if query_picture else None
    if query_picture and isinstance(query_picture.source, bytes):
        st.caption("Your picture stays in this tab and is not part of the link.")

write_link(collection, query_picture)
with result_column:
    if query_picture is None:
        st.info("Choose a picture to search with.")
        st.stop()
    if not searched and not isinstance(query_picture.source, bytes):
        show_pictures(collection)
        if not collection.of_visitor:  # indexes that were loaded ahead are kept for everybody
            paths = own_pictures.indexes(collection)
            loaders.preload([path for name, path in paths.items() if state.method in (name, ALL)])
        st.stop()
    scroll.here(f"{collection.name} {query_picture.identity}")
    verdicts = judge(collection, query_picture, box, state.get("judge", ""))
    asked = (collection.name, *query_picture.identity)
    # Only where the option is drawn: it may be on from another collection.
    hidden = state.hide and bool(collection.protocols) and state.get("revealed") != asked
    hidden = hidden and not isinstance(verdicts, str)
    judged = None if hidden or isinstance(verdicts, str) else verdicts
    if state.method == ALL:
        show_guide(collection, query_picture, box, hidden)
    search = Search(collection, query_picture, box, judged, hidden)
    with st.container(gap=None):
        # What the first mark would add here would move the results below a second quick click; the
        # bar explains the symbols and counts the marks.
        if judged and not search.judging:
            cards.legend()
        with st.container(
            key="judged",
            horizontal=True,
            horizontal_alignment="distribute",
            vertical_alignment="center",
            wrap=False,
        ):
            if hidden:
                st.button(
                    "Show right and wrong",
                    key=key_about("reveal", asked),  # not the answers of the next picture
                    icon=":material/visibility:",
                    on_click=lambda: state.update(revealed=asked),
                )
            elif isinstance(verdicts, str):  # why the right answers are not known
                st.caption(verdicts)
            else:
                st.caption("" if search.judging else verdicts.sentence)
            st.button(
                "Choose another picture",
                key="back",
                type="tertiary",
                icon=":material/apps:",
                on_click=query.browse_again,
            )
    if marking.can_judge(collection, query_picture):
        marking.show_bar(collection)
    show_answers(search)

if "enlarged" in state:
    show_result(search)
