"""What two pictures have in common."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from pages.parts import compare, loaders, query
from pages.parts.downloads import downloads
from pages.parts.keypoints.engine import Delf, Engine, XFeat
from pages.parts.keypoints.figures import pixels
from pages.parts.keypoints.link import HERE, UPLOAD
from pages.parts.keypoints.matching import (
    MATCHERS,
    Compared,
    Matcher,
    chosen,
    compared,
    settings,
)
from pages.parts.keypoints.presets import presets
from pages.parts.plain import plain
from pages.parts.terms import explained
from retrieval.collections import Collection
from retrieval.collections.credits import with_credits
from retrieval.figures import local_features as plots_local
from retrieval.images import Box
from retrieval.ranking import geometry
from retrieval.ranking.geometry import NOISE_FLOOR
from retrieval.ranking.ranking import Ranking
from retrieval.ranking.search import SHORTLIST

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 900  # pixels of the longer side that pictures are compared with
state = st.session_state


def pair(collection: Collection, delf: Delf, xfeat: XFeat) -> query.QueryPicture | None:
    """What two pictures have in common."""
    asking, answer = st.columns([1, 2], gap="medium")
    ranking = votes = None
    with answer, loaders.errors_shown(), asking:
        query_picture = query.choose_picture(collection)
        if query_picture is None:
            answer.info("Choose a picture on the left.")
            return None
        box = query.choose_box(collection, query_picture)
        with answer:  # what takes time says so where the answer will be
            by = _matchers()
            said = st.container()
            if delf.index and "delf" in by:
                a = delf.features(query_picture.source, query_picture.key, box)
                path = delf.index.path
                ranking, votes = loaders.local_ranking(path, collection, a, query_picture.key, box)
        other = second(collection, query_picture, ranking)
        with said:
            presets(collection, (query_picture.name, other.name if other else ""))
        if other is None:
            answer.info("Choose the second picture on the left.")
            return query_picture
        settings(by)
    with answer, loaders.errors_shown():
        engines: dict[str, Engine] = {"delf": delf, "xfeat": xfeat}
        views = tuple(loaders.view(one.source, SIDE, one.name) for one in (query_picture, other))
        sizes = views[0][1], views[1][1]
        columns = st.columns(2, gap="medium") if len(by) > 1 else [st.container()]
        for number, name in enumerate(by):
            if number == len(columns):
                columns = [*columns, *st.columns(2, gap="medium")]
            with columns[number]:
                engine = engines[MATCHERS[name].features]
                made = compared(name, engine, query_picture, box, other, sizes)
                _shown(name, engine.checkpoint, made, query_picture, box, other, views)
        if ranking is not None and votes is not None and isinstance(other.source, Path):
            why(ranking, votes, other.name)
    return query_picture


def _matchers() -> list[str]:
    """The matchers to compare, in their order; DELF where nothing is chosen."""
    st.pills(
        "Match by",
        list(MATCHERS),
        selection_mode="multi",
        format_func=lambda name: MATCHERS[name].title,
        key="kp-by",
        help="  \n".join(f"**{one.title}**: {one.summary}" for one in MATCHERS.values()),
        persist_state="session",
    )
    return [name for name in MATCHERS if name in state["kp-by"]] or ["delf"]


def _shown(
    name: str,
    checkpoint: str,
    made: Compared,
    query_picture: query.QueryPicture,
    box: Box | None,
    other: query.QueryPicture,
    views: tuple,
) -> None:
    """What one matcher finds: the verdict, the matches, and one picture over the other."""
    matcher, found = MATCHERS[name], made.found
    agree = found.matrix is not None and made.count >= matcher.least
    (jpeg_a, size_a), (jpeg_b, size_b) = views
    if not verdict(matcher, made):
        return
    outlines = geometry.outlines(box or (0, 0, *size_a), found) if agree else (None, None)
    compare.matches(
        (jpeg_a, jpeg_b),
        (size_a, size_b),
        made.points,
        made.similarity,
        found.inliers,
        outlines,
        f"kp-matches-{name}",
    )
    similarity, tolerance, model = chosen(matcher.features)
    how = f"similarity at least {similarity:g}, " if name != "lighterglue" else "LighterGlue, "
    note = (
        f"{Path(query_picture.name).name} and {Path(other.name).name} · {checkpoint}, "
        f"{how}{model}, tolerance {100 * tolerance:g} %"
    )
    note = with_credits(note, query_picture.credit, other.credit)
    rows = [
        {
            "x_a": round(float(xa), 2),
            "y_a": round(float(ya), 2),
            "x_b": round(float(xb), 2),
            "y_b": round(float(yb), 2),
            "similarity": round(float(alike), 4),
            "inlier": int(inlier),
        }
        for (xa, ya), (xb, yb), alike, inlier in zip(
            *made.points, made.similarity, found.inliers, strict=True
        )
    ]
    outliers = state["kp-outliers"]
    key = "matches", name, query_picture.key, box, other.key, note, outliers

    def draw() -> Figure:
        pictures = (
            pixels(query_picture.source, query_picture.name)[0],
            pixels(other.source, other.name)[0],
        )
        sizes = size_a, size_b
        return plots_local.matches(
            pictures, made.points, found.inliers, note, outlines, outliers, sizes
        )

    downloads(
        f"{Path(query_picture.name).stem}-{Path(other.name).stem}-{name}",
        rows,
        lambda kind: loaders.figure_file(kind, key, draw),
    )
    if agree:
        assert found.matrix is not None
        st.markdown("**One over the other**")
        below = pixels(other.source, other.name)[0]
        above = plots_local.aligned(
            pixels(query_picture.source, query_picture.name)[0], size_a, below, size_b, found.matrix
        )
        compare.aligned(below, above, f"kp-aligned-{name}")


def second(
    collection: Collection, query_picture: query.QueryPicture, ranking: Ranking | None
) -> query.QueryPicture | None:
    """The picture to compare with."""
    st.markdown("**Compare with**")
    places = [HERE, UPLOAD] if collection.has_pictures else [UPLOAD]
    if state.get("kp-other") not in places:
        state["kp-other"] = places[0]
    st.segmented_control(
        "Compare with",
        places,
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
            st.caption("That picture is not in the index; here is the best of those that are.")
        state["kp-result"] = next((name for name in names if name != query_picture.name), names[0])
    rank = {name: n for n, name in enumerate(names)}

    def said(name: str) -> str:
        return name if ranking is None else f"{rank[name] + 1} · {found(ranking, name)} · {name}"

    # Of each query its own box: the labels of another query say nothing about this one.
    key = hashlib.sha256(f"{query_picture.key} {state.get('box')}".encode()).hexdigest()[:16]
    name = st.selectbox(
        "Result",
        names,
        names.index(state["kp-result"]),
        format_func=said,
        key=f"kp-result-{key}",
        label_visibility="collapsed",
    )
    state["kp-result"] = name
    return query.in_database(collection, name)


def verdict(matcher: Matcher, made: Compared) -> bool:
    """What the number of inliers means, in words; whether there is anything to draw."""
    st.markdown(
        f"#### {matcher.title}", help=explained("keypoint", "match", "inliers", "transformation")
    )
    for which, keypoints in zip(("first", "second"), made.keypoints, strict=True):
        if not keypoints:
            title = MATCHERS[matcher.features].title
            st.info(f"{title} finds no keypoint in the {which} picture: it is blank or too small.")
            return False
    matches = "1 match" if made.matches == 1 else f"{made.matches} matches"
    if made.count >= matcher.least:
        symbol, text = (
            "green[:material/check_circle:]",
            f"**{made.count} of {matches} are inliers**",
        )
        meaning = f"Unrelated pictures hardly ever reach {matcher.least}."
    elif made.count:
        symbol, text = "orange[:material/help:]", f"**Only {made.count} of {matches} are inliers**"
        meaning = f"Fewer than {matcher.least} can be chance."
    else:
        symbol, text = "gray[:material/block:]", f"**None of {matches} is an inlier**"
        meaning = "No plausible transformation fits enough of them."
    st.markdown(f":{symbol} {text}. {meaning}")
    return True


def found(ranking: Ranking, name: str) -> str:
    """What the search knows of a picture: its inliers, too few, or that nobody looked."""
    assert ranking.inliers is not None  # it is DELF's
    place = ranking.names.index(name)
    if ranking.inliers[place]:
        return f"{ranking.inliers[place]} inliers"
    # Inliers come before votes, so the verified ones are the first of the ranking.
    return f"fewer than {NOISE_FLOOR} inliers" if place < SHORTLIST else "not verified"


def why(ranking: Ranking, votes: np.ndarray, name: str) -> None:
    """The place of a result in the shortlist and after verification."""
    assert ranking.inliers is not None  # it is DELF's
    place = ranking.names.index(name)
    position = ranking.positions[place]
    before = int((votes > votes[position]).sum()) + 1
    inliers = int(ranking.inliers[place])
    st.subheader("Why this rank", anchor=False, help=explained("visual word"))
    first, then, last = st.columns(3)
    first.metric("1. Place by votes of visual words", f"{before:,} of {len(votes):,}", border=True)
    then.metric("2. Inliers", found(ranking, name).removesuffix(" inliers"), border=True)
    last.metric("3. Rank in the search", f"{place + 1:,} of {len(ranking):,}", border=True)
    if found(ranking, name) == "not verified":
        text = (
            f"The search did not verify this picture: it is place {before:,} by votes, and only "
            f"the best {SHORTLIST} are verified. The inliers above were counted just now."
        )
    elif not inliers:
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
        f"{text} Votes: {votes[position]:.3f} of at most 1. These numbers belong to the search, "
        "which has settings of its own."
    )
