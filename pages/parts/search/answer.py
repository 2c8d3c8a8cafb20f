"""One method's answer: its pictures, best first, and what they cost."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pages.parts import cards, loaders, own_pictures, query
from pages.parts.search.link import ALL
from retrieval import methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import PROTOCOLS
from retrieval.images import Box
from retrieval.ranking.search import Ranking

state = st.session_state


def judge(collection: Collection, question: query.Question) -> cards.Truth:
    if not question.labels or not collection.protocols:
        return None
    return cards.verdicts(collection, question.labels, PROTOCOLS[state.judge])


def answer(
    name: str,
    collection: Collection,
    question: query.Question,
    box: Box | None,
    truth: cards.Truth,
) -> None:
    """One method's answer: its pictures, best first, and what they cost."""
    st.subheader(methods.METHODS[name].title, anchor=False)
    path = own_pictures.indexes(collection).get(name)
    if path is None:
        offer_index(name, collection)
        return
    try:
        ranking = loaders.search(path, name, collection, question.source, question.key, box)
    except RetrievalError as error:
        st.error(str(error), icon=":material/error:")
        return
    show(name, collection, ranking, truth)
    cost(ranking)
    st.download_button(
        "Ranking as CSV",
        lambda: cards.as_csv(ranking, truth),
        f"{collection.name}-{name}-{Path(question.name).stem}.csv",
        "text/csv",
        key=f"csv-{name}",
        on_click="ignore",
        icon=":material/download:",
    )


def show(name: str, collection: Collection, ranking: Ranking, truth: cards.Truth) -> None:
    """The best pictures as a grid of cards."""
    hits = range(min(state.count, len(ranking.names)))
    if state.method != ALL and state.get("least") is not None:
        hits = [n for n in hits if ranking.scores[n] >= state.least]
    if not hits:
        st.info("No picture scores that much; lower the least score in the options.")
        return
    with cards.grid(2 if state.method == ALL else 3, name):
        for n in hits:
            hit = ranking.names[n]
            short = cards.plain(Path(hit).name)
            caption = f"**{n + 1}** · {score(ranking, n)}  \n:small[{short}]"
            verdict = truth.get(hit, "wrong") if truth is not None else None
            label = f"{n + 1}: {short}"
            if verdict:
                label += f", {cards.VERDICTS[verdict].label.lower()}"
            said = (hit, f"**{n + 1}** · {score(ranking, n)} · {cards.plain(hit)}")
            cards.card(collection, hit, caption, label, f"{name}-{n}", verdict, enlarge, said)


def score(ranking: Ranking, n: int) -> str:
    if ranking.inliers is not None:
        return f"{ranking.inliers[n]} matches" if ranking.inliers[n] else "no match"
    return f"{ranking.scores[n]:.3f}"


def cost(ranking: Ranking) -> None:
    """Which network answered, on how many pictures, and how long each stage took."""
    made = ranking.provenance
    times = " · ".join(f"{stage} {duration(t)}" for stage, t in ranking.timings.items())
    stands_in = f", standing in for {made['stands_in_for']}" if made["stands_in_for"] else ""
    st.markdown(
        f":small[{times} · {made['pictures']:,} pictures]  \n"
        f":small[Checkpoint **{made['checkpoint']}**{stands_in}]"
    )


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def offer_index(name: str, collection: Collection) -> None:
    """There is no index: make one of a visitor's own pictures, else say how."""
    title = methods.METHODS[name].title
    if collection.name != own_pictures.NAME:
        st.info(f"There is no {title} index of {collection.title} on this machine yet.")
        return
    if st.button(f"Index my pictures with {title}", key=f"build-{name}"):
        with loaders.explained():
            own_pictures.build(name)
        st.rerun()


def enlarge(name: str, caption: str) -> None:
    """Callback of a card: show it large once the page is drawn."""
    state.enlarged = name, caption
