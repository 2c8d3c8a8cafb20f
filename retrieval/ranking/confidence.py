"""How far an answer can be trusted: sure, unsure, or nothing here looks like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from retrieval.images import Box, crop
from retrieval.index.store import Index
from retrieval.methods.base import Features, LocalFeatures
from retrieval.ranking.ranking import Ranking, likeness

# Inliers of the best picture. Of 71 queries put to the other one of town and ../shared/photos,
# where nothing is right, the best had 18; of 71 put to their own, all with more were right.
SURE = 20
SHARE = 0.25  # of the pictures of a collection, which have no nearer neighbour than this
BLANK = 2.0  # standard deviation of grey values (0 to 255) below which there is nothing to see
Level = Literal["sure", "unsure", "nothing"]
TEXTS: dict[Level, str] = {
    "sure": "Sure",
    "unsure": "Unsure",
    "nothing": "Nothing here looks like it",
}


@dataclass(frozen=True)
class Confidence:
    """level, and the reason for it in one sentence.

    empty: there is nothing in the query to search for, so that the ranking has no meaning.
    """

    level: Level
    reason: str
    empty: bool = False

    @property
    def text(self) -> str:
        return TEXTS[self.level]


def judge(
    ranking: Ranking, index: Index, picture: Image.Image, box: Box | None, features: Features
) -> Confidence:
    """The confidence of a whole ranking, from its inliers and from its best likeness.

    features: of the query, under the method of the index.
    Geometry that agrees makes it sure. Without that, an answer is compared with the collection
    itself: where it is less like the query than three of four pictures are like their nearest
    neighbour, nothing here looks like it.
    """
    if _is_blank(picture, box):
        return Confidence("nothing", "The picture is blank: there is nothing to search for.", True)
    if isinstance(features, LocalFeatures) and not len(features):
        return Confidence("nothing", "The picture has no keypoints to search for.", True)
    inliers = 0 if ranking.inliers is None else int(ranking.inliers.max(initial=0))
    if inliers >= SURE:
        return Confidence("sure", f"Geometry confirms it: {inliers} inliers with one picture.")
    best = float(likeness(ranking).max(initial=0))
    usual = np.quantile(index.nearest_sample, SHARE) if len(index) > 1 else 0.0
    if inliers:
        return Confidence("unsure", f"Geometry found only {inliers} inliers with the best picture.")
    if best < usual:
        return Confidence(
            "nothing",
            f"The best likeness is {best:.2f}; three of four pictures of this collection have a "
            f"neighbour with {usual:.2f} or more.",
        )
    if ranking.inliers is None:
        return Confidence(
            "unsure", "Only descriptors were compared. Re-rank by geometry to check the pictures."
        )
    return Confidence("unsure", "It looks alike, but geometry confirms no picture.")


def _is_blank(picture: Image.Image, box: Box | None) -> bool:
    seen = crop(picture, box) if box else picture
    return float(np.asarray(seen.convert("L").resize((64, 64)), np.float32).std()) < BLANK
