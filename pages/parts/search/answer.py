"""The answers to a query: the best pictures of each method, their time, how many are right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.parts import cards, loaders, notices, own_pictures, query
from pages.parts.judging import Judged
from pages.parts.plain import plain
from pages.parts.search import filters, marking, reranking
from pages.parts.search.link import ALL, min_score_key
from pages.parts.terms import explained
from retrieval import methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.figures import style
from retrieval.images import Box
from retrieval.ranking.ranking import Ranking

# A result above this quantile of the cosines of unrelated pictures is no noise.
NOISE_QUANTILE = 0.99
COMPARED = 10  # pictures of each method, side by side
state = st.session_state


@dataclass(frozen=True)
class Search:
    """One search: the collection, the query picture, and the box in it.

    judged: the right answers; None where they are not known, or hidden.
    hidden: whether they are hidden, and with them the names of results, which often tell.
    """

    collection: Collection
    query_picture: query.QueryPicture
    box: Box | None
    judged: Judged | None
    hidden: bool = False

    @property
    def judging(self) -> bool:
        """Whether the visitor marks results of pictures of their own as right or wrong."""
        return state.get("judging", False) and marking.can_judge(
            self.collection, self.query_picture
        )

    def ranking(self, method: str, path: Path) -> Ranking:
        """The answer of a method's index at ``path``, with the re-rankers and filter on the page.

        Raises RetrievalError where the index, the picture, the box or the filter cannot be used.
        """
        return loaders.search(
            path,
            method,
            self.collection,
            self.query_picture,
            self.box,
            reranking.chosen_chain(),
            state.get("where", ""),
        )


def show_answers(search: Search) -> None:
    """Draw the results of the chosen method as a grid, or of all methods side by side."""
    collection, judged = search.collection, search.judged
    compare_all = state.method == ALL
    method_names = list(methods.METHODS) if compare_all else [state.method]
    paths = own_pictures.indexes(collection)
    filters.show_filter()
    # Headings and grey cards are drawn first, so that the results of the last query go at once.
    columns = st.container(horizontal=True, wrap=False, gap="small", key="compared")
    slots = {}
    for method in method_names:
        with columns.container() if compare_all else st.container():
            slots[method] = _slot(method, compare_all, paths)
    rankings: dict[str, Ranking] = {}
    for method, (heading, status, slot) in slots.items():
        if method not in paths:
            continue
        try:
            with status:
                rankings[method] = search.ranking(method, paths[method])
        except RetrievalError as error:
            slot.error(notices.sentence(error), icon=":material/error:")
        confidence = rankings[method].confidence if method in rankings else None
        if confidence and confidence.level == "nothing":  # any order of pictures would be arbitrary
            slot.info(confidence.reason, icon=":material/hide_image:")
            del rankings[method]
        first = method == method_names[0] and method in rankings
        heading.markdown(
            _heading(method, rankings.get(method), judged, compare_all),
            unsafe_allow_html=True,
            help=_terms(method_names, judged) if first else None,
        )
        if not compare_all and method in rankings:
            with slot.container(), notices.errors_shown():
                reranking.show_summary(rankings[method])
                _grid(method, paths[method], search, rankings[method])
                _below(method, search, rankings[method])
    if compare_all:
        for method in rankings:
            with slots[method][-1].container():
                _column(method, search, rankings)
    # Indexes are built last: that may take minutes, and meanwhile the page shows the other results.
    for method in method_names:
        if method not in paths:
            with slots[method][-1].container():
                offer_index(method, collection, compare_all)


def _slot(method: str, compare_all: bool, paths: dict[str, Path]) -> tuple[DeltaGenerator, ...]:
    """A heading, a status and a slot for the pictures, which shows grey cards until they come."""
    row = st.container(key=f"heading-{method}", horizontal=True, vertical_alignment="center")
    heading, status = row.empty(), row.empty()
    heading.markdown(_heading(method, None, None, compare_all), unsafe_allow_html=True)
    slot = st.empty()
    if method in paths:
        slot.html(cards.skeleton(COMPARED if compare_all else state.count, compare_all))
    return heading, status, slot


def _heading(method: str, ranking: Ranking | None, judged: Judged | None, compare_all: bool) -> str:
    """A heading as 'DELF · 9 of the first 10 right · AP 0.64 · 0.4 s', in Markdown with HTML."""
    colour = style.METHOD_COLOURS.get(method, style.OTHER_COLOUR)
    mark = f'<span style="color:{colour}">●</span> ' if compare_all else ""
    title = f"#### {mark}{methods.METHODS[method].title}"
    parts = []
    if ranking is not None and judged is not None:
        shown = ranking.names[: COMPARED if compare_all else state.count]
        right = sum(judged.verdict(name) == "positive" for name in shown)
        parts.append(f"{right} of the first {len(shown)} right")
        ap = judged.average_precision(ranking)
        made = ranking.provenance
        incomplete = "filter" in made or made.get("shortlist", made["pictures"]) < made["pictures"]
        # AP needs a ranking of the whole collection, and is nan for a query without right pictures.
        if not math.isnan(ap) and not incomplete:
            parts.append(f"AP {ap:.2f}")
    if ranking is not None:
        parts.append(duration_text(sum(ranking.timings.values())))
    if compare_all:  # a narrow column
        return f"{title}<br><small>{' · '.join(parts)}</small>"
    return " · ".join([title, *parts])


def _terms(method_names: list[str], judged: Judged | None) -> str:
    """Help of the first heading: it explains the terms in the headings of these methods."""
    kinds = {methods.METHODS[method].kind for method in method_names}
    local = ["keypoint", "match", "inliers"] if "local" in kinds or reranking.chosen_chain() else []
    return explained(
        *(["AP", "protocol", "left out of the score"] if judged else []),
        *(["descriptor", "cosine"] if "global" in kinds else []),
        *local,
        *(["visual word"] if "local" in kinds else []),  # votes of words are scores of DELF
    )


def _grid(method: str, path: Path, search: Search, ranking: Ranking) -> None:
    """The best pictures of one method as large cards. path: of its index."""
    ranks = _ranks_on_show(method, ranking)
    if not ranks:
        return
    first_noise = _first_noise(path, search.collection, ranking) if state.fold else len(ranking)
    above_noise = [rank for rank in ranks if rank < first_noise]
    folded = [rank for rank in ranks if rank >= first_noise]
    sections = [("", above_noise, st.container())]
    if folded:
        many = "1 result" if len(folded) == 1 else f"{len(folded)} results"
        if not above_noise:
            st.info("No result stands out from the noise.")
        sections.append(("noise-", folded, st.expander(f"{many} below the noise")))
    as_list = state.layout == "list"
    for prefix, section, container in sections:
        with container, cards.grid(1 if as_list else 3, f"{state.layout}-{prefix}{method}"):
            for rank in section:
                name = ranking.names[rank]
                caption = plain(name if as_list else Path(name).name)
                more = "" if search.hidden else f"  \n:small[{caption}]"
                with st.container(gap="xsmall"):
                    _card(method, search, ranking, rank, more)


def _ranks_on_show(method: str, ranking: Ranking) -> list[int]:
    """Ranks (from 0) of the results to show. Where there are none, the page says why.

    Where the visitor has set a lowest score, a button that removes it is drawn.
    """
    ranks = list(range(min(state.count, len(ranking))))
    min_score = state.get(min_score_key(method))
    if min_score is not None:
        ranks = [rank for rank in ranks if ranking.scores[rank] >= min_score]
        st.button(
            f"Only scores of {min_score:g} or more",
            key="clear-least",
            icon=":material/close:",
            help="Show all results again",
            on_click=lambda: state.update({min_score_key(method): None}),
        )
    if not ranks:
        st.info(
            "There is no other picture to find."
            if min_score is None
            else "No result has such a score: remove the limit above."
        )
    return ranks


def _first_noise(path: Path, collection: Collection, ranking: Ranking) -> int:
    """The rank (from 0) from which on results score no higher than unrelated pictures do.

    path: of the index. Raises RetrievalError where another index has taken its place.
    """
    if ranking.inliers is not None:
        above = ranking.inliers > 0
    elif ranking.before:  # the scores of a re-ranker are no cosines
        return len(ranking)
    else:
        _, unrelated = loaders.pair_cosines(path, collection)
        if not len(unrelated):
            return len(ranking)
        above = ranking.scores > np.quantile(unrelated, NOISE_QUANTILE)
    return int(np.flatnonzero(above).max(initial=-1)) + 1


def _column(method: str, search: Search, rankings: dict[str, Ranking]) -> None:
    """The best pictures of one method, two beside each other, on a phone one below the other."""
    ranking = rankings[method]
    reranking.show_notes(ranking)
    with st.container(key=f"column-{method}"):
        for rank in range(min(COMPARED, len(ranking))):
            name = ranking.names[rank]
            ranks = [
                f"{methods.METHODS[other].title} {other_ranking.names.index(name) + 1}"
                for other, other_ranking in rankings.items()
                if name in other_ranking.names
            ]
            shown = "" if search.hidden else f"{plain(Path(name).name)}: "
            tip = f"{shown}rank " + ", ".join(ranks)
            with st.container(gap="xsmall"):
                _card(method, search, ranking, rank, "", tip)


def _card(
    method: str,
    search: Search,
    ranking: Ranking,
    rank: int,
    more_caption: str,
    tip: str | None = None,
) -> None:
    """One result, and below it the buttons to judge it, if the visitor judges.

    more_caption: Markdown below rank and score. tip: text that appears under the mouse.
    """
    name = ranking.names[rank]
    verdict = search.judged.verdict(name) if search.judged else None
    label = f"Result {rank + 1}" if search.hidden else f"{rank + 1}: {plain(Path(name).name)}"
    if verdict:
        label += f", {cards.VERDICTS[verdict].label.lower()}"
    cards.card(
        search.collection,
        name,
        f"**{rank + 1}** · {score_text(ranking, rank)}"
        f"{reranking.moved_text(ranking, rank)}{more_caption}",
        label=label,
        key=f"{method}-{rank}",
        on_click=partial(open_result, method, rank),
        verdict=verdict,
        tip=tip,
        alt=f"Result {rank + 1}" if search.hidden else "",
    )
    if search.judging:
        marking.show_buttons(
            search.collection, search.query_picture, search.box, name, f"{method}-{rank}"
        )


def score_text(ranking: Ranking, rank: int) -> str:
    """The score of a result and what it is, as 'cosine 0.380' or '51 inliers'. rank: from 0."""
    if ranking.inliers is not None and ranking.inliers[rank]:
        return f"{ranking.inliers[rank]} inliers"
    # 0 inliers mean either too few, or that geometry did not check this picture.
    kind = "score" if ranking.before else "cosine" if ranking.inliers is None else "votes"
    return f"{kind} {ranking.scores[rank]:.3f}"


def _below(method: str, search: Search, ranking: Ranking) -> None:
    """Small print below the results (seconds, pictures, checkpoint) and the CSV to download."""
    made = ranking.provenance
    times = " · ".join(f"{stage} {duration_text(t)}" for stage, t in ranking.timings.items())
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
        lambda: cards.as_csv(ranking, search.judged.verdict if search.judged else None),
        cards.csv_name(search.collection.name, ranking, search.query_picture.name),
        "text/csv",
        key=f"csv-{method}",
        on_click="ignore",
        icon=":material/download:",
    )


def duration_text(seconds: float) -> str:
    """'1.2 s', '340 ms' or '< 1 ms', with blanks at which no line ends."""
    if seconds < 0.001:
        return "<\N{NO-BREAK SPACE}1\N{NO-BREAK SPACE}ms"
    number, unit = (f"{seconds:.1f}", "s") if seconds >= 1 else (f"{1000 * seconds:.0f}", "ms")
    return f"{number}\N{NO-BREAK SPACE}{unit}"


def offer_index(method: str, collection: Collection, compare_all: bool) -> None:
    """Where a method has no index: build it for a visitor's own pictures, else say how."""
    title = methods.METHODS[method].title
    if collection.name != own_pictures.NAME:
        notices.no_index(collection, method)
        return
    if compare_all or st.button(f"Index my pictures with {title}", key=f"build-{method}"):
        with notices.errors_shown():
            own_pictures.build_index(method)
        st.rerun()


def open_result(method: str, rank: int) -> None:
    """Callback of a card: open the dialog with this result once the page is drawn."""
    state.enlarged = method, rank
