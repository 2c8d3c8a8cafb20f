"""Match two pictures by their local features: matches, inliers, and the map that fits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import streamlit as st

from pages.parts import extraction, query
from pages.parts.keypoints.extractors import Extractor
from retrieval.images import Box
from retrieval.ranking import geometry, verification
from retrieval.ranking.confidence import SURE_INLIERS, SURE_LEARNED
from retrieval.ranking.geometry import NOISE_FLOOR, Verification
from retrieval.ranking.verification import MIN_INLIERS

MODELS = {"affine": "Affine", "homography": "Homography"}
SIMILARITY_BOUNDS = 0.3, 0.95  # cosine
TOLERANCE_BOUNDS = 0.25, 5.0  # % of the longer side
state = st.session_state


class Matcher(NamedTuple):
    """A way to match two pictures.

    features: whose keypoints it matches, 'delf' or 'xfeat'. min_inliers: as many as confirm that
    both pictures show the same thing. sure_inliers: as many as make that very likely.
    """

    title: str
    features: str
    min_inliers: int
    summary: str
    sure_inliers: int = SURE_INLIERS


MATCHERS = {
    "delf": Matcher("DELF", "delf", NOISE_FLOOR, "Nearest neighbours of DELF's descriptors."),
    "xfeat": Matcher("XFeat", "xfeat", MIN_INLIERS, "Nearest neighbours of XFeat's descriptors."),
    "lighterglue": Matcher(
        "XFeat with LighterGlue",
        "xfeat",
        MIN_INLIERS,
        "The keypoints of XFeat, matched by a network that looks at both pictures at once.",
        SURE_LEARNED,
    ),
}


@dataclass(frozen=True)
class Pair:
    """Two pictures to match.

    box: of the query picture. sizes: (width, height) of each original.
    """

    query_picture: query.QueryPicture
    box: Box | None
    other: query.QueryPicture
    sizes: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Comparison:
    """The result of a matcher for two pictures.

    keypoint_counts: of each picture. points: (K, 2) of the K matches in pixels of each original.
    similarity: (K,), cosine of the descriptors of each match. verification: of the matches, in
    pixels of the whole originals.
    """

    keypoint_counts: tuple[int, int]
    points: tuple[np.ndarray, np.ndarray]
    similarity: np.ndarray
    verification: Verification

    @property
    def inlier_count(self) -> int:
        return self.verification.count

    @property
    def match_count(self) -> int:
        return len(self.similarity)


def match_pictures(matcher_name: str, extractor: Extractor, pair: Pair) -> Comparison:
    """Match two pictures with a matcher of MATCHERS, by the settings on the page.

    Raises RetrievalError where a picture cannot be read.
    """
    query_picture, box, other, sizes = pair.query_picture, pair.box, pair.other, pair.sizes
    a = extractor.features(query_picture.source, query_picture.key, box)
    b = extractor.database_features(other)
    similarity, tolerance, model = chosen_settings(MATCHERS[matcher_name].features)
    if matcher_name == "delf":
        matches, verified = geometry.verify_features(a, b, sizes[1], similarity, tolerance, model)
    else:
        a_in_box, box_size = verification.of_box(a, sizes[0], box)
        if matcher_name == "xfeat":
            matches = geometry.mutual_matches(a_in_box.descriptors, b.descriptors, similarity)
        else:
            key = query_picture.key, box, other.key
            matches = extraction.lighterglue(
                query_picture.source, key, (a_in_box, b), (box_size, sizes[1])
            )
        verified = verification.verify_matches(
            a_in_box, b, matches, box_size, sizes[1], tolerance, model
        )
        verified = verification.of_picture(verified, sizes[0], box)
    rows_a, rows_b = matches.T
    return Comparison(
        (len(a), len(b)),
        (a.keypoints[rows_a], b.keypoints[rows_b]),
        geometry.similarities(a, b, matches),
        verified,
    )


def chosen_settings(features: str) -> tuple[float, float, geometry.Model]:
    """The settings on the page for 'delf' or 'xfeat'.

    Returns the lowest similarity (cosine), the tolerance as a share of the longer side, and the
    kind of map.
    """
    prefix = _key_prefix(features)
    return (
        state[f"{prefix}-similarity"],
        state[f"{prefix}-tolerance"] / 100,
        state[f"{prefix}-model"],
    )


def _key_prefix(features: str) -> str:
    """The beginning of the session keys of the settings for 'delf' or 'xfeat'."""
    return "kp" if features == "delf" else f"kp-{features}"


def choose_settings(matcher_names: list[str]) -> None:
    """Draw the settings of the features that these matchers use."""
    with st.expander("Matching and geometry"):
        for features in dict.fromkeys(MATCHERS[name].features for name in matcher_names):
            prefix = _key_prefix(features)
            st.markdown(f"**{MATCHERS[features].title}**")
            if features in matcher_names:  # LighterGlue has no lowest similarity
                st.slider(
                    "Lowest similarity",
                    *SIMILARITY_BOUNDS,
                    step=0.01,
                    key=f"{prefix}-similarity",
                    help="Two keypoints are a match when each is the other's nearest neighbour "
                    "and the cosine of their descriptors is at least this.",
                    persist_state="session",
                )
            st.slider(
                "Tolerance, % of the longer side",
                *TOLERANCE_BOUNDS,
                step=0.25,
                key=f"{prefix}-tolerance",
                help="An inlier may lie this far from where the transformation puts it.",
                persist_state="session",
            )
            st.segmented_control(
                "Transformation",
                MODELS,
                format_func=MODELS.__getitem__,
                key=f"{prefix}-model",
                required=True,
                help="Affine: shift, turn, stretch and slant. Homography: perspective as well.",
                persist_state="session",
            )
        st.toggle("Outliers in the files to download", False, key="kp-outliers")
