"""Judgements: ground truth that users make while they search, picture by picture.

They become labels of the collection's queries, so they are evaluated like any other ground truth.
A right picture is ``ok``, or ``easy`` where the collection has revisited labels; a picture that is
left out is ``junk``; a wrong one is ``wrong`` and counts like a picture without a judgement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from retrieval import files
from retrieval.collections.collection import Collection
from retrieval.collections.ground_truth import GroundTruth, Query
from retrieval.collections.names import by_ending
from retrieval.errors import RetrievalError

if TYPE_CHECKING:
    from retrieval.images import Box

RIGHT, LEFT_OUT, WRONG = VERDICTS = ("positive", "ignored", "wrong")
# The first label counts where a file has a picture in several lists.
_KINDS = {"easy": RIGHT, "hard": RIGHT, "ok": RIGHT, "junk": LEFT_OUT, "wrong": WRONG}


def find(collection: Collection, name: str, box: Box | None) -> Query | None:
    """The query with this picture and box, (x1, y1, x2, y2) in pixels; None where there is none."""
    return next(
        (query for query in collection.queries if (query.name, query.box) == (name, box)), None
    )


def verdicts(collection: Collection, query: Query | None) -> dict[str, str]:
    """Picture → one of VERDICTS, for the judged pictures except the query's own."""
    if query is None:
        return {}
    return {
        collection.names[position]: _KINDS[kind]
        for kind in reversed(_KINDS)
        for position in query.labels.get(kind, ())
        if collection.names[position] != query.name
    }


def judge(
    collection: Collection, name: str, box: Box | None, picture: str, verdict: str | None
) -> Collection:
    """The collection with one more judgement: of ``picture``, for the query ``name`` with ``box``.

    box: (x1, y1, x2, y2) in pixels, None for the whole picture. verdict: one of VERDICTS; None
    takes the judgement back. A query without judgements is dropped. The query's own picture is
    junk, as it always finds itself.
    """
    right = "easy" if "medium" in collection.protocols else "ok"
    kind = {RIGHT: right, LEFT_OUT: "junk", WRONG: "wrong"}.get(verdict or "")
    old = find(collection, name, box)
    place = collection.names.index(picture)
    labels = {
        label: positions[positions != place]
        for label, positions in (old.labels if old else {}).items()
    }
    if kind:
        labels[kind] = np.union1d(labels.get(kind, np.zeros(0, np.int64)), [place])
    new = Query(name, box, old.landmark if old else "", labels)
    if not verdicts(collection, new):
        others = tuple(query for query in collection.queries if query is not old)
        return replace(collection, queries=others)
    if name in collection.names:
        itself = [collection.names.index(name)]
        labels["junk"] = np.union1d(labels.get("junk", np.zeros(0, np.int64)), itself)
    queries = list(collection.queries)
    if old:
        queries[queries.index(old)] = new
    else:
        queries.append(new)
    return replace(collection, queries=tuple(queries))


def count(collection: Collection) -> int:
    """Number of judgements of all queries."""
    return sum(len(verdicts(collection, query)) for query in collection.queries)


def refer_to(truth: GroundTruth | Collection, names: Sequence[str]) -> tuple[Query, ...]:
    """The queries of ``truth``, with labels that are positions in another list of pictures.

    A picture is found by its name, else by the end of its path, else by its base name, where only
    one picture has that, here and there: a zip may add a folder around all pictures. No picture
    stands for two. Labels and queries of pictures that are not in the list are left out. Raises
    RetrievalError where ``truth`` has queries and none is left.
    """
    place = {name: n for n, name in enumerate(names)}
    known = {*truth.names, *(query.name for query in truth.queries)}
    old_names = by_ending(names, known)
    found = {old: place[name] for name, old in old_names.items()}
    left = [name for name in known if name not in found]
    times_here, times_there = Counter(map(_base, names)), Counter(map(_base, left))
    with_base = {_base(name): name for name in names}
    for old in left:
        if times_here[_base(old)] == times_there[_base(old)] == 1:
            name = with_base[_base(old)]
            if name not in old_names:
                found[old] = place[name]
    new = np.array([found.get(name, -1) for name in truth.names], np.int64)
    queries = []
    for query in truth.queries:
        if (position := found.get(query.name, -1)) >= 0:
            moved = {kind: new[positions] for kind, positions in query.labels.items()}
            labels = {kind: np.unique(rows[rows >= 0]) for kind, rows in moved.items()}
            queries.append(replace(query, name=names[position], labels=labels))
    if truth.queries and not queries:
        raise RetrievalError(
            "None of its queries is among these pictures; the first query is "
            f"{truth.queries[0].name[:100]}. Use the ground truth of these pictures."
        )
    return tuple(queries)


def _base(name: str) -> str:
    """A picture's name without its folders."""
    return name.rpartition("/")[2]


def as_json(collection: Collection) -> bytes:
    """The ground truth of a collection in the form of ``gnd_roxford5k``, as JSON.

    Put beside the pictures as ``ground_truth.json``, it is read with them.
    """
    gnd = []
    for query in collection.queries:
        entry: dict[str, object] = {"bbx": query.box and list(query.box)}
        if query.landmark:
            entry["landmark"] = query.landmark
        gnd.append(entry | {kind: rows.tolist() for kind, rows in query.labels.items()})
    names = [query.name for query in collection.queries]
    truth = {"imlist": list(collection.names), "qimlist": names, "gnd": gnd}
    return files.as_json(truth)
