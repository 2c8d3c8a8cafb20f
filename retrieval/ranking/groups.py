"""Groups of a collection: pictures of the same thing, found without any query or label.

Each picture is compared with its nearest pictures. Where geometry confirms a pair (as the re-ranker
``geometry`` does: XFeat, a homography, enough inliers), both belong to one group. So a group is a
connected component, as in Philbin and Zisserman, "Object Mining Using a Matching Graph on Very
Large Image Collections", ICVGIP 2008.

``groups.npz`` beside an index keeps the confirmed pairs, which take minutes to compute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retrieval import files
from retrieval.collections.ground_truth import by_landmark, right_pictures
from retrieval.errors import RetrievalError
from retrieval.index import Index
from retrieval.networks import checkpoints
from retrieval.ranking.verification import MIN_INLIERS, xfeat_pair
from retrieval.ranking.verifiers import QUERY_KEYPOINTS, DatabaseFeatures

if TYPE_CHECKING:
    from retrieval.collections import Collection

FILE = "groups.npz"

NEAR = 10  # nearest pictures that each picture is compared with
# Inliers that connect two pictures: more than a re-ranker needs, for one wrong pair joins groups.
CONNECTED = 20
# Share of inliers from which two pictures are nearly the same view. Measured with four of town:
# copies saved again have 0.36 to 0.41, at four fifths of the size 0.25 to 0.29, with edges cut off
# 0.21 to 0.34. Two different views of town have 0.14 at most. Copies at half the size (0.04 to
# 0.11) are missed. On ../shared/photos, 70 of 1,014 confirmed pairs have as much, up to 0.28. The
# twelve largest are no copies: photographs of a building from nearly one place.
SAME_VIEW = 0.2


class Pair(NamedTuple):
    """Two pictures, by position in the index, that geometry confirms to show the same thing.

    share: inliers divided by the keypoints of the picture that has fewer keypoints, 0 to 1.
    """

    first: int
    second: int
    inliers: int
    share: float


class Group(NamedTuple):
    """Pictures that confirmed pairs connect.

    positions: in the index, ascending. pairs: all confirmed pairs among them, largest share first.
    """

    positions: tuple[int, ...]
    pairs: tuple[Pair, ...]


def pairs_of(index: Index, database: DatabaseFeatures, positions: Sequence[int]) -> list[Pair]:
    """The confirmed pairs of these pictures with their nearest pictures, each pair once.

    database: local features of the pictures of the index. Where each of two pictures is among the
    nearest of the other, the pair is found at the lower position only. So calls for parts of the
    index together give every pair once.
    """
    nearest = index.neighbours.positions[:, :NEAR]
    among = np.union1d(positions, nearest[positions]).tolist()
    pairs = []
    for first in positions:
        candidates = [n for n in nearest[first].tolist() if n > first or first not in nearest[n]]
        features = database.features(first, among) if candidates else None
        if features is None:
            continue
        for second in candidates:
            candidate = database.features(second, among)
            if candidate is None:
                continue
            _, verified = xfeat_pair(features, candidate, index.size(first), index.size(second))
            if verified.count >= MIN_INLIERS:
                share = verified.count / min(len(features), len(candidate))
                pairs.append(Pair(first, second, verified.count, share))
    return pairs


def keep(index: Index, pairs: Sequence[Pair]) -> None:
    """Keep all confirmed pairs of an index beside it.

    Where the folder cannot be written, they are computed again next time.
    """
    ends = np.array([pair[:2] for pair in pairs], np.int32).reshape(-1, 2)
    with contextlib.suppress(OSError), files.replacing(index.path / FILE) as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            ends=ends,
            inliers=np.array([pair.inliers for pair in pairs], np.int32),
            share=np.array([pair.share for pair in pairs], np.float64),
            made_from=np.array(_made_from(index)),
        )


def load(index: Index) -> list[Pair] | None:
    """The confirmed pairs that are kept beside an index; None where none fit.

    Those of an earlier index or another XFeat do not fit, nor does a damaged file.
    """
    path, max_bytes = index.path / FILE, len(index) * NEAR * 20 + 10_000
    try:
        ends, inliers, share, made_from = (
            files.read_array(path, key, max_bytes)
            for key in ("ends", "inliers", "share", "made_from")
        )
    except RetrievalError:
        return None
    count = len(inliers) if inliers.ndim == 1 else -1
    valid = (
        str(made_from) == _made_from(index)
        and ends.shape == (count, 2)
        and share.shape == (count,)
        and ends.dtype == inliers.dtype == np.int32
        and share.dtype == np.float64
        and ((ends >= 0) & (ends < len(index))).all()
        and (ends[:, 0] != ends[:, 1]).all()
        and ((inliers >= MIN_INLIERS) & (inliers <= QUERY_KEYPOINTS)).all()
        and ((share > 0) & (share <= 1)).all()
    )
    if not valid:
        return None
    return [
        Pair(*pair) for pair in zip(*ends.T.tolist(), inliers.tolist(), share.tolist(), strict=True)
    ]


def _made_from(index: Index) -> str:
    """What the confirmed pairs of an index depend on."""
    xfeat = checkpoints.REGISTRY["xfeat"]
    return (
        f"index {index.manifest['sha256']}, XFeat {xfeat.sha256}, {xfeat.settings}, {NEAR} nearest"
    )


def grouped(pairs: Iterable[Pair]) -> list[Group]:
    """The groups that confirmed pairs form, those with the largest share of inliers first."""
    pairs = sorted(pairs, key=lambda pair: -pair.share)
    if not pairs:
        return []
    ends = np.array([(pair.first, pair.second) for pair in pairs])
    numbers = components(ends, int(ends.max()) + 1)
    members: dict[int, list[Pair]] = {}
    for pair in pairs:
        members.setdefault(int(numbers[pair.first]), []).append(pair)
    groups = [
        Group(
            tuple(sorted({position for pair in pairs for position in (pair.first, pair.second)})),
            tuple(pairs),
        )
        for pairs in members.values()
    ]
    return sorted(groups, key=lambda group: (-group.pairs[0].share, group.positions[0]))


def components(ends: np.ndarray, count: int) -> np.ndarray:
    """The connected component of each node of a graph: (count,) int64, numbered from 0.

    ends: (m, 2) int64, the two nodes of each edge. count: how many nodes there are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(ends)), tuple(ends.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def agreement(
    pairs: Iterable[Pair], names: Sequence[str], collection: Collection
) -> tuple[int, int]:
    """How many pairs show one landmark by the labels, and how many have labels on both pictures.

    names: of the index, by position. A picture may be right for several landmarks. One without a
    label is not wrong: nobody has said what it shows.
    """
    known, absent = collection.positions, len(collection.names)
    ends = np.array(
        [[known.get(names[end], absent) for end in pair[:2]] for pair in pairs], np.int64
    ).reshape(-1, 2)
    same, labelled = np.zeros(len(ends), bool), np.zeros(absent + 1, bool)
    for queries in by_landmark(collection.queries).values():
        shown = np.zeros(absent + 1, bool)
        shown[right_pictures(queries)] = True
        same |= shown[ends].all(axis=1)
        labelled |= shown
    return int(same.sum()), int(labelled[ends].all(axis=1).sum())


def rows(groups: Iterable[Group], names: Sequence[str]) -> list[dict[str, str | int]]:
    """One row a picture, for a table. names: of the index, by position."""
    table: list[dict[str, str | int]] = []
    for number, group in enumerate(groups, 1):
        best = dict.fromkeys(group.positions, 0)
        for pair in group.pairs:
            for position in (pair.first, pair.second):
                best[position] = max(best[position], pair.inliers)
        table += (
            {"group": number, "picture": names[position], "inliers of its best pair": inliers}
            for position, inliers in best.items()
        )
    return table
