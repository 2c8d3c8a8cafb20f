"""The re-rankers by name, and chains of them: ``geometry,diffusion``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from retrieval.errors import RetrievalError
from retrieval.index.store import Index
from retrieval.ranking import diffusion, expansion, reciprocal, superglobal, verification
from retrieval.ranking.ranking import Query, Ranking


class Reranker(NamedTuple):
    """What can be said of a re-ranker without running it.

    vectors: whether it needs one vector a picture. pictures: whether it looks at the pictures.
    run: takes a whole ranking and the query, and returns a ranking that remembers the one before.
    settings: every number that changes what it does; a ranking and a kept run carry them.
    """

    name: str
    title: str
    summary: str
    paper: str
    run: Callable[[Ranking, Query], Ranking]
    settings: Mapping[str, Any]
    vectors: bool = False
    pictures: bool = False


RERANKERS: dict[str, Reranker] = {
    one.name: one
    for one in (
        Reranker(
            "geometry",
            "Geometry",
            "Looks whether the best 100 show the same thing from another side (XFeat).",
            "Potje et al., CVPR 2024",
            verification.geometry_xfeat,
            verification.XFEAT_SETTINGS,
            pictures=True,
        ),
        Reranker(
            "geometry-lighterglue",
            "Geometry, learned matches",
            "Looks whether the best 20 show the same thing from another side, by matches that a "
            "network chose (LighterGlue).",
            "Lindenberger et al., ICCV 2023",
            verification.geometry_lighterglue,
            verification.LIGHTERGLUE_SETTINGS,
            pictures=True,
        ),
        Reranker(
            "geometry-delf",
            "Geometry with DELF",
            "Looks whether the best 100 show the same thing from another side (DELF).",
            "Noh et al., ICCV 2017",
            verification.geometry_delf,
            verification.DELF_SETTINGS,
            pictures=True,
        ),
        Reranker(
            "expansion",
            "Query expansion",
            "Searches again with the query and what geometry confirmed, or the three nearest.",
            "Chum et al., ICCV 2007; Radenović et al., TPAMI 2018",
            expansion.expansion,
            expansion.SETTINGS,
            vectors=True,
        ),
        Reranker(
            "expansion-average",
            "Average query expansion",
            "Searches again with the average of the query and the five nearest.",
            "Chum et al., ICCV 2007",
            expansion.expansion_average,
            expansion.AVERAGE_SETTINGS,
            vectors=True,
        ),
        Reranker(
            "augmentation",
            "Database augmentation",
            "Compares the query with averages of each picture and its three nearest.",
            "Arandjelović and Zisserman, CVPR 2012",
            expansion.augmentation,
            expansion.AUGMENTATION_SETTINGS,
            vectors=True,
        ),
        Reranker(
            "diffusion",
            "Diffusion",
            "Likeness spreads from picture to picture, beginning at those that geometry confirmed, "
            "else at the five nearest.",
            "Iscen et al., CVPR 2017",
            diffusion.diffusion,
            diffusion.SETTINGS,
        ),
        Reranker(
            "k-reciprocal",
            "k-reciprocal",
            "Prefers those of the best 100 that have the same neighbours as the query.",
            "Zhong et al., CVPR 2017",
            reciprocal.k_reciprocal,
            reciprocal.SETTINGS,
            vectors=True,
        ),
        Reranker(
            "superglobal",
            "SuperGlobal",
            "Refines the best 100 and the query by their neighbours, and compares again.",
            "Shao et al., ICCV 2023",
            superglobal.superglobal,
            superglobal.SETTINGS,
            vectors=True,
        ),
    )
}
BEST = ("geometry", "diffusion")  # what the app offers first
MOST = 5  # re-rankers in a chain


def parse_chain(text: str) -> tuple[str, ...]:
    """Names out of 'geometry,diffusion' or 'best'; () for '' and 'nothing'.

    Raises RetrievalError for a name that there is not, and for one that comes twice.
    """
    if text.strip() in ("", "nothing"):
        return ()
    if text.strip() == "best":
        return BEST
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in RERANKERS:
            raise RetrievalError(
                f"There is no re-ranker {name!r}; there are {', '.join(RERANKERS)}, and best for "
                f"{','.join(BEST)}."
            )
    if len(names) > MOST:
        raise RetrievalError(f"A chain may have {MOST} re-rankers, not {len(names)}.")
    if len(set(names)) < len(names):  # it would find the same again, and take as long again
        raise RetrievalError("A chain may have each re-ranker only once.")
    return names


def stated(chain: Sequence[str]) -> list[dict[str, Any]]:
    """Names and settings of a chain, ready for JSON, as provenance and kept runs have them."""
    return [{"name": name, "settings": dict(RERANKERS[name].settings)} for name in chain]


def title(chain: Sequence[str]) -> str:
    """'Geometry, then Diffusion'"""
    return ", then ".join(RERANKERS[name].title for name in chain)


def check_chain(chain: Sequence[str], index: Index) -> None:
    """Refuse a chain that an index cannot serve, before anything is computed."""
    for name in chain:
        one = RERANKERS[name]
        if one.vectors and index.kind != "global":
            raise RetrievalError(
                f"{name} needs an index with one vector a picture; for {index.method} there are "
                f"{', '.join(other.name for other in RERANKERS.values() if not other.vectors)}."
            )
        if one.pictures and not index.has_digests:
            raise RetrievalError(
                f"{name} looks at the pictures, and the index {index} was made without any."
            )


def rerank(ranking: Ranking, query: Query, chain: Sequence[str]) -> Ranking:
    """Put a whole ranking through re-rankers, one after the other.

    A later one uses what an earlier one found. The query's own picture, where the collection has
    it, is left out of all of it and keeps its place.
    """
    check_chain(chain, query.index)
    if not chain:
        return ranking
    own = np.flatnonzero(ranking.positions == query.own).tolist()
    found = ranking.without(ranking.names[own[0]]) if own else ranking
    for name in chain:
        found = RERANKERS[name].run(found, query)
    return _put_back(found, ranking, own[0]) if own else found


def _put_back(found: Ranking, first: Ranking, place: int) -> Ranking:
    """Every stage of ``found`` with the picture that the first ranking has at ``place``."""
    if found.before is None:
        return first
    inliers = found.inliers
    return replace(
        found,
        positions=np.insert(found.positions, place, first.positions[place]),
        scores=np.insert(found.scores, place, first.scores[place]),
        names=(*found.names[:place], first.names[place], *found.names[place:]),
        inliers=None if inliers is None else np.insert(inliers, place, 0),
        before=_put_back(found.before, first, place),
    )
