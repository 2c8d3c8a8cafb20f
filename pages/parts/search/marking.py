"""Judging results of one's own pictures: the marks are the ground truth of the collection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from pages.parts import cards, indexing, own_pictures, query, turns
from pages.parts.keys import key_about
from pages.parts.plain import plain
from retrieval.collections import Collection, judgements
from retrieval.collections.ground_truth_files import parse_ground_truth
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.methods import METHODS

MAX_FILE_QUERIES = 200  # of a file; a command scores more, and keeps no visitor waiting
MAX_FILE_MEGABYTES = 4  # of a file, which takes up to thirty times as much in memory
MARKS = (judgements.RIGHT, judgements.WRONG, judgements.LEFT_OUT)
state = st.session_state


def can_judge(collection: Collection, query_picture: query.QueryPicture) -> bool:
    """Whether results can be judged: those of a query that is in one's own collection."""
    return collection.name == own_pictures.NAME and isinstance(query_picture.source, Path)


def show_bar(collection: Collection) -> None:
    """Draw the switch; with it on, how much was judged and what can be done with it."""
    with st.container(horizontal=True, vertical_alignment="center", key="judging-bar"):
        st.toggle(
            "Judge",
            key="judging",
            help="Mark each result as right, wrong or left out. The marks are ground truth: "
            "evaluate the methods with them, or download them as a file.",
            persist_state="session",
        )
        if not state.judging:
            return
        st.markdown(own_pictures.judged_text(collection), width="content")
        with st.popover("Ground truth", icon=":material/description:"):
            st.download_button(
                "Download",
                lambda: judgements.as_json(collection),
                "ground_truth.json",
                "application/json",
                key="judged-file",
                on_click="ignore",
                icon=":material/download:",
                disabled=not collection.queries,
                help="Put it beside your pictures, and `python -m retrieval evaluate` reads it.",
            )
            st.file_uploader(
                "Use a file",
                ["json"],
                key="judged-upload",
                max_upload_size=MAX_FILE_MEGABYTES,
                on_change=_use_file,
            )
            if problem := state.pop("judged-problem", ""):
                st.error(plain(problem), icon=":material/error:")
        indexes = own_pictures.indexes(collection)
        evaluable = bool(collection.protocols and indexes)
        if st.button(
            "Evaluate",
            key="judged-evaluate",
            type="primary",
            disabled=not evaluable,
            help=None if evaluable else "Mark at least one result as right (✓) first.",
        ):
            for name, path in indexes.items():
                indexing.evaluate(collection, METHODS[name].title, path)
            st.switch_page("pages/evaluation.py", query_params={"collection": collection.name})
    st.caption(
        "✓ shows the same thing, ✗ does not, – is left out of the score. Pictures that you do not "
        "mark count as wrong."
    )


def show_buttons(
    collection: Collection,
    query_picture: query.QueryPicture,
    box: Box | None,
    picture: str,
    key: str,
) -> None:
    """Draw three small buttons below a result. picture: its name. key: unique on the page."""
    box = query.labelled_box(query_picture, box)
    judged_query = judgements.find(collection, query_picture.name, box)
    # A browser that has not yet received this page sends the marks of the one before, which would
    # be taken for those of the pictures that have their places now.
    about = collection.root, query_picture.name, box, picture
    key = key_about(f"mark-{key}", *about)
    state[key] = judgements.verdicts(collection, judged_query).get(picture)
    st.segmented_control(
        f"Is {plain(Path(picture).name)} right?",
        MARKS,
        format_func=lambda verdict: cards.VERDICTS[verdict].symbol,
        key=key,
        label_visibility="collapsed",
        on_change=_mark,
        args=(key, *about),
        width="stretch",
    )


def _mark(key: str, root: Path, name: str, box: Box | None, picture: str) -> None:
    """Callback of the three buttons. root: of the pictures, which others may have replaced."""
    own = own_pictures.current()
    if own and own.collection.root == root and picture in own.collection.positions:
        own.collection = judgements.judge(own.collection, name, box, picture, state[key])


def _use_file() -> None:
    """Callback: replace the judgements of this session by those of a file."""
    own, file = own_pictures.current(), state.get("judged-upload")
    if own is None or file is None:
        return
    try:
        if file.size > MAX_FILE_MEGABYTES << 20:  # only the browser has checked it so far
            raise RetrievalError(
                f"This file is larger than {MAX_FILE_MEGABYTES} MB: score it with the command "
                "python -m retrieval evaluate."
            )
        truth = turns.in_turn(lambda: parse_ground_truth(file.getvalue(), "This file"))
        if len(truth.queries) > MAX_FILE_QUERIES:
            raise RetrievalError(
                f"This file has more than {MAX_FILE_QUERIES} queries: score it with the command "
                "python -m retrieval evaluate."
            )
        queries = judgements.refer_to(truth, own.collection.names)
        own.collection = replace(own.collection, queries=queries)
    except RetrievalError as error:
        state["judged-problem"] = str(error)
