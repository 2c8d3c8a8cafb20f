"""How far an answer can be trusted: sure, unsure, not checked, or nothing to search for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from retrieval.images import Box, crop
from retrieval.index import Index
from retrieval.methods.base import Features, LocalFeatures
from retrieval.ranking.ranking import Ranking, likeness

# Inliers of the best picture from which an answer is sure. Measured with the queries of town and of
# ../shared/photos: 71 queries searched in the other collection, where no picture is right, had 18
# inliers at most. In their own collection every answer with more was right. A single pair is less
# certain: see ``bench inliers``.
SURE_INLIERS = 20
# Of the matches that LighterGlue chose. It finds more of them in look-alikes too: the same queries
# had up to 52 inliers with town, and six of them 20 or more.
SURE_LEARNED = 60
# An answer counts as unlike the collection where its best similarity is below this quantile of the
# similarities of the pictures to their nearest neighbours. That is no proof: it is so for 9 of the
# 70 queries of town with SIR and for 3 with CNN-IRwNHA, and yet the first result of 7 and 1 of them
# is right.
QUANTILE = 0.25
BLANK = 2.0  # standard deviation of grey values (0 to 255) below which there is nothing to see
Level = Literal["sure", "unsure", "unchecked", "nothing"]
TEXTS: dict[Level, str] = {
    "sure": "Very likely right",
    "unsure": "Unsure",
    "unchecked": "Not checked by geometry",
    "nothing": "Nothing to search for",
}


@dataclass(frozen=True)
class Confidence:
    """How far an answer can be trusted.

    level: 'sure', 'unsure', 'unchecked', or 'nothing'. The last is for a query that is blank or has
    no keypoints, as its ranking has no meaning, and for a ranking without pictures. reason: a
    sentence that explains the level.
    """

    level: Level
    reason: str

    @property
    def text(self) -> str:
        return TEXTS[self.level]


def judge(
    ranking: Ranking, index: Index, picture: Image.Image, box: Box | None, features: Features
) -> Confidence:
    """The confidence of a whole ranking, from its inliers and from its best similarity.

    features: of the query, made by the method of the index.
    Enough inliers make it sure. Without any, the best similarity is compared with ``usual``: of a
    sample of the collection, three of four pictures have a nearest neighbour with at least that
    similarity. Where the best similarity is lower, perhaps no picture shows the query.
    """
    if not len(ranking):  # the query is the only picture
        return Confidence("nothing", "There is no other picture to find.")
    if _is_blank(picture, box):
        return Confidence("nothing", "The picture is blank: there is nothing to search for.")
    if isinstance(features, LocalFeatures) and not len(features):
        return Confidence("nothing", "The picture has no keypoints to search for.")
    inliers = 0 if ranking.inliers is None else int(ranking.inliers.max(initial=0))
    if inliers >= sure_inliers(ranking.counted_by):
        return Confidence(
            "sure", f"Geometry confirms it: {inliers} inliers with the picture that fits best."
        )
    if inliers:
        return Confidence("unsure", f"Geometry found at most {inliers} inliers with a picture.")
    best = float(likeness(ranking).max(initial=0))
    # The lower of two neighbours in the sample: of three pictures only two reached a value between.
    several = len(index) > 1
    usual = np.quantile(index.nearest_sample, QUANTILE, method="lower") if several else 0.0
    # Compared as they are shown, with two digits (the votes of DELF are a few thousandths): where
    # most pictures have a copy, a copy is 0.99998 like the query, and its usual neighbour 1.00002.
    shown_best, shown_usual = f"{best:.2g}", f"{usual:.2g}"
    if float(shown_best) < float(shown_usual):
        return Confidence(
            "unsure",
            f"The best likeness is {shown_best}; about three of four pictures of this collection "
            f"have a neighbour with {shown_usual} or more. Perhaps nothing here shows the same "
            "thing.",
        )
    if ranking.inliers is None:
        return Confidence(
            "unchecked",
            "The order comes from the descriptors alone. The re-ranker Geometry also checks "
            "whether the pictures show the same thing.",
        )
    if "filter" in ranking.provenance and not index.filters:  # it was applied to the ranking
        return Confidence(
            "unsure",
            "Geometry confirms no picture that fits the filter. It looks only at the best of all "
            "pictures, whether they fit or not.",
        )
    if not several:  # nobody knows what is alike here
        return Confidence("unsure", "Geometry confirms no picture.")
    return Confidence("unsure", "It looks alike, but geometry confirms no picture.")


def sure_inliers(reranker: str) -> int:
    """Inliers from which an answer is sure, where this re-ranker counted them; '' for DELF."""
    return SURE_LEARNED if reranker == "geometry-lighterglue" else SURE_INLIERS


def meaning(inliers: int, least: int, sure: int = SURE_INLIERS) -> str:
    """A sentence that says what this number of inliers of two pictures means.

    least: inliers from which geometry changes the rank of a picture. sure: see ``sure_inliers``.
    """
    if inliers < least:
        return f"Fewer than {least} can be chance."
    many = f"{sure} or more"
    if inliers < sure:
        return f"Look-alikes reach that too; with {many} both pictures very likely show one thing."
    return f"With {many} both pictures very likely show one thing."


def _is_blank(picture: Image.Image, box: Box | None) -> bool:
    seen = crop(picture, box) if box else picture
    return float(np.asarray(seen.convert("L").resize((64, 64)), np.float32).std()) < BLANK
