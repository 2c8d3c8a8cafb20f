"""Score rankings by the classic and the revisited protocols of Oxford and Paris.

A ranking is one column of ``ranks`` (K, Q), integers: zero-based positions into the database
names, best first. Ignored pictures are taken out of it, so that the pictures below them move up.
Average precision is then the area under the precision-recall curve by the trapezoid rule
(Philbin et al., CVPR 2007; labels and Easy, Medium, Hard: Radenović et al., "Revisiting Oxford
and Paris", CVPR 2018; the results equal those of their code except for rounding).

Cases that the papers leave open:

- Ties. ``ranks_from_scores`` puts pictures of equal score in the order of the database.
- Missing entries. A ranking need not list every picture: K may be smaller than the database, and
  a column may end in -1. Pictures that are not listed rank below all listed ones. A positive that
  is not listed adds no area but counts in the number of positives, so AP is at most that of the
  full ranking.
- mP@k divides by min(k, rank of the last positive), so that a query with three positives can
  reach 1 at k = 10. Where a positive is not listed, that rank is unknown, and mP@k divides by k.
- A query without positives under a protocol has no AP (nan) and counts in no mean.
- A picture labelled both positive and ignored is a positive: left out, it would make AP exceed 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from retrieval.collections.ground_truth import PROTOCOLS, Query, Rule, protocols_of
from retrieval.errors import RetrievalError

KS = (1, 5, 10)  # depths at which precision and recall are scored
RECALL_LEVELS = np.arange(101) / 100  # where mean precision-recall curves are sampled


class Truth(Protocol):
    """The labels that rankings are scored against: those of a Collection or of a GroundTruth."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def queries(self) -> tuple[Query, ...]: ...


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of Q queries under one protocol: fractions from 0 to 1, nan for one without positives.

    aps: (Q,) float64. prs, recalls: (Q, len(KS)) float64, precision and recall at each k.
    positives: (Q,) int64, how many positives a query has. listed: (Q,) int64, how many of them its
    ranking lists.
    curve: (101,) float64, interpolated precision at RECALL_LEVELS, mean over the queries.
    """

    protocol: str
    aps: np.ndarray
    prs: np.ndarray
    recalls: np.ndarray
    positives: np.ndarray
    listed: np.ndarray
    curve: np.ndarray

    @property
    def counted(self) -> np.ndarray:
        """(Q,) bool: queries that have positives."""
        return self.positives > 0

    @property
    def map(self) -> float:
        return _mean(self.aps[self.counted])

    @property
    def mp(self) -> dict[int, float]:
        """Mean precision at each k."""
        return dict(zip(KS, map(_mean, self.prs[self.counted].T), strict=True))

    @property
    def recall(self) -> dict[int, float]:
        """Mean over the queries of the share of their positives among the first k."""
        return dict(zip(KS, map(_mean, self.recalls[self.counted].T), strict=True))

    def by_landmark(self, queries: Sequence[Query]) -> dict[str, float]:
        """Mean AP of the counted queries of each landmark, in the order of the queries."""
        groups: dict[str, list[float]] = {}
        for query, ap, counted in zip(queries, self.aps, self.counted, strict=True):
            if counted:
                groups.setdefault(query.landmark, []).append(ap)
        return {landmark: _mean(np.array(aps)) for landmark, aps in groups.items()}

    def to_json(self) -> dict[str, Any]:
        """The scores as plain values for JSON; None for nan."""
        ks = ",".join(map(str, KS))
        return {
            "map": _plain(self.map),
            f"mp@{ks}": _plain(list(self.mp.values())),
            f"recall@{ks}": _plain(list(self.recall.values())),
            "queries": int(self.counted.sum()),
            "aps": _plain(self.aps.tolist()),
            "prs": _plain(self.prs.tolist()),
            "recalls": _plain(self.recalls.tolist()),
            "positives": self.positives.tolist(),
            "listed": self.listed.tolist(),
            "curve": _plain(self.curve.tolist()),
        }


@dataclass(frozen=True)
class Step:
    """One positive of a ranking and what it adds to AP. Ranks count from 1.

    position: into the database. label: the label set it is in.
    raw_rank: its rank in the whole ranking. ignored_above: how many pictures above it are ignored.
    rank: its rank without those.
    precision_before: of the pictures above it; precision_after, recall: of those and itself.
    area: of the trapezoid, (precision_before + precision_after) / 2 / number of positives.
    """

    position: int
    label: str
    raw_rank: int
    rank: int
    ignored_above: int
    precision_before: float
    precision_after: float
    recall: float
    area: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """How the AP of one ranking is computed.

    kinds: (K,) str, 'positive', 'ignored' or 'wrong' for each listed picture, best first.
    steps: one for each listed positive, best first.
    positives: how many the query has. missing: positions of those that the ranking does not list.
    average_precision: the sum of the areas of the steps; nan without positives.
    """

    protocol: str
    kinds: np.ndarray
    steps: tuple[Step, ...]
    positives: int
    missing: tuple[int, ...]
    average_precision: float


def ranks_from_scores(scores: np.ndarray) -> np.ndarray:
    """Rankings (N, Q) int64 for scores (N, Q), the higher the better; equal scores by position.

    nan is the worst score of all.
    """
    return np.argsort(
        -np.asarray(scores, dtype=np.result_type(scores, np.float32)), axis=0, kind="stable"
    )


def rank_descriptors(queries: np.ndarray, database: np.ndarray) -> np.ndarray:
    """Rankings (N, Q) by inner product of descriptors: queries (Q, D), database (N, D)."""
    if queries.ndim != 2 or database.ndim != 2 or queries.shape[1] != database.shape[1]:
        raise RetrievalError(
            f"Descriptors of shapes {queries.shape} and {database.shape} cannot be compared; "
            "both must be rows of the same length."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        scores = database @ queries.T
    if not np.isfinite(scores).all():
        raise RetrievalError(
            "The descriptors are too large to be compared: scale each to unit length."
        )
    return ranks_from_scores(scores)


def evaluate(
    ranks: np.ndarray, truth: Truth, protocols: Sequence[str] | None = None
) -> dict[str, Scores]:
    """Score rankings (K, Q) against a collection or ground truth, protocol by protocol.

    protocols: by default all that the labels allow.
    Raises RetrievalError for rankings that do not fit the ground truth (see ``check_ranks``),
    for labels that are not there, and for an unknown protocol.
    """
    allowed = protocols_of(truth.queries)
    if not allowed:
        raise RetrievalError(
            "There is nothing to score: no query has a right picture. Add right pictures to the "
            "ground truth."
        )
    protocols = tuple(protocols or allowed)
    for protocol in protocols:
        if protocol not in allowed:
            raise RetrievalError(
                f"There are no labels for the protocol {protocol!r}; "
                f"there are for {', '.join(allowed)}: choose one of these."
            )
    ranks = check_ranks(ranks, len(truth.names), len(truth.queries))

    rows: dict[str, list[_QueryScores]] = {protocol: [] for protocol in protocols}
    # One for all queries: an array for each would take an hour for a million pictures and 100,000.
    rank_of = np.full(len(truth.names), -1, np.int64)
    for column, query in enumerate(truth.queries):
        ranking = ranks[:, column]
        ranking = ranking[ranking >= 0]
        rank_of[ranking] = np.arange(len(ranking))
        for protocol in protocols:
            rows[protocol].append(_score(rank_of, query.labels, PROTOCOLS[protocol]))
        rank_of[ranking] = -1
    return {protocol: _gather(protocol, rows[protocol]) for protocol in protocols}


def check_ranks(ranks: np.ndarray, pictures: int, queries: int) -> np.ndarray:
    """Return ``ranks`` if it holds rankings of a database, or raise RetrievalError.

    Rankings are integers (K, queries) from 0 to pictures - 1, each at most once in a column. A
    column may be filled up with -1 at its end.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or ranks.dtype.kind not in "iu":
        raise RetrievalError(
            "Rankings must be whole numbers in two dimensions, database x queries, not "
            f"{ranks.dtype} of shape {ranks.shape}."
        )
    if ranks.shape[1] != queries:
        hint = "; it looks transposed" if ranks.shape[0] == queries else ""
        raise RetrievalError(
            f"The rankings have {ranks.shape[1]} columns for {queries} queries{hint}: give one "
            "column for each query."
        )
    if ranks.shape[0] > pictures:
        raise RetrievalError(
            f"The rankings list {ranks.shape[0]} pictures, but the database has {pictures}: list "
            "each picture once."
        )
    if ranks.size and (ranks.min() < -1 or ranks.max() >= pictures):
        worst = int(ranks.max()) if ranks.max() >= pictures else int(ranks.min())
        hint = "; positions count from zero" if worst == pictures and ranks.min() >= 1 else ""
        raise RetrievalError(
            f"The rankings hold position {worst}, but the database has {pictures} pictures: use "
            f"positions 0 to {pictures - 1}{hint}."
        )
    place = np.zeros(pictures, np.int64)
    for column in range(queries):  # one by one: a gigabyte of zeros is packed into a megabyte
        ranking = ranks[:, column]
        listed = ranking >= 0
        ranking = ranking[: listed.sum()]
        if not listed[: len(ranking)].all():
            raise RetrievalError(
                "A ranking goes on after an empty entry (-1): put all -1 at the end of its column."
            )
        order = np.arange(len(ranking))
        place[ranking] = order
        twice = ranking[place[ranking] != order]
        if len(twice):
            raise RetrievalError(
                f"The ranking in column {column} lists position {int(twice[0])} twice: list each "
                "picture once."
            )
    return ranks


def average_precision(ranks: np.ndarray, positives: int) -> float:
    """AP of one ranking; nan where there are no positives.

    ranks: (n,) zero-based ranks of the positives that the ranking lists, ascending, with ignored
    pictures taken out. positives: how many there are in all.
    """
    if not positives:
        return float("nan")
    before, after = _precisions(ranks)
    return float((before + after).sum() / 2 / positives)


def explain(ranking: np.ndarray, labels: Mapping[str, np.ndarray], protocol: str) -> Explanation:
    """Explain the AP of one ranking by all numbers that it is computed from.

    ranking: (K,) positions, best first, perhaps with -1 at its end. labels: label set → positions.
    """
    rule = PROTOCOLS[protocol]
    ranking = ranking[ranking >= 0]
    positives, ignored = _label_sets(labels, rule)
    kinds = np.full(len(ranking), "wrong", dtype="<U8")
    kinds[np.isin(ranking, ignored)] = "ignored"
    kinds[np.isin(ranking, positives)] = "positive"
    raw_ranks = np.flatnonzero(np.isin(ranking, positives))
    ignored_above = np.searchsorted(np.flatnonzero(np.isin(ranking, ignored)), raw_ranks)
    ranks = raw_ranks - ignored_above
    before, after = _precisions(ranks)
    steps = []
    for step, raw_rank in enumerate(raw_ranks):
        position = int(ranking[raw_rank])
        steps.append(
            Step(
                position=position,
                label=next(name for name in rule.positives if position in labels.get(name, ())),
                raw_rank=int(raw_rank) + 1,
                rank=int(ranks[step]) + 1,
                ignored_above=int(ignored_above[step]),
                precision_before=float(before[step]),
                precision_after=float(after[step]),
                recall=(step + 1) / len(positives),
                area=float((before[step] + after[step]) / 2 / len(positives)),
            )
        )
    missing = np.setdiff1d(positives, ranking)
    return Explanation(
        protocol,
        kinds,
        tuple(steps),
        len(positives),
        tuple(missing.tolist()),
        average_precision(ranks, len(positives)),
    )


def precision_recall(explanation: Explanation) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision (2 n,) float64 each: corners of the curve whose area is AP.

    Each of the n listed positives gives two corners: just before it, and with it.
    """
    steps = explanation.steps
    recall = [
        level for step in steps for level in (step.recall - 1 / explanation.positives, step.recall)
    ]
    precision = [level for step in steps for level in (step.precision_before, step.precision_after)]
    return np.maximum(recall, 0.0), np.array(precision, dtype=np.float64)


def _label_sets(labels: Mapping[str, np.ndarray], rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the positives and of the ignored other pictures of a query, ascending."""
    empty = np.zeros(0, np.int64)
    positives, ignored = (
        np.unique(np.concatenate([empty, *(labels.get(name, empty) for name in names)]))
        for names in rule
    )
    return positives, np.setdiff1d(ignored, positives)


class _QueryScores(NamedTuple):
    """The scores of one query: a row of each field of ``Scores``."""

    ap: float
    precisions: np.ndarray
    recalls: np.ndarray
    positives: int
    listed: int
    curve: np.ndarray


def _score(rank_of: np.ndarray, labels: Mapping[str, np.ndarray], rule: Rule) -> _QueryScores:
    """The scores of one query.

    rank_of: (N,) int64, the zero-based rank of every database picture, -1 if it is not listed.
    labels: label set → positions of its pictures. rule: which sets are positive, which ignored.
    """
    positives, ignored = _label_sets(labels, rule)
    total = len(positives)
    if not total:
        nan = np.full(len(KS), np.nan)
        return _QueryScores(np.nan, nan, nan, 0, 0, np.full(len(RECALL_LEVELS), np.nan))
    positive_ranks, ignored_ranks = np.sort(rank_of[positives]), np.sort(rank_of[ignored])
    positive_ranks = positive_ranks[positive_ranks >= 0]
    ignored_ranks = ignored_ranks[ignored_ranks >= 0]
    # Each positive moves up by the number of ignored pictures above it.
    ranks = positive_ranks - np.searchsorted(ignored_ranks, positive_ranks)
    # Rank of the last positive, counted from 1; unknown where one is not listed.
    last = ranks[-1] + 1 if len(ranks) == total else np.inf
    depth = np.minimum(KS, last)
    precisions = np.searchsorted(ranks, depth) / depth
    recalls = np.searchsorted(ranks, KS) / total
    # Interpolated: the best precision at this recall or any higher.
    best = np.zeros(total)
    best[: len(ranks)] = np.maximum.accumulate(_precisions(ranks)[1][::-1])[::-1]
    needed = -(-np.arange(101) * total // 100)  # positives to reach each level, rounded up
    curve = best[np.maximum(needed, 1) - 1]
    ap = average_precision(ranks, total)
    return _QueryScores(ap, precisions, recalls, total, len(ranks), curve)


def _precisions(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision just before each positive and with it, (n,) each.

    ranks: (n,) zero-based ranks of the positives, ascending. Before rank 0 the precision is 1.
    """
    positives_above = np.arange(len(ranks))
    before = np.where(ranks > 0, positives_above / np.maximum(ranks, 1), 1.0)
    return before, (positives_above + 1) / (ranks + 1)


def _gather(protocol: str, rows: Sequence[_QueryScores]) -> Scores:
    """The scores of all queries. rows: those of each."""
    aps, prs, recalls, positives, listed, curves = zip(*rows, strict=True)
    counted = [curve for curve, count in zip(curves, positives, strict=True) if count]
    curve = np.mean(counted, axis=0) if counted else np.full(len(RECALL_LEVELS), np.nan)
    return Scores(
        protocol,
        np.array(aps),
        np.array(prs),
        np.array(recalls),
        np.array(positives),
        np.array(listed),
        curve,
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if value != value else value
