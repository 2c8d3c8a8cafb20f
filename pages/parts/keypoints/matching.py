"""Two pictures compared by one kind of local features: matches, inliers, and how one map fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import streamlit as st

from pages.parts import extraction, query
from pages.parts.keypoints.engine import Engine
from retrieval.images import Box
from retrieval.ranking import geometry, verification
from retrieval.ranking.geometry import NOISE_FLOOR, Verification
from retrieval.ranking.verification import MIN_INLIERS

MODELS = {"affine": "Affine", "homography": "Homography"}
state = st.session_state


class Matcher(NamedTuple):
    """A way to match two pictures. features: which keypoints. least: inliers that confirm."""

    title: str
    features: str
    least: int
    summary: str


MATCHERS = {
    "delf": Matcher("DELF", "delf", NOISE_FLOOR, "Nearest neighbours of DELF's descriptors."),
    "xfeat": Matcher("XFeat", "xfeat", MIN_INLIERS, "Nearest neighbours of XFeat's descriptors."),
    "lighterglue": Matcher(
        "XFeat with LighterGlue",
        "xfeat",
        MIN_INLIERS,
        "The keypoints of XFeat, matched by a network that looks at both pictures at once.",
    ),
}


@dataclass(frozen=True)
class Compared:
    """Keypoints of each picture; points (K, 2) of the matches in pixels of each original; their
    similarity (K,); the verification, whose map is one of the whole pictures."""

    keypoints: tuple[int, int]
    points: tuple[np.ndarray, np.ndarray]
    similarity: np.ndarray
    found: Verification

    @property
    def count(self) -> int:
        return self.found.count

    @property
    def matches(self) -> int:
        return len(self.similarity)


def compared(
    by: str,
    engine: Engine,
    query_picture: query.QueryPicture,
    box: Box | None,
    other: query.QueryPicture,
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> Compared:
    """Match two pictures with a matcher of MATCHERS, by the settings on the page.

    sizes: (width, height) of each original.
    """
    a = engine.features(query_picture.source, query_picture.key, box)
    b = engine.of_result(other)
    kind = MATCHERS[by].features
    similarity, tolerance, model = chosen(kind)
    if by == "delf":
        matches, verified = geometry.verify_features(a, b, sizes[1], similarity, tolerance, model)
    else:
        alone, size = verification.of_box(a, sizes[0], box)
        if by == "xfeat":
            matches = geometry.mutual_matches(alone.descriptors, b.descriptors, similarity)
        else:
            key = query_picture.key, box, other.key
            matches = extraction.lighterglue(
                query_picture.source, key, (alone, b), (size, sizes[1])
            )
        verified = verification.verify_matches(alone, b, matches, size, sizes[1], tolerance, model)
        verified = verification.of_picture(verified, sizes[0], box)
    first, second = matches.T
    return Compared(
        (len(a), len(b)),
        (a.keypoints[first], b.keypoints[second]),
        (a.descriptors[first] * b.descriptors[second]).sum(axis=1),
        verified,
    )


def chosen(kind: str) -> tuple[float, float, geometry.Model]:
    """Lowest similarity, tolerance as a share, and the map of one kind of features."""
    prefix = "kp" if kind == "delf" else f"kp-{kind}"
    return (
        state[f"{prefix}-similarity"],
        state[f"{prefix}-tolerance"] / 100,
        state[f"{prefix}-model"],
    )


def settings(matchers: list[str]) -> None:
    """The settings of the features that these matchers use."""
    kinds = list(dict.fromkeys(MATCHERS[by].features for by in matchers))
    with st.expander("Matching and geometry"):
        for kind in kinds:
            prefix = "kp" if kind == "delf" else f"kp-{kind}"
            title = MATCHERS[kind].title
            st.markdown(f"**{title}**")
            if kind in matchers:
                st.slider(
                    "Lowest similarity",
                    0.3,
                    0.95,
                    step=0.01,
                    key=f"{prefix}-similarity",
                    help="Two keypoints are a match when each is the other's nearest neighbour "
                    "and the cosine of their descriptors is at least this.",
                    persist_state="session",
                )
            st.slider(
                "Tolerance, % of the longer side",
                0.25,
                5.0,
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
