"""The answers to a query: the best pictures of each method, what they cost, how many are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.parts import cards, loaders, own_pictures, query
from pages.parts.judging import Judged
from pages.parts.plain import plain
from pages.parts.search import filters, marking, reranking
from pages.parts.search.link import ALL, least_key
from pages.parts.terms import explained
from retrieval import methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.figures import evaluation as plots
from retrieval.images import Box
from retrieval.ranking.geometry import NOISE_FLOOR
from retrieval.ranking.ranking import Ranking

USUAL = 0.99  # of pairs of different places that score below what is above the noise
STRIP = 10  # pictures of each method when all are compared
state = st.session_state


def answers(
    collection: Collection, question: query.Question, box: Box | None, judged: Judged | None
) -> None:
    """The answer of the chosen method, or a strip for each of them."""
    together = state.method == ALL
    names = list(methods.METHODS) if together else [state.method]
    paths = own_pictures.indexes(collection)
    filters.chip()
    # All headings and grey cards first: the answer to the last query is gone at once.
    slots = {name: _slot(name, together, paths) for name in names}
    rankings: dict[str, Ranking] = {}
    for name, (heading, status, slot) in slots.items():
        if name not in paths:
            continue
        try:
            with status:
                rankings[name] = loaders.search(
                    paths[name],
                    name,
                    collection,
                    question,
                    box,
                    reranking.chosen(),
                    state.get("where", ""),
                )
        except RetrievalError as error:
            slot.error(plain(str(error)), icon=":material/error:")
        confidence = rankings[name].confidence if name in rankings else None
        if confidence and confidence.empty:  # any order of pictures would be arbitrary
            slot.info(confidence.reason, icon=":material/hide_image:")
            del rankings[name]
        first = name == names[0] and name in rankings
        heading.markdown(
            _heading(name, rankings.get(name), judged, together),
            unsafe_allow_html=True,
            help=_terms(names, judged) if first else None,
        )
        if not together and name in rankings:
            with slot.container():
                reranking.said(rankings[name])
                _grid(name, collection, question, box, rankings[name], judged)
                _below(name, collection, question, rankings[name], judged)
    if together:
        for name in rankings:
            with slots[name][-1].container():
                _strip(name, collection, question, box, rankings, judged)
    # Last, as it may take minutes: meanwhile the methods that are ready can be looked at.
    for name in names:
        if name not in paths:
            with slots[name][-1].container():
                offer_index(name, collection, together)


def _slot(name: str, together: bool, paths: dict[str, Path]) -> tuple[DeltaGenerator, ...]:
    """A heading and a place for the pictures, grey until they are there."""
    row = st.container(key=f"heading-{name}", horizontal=True, vertical_alignment="center")
    heading, status = row.empty(), row.empty()
    heading.markdown(_heading(name, None, None, together), unsafe_allow_html=True)
    slot = st.empty()
    if name in paths:
        slot.html(cards.skeleton(STRIP if together else state.count, together))
    return heading, status, slot


def _heading(name: str, ranking: Ranking | None, judged: Judged | None, together: bool) -> str:
    """'DELF · 9 of the first 10 right · AP 0.64 · 0.4 s', in Markdown with HTML."""
    colour = plots.METHOD_COLOURS.get(name, plots.OTHER)
    mark = f'<span style="color:{colour}">●</span> ' if together else ""
    parts = [f"#### {mark}{methods.METHODS[name].title}"]
    if ranking is not None and judged is not None:
        shown = ranking.names[: STRIP if together else state.count]
        right = sum(judged.verdict(one) == "positive" for one in shown)
        parts.append(f"{right} of the first {len(shown)} right")
        value = judged.average_precision(ranking)
        made = ranking.provenance
        part = "filter" in made or made.get("shortlist", made["pictures"]) < made["pictures"]
        # Without a right picture there is no AP, nor for a part of the collection.
        if value == value and not part:
            parts.append(f"AP {value:.2f}")
    if ranking is not None:
        parts.append(duration(sum(ranking.timings.values())))
    below = f" <small>below each: rank · {_unit(ranking)}</small>" if together and ranking else ""
    return " · ".join(parts) + below


def _unit(ranking: Ranking) -> str:
    """What the number below each picture of a strip is."""
    if ranking.inliers is None:
        return "score" if ranking.before else "cosine"
    return "inliers, or score" if ranking.before else "inliers"


def _terms(names: list[str], judged: Judged | None) -> str:
    """What the numbers of these methods are, for the first heading."""
    kinds = {methods.METHODS[name].kind for name in names}
    local = ["keypoint", "match", "inliers"] if "local" in kinds or reranking.chosen() else []
    return explained(
        *(["AP", "protocol", "left out of the score"] if judged else []),
        *(["descriptor", "cosine"] if "global" in kinds else []),
        *local,
    )


def _grid(
    name: str,
    collection: Collection,
    question: query.Question,
    box: Box | None,
    ranking: Ranking,
    judged: Judged | None,
) -> None:
    """The best pictures of one method as large cards."""
    hits = list(range(min(state.count, len(ranking))))
    least = state.get(least_key(name))
    if least is not None:
        hits = [n for n in hits if ranking.scores[n] >= least]
        st.button(
            f"Only scores of {least:g} or more",
            key="clear-least",
            icon=":material/close:",
            help="Show all results again",
            on_click=lambda: state.update({least_key(name): None}),
        )
    if not hits:
        st.info(
            "No result has such a score: remove the limit above."
            if least is not None
            else "There is no other picture to find."
        )
        return
    noise = _noise(name, collection, ranking) if state.fold else len(ranking)
    good, folded = [n for n in hits if n < noise], [n for n in hits if n >= noise]
    places = [("", good, st.container())]
    if folded:
        many = "1 result" if len(folded) == 1 else f"{len(folded)} results"
        if not good:
            st.info("No result stands out from the noise.")
        places.append(("noise-", folded, st.expander(f"{many} below the noise")))
    for part, some, where in places:
        listed = state.layout == "list"
        with where, cards.grid(1 if listed else 3, f"{state.layout}-{part}{name}"):
            for n in some:
                hit = ranking.names[n]
                short = plain(hit if listed else Path(hit).name)
                with st.container(gap="xsmall"):
                    _card(name, collection, ranking, n, judged, f"  \n:small[{short}]")
                    if state.get("judging") and marking.possible(collection, question):
                        marking.buttons(collection, question, box, hit, f"{name}-{n}")


def _noise(name: str, collection: Collection, ranking: Ranking) -> int:
    """The first place of a ranking from which on unrelated pictures score as high."""
    if ranking.inliers is not None:
        above = ranking.inliers > 0
    elif ranking.before:  # such a score is no cosine
        return len(ranking)
    else:
        path = own_pictures.indexes(collection)[name]
        _, unrelated = loaders.pair_cosines(path, collection)
        if not len(unrelated):
            return len(ranking)
        above = ranking.scores > np.quantile(unrelated, USUAL)
    return int(np.flatnonzero(above).max(initial=-1)) + 1


def _strip(
    name: str,
    collection: Collection,
    question: query.Question,
    box: Box | None,
    rankings: dict[str, Ranking],
    judged: Judged | None,
) -> None:
    """The best pictures of one method as a row of small cards."""
    ranking = rankings[name]
    judging = state.get("judging") and marking.possible(collection, question)
    with st.container(
        horizontal=True, gap="xsmall", key=f"strip-{'judging-' if judging else ''}{name}"
    ):
        for n in range(min(STRIP, len(ranking))):
            hit = ranking.names[n]
            places = [
                f"{methods.METHODS[other].title} {one.names.index(hit) + 1}"
                for other, one in rankings.items()
                if hit in one.names
            ]
            tip = f"{plain(Path(hit).name)}: rank " + ", ".join(places)
            with st.container(gap="xsmall"):
                _card(name, collection, ranking, n, judged, "", tip)
                if judging:
                    marking.buttons(collection, question, box, hit, f"{name}-{n}")


def _card(
    name: str,
    collection: Collection,
    ranking: Ranking,
    n: int,
    judged: Judged | None,
    more: str,
    tip: str | None = None,
) -> None:
    hit = ranking.names[n]
    verdict = judged.verdict(hit) if judged else None
    label = f"{n + 1}: {plain(Path(hit).name)}"
    if verdict:
        label += f", {cards.VERDICTS[verdict].label.lower()}"
    cards.card(
        collection,
        hit,
        f"**{n + 1}** · {score(ranking, n, short=tip is not None)}"
        f"{reranking.moved(ranking, n)}{more}",
        label,
        f"{name}-{n}",
        verdict,
        enlarge,
        (name, n),
        tip,
    )


def score(ranking: Ranking, n: int, short: bool = False) -> str:
    """The score of a result as people say it."""
    if ranking.inliers is None:
        return f"{ranking.scores[n]:.3f}"
    if ranking.inliers[n]:
        return f"{ranking.inliers[n]}" if short else f"{ranking.inliers[n]} inliers"
    if ranking.before:  # geometry may not have looked at it
        return f"{ranking.scores[n]:.3f}"
    return f"< {NOISE_FLOOR}" if short else f"fewer than {NOISE_FLOOR} inliers"


def _below(
    name: str,
    collection: Collection,
    question: query.Question,
    ranking: Ranking,
    judged: Judged | None,
) -> None:
    """Which network answered, on how many pictures, how long each stage took; the CSV."""
    made = ranking.provenance
    times = " · ".join(f"{stage} {duration(t)}" for stage, t in ranking.timings.items())
    stands_in = f", standing in for {made['stands_in_for']}" if made["stands_in_for"] else ""
    how = "" if made["search"] == "exact" else f" · search: {made['search']}"
    where = f" · on the {loaders.processor()}" if loaders.processor() else ""
    st.markdown(
        f":small[{times} · {made['pictures']:,} pictures{how}{where}]  \n"
        f":small[Checkpoint **{made['checkpoint']}**{stands_in}]",
        help=explained("checkpoint"),
    )
    st.download_button(
        "Ranking as CSV",
        lambda: cards.as_csv(ranking, judged.verdict if judged else None),
        f"{collection.name}-{name}-{Path(question.name).stem}.csv",
        "text/csv",
        key=f"csv-{name}",
        on_click="ignore",
        icon=":material/download:",
    )


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def offer_index(name: str, collection: Collection, together: bool) -> None:
    """There is no index: make one of a visitor's own pictures, else say how."""
    title = methods.METHODS[name].title
    if collection.name != own_pictures.NAME:
        loaders.no_index(collection, name)
        return
    if together or st.button(f"Index my pictures with {title}", key=f"build-{name}"):
        with loaders.explained():
            own_pictures.build(name)
        st.rerun()


def enlarge(name: str, n: int) -> None:
    """Callback of a card: open the dialog with this result once the page is drawn."""
    state.enlarged = name, n
