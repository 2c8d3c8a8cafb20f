"""More like these, less like those: results are marked, and the query is asked again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from pages.parts.about import steps
from pages.parts.about.asked import Asked, leave_fragment
from pages.parts.search.reranking import moved
from retrieval.index import Index
from retrieval.ranking.feedback import RIGHT, WRONG, rocchio

state = st.session_state


@st.fragment
def section(number: int, asked: Asked, opened: Index, vector: np.ndarray) -> None:
    """vector: (D,), the descriptor of the query as the index has them."""
    leave_fragment()
    vectors = opened.arrays["descriptors"].astype(np.float32)
    ranking = steps.ranked(asked, opened.names, vectors @ vector)
    first = ranking.positions[: steps.BEST].tolist()
    with steps.step(
        number,
        "More like these, less like those",
        "A user may know which results are right. The query then moves towards the mean of those "
        "marked as right and away from the mean of those marked as wrong (Rocchio), and is asked "
        "again. Marked pictures would rise or fall by being marked, so both lists leave them out: "
        "watch the others.",
        rf"\mathbf{{q}}' = \mathbf{{q}} + {RIGHT} \, \bar{{\mathbf{{d}}}}_{{\text{{right}}}} - "
        rf"{WRONG} \, \bar{{\mathbf{{d}}}}_{{\text{{wrong}}}}",
    ):
        said = [f"{score:.2f}" for score in ranking.scores[: steps.BEST]]
        steps.show(asked, ranking, said, "marked")
        right, wrong = _marks(asked, [opened.names[position] for position in first])
        if not right and not wrong:
            st.info("Mark some of the results above.")
            return
        marked = [first[n] for n in (*right, *wrong)]
        good, bad = (vectors[[first[n] for n in some]] for some in (right, wrong))
        left = _without(asked, opened, marked)
        others = set(opened.names) - {opened.names[position] for position in marked}
        before, again = (
            steps.ranked(left, opened.names, vectors @ query).only(others)
            for query in (vector, rocchio(vector, good, bad))
        )
        again = replace(again, before=before)
        st.markdown("**Before**")
        said = [f"{score:.2f}" for score in before.scores[: steps.BEST]]
        steps.show(left, before, said, "before")
        st.markdown("**Asked again**")
        said = [moved(again, n).removeprefix(" · ") for n in range(min(steps.BEST, len(again)))]
        steps.show(left, again, said, "again")


def _marks(asked: Asked, names: list[str]) -> tuple[list[int], list[int]]:
    """Which of the results are right and which are wrong, as the visitor says."""
    numbers = range(len(names))
    key = f"{asked.collection.name} {asked.query_picture.name}"
    keys = f"about-right {key}", f"about-wrong {key}"
    judged = asked.judged

    def as_labelled() -> None:
        assert not isinstance(judged, str)
        verdicts = [judged.verdict(name) for name in names]
        for one, verdict in zip(keys, ("positive", "wrong"), strict=True):
            state[one] = [n for n in numbers if verdicts[n] == verdict]

    right, wrong = (
        column.pills(
            title, numbers, selection_mode="multi", format_func=lambda n: str(n + 1), key=one
        )
        for column, title, one in zip(st.columns(2), ("Right", "Wrong"), keys, strict=True)
    )
    if not isinstance(judged, str):
        st.button("Mark as the labels say", on_click=as_labelled, key="about-labelled")
    return list(right), [n for n in wrong if n not in right]


def _without(asked: Asked, opened: Index, marked: list[int]) -> Asked:
    """The same query with labels that know nothing of the marked pictures."""
    if isinstance(asked.judged, str):
        return asked
    gone = [asked.collection.positions[opened.names[position]] for position in marked]
    labels = {kind: np.setdiff1d(some, gone) for kind, some in asked.judged.labels.items()}
    return asked._replace(judged=replace(asked.judged, labels=labels))
