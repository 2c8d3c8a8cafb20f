"""The options of a search: how many results, from which score on, judged by which protocol."""

from __future__ import annotations

import streamlit as st

from pages.parts.search import filters
from pages.parts.search.link import ALL, LAYOUTS, MAX_COUNT, MIN_COUNT, min_score_key
from pages.parts.terms import explained
from retrieval import methods
from retrieval.collections import Collection
from retrieval.collections.ground_truth import usual_protocol

state = st.session_state


def choose_options(collection: Collection) -> None:
    """Draw the options that the chosen method and the collection have."""
    if state.method != ALL:  # which shows ten of each method
        st.slider(
            "Pictures to show", MIN_COUNT, MAX_COUNT, step=3, key="count", persist_state="session"
        )
        if state.then:
            score = "that of the re-ranker"
        elif methods.METHODS[state.method].kind == "local":
            score = "a number of inliers, or votes below 1"
        else:
            score = "a cosine"
        st.number_input(
            f"Lowest {methods.METHODS[state.method].title} score to show",
            value=None,
            placeholder="Any score",
            key=min_score_key(state.method),
            help=f"Results with a lower score are hidden. This score is {score}; each method "
            "keeps a limit of its own.",
            persist_state="session",
        )
        st.segmented_control(
            "Show results as",
            LAYOUTS,
            format_func=LAYOUTS.__getitem__,
            key="layout",
            required=True,
            persist_state="session",
        )
        st.toggle(
            "Fold away results below the noise",
            key="fold",
            help="The score of such a result says little: it has too few inliers, or a cosine "
            "that more than 1 in 100 pairs of different places have as well.",
            persist_state="session",
        )
    filters.choose_filter(collection)
    if collection.protocols:
        if state.get("judge") not in collection.protocols:
            state.judge = usual_protocol(collection.protocols)
        st.segmented_control(
            "Protocol: which pictures count as right",
            collection.protocols,
            format_func=str.capitalize,
            key="judge",
            required=True,
            help=explained("protocol"),
            persist_state="session",
        )
        st.toggle(
            "Hide right and wrong",
            key="hide",
            help="For a class that guesses first: no frames, counts and names of results, until "
            "you press *Show right and wrong*. The next picture hides them again.",
            on_change=lambda: state.pop("revealed", None),
            persist_state="session",
        )
