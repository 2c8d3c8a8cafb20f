"""DELF step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from pages.parts import extraction, loaders, notices
from pages.parts.about import steps
from pages.parts.about.followed_query import FollowedQuery
from pages.parts.keypoints.figures import open_picture
from pages.parts.search.answer import Search, score_text
from pages.parts.search.why import explain_result
from retrieval import index
from retrieval.figures import steps as step_figures
from retrieval.index import Index
from retrieval.methods.base import LocalFeatures
from retrieval.ranking.ranking import Ranking
from retrieval.ranking.search import SHORTLIST

MAX_KEYPOINTS = 150  # keypoints that are drawn
PICTURE_SIDE = 420  # pixels of the longer side of a picture on show


def delf(followed: FollowedQuery) -> Index:
    """Draw all steps of DELF. Returns its index."""
    paths = index.find(followed.collection.name)
    if "delf" not in paths:
        notices.no_index(followed.collection, "delf")
        st.stop()
    path, query_picture = paths["delf"], followed.query_picture
    with notices.errors_shown():
        opened = loaders.index_of(path, followed.collection)
        picture, size = open_picture(query_picture.source, query_picture.name)
        seen = extraction.attention(
            query_picture.source, query_picture.key, 1.0, opened.checkpoint, opened.settings
        )
        features = extraction.delf(
            query_picture.source,
            query_picture.key,
            followed.box,
            opened.checkpoint,
            opened.settings,
        )
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    _attention(picture, None if seen is None else seen.scores)
    _keypoints(picture, size, features, len(loaders.settings_of(opened)["scales"]))
    with notices.errors_shown():
        ranking = loaders.search(path, "delf", followed.collection, query_picture, followed.box)
    _shortlist(ranking, len(features), len(opened.arrays["codebook"]))
    _matches(followed, path, ranking)
    with steps.step(
        5,
        "Ranking",
        "Pictures are ordered by their inliers. Those without enough of them follow, ordered by "
        "their votes. Click a picture to follow it instead.",
    ):
        shown = range(min(steps.RESULTS, len(ranking.names)))
        captions = [score_text(ranking, n) for n in shown]
        steps.show(followed, ranking, captions, "delf")
    return opened


def _attention(picture: Image.Image, attention: np.ndarray | None) -> None:
    """attention: (h, w) of the places of the whole picture; None where it is not known."""
    with steps.step(
        1,
        "Attention",
        "DELF does not make one descriptor of the picture: it keeps the features of many places. "
        "So two pictures can match by the part that both show, whatever else they show. A second, "
        "small network gives each place its **attention** α, a number that is high where something "
        "helps to tell landmarks apart. It was trained with the names of landmarks only: a layer W "
        "had to name the landmark from the mean of the features **f**, weighted by attention.",
        r"\mathbf{y} = W \Bigl( \frac{1}{N} \sum_{n} \alpha(\mathbf{f}_n)\, \mathbf{f}_n \Bigr)",
    ):
        if attention is not None:
            st.image(step_figures.overlay(picture, attention), alt="Attention at every place")
            st.caption("Yellow: high attention. This is the whole picture: the box comes later.")


def _keypoints(
    picture: Image.Image, size: tuple[int, int], features: LocalFeatures, scales: int
) -> None:
    """Ends the page where there are none. size: of the original picture, (width, height)."""
    with steps.step(
        2,
        "Keypoints",
        f"DELF looks at the picture in {scales} sizes. The places with the highest attention "
        "become **keypoints**. Of places that see almost the same square, only the best stays. "
        f"Each keypoint has a descriptor of its own, {features.descriptors.shape[1]} numbers after "
        "principal component analysis: the mean **μ** is taken away, and P keeps the directions in "
        "which descriptors differ most.",
        r"\hat{\mathbf{f}} = \frac{\mathbf{f}}{\lVert \mathbf{f} \rVert}, \qquad "
        r"\mathbf{d} = \frac{P\,(\hat{\mathbf{f}} - \boldsymbol{\mu})}"
        r"{\lVert P\,(\hat{\mathbf{f}} - \boldsymbol{\mu}) \rVert}",
    ):
        if not len(features):
            st.info("DELF finds no keypoint here: the picture is blank or too small.")
            st.stop()
        shown = features[:MAX_KEYPOINTS]
        st.image(step_figures.dots(picture, size, shown), alt="Keypoints")
        st.caption(
            f"The best {len(shown)} of {len(features)} keypoints. A large circle "
            "was found in a small copy of the picture and describes a large part of it."
        )
        strongest = features.descriptors[0]
        steps.strip(strongest, f"The descriptor of the best keypoint: {len(strongest)} numbers.")


def _shortlist(ranking: Ranking, keypoints: int, words: int) -> None:
    with steps.step(
        3,
        "Shortlist",
        "Comparing hundreds of keypoints with those of every picture would take long. The index "
        f"has {words:,} groups of similar descriptors, the **visual words**. Each descriptor is "
        "assigned to the most similar word. A picture gets votes for the words that it shares with "
        "the query, and the pictures with the most votes are compared keypoint by keypoint.",
    ):
        looked = min(SHORTLIST, ranking.provenance["pictures"])
        st.markdown(
            f"The **{keypoints:,} keypoints** of the query vote among "
            f"{ranking.provenance['pictures']:,} pictures. The {looked:,} with the most votes go "
            "on to step 4."
        )


def _matches(followed: FollowedQuery, path: Path, ranking: Ranking) -> None:
    with steps.step(
        4,
        "Matches and geometry",
        "Two keypoints match if each is the other's most similar one. Similar details exist "
        "everywhere, so some matches are wrong. If both pictures show one building, the right ones "
        "agree on how the camera moved: one **transformation** (a matrix A and a shift **t**) "
        "takes them from the first picture to the second. RANSAC finds it: it guesses a "
        "transformation from a few matches, counts how many others agree (the **inliers**), and "
        "keeps the best of many guesses.",
        r"\begin{pmatrix} x' \\ y' \end{pmatrix} = A \begin{pmatrix} x \\ y \end{pmatrix} + "
        r"\mathbf{t}",
    ):
        names = ranking.names[: steps.RESULTS]
        if not names:
            st.info("There is no other picture to find.")
            return
        place = st.segmented_control(
            "Match the query with result",
            range(len(names)),
            default=0,
            required=True,
            format_func=lambda n: str(n + 1),
            key=f"about-match-{followed.query_picture.key}",
        )
        search = Search(followed.collection, followed.query_picture, followed.box, judged=None)
        with notices.errors_shown():
            explain_result(search, path, names[place])
