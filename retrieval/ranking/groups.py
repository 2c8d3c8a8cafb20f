"""Groups of a collection: pictures of the same thing, found without any query or label.

Each picture is compared with those most like it. Where geometry confirms a pair (as the re-ranker
``geometry`` does: XFeat, a homography, enough inliers), both belong to one group. So a group is a
connected component, as in Philbin and Zisserman, "Object Mining Using a Matching Graph on Very
Large Image Collections", ICVGIP 2008.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from retrieval.index import Index
from retrieval.ranking.verification import LEAST, xfeat_pair
from retrieval.ranking.verifiers import Database

NEAR = 10  # pictures most like each that it is compared with
# Inliers that connect two pictures: more than a re-ranker asks for, as one wrong pair joins groups.
CONNECTED = 20
# Share of inliers from which two pictures are near-duplicates. Four pictures of town and copies of
# them: saved again 0.36 to 0.41, four fifths of the size 0.25 to 0.29, edges cut off 0.21 to 0.34.
# Two different views of town have 0.14 at most. A copy of half the size (0.04 to 0.11) is missed.
NEAR_DUPLICATE = 0.2


class Pair(NamedTuple):
    """Two pictures, by position in the index, that geometry confirms to show the same thing.

    share: of the keypoints of the picture that has fewer of them that are inliers, 0 to 1.
    """

    first: int
    second: int
    inliers: int
    share: float


class Group(NamedTuple):
    """positions: in the index, rising. pairs: confirmed, the largest share first."""

    positions: tuple[int, ...]
    pairs: tuple[Pair, ...]


def pairs_of(index: Index, database: Database, positions: Iterable[int]) -> list[Pair]:
    """The confirmed pairs of some pictures and those most like each, every pair once.

    database: of the index. All positions, in one call or in several, give all pairs.
    """
    near = index.neighbours.positions[:, :NEAR]
    found = []
    for position in positions:
        # The others are found from the other side.
        others = [n for n in near[position].tolist() if n > position or position not in near[n]]
        own = database.features(position) if others else None
        if own is None:
            continue
        for other in others:
            theirs = database.features(other)
            if theirs is None:
                continue
            _, verified = xfeat_pair(own, theirs, index.size(position), index.size(other))
            if verified.count >= LEAST:
                share = verified.count / min(len(own), len(theirs))
                found.append(Pair(position, other, verified.count, share))
    return found


def grouped(pairs: Iterable[Pair]) -> list[Group]:
    """Pictures that confirmed pairs connect. First the groups with the pair most alike."""
    pairs = sorted(pairs, key=lambda pair: -pair.share)
    if not pairs:
        return []
    ends = np.array([(pair.first, pair.second) for pair in pairs])
    numbers = components(ends, int(ends.max()) + 1)
    members: dict[int, list[Pair]] = {}
    for pair in pairs:
        members.setdefault(int(numbers[pair.first]), []).append(pair)
    groups = [
        Group(tuple(sorted({one for pair in some for one in pair[:2]})), tuple(some))
        for some in members.values()
    ]
    return sorted(groups, key=lambda group: (-group.pairs[0].share, group.positions[0]))


def components(ends: np.ndarray, count: int) -> np.ndarray:
    """Number (count,) int64 of the connected component of each node of a graph.

    ends: (m, 2) int64, the two nodes of each edge.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(ends)), tuple(ends.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def rows(groups: Iterable[Group], names: Sequence[str]) -> list[dict[str, str | int]]:
    """One row a picture, for a table. names: of the index, by position."""
    return [
        {
            "group": number,
            "picture": names[position],
            "inliers of its best pair": max(
                pair.inliers for pair in group.pairs if position in (pair.first, pair.second)
            ),
        }
        for number, group in enumerate(groups, 1)
        for position in group.positions
    ]
