"""Re-ranking on the search page: the choice of re-rankers, and how they moved the pictures."""

from __future__ import annotations

import streamlit as st

from pages.parts.search.link import ALL
from retrieval.methods import METHODS
from retrieval.ranking import chain
from retrieval.ranking.chain import RERANKERS
from retrieval.ranking.confidence import Level
from retrieval.ranking.ranking import Ranking

ICONS: dict[Level, str] = {
    "sure": ":green[:material/check_circle:]",
    "unsure": ":orange[:material/help:]",
    "unchecked": ":gray[:material/info:]",
}
state = st.session_state


def choose_chain() -> None:
    """Draw the choice of one re-ranker, the best chain, or the chain that a link brought.

    Where the chosen chain cannot be used with the method any more, a sentence says so.
    """
    methods = METHODS.values() if state.method == ALL else [METHODS[state.method]]
    local = any(method.kind == "local" for method in methods)
    usable = [reranker.name for reranker in RERANKERS.values() if not (reranker.vectors and local)]
    options = ["", ",".join(chain.BEST), *usable]
    dropped: list[str] = []
    if state.setdefault("then", "") not in options:
        chosen = state.then.split(",")
        if all(name in usable for name in chosen):
            options.append(state.then)
        else:
            dropped = [
                one.title for one in RERANKERS.values() if one.vectors and one.name in chosen
            ]
            state.then = ""
    st.selectbox(
        "Then re-rank by",
        options,
        format_func=lambda names: chain.title(names.split(",")) if names else "Nothing",
        key="then",
        help="A re-ranker looks at the first results again and puts them into a better order. "
        + "  \n".join(f"**{RERANKERS[name].title}**: {RERANKERS[name].summary}" for name in usable),
        persist_state="session",
    )
    if dropped:
        st.caption(f"Nothing is re-ranked now: {', '.join(dropped)} cannot be used with DELF.")


def chosen_chain() -> tuple[str, ...]:
    """The chain of re-rankers chosen with ``choose_chain``, () for none."""
    return chain.parse_chain(state.then)


def show_summary(ranking: Ranking) -> None:
    """Show the confidence of the answer, the re-rankers that ran, and their notes."""
    if judged := ranking.confidence:
        st.markdown(f"{ICONS[judged.level]} **{judged.text}.** {judged.reason}")
    if ranking.before:
        st.caption(
            f"Re-ranked by {chain.title(chosen_chain())}. ▲ and ▼: how many places a picture "
            f"moved.  \n{_stages(ranking)}"
        )
    show_notes(ranking)


def _stages(ranking: Ranking) -> str:
    """A line for each re-ranker that ran: what it looks at."""
    return "  \n".join(
        f"{RERANKERS[stage.stage].title}: {RERANKERS[stage.stage].summary}"
        for stage in ranking.stages[1:]
    )


def show_history(ranking: Ranking, rank: int) -> None:
    """Say what the re-rankers did to the picture at a rank (from 0); nothing where none ran.

    Else a picture that they moved stands beside a cosine, or inliers, that do not explain its rank.
    """
    if not ranking.before:
        return
    first = rank + int(ranking.moved[rank])
    st.caption(
        (
            f"Re-ranking left it at rank {rank + 1}."
            if first == rank
            else f"The search alone put it at rank {first + 1}, for the reason shown first. "
            f"Re-ranking then put it at rank {rank + 1}."
        )
        + f"  \n{_stages(ranking)}"
    )


def show_notes(ranking: Ranking) -> None:
    """Say what a re-ranker could not do: the order is then not what its name promises."""
    for note in ranking.notes:
        st.caption(f":material/info: {note}")


def moved_text(ranking: Ranking, rank: int) -> str:
    """' · ▲ 12' for the picture at a rank (from 0) that the re-rankers moved up by twelve."""
    moved_up = int(ranking.moved[rank]) if ranking.before else 0
    return f" · ▲ {moved_up}" if moved_up > 0 else f" · ▼ {-moved_up}" if moved_up else ""
