"""``bench inliers``: how often a picture with so many inliers shows the landmark of the query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval import images, methods
from retrieval import index as indexes
from retrieval.benchmarks import index_of_town
from retrieval.collections import open_collection
from retrieval.collections.ground_truth import landmarks
from retrieval.ranking.confidence import SURE_INLIERS, SURE_LEARNED
from retrieval.ranking.search import rank_picture

# Method of the index, re-rankers.
SEARCHES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("delf", ()),
    ("cnn-irwnha", ("geometry",)),
    ("cnn-irwnha", ("geometry-lighterglue",)),
)
BANDS = (10, 15, SURE_INLIERS)  # least inliers of each band

Progress = Callable[[int, int, str], None]


@dataclass
class Counted:
    """Pictures that geometry confirmed for the queries of a collection.

    inliers: (n,) int64. right: (n,) bool, whether each shows the landmark of its query.
    best: (n,) bool, whether it has the most inliers of its query.
    """

    inliers: np.ndarray
    right: np.ndarray
    best: np.ndarray

    def text(self, least: int, below: float, best: bool = False) -> str:
        """The right ones of those with ``least`` inliers or more, and less than ``below``."""
        chosen = (self.inliers >= least) & (self.inliers < below)
        if best:
            chosen &= self.best
        if not chosen.any():
            return "–"
        right, count = int(self.right[chosen].sum()), int(chosen.sum())
        return f"{right} of {count}, {right / count:.1%}"


def run(progress: Progress) -> None:
    """The command: print the shares of right pictures of town by inliers, for each search.

    progress(done, total, name) is called after each query. Raises RetrievalError where an index of
    town is missing.
    """
    bounds = list(zip(BANDS, (*BANDS[1:], np.inf), strict=True))
    labels = [
        f"{least} or more" if np.isinf(below) else f"{least} to {int(below) - 1}"
        for least, below in bounds
    ]
    counts = [
        (", then ".join([name, *then]), count(name, then, progress)) for name, then in SEARCHES
    ]
    print("Town: verified pictures that show the landmark of the query, by inliers")
    print(f"{'':36}" + "".join(f"{label:>20}" for label in (*labels, f"best {labels[-1]}")))
    for title, counted in counts:
        cells = [counted.text(*band) for band in bounds]
        cells.append(counted.text(SURE_INLIERS, np.inf, best=True))
        print(f"{title:36}" + "".join(f"{cell:>20}" for cell in cells))
    print(
        f"The limit of {SURE_INLIERS} was chosen on town too: its figures are a little optimistic. "
        f"That of LighterGlue is {SURE_LEARNED}."
    )


def count(name: str, then: tuple[str, ...], progress: Progress) -> Counted:
    """What geometry confirms for all queries of town. name: of a method. then: re-rankers."""
    town = open_collection("town")
    index = indexes.load(index_of_town(name))
    method = methods.for_index(index)
    landmark_of = landmarks(town.names, town.queries)
    rows: list[tuple[Any, ...]] = []
    for done, query in enumerate(town.queries, 1):
        picture = images.read(town.path(query.name))
        ranking = rank_picture(index, method, picture, query.box, then=then, collection=town)
        assert ranking.inliers is not None
        confirmed = np.flatnonzero(ranking.inliers)  # most inliers first
        rows += (
            (ranking.inliers[row], landmark_of.get(ranking.names[row]) == query.landmark, not place)
            for place, row in enumerate(confirmed)
        )
        progress(done, len(town.queries), query.name)
    inliers, right, best = np.array(rows, np.int64).reshape(-1, 3).T
    return Counted(inliers, right.astype(bool), best.astype(bool))
