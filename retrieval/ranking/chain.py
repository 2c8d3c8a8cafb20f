"""The re-rankers by name, and chains of them: ``geometry,diffusion``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from retrieval.errors import RetrievalError
from retrieval.index import Index
from retrieval.ranking import diffusion, expansion, reciprocal, superglobal, verification
from retrieval.ranking.ranking import Query, Ranking


class Reranker(NamedTuple):
    """A re-ranker and its description.

    name: on the command line and in addresses. title, summary, paper: for the pages.
    run: takes a ranking and the query, and returns a new ranking with the old one as ``before``.
    settings: the numbers that were chosen for it; rankings and stored runs state them. Other
    constants of its code are not stated: after changing one, evaluate again.
    vectors: whether it needs an index with one vector a picture.
    pictures: whether it needs the pictures, or local features made of them.
    effort: its work for each picture of an index; 1 is that of putting them in a new order.
    """

    name: str
    title: str
    summary: str
    paper: str
    run: Callable[[Ranking, Query], Ranking]
    settings: Mapping[str, Any]
    vectors: bool = False
    pictures: bool = False
    effort: int = 1


RERANKERS: dict[str, Reranker] = {
    reranker.name: reranker
    for reranker in (
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
            effort=10,
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
BEST = ("geometry", "diffusion")  # the chain that the app offers first
MAX_LENGTH = 5  # re-rankers in a chain


def parse_chain(text: str) -> tuple[str, ...]:
    """The names in a text such as 'geometry,diffusion' or 'best'; () for '' and 'nothing'.

    Raises RetrievalError for unknown names, for a name given twice, and for a chain too long.
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
    if len(names) > MAX_LENGTH:
        raise RetrievalError(
            f"A chain may have {MAX_LENGTH} re-rankers, not {len(names)}: leave some out."
        )
    if len(set(names)) < len(names):  # the second run would take as long and change nothing
        raise RetrievalError("A chain may have each re-ranker only once: leave the others out.")
    return names


def stated(chain: Sequence[str]) -> list[dict[str, Any]]:
    """Name and settings of each re-ranker of a chain, for JSON, as provenance has them."""
    return [{"name": name, "settings": dict(RERANKERS[name].settings)} for name in chain]


def title(chain: Sequence[str]) -> str:
    """The titles of a chain for readers, as 'Geometry, then Diffusion'."""
    return ", then ".join(RERANKERS[name].title for name in chain)


def check_chain(chain: Sequence[str], index: Index) -> None:
    """Refuse a chain that an index cannot serve, before anything is computed."""
    for name in chain:
        reranker = RERANKERS[name]
        if reranker.vectors and index.kind != "global":
            raise RetrievalError(
                f"{name} needs an index with one vector a picture; for {index.method} there are "
                f"{', '.join(other.name for other in RERANKERS.values() if not other.vectors)}."
            )
        if reranker.pictures and not index.has_digests:
            raise RetrievalError(
                f"{name} looks at the pictures, and the index {index} was made without any: leave "
                f"{name} out."
            )


def rerank(ranking: Ranking, query: Query, chain: Sequence[str]) -> Ranking:
    """Re-rank with each re-ranker of a chain in turn, so that a later one builds on an earlier.

    ranking: of the whole index. The query's own picture (``query.own``) is taken out before and
    put back at its old rank after.
    """
    check_chain(chain, query.index)
    if not chain:
        return ranking
    own_ranks = np.flatnonzero(ranking.positions == query.own).tolist()
    reranked = ranking.without(ranking.names[own_ranks[0]]) if own_ranks else ranking
    for name in chain:
        reranked = RERANKERS[name].run(reranked, query)
    return _put_back(reranked, ranking, own_ranks[0]) if own_ranks else reranked


def _put_back(reranked: Ranking, first: Ranking, rank: int) -> Ranking:
    """Every stage of ``reranked`` with the picture that the first ranking has at ``rank``."""
    if reranked.before is None:
        return first
    inliers = reranked.inliers
    return replace(
        reranked,
        positions=np.insert(reranked.positions, rank, first.positions[rank]),
        scores=np.insert(reranked.scores, rank, first.scores[rank]),
        names=(*reranked.names[:rank], first.names[rank], *reranked.names[rank:]),
        inliers=None if inliers is None else np.insert(inliers, rank, 0),
        before=_put_back(reranked.before, first, rank),
    )
