"""The view "Two pictures": matches between the local features of two pictures."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from PIL import Image

from pages.parts import compare, loaders, notices, query
from pages.parts.downloads import downloads
from pages.parts.keypoints.extractors import DelfExtractor, Extractor, XFeatExtractor
from pages.parts.keypoints.link import FROM_COLLECTION, UPLOAD, has_usual_settings
from pages.parts.keypoints.matching import (
    MATCHERS,
    Comparison,
    Matcher,
    Pair,
    choose_settings,
    chosen_settings,
    match_pictures,
)
from pages.parts.keypoints.presets import show_presets
from pages.parts.keys import key_about
from pages.parts.plain import plain
from pages.parts.terms import explained
from retrieval.collections import Collection
from retrieval.collections.credits import with_credits
from retrieval.figures import local_features as plots
from retrieval.ranking import confidence, geometry
from retrieval.ranking.geometry import NOISE_FLOOR
from retrieval.ranking.ranking import Ranking
from retrieval.ranking.search import SHORTLIST

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SIDE = 900  # pixels of the longer side of a picture on show
state = st.session_state


def show_two_pictures(
    collection: Collection, delf: DelfExtractor, xfeat: XFeatExtractor
) -> query.QueryPicture | None:
    """Choose two pictures on the left, and show the result of each matcher on the right.

    Returns the first picture; None where none is chosen yet.
    """
    query_column, result_column = st.columns([1, 2], gap="medium")
    ranking = votes = None
    with result_column, notices.errors_shown(), query_column:
        query_picture = query.choose_picture(collection)
        if query_picture is None:
            result_column.info("Choose a picture.")
            return None
        box = query.choose_box(collection, query_picture)
        with result_column:  # progress is shown where the result will be
            matcher_names = _choose_matchers()
            presets_slot = st.container()
            if delf.index and "delf" in matcher_names:
                features = delf.features(query_picture.source, query_picture.key, box)
                ranking, votes = loaders.local_ranking(
                    delf.index.path, collection, features, query_picture.key, box
                )
        other = _choose_second_picture(collection, query_picture, ranking)
        with presets_slot:
            show_presets(collection, (query_picture.name, other.name if other else ""))
        if other is None:
            result_column.info("Choose the second picture on the left.")
            return query_picture
        choose_settings(matcher_names)
    with result_column, notices.errors_shown():
        extractors: dict[str, Extractor] = {"delf": delf, "xfeat": xfeat}
        jpegs, sizes = zip(
            *(
                loaders.view(picture.source, MAX_SIDE, picture.name)
                for picture in (query_picture, other)
            ),
            strict=True,
        )
        pair = Pair(query_picture, box, other, sizes)
        columns = st.columns(2, gap="medium") if len(matcher_names) > 1 else [st.container()]
        for number, name in enumerate(matcher_names):
            if number == len(columns):  # a third matcher begins another row
                columns = [*columns, *st.columns(2, gap="medium")]
            with columns[number]:
                extractor = extractors[MATCHERS[name].features]
                _show_comparison(
                    name, extractor, match_pictures(name, extractor, pair), pair, jpegs
                )
        own = query_picture.own_name
        if ranking is not None and votes is not None and other.own_name not in (None, own):
            _explain_rank(ranking, votes, other.name, own)
    return query_picture


def _choose_matchers() -> list[str]:
    """Draw the control for the matchers; the chosen ones, or DELF where nothing is chosen."""
    st.pills(
        "Match by",
        list(MATCHERS),
        selection_mode="multi",
        format_func=lambda name: MATCHERS[name].title,
        key="kp-by",
        help="  \n".join(
            f"**{matcher.title}**: {matcher.summary}" for matcher in MATCHERS.values()
        ),
        persist_state="session",
    )
    return [name for name in MATCHERS if name in state["kp-by"]] or ["delf"]


def _choose_second_picture(
    collection: Collection, query_picture: query.QueryPicture, ranking: Ranking | None
) -> query.QueryPicture | None:
    """Draw the controls for the second picture; None where none is chosen yet.

    ranking: DELF's for the query picture, whose order the list has; None for that of the names.
    """
    st.markdown("**Compare with**")
    sources = [FROM_COLLECTION, UPLOAD] if collection.has_pictures else [UPLOAD]
    if state.get("kp-other") not in sources:
        state["kp-other"] = sources[0]
    st.segmented_control(
        "Compare with",
        sources,
        key="kp-other",
        required=True,
        label_visibility="collapsed",
        persist_state="session",
    )
    if state["kp-other"] == UPLOAD:
        file = st.file_uploader("The second picture", key="kp-upload")
        return query.QueryPicture(file.name, file.getvalue()) if file else None
    linked = state.pop("kp-linked", None)
    if linked and linked not in collection.names:
        name = plain(linked)
        st.warning(f"This link asks for {name}, which is not in the collection.")
    names = ranking.names if ranking is not None else collection.names
    if state.get("kp-result") not in names:
        if state.get("kp-result") in collection.names:
            st.caption("That picture is not in the index, so this is the best one that is.")
        state["kp-result"] = next((name for name in names if name != query_picture.name), names[0])
    own = query_picture.own_name
    places = {name: place for place, name in enumerate(names)}
    ranks = {name: rank for rank, name in enumerate((name for name in names if name != own), 1)}

    def option(name: str) -> str:
        if ranking is None:
            return name
        if name == own:
            return f"{name} · the query itself"
        return f"{ranks[name]} · {_inliers_text(ranking, places[name])} · {name}"

    # Each query, with its box, needs a key of its own: Streamlit would show the labels of another.
    name = st.selectbox(
        "Result",
        names,
        names.index(state["kp-result"]),
        format_func=option,
        key=key_about("kp-result", query_picture.key, state.get("box")),
        label_visibility="collapsed",
    )
    state["kp-result"] = name
    return query.in_database(collection, name)


def _show_comparison(
    matcher_name: str,
    extractor: Extractor,
    comparison: Comparison,
    pair: Pair,
    jpegs: tuple[bytes, bytes],
) -> None:
    """Show the result of one matcher: the verdict, the matches, and one picture over the other.

    jpegs: copies of both pictures.
    """
    matcher, verification = MATCHERS[matcher_name], comparison.verification
    query_picture, box, other, sizes = pair.query_picture, pair.box, pair.other, pair.sizes
    if not _show_verdict(matcher, comparison):
        return
    confirmed = verification.matrix is not None and comparison.inlier_count >= matcher.min_inliers
    outlines = (
        geometry.outlines(box or (0, 0, *sizes[0]), verification) if confirmed else (None, None)
    )
    lines = compare.Lines(comparison.points, comparison.similarity, verification.inliers, outlines)
    shown = list(zip(jpegs, sizes, strict=True))
    compare.matches(shown, lines, f"kp-matches-{matcher_name}")
    note = _note(matcher_name, extractor, pair)
    outliers = state["kp-outliers"]
    rows = _match_rows(comparison)
    cache = loaders.cache_for(query_picture.source, other.source)
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    key = "matches", matcher_name, query_picture.key, box, other.key, note, outliers, digest

    # Files to download are made in a thread without a session, which has no access to the pictures
    # of a visitor. Not ``open_picture``: until then only JPEGs are kept, not decoded pictures.
    first, _ = loaders.view(query_picture.source, plots.MAX_SIDE, query_picture.name)
    second, _ = loaders.view(other.source, plots.MAX_SIDE, other.name)

    def opened() -> tuple[Image.Image, Image.Image]:
        return Image.open(io.BytesIO(first)), Image.open(io.BytesIO(second))

    def draw() -> Figure:
        return plots.matches(
            opened(), comparison.points, verification.inliers, note, outlines, outliers, sizes
        )

    downloads(
        f"{Path(query_picture.name).stem}-{Path(other.name).stem}-{matcher_name}",
        rows,
        lambda kind: loaders.figure_file(kind, cache, key, draw),
    )
    if confirmed:
        assert verification.matrix is not None
        st.markdown("**One over the other**")
        above, below = opened()
        aligned = plots.aligned(above, sizes[0], below, sizes[1], verification.matrix)
        compare.aligned(below, aligned, f"kp-aligned-{matcher_name}")


def _note(matcher_name: str, extractor: Extractor, pair: Pair) -> str:
    """The line below a drawing of matches: pictures, settings and credits."""
    similarity, tolerance, model = chosen_settings(MATCHERS[matcher_name].features)
    way = "LighterGlue" if matcher_name == "lighterglue" else f"similarity at least {similarity:g}"
    box = f", box {query.box_as_text(pair.box)}," if pair.box else ""
    names = f"{Path(pair.query_picture.name).name}{box} and {Path(pair.other.name).name}"
    return with_credits(
        f"{names} · {extractor.checkpoint}, {way}, {model}, tolerance {100 * tolerance:g} %",
        pair.query_picture.credit,
        pair.other.credit,
    )


def _match_rows(comparison: Comparison) -> list[dict]:
    """A row for each match: x and y in pixels of each original."""
    return [
        {
            "x_a": round(float(x_a), 2),
            "y_a": round(float(y_a), 2),
            "x_b": round(float(x_b), 2),
            "y_b": round(float(y_b), 2),
            "similarity": round(float(similarity), 4),
            "inlier": int(inlier),
        }
        for (x_a, y_a), (x_b, y_b), similarity, inlier in zip(
            *comparison.points,
            comparison.similarity,
            comparison.verification.inliers,
            strict=True,
        )
    ]


def _show_verdict(matcher: Matcher, comparison: Comparison) -> bool:
    """Explain the number of inliers. Returns whether there are keypoints to draw."""
    st.markdown(
        f"#### {matcher.title}", help=explained("keypoint", "match", "inliers", "transformation")
    )
    for which, count in zip(("first", "second"), comparison.keypoint_counts, strict=True):
        if not count:
            title = MATCHERS[matcher.features].title
            st.info(f"{title} finds no keypoint in the {which} picture: it is blank or too small.")
            return False
    inliers = comparison.inlier_count
    matches = "1 match" if comparison.match_count == 1 else f"{comparison.match_count} matches"
    meaning = confidence.meaning(inliers, matcher.min_inliers, matcher.sure_inliers)
    if inliers and not has_usual_settings(matcher.features):
        symbol, text = "gray[:material/info:]", f"**{inliers} of {matches} fit one transformation**"
        meaning = "What that says was measured with the usual settings only."
    elif inliers >= matcher.sure_inliers:
        symbol, text = "green[:material/check_circle:]", f"**{inliers} of {matches} are inliers**"
    elif inliers >= matcher.min_inliers:
        symbol, text = "orange[:material/help:]", f"**{inliers} of {matches} are inliers**"
    elif inliers:
        symbol, text = "orange[:material/help:]", f"**Only {inliers} of {matches} are inliers**"
    else:
        symbol, text = "gray[:material/block:]", f"**None of {matches} is an inlier**"
        meaning = "No plausible transformation fits enough of them."
    st.markdown(f":{symbol} {text}. {meaning}")
    return True


def _inliers_text(ranking: Ranking, place: int) -> str:
    """What DELF's ranking knows of the picture at a place (from 0): '31 inliers', that there are
    few, or nothing.
    """
    assert ranking.inliers is not None  # it is DELF's
    if ranking.inliers[place]:
        return f"{ranking.inliers[place]} inliers"
    # The ranking sorts by inliers, then by votes, so the verified pictures come first.
    return f"fewer than {NOISE_FLOOR} inliers" if place < SHORTLIST else "not verified"


def _explain_rank(ranking: Ranking, votes: np.ndarray, name: str, own: str | None) -> None:
    """Explain the rank of a result in DELF's search: votes, inliers, final rank.

    votes: (N,) float32, of every picture of the index. own: the name of the query, where it is a
    picture of the collection: a search leaves it out.
    """
    inliers_text = _inliers_text(ranking, ranking.names.index(name))
    itself = ", the query itself among them" if own in ranking.names else ""
    if own is not None:
        ranking = ranking.without(own)
    assert ranking.inliers is not None  # it is DELF's
    place = ranking.names.index(name)
    votes_of_all, votes_of_it = votes[ranking.positions], votes[ranking.positions[place]]
    place_by_votes = int((votes_of_all > votes_of_it).sum()) + 1
    st.subheader("Why this rank", anchor=False, help=explained("visual word"))
    votes_column, inliers_column, rank_column = st.columns(3)
    votes_column.metric(
        "1. Place by votes of visual words", f"{place_by_votes:,} of {len(ranking):,}", border=True
    )
    inliers_column.metric("2. Inliers", inliers_text.removesuffix(" inliers"), border=True)
    rank_column.metric("3. Rank in the search", f"{place + 1:,} of {len(ranking):,}", border=True)
    if inliers_text == "not verified":
        text = (
            f"The search did not verify this picture: it is place {place_by_votes:,} by votes, "
            f"and only the best {SHORTLIST} are verified{itself}. The inliers above were counted "
            "just now."
        )
    elif not ranking.inliers[place]:
        text = (
            f"Fewer than {NOISE_FLOOR} inliers can be chance, so the picture stays behind all "
            "that have more."
        )
    elif place:
        ahead = plain(ranking.names[place - 1])
        text = f"The picture just ahead, {ahead}, has {ranking.inliers[place - 1]} inliers."
    else:
        text = "No other picture has more inliers."
    st.caption(
        f"{text} Votes: {votes_of_it:.3f} of at most 1. These numbers belong to the search, "
        "which has settings of its own."
    )
