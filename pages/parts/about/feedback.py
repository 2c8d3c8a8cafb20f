"""Relevance feedback: the visitor marks results, and the marks move the query."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from pages.parts.about import steps
from pages.parts.about.followed_query import FollowedQuery, leave_fragment
from pages.parts.search.reranking import moved_text
from retrieval.index import Index
from retrieval.ranking.feedback import RIGHT, WRONG, rocchio

state = st.session_state


@st.fragment
def section(number: int, followed: FollowedQuery, opened: Index, vector: np.ndarray) -> None:
    """Draw this step. vector: (D,), the descriptor of the query, of unit length."""
    leave_fragment()
    vectors = opened.arrays["descriptors"].astype(np.float32)
    ranking = steps.ranked(followed, opened.names, vectors @ vector)
    first = ranking.positions[: steps.RESULTS].tolist()
    with steps.step(
        number,
        "More like these, less like those",
        "Mark results as right or wrong. The query moves towards the mean of the right ones and "
        "away from the mean of the wrong ones (Rocchio), and the search runs again. Marked "
        "pictures rise or fall because they are marked, so both lists below leave them out.",
        rf"\mathbf{{q}}' = \mathbf{{q}} + {RIGHT} \, \bar{{\mathbf{{d}}}}_{{\text{{right}}}} - "
        rf"{WRONG} \, \bar{{\mathbf{{d}}}}_{{\text{{wrong}}}}",
    ):
        captions = [f"{score:.2f}" for score in ranking.scores[: steps.RESULTS]]
        steps.show(followed, ranking, captions, "marked")
        right, wrong = _marks(followed, [opened.names[position] for position in first])
        if not right and not wrong:
            st.info("Mark some of the results above.")
            return
        marked = [first[n] for n in (*right, *wrong)]
        right_vectors, wrong_vectors = (
            vectors[[first[n] for n in some]] for some in (right, wrong)
        )
        unmarked = _without(followed, opened, marked)
        others = set(opened.names) - {opened.names[position] for position in marked}
        before, after = (
            steps.ranked(unmarked, opened.names, vectors @ query).only(others)
            for query in (vector, rocchio(vector, right_vectors, wrong_vectors))
        )
        after = replace(after, before=before)
        st.markdown("**Before**")
        captions = [f"{score:.2f}" for score in before.scores[: steps.RESULTS]]
        steps.show(unmarked, before, captions, "before")
        st.markdown("**Asked again**")
        captions = [
            moved_text(after, n).removeprefix(" · ") for n in range(min(steps.RESULTS, len(after)))
        ]
        steps.show(unmarked, after, captions, "again")


def _marks(followed: FollowedQuery, names: list[str]) -> tuple[list[int], list[int]]:
    """Numbers of the results, from 0, that the visitor marks as right, and as wrong."""
    numbers = range(len(names))
    # Not the name: the next picture of a visitor may have the same one, and other results.
    key = f"{followed.collection.name} {followed.query_picture.key}"
    keys = f"about-right {key}", f"about-wrong {key}"
    judged = followed.judged

    def as_labelled() -> None:
        assert not isinstance(judged, str)
        verdicts = [judged.verdict(name) for name in names]
        for state_key, verdict in zip(keys, ("positive", "wrong"), strict=True):
            state[state_key] = [n for n in numbers if verdicts[n] == verdict]

    right, wrong = (
        column.pills(
            title, numbers, selection_mode="multi", format_func=lambda n: str(n + 1), key=state_key
        )
        for column, title, state_key in zip(st.columns(2), ("Right", "Wrong"), keys, strict=True)
    )
    if not isinstance(judged, str):
        st.button("Mark as the labels say", on_click=as_labelled, key="about-labelled")
    return list(right), [n for n in wrong if n not in right]


def _without(followed: FollowedQuery, opened: Index, marked: list[int]) -> FollowedQuery:
    """The query without the marked pictures in its labels. marked: positions in the index."""
    if isinstance(followed.judged, str):
        return followed
    marked_positions = [
        followed.collection.positions[opened.names[position]] for position in marked
    ]
    labels = {
        kind: np.setdiff1d(some, marked_positions) for kind, some in followed.judged.labels.items()
    }
    return followed._replace(judged=replace(followed.judged, labels=labels))
