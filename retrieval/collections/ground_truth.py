"""Ground truth: what is asked, and which pictures are right answers.

The files that hold it are read in ``ground_truth_files``.

Labels are positions into the list of database names. The revisited benchmarks say ``easy``,
``hard`` and ``junk``; the classic ones ``ok`` (the authors' good and ok together) and ``junk``.
``wrong`` is what somebody looked at and refused; it counts like every picture without a label.
Boxes are ``x1, y1, x2, y2`` in pixels of the query picture, as published (floats, not rounded).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from retrieval.images import Box


class Rule(NamedTuple):
    """A protocol: names of the label sets that it counts as right, and of those that it ignores."""

    positives: tuple[str, ...]
    ignored: tuple[str, ...]


PROTOCOLS: dict[str, Rule] = {
    "easy": Rule(("easy",), ("hard", "junk")),
    "medium": Rule(("easy", "hard"), ("junk",)),
    "hard": Rule(("hard",), ("easy", "junk")),
    "classic": Rule(("ok",), ("junk",)),
}
LABELS = ("easy", "hard", "ok", "junk", "wrong")
POSITIVE = ("easy", "hard", "ok")


@dataclass(frozen=True, eq=False)
class Query:
    """One question put to a collection.

    name: relative posix path of the query picture.
    box: part of the picture that is meant, or None for all of it.
    labels: 'easy', 'hard', 'junk' or 'ok', 'junk', perhaps 'wrong' -> sorted int64 positions into
    the database names; empty where nothing is known.
    """

    name: str
    box: Box | None = None
    landmark: str = ""
    labels: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Names of the database pictures, in the order labels count in, and the queries.

    note: what to know about scores by these labels, one sentence.
    """

    names: tuple[str, ...]
    queries: tuple[Query, ...]
    note: str = ""


def protocols_of(queries: Iterable[Query]) -> tuple[str, ...]:
    """Protocols under which a query has a right picture, in the order of ``PROTOCOLS``."""
    kinds = {kind for query in queries for kind, labelled in query.labels.items() if len(labelled)}
    return tuple(name for name, rule in PROTOCOLS.items() if not kinds.isdisjoint(rule.positives))


def usual_protocol(protocols: Collection[str]) -> str:
    """The protocol that is shown until another is chosen: medium, else classic; '' without any.

    protocols: as from ``protocols_of``.
    """
    return next((name for name in ("medium", "classic") if name in protocols), "")


def landmarks(names: Sequence[str], queries: Iterable[Query]) -> dict[str, str]:
    """Picture → its landmark: that of the first query which has the picture as a right answer."""
    landmark_of: dict[str, str] = {}
    for query in queries:
        for kind in POSITIVE if query.landmark else ():
            for position in query.labels.get(kind, np.zeros(0, np.int64)).tolist():
                landmark_of.setdefault(names[position], query.landmark)
    return landmark_of


def by_landmark(queries: Iterable[Query]) -> dict[str, list[Query]]:
    """Landmark → its queries. Those without a landmark are left out."""
    groups: dict[str, list[Query]] = {}
    for query in queries:
        if query.landmark:
            groups.setdefault(query.landmark, []).append(query)
    return groups


def right_pictures(queries: Iterable[Query]) -> np.ndarray:
    """Positions (n,) int64 of the pictures that are right for one of these queries, ascending."""
    empty = np.zeros(0, np.int64)
    right = [query.labels.get(kind, empty) for query in queries for kind in POSITIVE]
    return np.unique(np.concatenate([empty, *right]))


def same_landmark(
    queries: Sequence[Query], position: int
) -> tuple[str, np.ndarray, np.ndarray] | None:
    """What the labels of the queries say about a database picture.

    Returns its landmark, the other pictures of that landmark, and those that its queries call junk:
    two sorted int64 arrays of positions. None where no query has the picture as a right answer.
    """

    def right(query: Query) -> set[int]:
        return {int(n) for kind in POSITIVE for n in query.labels.get(kind, ())}

    of_landmark = [query for query in queries if position in right(query)]
    if not of_landmark:
        return None
    landmark = of_landmark[0].landmark
    if landmark:  # without a name, only the queries that list the picture are known to belong
        of_landmark = [query for query in queries if query.landmark == landmark]
    positives = set().union(*map(right, of_landmark))
    junk = {int(n) for query in of_landmark for n in query.labels.get("junk", ())} - positives
    others, junk_positions = (
        np.array(sorted(positions - {position}), np.int64) for positions in (positives, junk)
    )
    return landmark, others, junk_positions


def note_on_own_pictures(positions: Mapping[str, int], queries: Iterable[Query]) -> str:
    """A note on queries that find themselves, where that lowers their AP; '' without any.

    positions: of the database pictures, by name.
    """
    count = sum(
        query.name in positions
        and any(len(query.labels.get(kind, ())) for kind in POSITIVE)
        and not any(positions[query.name] in labels for labels in query.labels.values())
        for query in queries
    )
    if not count:
        return ""
    return (
        f"Queries that are pictures of the collection and in none of their own lists: {count:,}. "
        "Each finds itself first, which counts as wrong: name it under junk."
    )
