"""The answer to a query, and what a re-ranker needs to know to improve it."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retrieval.images import Box
from retrieval.index.store import Index
from retrieval.methods.base import Features, LocalFeatures, as_vector

if TYPE_CHECKING:
    from retrieval.collections import Collection
    from retrieval.ranking.confidence import Confidence

MOST_REST = 0.999  # what is added to a number of inliers stays below one more inlier


@dataclass(frozen=True)
class Ranking:
    """The answer to a query, best first.

    positions: (K,) int64 into the index; names: theirs.
    scores: (K,) float32. Global methods: cosine. DELF: inliers + votes, see ``rank_picture``.
    After a re-ranker: what its docstring says.
    inliers: (K,) int64, 0 where not verified or too few to say anything; None where no geometry
    was asked.
    timings: seconds by stage ('extraction', 'search', 'verification', then the re-rankers).
    provenance: what the numbers rest on: collection, method, checkpoint, settings, pictures, and
    under 'then' the re-rankers with their settings.
    stage: the re-ranker that made it, or 'search'. before: the whole ranking that it improved.
    note: one sentence where a stage could not do all of its work, else ''.
    confidence: how far it can be trusted, where a picture was searched with.
    """

    positions: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]
    inliers: np.ndarray | None
    timings: dict[str, float]
    provenance: dict[str, Any]
    stage: str = "search"
    before: Ranking | None = None
    note: str = ""
    confidence: Confidence | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def stages(self) -> list[Ranking]:
        """This ranking and all before it, the method's own first."""
        earlier = self.before.stages if self.before else []
        return [*earlier, self]

    @property
    def notes(self) -> list[str]:
        """What could not be done, stage by stage."""
        return [stage.note for stage in self.stages if stage.note]

    @property
    def moved(self) -> np.ndarray:
        """(K,) int64: how many places up each picture is from where the method alone had it."""
        places = {one: place for place, one in enumerate(self.stages[0].positions.tolist())}
        before = np.array([places[one] for one in self.positions.tolist()], np.int64)
        return before - np.arange(len(self))

    def best(self, count: int | None) -> Ranking:
        """The first ``count`` of it; None: all."""
        return replace(
            self,
            positions=self.positions[:count],
            scores=self.scores[:count],
            names=self.names[:count],
            inliers=None if self.inliers is None else self.inliers[:count],
        )

    def without(self, name: str) -> Ranking:
        """The same without one picture, in every stage: it has not moved the others."""
        return self._where(lambda one: one != name)

    def only(self, names: Container[str]) -> Ranking:
        """The same with no other pictures than these, in every stage."""
        return self._where(lambda one: one in names)

    def _where(self, wanted: Callable[[str], bool]) -> Ranking:
        keep = np.array([wanted(one) for one in self.names], bool)
        return replace(
            self,
            positions=self.positions[keep],
            scores=self.scores[keep],
            names=tuple(one for one, kept in zip(self.names, keep, strict=True) if kept),
            inliers=None if self.inliers is None else self.inliers[keep],
            before=self.before and self.before._where(wanted),
        )

    def at(self, places: np.ndarray | None) -> Ranking:
        """The same of a part of an index, with positions in the whole of it.

        places: (N,) int64, where each picture of the part is; None: it is the whole.
        """
        if places is None:
            return self
        before = self.before and self.before.at(places)
        return replace(self, positions=places[self.positions], before=before)

    def rows(self) -> list[dict[str, Any]]:
        """Rank (from 1), name, score, inliers and moved where there are any: plain, for JSON."""
        rows: list[dict[str, Any]] = [
            {"rank": rank, "name": name, "score": round(float(score), 6)}
            for rank, (name, score) in enumerate(zip(self.names, self.scores, strict=True), 1)
        ]
        if self.inliers is not None:
            for row, inliers in zip(rows, self.inliers.tolist(), strict=True):
                row["inliers"] = inliers
        if self.before is not None:
            for row, moved in zip(rows, self.moved.tolist(), strict=True):
                row["moved"] = moved
        return rows


@dataclass
class Query:
    """What a re-ranker may use besides the ranking.

    features: of the query, under the method of the index. picture, box: the query itself; None
    where only its features are known. own: position of the query's own picture where the
    collection contains it: it is left out. collection: where pictures of the index can be read.
    """

    index: Index
    features: Features
    picture: Image.Image | None = None
    box: Box | None = None
    own: int | None = None
    collection: Collection | None = None
    # Local features of the query by verifier: described once, however many stages want them.
    local: dict[str, LocalFeatures] = field(default_factory=dict)

    @property
    def vector(self) -> np.ndarray:
        """The query's vector (D,), under a method that has one a picture."""
        return as_vector(self.features)


class Stage:
    """A re-ranker at work: takes the time, and makes the new ranking from the order it found."""

    def __init__(self, name: str, before: Ranking, settings: Mapping[str, Any]):
        self.name, self.before, self.settings = name, before, dict(settings)
        self.started = time.perf_counter()

    def unchanged(self, note: str) -> Ranking:
        """The ranking as it was, with a sentence that says why."""
        same = np.arange(len(self.before))
        return self.ordered(same, self.before.scores, self.before.inliers, note)

    def ordered(
        self, order: np.ndarray, scores: np.ndarray, inliers: np.ndarray | None, note: str = ""
    ) -> Ranking:
        """The ranking before in a new order (N,); scores and inliers are in the new order too."""
        before = self.before
        seconds = time.perf_counter() - self.started
        record = {"name": self.name, "settings": self.settings}
        return replace(
            before,
            positions=before.positions[order],
            names=tuple(before.names[place] for place in order.tolist()),
            scores=np.round(scores, 6).astype(np.float32),  # or equal pictures would differ
            inliers=inliers,
            timings={**before.timings, self.name: before.timings.get(self.name, 0.0) + seconds},
            provenance={
                **before.provenance,
                "then": [*before.provenance.get("then", ()), record],
            },
            stage=self.name,
            before=before,
            note=note,
        )

    def by_inliers(self, inliers: np.ndarray, rest: np.ndarray, note: str = "") -> Ranking:
        """Order by inliers (N,), then by ``rest`` (N,), both in the order of the ranking before.

        The score is their sum, with the rest squeezed below 1; equal ones stay as they were.
        """
        order = np.lexsort((-np.round(rest, 6), -inliers))
        scores = inliers + squeezed(rest)
        return self.ordered(order, scores[order], inliers[order], note)


def best_first(scores: np.ndarray) -> np.ndarray:
    """Places (N,) of scores (N,), the highest first; what differs by rounding stays in order."""
    return np.argsort(-np.round(scores, 6), kind="stable")


def squeezed(scores: np.ndarray) -> np.ndarray:
    """Scores (N,) below 1 and not negative, in the same order: cosines and votes as they are."""
    scores = np.maximum(scores.astype(np.float64), 0)
    if scores.max(initial=0) > 1:
        scores = scores / (1 + scores)
    return np.minimum(scores, MOST_REST)


def likeness(ranking: Ranking) -> np.ndarray:
    """How alike the method alone finds each picture, (N,) float64 in the order of ``ranking``.

    Cosines, or the votes of DELF; negative ones count as 0.
    """
    first = ranking.stages[0]
    values = first.scores.astype(np.float64)
    if first.inliers is not None:
        values = values - first.inliers
    by_position = np.zeros(1 + max(first.positions, default=0))
    by_position[first.positions] = np.maximum(values, 0)
    return by_position[ranking.positions]
