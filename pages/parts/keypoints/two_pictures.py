"""What two pictures have in common."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import streamlit as st

from pages.parts import cards, compare, loaders, query
from pages.parts.downloads import downloads
from pages.parts.keypoints.engine import Engine
from pages.parts.keypoints.figures import pixels
from pages.parts.keypoints.link import HERE, MODELS, UPLOAD
from retrieval import images
from retrieval.collections import Collection
from retrieval.collections.credits import small_print
from retrieval.figures import local_features as plots_local
from retrieval.networks import checkpoints
from retrieval.ranking import geometry
from retrieval.ranking.geometry import NOISE_FLOOR
from retrieval.ranking.ranking import Ranking
from retrieval.ranking.search import SHORTLIST

SIDE = 900  # pixels of the longer side that pictures are compared with
INLIERS = (
    "A match joins two keypoints that look alike. Matches that agree on one transformation, a "
    "shift, turn and stretch from one picture to the other, are **inliers**; the others are "
    "outliers."
)
state = st.session_state


def pair(collection: Collection, engine: Engine) -> query.Question | None:
    """What two pictures have in common."""
    asking, answer = st.columns([1, 2], gap="medium")
    ranking = votes = None
    with answer, loaders.explained(), asking:
        question = query.pick(collection)
        if question is None:
            answer.info("Choose a picture on the left.")
            return None
        box = query.frame(collection, question)
        with answer:  # what takes time says so where the answer will be
            a = engine.features(question.source, question.key, box)
            if engine.index:
                path = engine.index.path
                ranking, votes = loaders.local_ranking(path, collection, a, question.key, box)
        other = second(collection, question, ranking)
        if other is None:
            answer.info("Bring the second picture on the left.")
            return question
        picture_a, size_a = pixels(question.source, question.name)
        picture_b, size_b = pixels(other.source, other.name)
        with answer:
            stored = engine.stored(other.name) if isinstance(other.source, Path) else None
            b = stored or engine.features(other.source, other.key)
        similarity, tolerance, model, outliers = settings()
    pairs, found = geometry.verify_features(a, b, size_b, similarity, tolerance / 100, model)
    with answer:
        verdict(len(a), len(b), len(pairs), found.count)
        made = engine.checkpoint or checkpoints.of_method("delf")[0].id
        note = (
            f"{Path(question.name).name} and {Path(other.name).name} · {made}, similarity at least "
            f"{similarity:g}, {model}, tolerance {tolerance:g} %"
        )
        note = small_print(note, question.credit, other.credit)
        points = a.keypoints[pairs[:, 0]], b.keypoints[pairs[:, 1]]
        outlines = geometry.outlines(box or (0, 0, *size_a), found)
        likeness = (a.descriptors[pairs[:, 0]] * b.descriptors[pairs[:, 1]]).sum(axis=1)
        framed = outlines if box or found.matrix is not None else (None, None)
        shown = (
            loaders.view(question.source, SIDE, question.name)[0],
            loaders.view(other.source, SIDE, other.name)[0],
        )
        compare.matches(
            shown,
            (size_a, size_b),
            points,
            likeness,
            found.inliers,
            framed,
            "Point at a line to see that match alone.",
            "kp-matches",
        )
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
                *points, likeness, found.inliers, strict=True
            )
        ]
        key = "matches", question.key, box, other.key, note, outliers
        downloads(
            f"{Path(question.name).stem}-{Path(other.name).stem}-matches",
            rows,
            lambda kind: loaders.drawing(
                kind,
                key,
                lambda: plots_local.matches(
                    (picture_a, picture_b),
                    points,
                    found.inliers,
                    note,
                    framed,
                    outliers,
                    (size_a, size_b),
                ),
            ),
        )
        if found.matrix is not None and found.count >= NOISE_FLOOR:
            st.subheader("One over the other", anchor=False)
            above = plots_local.aligned(picture_a, size_a, picture_b, size_b, found.matrix)
            compare.aligned(picture_b, above, "kp-aligned")
        if ranking is not None and votes is not None and isinstance(other.source, Path):
            why(ranking, votes, other.name)
    return question


def second(
    collection: Collection, question: query.Question, ranking: Ranking | None
) -> query.Question | None:
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
        suffixes = [suffix[1:] for suffix in sorted(images.SUFFIXES)]
        file = st.file_uploader("The second picture", suffixes, key="kp-upload")
        return query.Question(file.name, file.getvalue()) if file else None
    names = ranking.names if ranking is not None else collection.names
    if state.get("kp-result") not in names:
        if state.get("kp-result") in collection.names:
            st.caption("That picture is not in the index; here is the best of those that are.")
        state["kp-result"] = next((name for name in names if name != question.name), names[0])
    rank = {name: n for n, name in enumerate(names)}

    def said(name: str) -> str:
        return name if ranking is None else f"{rank[name] + 1} · {found(ranking, name)} · {name}"

    # Of each query its own box: the labels of another query say nothing about this one.
    key = hashlib.sha256(f"{question.key} {state.get('box')}".encode()).hexdigest()[:16]
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


def settings() -> tuple[float, float, geometry.Model, bool]:
    """Lowest similarity, tolerance in per cent, model, and whether to draw outliers."""
    with st.expander("Matching and geometry"):
        similarity = st.slider(
            "Lowest similarity",
            0.3,
            0.95,
            step=0.05,
            key="kp-similarity",
            help="Two keypoints are a match when each is the other's nearest neighbour and the "
            "cosine of their descriptors is at least this.",
            persist_state="session",
        )
        tolerance = st.slider(
            "Tolerance, % of the longer side",
            0.5,
            5.0,
            step=0.5,
            key="kp-tolerance",
            help="An inlier may lie this far from where the transformation puts it.",
            persist_state="session",
        )
        st.segmented_control(
            "Transformation",
            MODELS,
            format_func=MODELS.__getitem__,
            key="kp-model",
            required=True,
            persist_state="session",
        )
        outliers = st.toggle("Outliers in the files to download", False, key="kp-outliers")
    return similarity, tolerance, state["kp-model"], outliers


def verdict(keypoints_a: int, keypoints_b: int, matches: int, count: int) -> None:
    """What the number of inliers means, in words."""
    for which, keypoints in (("first", keypoints_a), ("second", keypoints_b)):
        if not keypoints:
            st.info(f"DELF finds no keypoint in the {which} picture: it is blank or too small.")
            return
    floor = (
        f"Two unrelated pictures share a few inliers by chance, so fewer than **{NOISE_FLOOR}** "
        "say nothing."
    )
    if count >= NOISE_FLOOR:
        st.markdown(f"#### {count} of {matches} matches are inliers\n{floor}", help=INLIERS)
    elif count:
        st.markdown(f"#### Only {count} of {matches} matches are inliers\n{floor}", help=INLIERS)
    else:
        st.markdown(
            f"#### None of {matches} matches is an inlier\nNo plausible transformation from one "
            f"picture to the other fits enough of them. {floor}",
            help=INLIERS,
        )


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
    st.subheader("Why this rank", anchor=False)
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
        ahead = cards.plain(ranking.names[place - 1])
        text = f"The picture just ahead, {ahead}, has {ranking.inliers[place - 1]} inliers."
    else:
        text = "No other picture has more inliers."
    st.caption(
        f"{text} Votes: {votes[position]:.3f} of at most 1. These numbers belong to the search, "
        "which has settings of its own."
    )
