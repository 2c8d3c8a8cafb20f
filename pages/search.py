"""Search by example: pick a collection and a picture, draw a box, see what each method finds."""

from __future__ import annotations

import streamlit as st

from pages.parts import cards, loaders, own_pictures, query
from pages.parts.search.answer import answer, judge
from pages.parts.search.browse import browse
from pages.parts.search.dialog import large
from pages.parts.search.link import ALL, FEWEST, MOST, follow_link, follow_query, write_link
from retrieval import methods

state = st.session_state

enlarged = state.pop("enlarged", None)
loaders.through_app()
cards.style()
head = st.container(
    horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", wrap=False
)
head.title("Search by example", anchor=False, width="content")

shelf = loaders.shelf() | {own_pictures.NAME: own_pictures.TITLE}
follow_link(shelf)
state.setdefault("method", "cnn-irwnha")
state.setdefault("count", 12)
if state.get("collection") not in shelf:
    state.collection = next(iter(shelf))

place, way = st.columns([1, 2], gap="medium")
place.selectbox(
    "Collection", shelf, format_func=shelf.get, key="collection", persist_state="session"
)
way.segmented_control(
    "Method",
    [*methods.METHODS, ALL],
    format_func=lambda name: "Compare all" if name == ALL else methods.METHODS[name].title,
    key="method",
    required=True,
    persist_state="session",
)
wanted = list(methods.METHODS) if state.method == ALL else [state.method]

if state.collection == own_pictures.NAME:
    if len(shelf) == 1 and own_pictures.current() is None:
        st.info("No collection is installed here yet. Bring pictures of your own to search in.")
    with st.expander("Bring pictures", expanded=own_pictures.current() is None):
        own_pictures.form(wanted)
    if own_pictures.current() is None:
        st.stop()
    own_pictures.left_out()
with loaders.explained():
    collection = own_pictures.opened(state.collection)
follow_query(collection)
if not collection.has_pictures:
    st.info(f"The pictures of {collection.title} are not on this machine; you see their names.")

with head.popover("Options", icon=":material/tune:"):
    st.slider("Pictures to show", FEWEST, MOST, step=3, key="count", persist_state="session")
    st.number_input(
        "Least score",
        value=None,
        key="least",
        disabled=state.method == ALL,
        help="Leave out results below it. Scores of different methods do not compare.",
        persist_state="session",
    )
    if collection.protocols:
        if state.get("judge") not in collection.protocols:
            state.judge = "medium" if "medium" in collection.protocols else collection.protocols[0]
        st.segmented_control(
            "Judge results as",
            collection.protocols,
            format_func=str.capitalize,
            key="judge",
            required=True,
            persist_state="session",
        )

asking, answers = st.columns([1, 2], gap="medium")
with answers, loaders.explained(), asking.container(key="asking"):  # what is wrong, at the top
    question = query.pick(collection)
    box = query.frame(collection, question) if question else None
    if question and st.button("Search", type="primary", width="stretch", key="go"):
        state.searched = True
    if question and isinstance(question.source, bytes):
        st.caption("Your picture stays in this session and is not part of the link.")

write_link(collection, question)
with answers:
    if question is None:
        st.info("Choose a picture on the left to search with.")
    elif not state.get("searched") and isinstance(question.source, bytes):
        st.info("Draw a box around what you mean, or leave it, and press Search.")
    elif not state.get("searched"):
        browse(collection)
    else:
        with st.container(
            horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
        ):
            truth = judge(collection, question)
            if truth is not None:
                right = sum(verdict == "positive" for verdict in truth.values())
                cards.legend(f"Judged as {state.judge}: {right} right")
            elif collection.protocols:
                st.caption("Right and wrong are known for prepared queries only: no frames here.")
            st.button(
                "Other pictures",
                key="back",
                type="tertiary",
                icon=":material/apps:",
                on_click=lambda: state.update(searched=False),
            )
        for column, name in zip(st.columns(len(wanted)), wanted, strict=True):
            with column:
                answer(name, collection, question, box, truth)

if enlarged and question:
    large(collection, question, box, *enlarged)
