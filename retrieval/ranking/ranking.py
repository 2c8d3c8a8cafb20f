"""The ranking that answers a query, and the input of re-rankers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retrieval.images import Box
from retrieval.index import Index
from retrieval.methods.base import Features, LocalFeatures, as_vector

if TYPE_CHECKING:
    from retrieval.collections import Collection
    from retrieval.ranking.confidence import Confidence

MAX_FRACTION = 0.999  # what is added to a number of inliers stays below one inlier


@dataclass(frozen=True)
class Ranking:
    """The answer to a query: K pictures of an index, best first.

    positions: (K,) int64, position of each picture in the index. names: name of each picture.
    scores: (K,) float32. Global methods: cosine. DELF: inliers + votes, see ``rank_picture``.
    After a re-ranker: see its docstring.
    inliers: (K,) int64; 0 where a picture was not verified or has too few; None where no stage
    verified geometry.
    counted_by: name of the re-ranker that counted the inliers; '' for the method itself.
    timings: seconds by stage ('extraction', 'search', 'verification', then the re-rankers).
    provenance: collection, method, checkpoint, settings, number of pictures, and under 'then' the
    re-rankers with their settings.
    stage: name of the re-ranker that made this ranking, or 'search'.
    before: the ranking that this re-ranker was given; None for 'search'.
    note: one sentence where a stage could not do all of its work, else ''.
    unchecked: how many pictures a re-ranker, this or an earlier one, had no features of.
    confidence: how far the answer can be trusted; None where no picture was searched with.
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
    unchecked: int = 0
    confidence: Confidence | None = None
    counted_by: str = ""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def stages(self) -> list[Ranking]:
        """This ranking and all before it, the method's own first."""
        earlier = self.before.stages if self.before else []
        return [*earlier, self]

    @property
    def notes(self) -> list[str]:
        """The notes of all stages that have one, in order, each once."""
        return list(dict.fromkeys(stage.note for stage in self.stages if stage.note))

    @property
    def moved(self) -> np.ndarray:
        """(K,) int64: ranks that each picture rose since the ranking of the method alone."""
        return ranks_in(self.stages[0].positions, self.positions) - np.arange(len(self))

    def confirmed(self, limit: int) -> np.ndarray:
        """Ranks (n,) int64, from 0, of the pictures that geometry confirmed, most inliers first.

        n is at most ``limit``.
        """
        if self.inliers is None:
            return np.empty(0, np.int64)
        order = np.argsort(-self.inliers, kind="stable")
        return order[self.inliers[order] > 0][:limit]

    def best(self, count: int | None) -> Ranking:
        """The first ``count`` pictures of this ranking, or all of them for None."""
        return replace(
            self,
            positions=self.positions[:count],
            scores=self.scores[:count],
            names=self.names[:count],
            inliers=None if self.inliers is None else self.inliers[:count],
        )

    # Both look at the names once, not at each stage: of 250,000 pictures that takes a while.
    def without(self, name: str) -> Ranking:
        """This ranking and its stages before, all without one picture."""
        first = self.stages[0]
        return self._at(first.positions, np.array([one != name for one in first.names], bool))

    def only(self, names: Set[str]) -> Ranking:
        """This ranking and its stages before, all with no other pictures than these."""
        first = self.stages[0]
        return self._at(first.positions, np.array([one in names for one in first.names], bool))

    def _at(self, first: np.ndarray, kept: np.ndarray) -> Ranking:
        """This ranking and its stages before, with the positions ``first`` that are kept.

        first: (K,) int64. kept: (K,) bool.
        """
        mask = kept[ranks_in(first, self.positions)]
        return replace(
            self,
            positions=self.positions[mask],
            scores=self.scores[mask],
            names=tuple(compress(self.names, mask.tolist())),
            inliers=None if self.inliers is None else self.inliers[mask],
            before=self.before and self.before._at(first, kept),
        )

    def in_whole_index(self, whole_positions: np.ndarray | None) -> Ranking:
        """The ranking of a part of an index, with positions in the whole index instead.

        whole_positions: (N,) int64, for each picture of the part its position in the whole index;
        None where the part is the whole.
        """
        if whole_positions is None:
            return self
        before = self.before and self.before.in_whole_index(whole_positions)
        return replace(self, positions=whole_positions[self.positions], before=before)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a picture, ready for JSON: rank (from 1), name, score.

        Also inliers where geometry was verified, and moved where a re-ranker was at work.
        """
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
    """The query, as a re-ranker needs it beside the ranking.

    features: of the query, made by the method of the index.
    picture: of the query, upright RGB; None where only its features are known.
    box: (x1, y1, x2, y2) in pixels of ``picture``; None for all of it.
    own: position in the index of the query's own picture, where the collection contains it;
    re-rankers leave it out.
    collection: where pictures of the index can be read; None where they cannot.
    local: local features of the query by verifier ('xfeat', 'delf'). They are added when a
    re-ranker first needs them, and later ones use them again.
    """

    index: Index
    features: Features
    picture: Image.Image | None = None
    box: Box | None = None
    own: int | None = None
    collection: Collection | None = None
    local: dict[str, LocalFeatures] = field(default_factory=dict)

    @property
    def vector(self) -> np.ndarray:
        """The query's vector (D,), under a method that has one a picture."""
        return as_vector(self.features)

    def vectors_of(self, positions: np.ndarray) -> np.ndarray:
        """Vectors (n, D) float32 of the pictures at these positions (n,) of the index.

        They are stored as float16, so their length is 1 only up to rounding.
        """
        return self.index.arrays["descriptors"][positions].astype(np.float32)


class Stage:
    """One run of a re-ranker: measures its time and makes the new ranking.

    name, settings: of the re-ranker, for the provenance. before: the ranking that it was given.
    """

    def __init__(self, name: str, before: Ranking, settings: Mapping[str, Any]):
        self.name, self.before, self.settings = name, before, dict(settings)
        self.started = time.perf_counter()

    def unchanged(self, note: str) -> Ranking:
        """The ranking in its old order. note: one sentence that says why nothing was done."""
        return self.ordered(np.arange(len(self.before)), self.before.scores, note)

    def ordered(
        self,
        order: np.ndarray,
        scores: np.ndarray,
        note: str = "",
        inliers: np.ndarray | None = None,
    ) -> Ranking:
        """The ranking in a new order.

        order: (K,) int64, the rank (from 0) that each picture had before, best first.
        scores: (K,), in the new order. inliers: (K,) int64, in the order before; None where this
        stage counted none, so that each picture keeps those that it has.
        """
        before = self.before
        counted_by = before.counted_by if inliers is None else self.name
        inliers = before.inliers if inliers is None else inliers
        seconds = time.perf_counter() - self.started
        record = {"name": self.name, "settings": self.settings}
        return replace(
            before,
            positions=before.positions[order],
            names=tuple(map(before.names.__getitem__, order.tolist())),
            scores=np.round(scores, 6).astype(np.float32),  # equal for equal pictures
            inliers=None if inliers is None else inliers[order],
            counted_by=counted_by,
            timings={**before.timings, self.name: before.timings.get(self.name, 0.0) + seconds},
            provenance={
                **before.provenance,
                "then": [*before.provenance.get("then", ()), record],
            },
            stage=self.name,
            before=before,
            note=note,
        )

    def by_inliers(self, inliers: np.ndarray, tie_breaker: np.ndarray, note: str = "") -> Ranking:
        """The ranking ordered by inliers, and by the tie breaker where those are equal.

        inliers: (K,) int64. tie_breaker: (K,). Both in the order of the ranking before.
        The new score is inliers + tie breaker mapped to [0, 1). Equal pictures keep their order.
        """
        order = np.lexsort((-np.round(tie_breaker, 6), -inliers))
        scores = inliers + below_one(tie_breaker)
        return self.ordered(order, scores[order], note, inliers)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (…, D) scaled to unit length; zero vectors stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def best_first(scores: np.ndarray) -> np.ndarray:
    """Order (N,) int64 that sorts scores (N,), the highest first.

    Scores that are equal to six decimals keep their order: they differ by rounding only.
    """
    return np.argsort(-np.round(scores, 6), kind="stable")


def below_one(scores: np.ndarray) -> np.ndarray:
    """Scores (N,) mapped to [0, 1) without changing their order; negative ones become 0.

    Where none is above 1, as with cosines and votes, they stay as they are.
    """
    scores = np.maximum(scores.astype(np.float64), 0)
    if scores.max(initial=0) > 1:
        scores = scores / (1 + scores)
    return np.minimum(scores, MAX_FRACTION)


def likeness(ranking: Ranking) -> np.ndarray:
    """Similarity of each picture by the method alone, (K,) float64 in the order of ``ranking``.

    Cosines, or the votes of DELF; negative ones become 0.
    """
    first = ranking.stages[0]
    values = first.scores.astype(np.float64)
    if first.inliers is not None:
        values = values - first.inliers
    return np.maximum(values, 0)[ranks_in(first.positions, ranking.positions)]


def ranks_in(first: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The rank (n,) int64 in ``first`` (K,) of each of these positions (n,), which it has."""
    if first.max(initial=-1) < 4 * len(first):
        ranks = np.empty(1 + first.max(initial=-1), np.int64)
        ranks[first] = np.arange(len(first))
        return ranks[positions]
    order = np.argsort(first)  # of a large store: a table of all its pictures takes gigabytes
    return order[np.searchsorted(first, positions, sorter=order)]
