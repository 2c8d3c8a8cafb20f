"""From a picture to a ranking: describe, shortlist, verify, re-rank.

Pages, command line, REST service and tests all search with these functions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retrieval import workers
from retrieval.collections.metadata_filter import count_values, matching
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.index import Index
from retrieval.methods.base import (
    Features,
    LocalFeatures,
    Method,
    as_local,
    as_vector,
    note_seconds,
)
from retrieval.networks import checkpoints
from retrieval.ranking import chain, confidence, geometry
from retrieval.ranking.ranking import MAX_FRACTION, Query, Ranking

if TYPE_CHECKING:
    from retrieval.collections import Collection

SHORTLIST = 100  # pictures whose geometry is verified
# Above these limits a search goes to the slow workers.
# Pixels that the network computes, counted in a square picture at all scales together: the three
# scales of CNN-IRwNHA at 1024 pixels have 3.7 million. Another trunk may have an eighth of them.
QUICK_PIXELS = 4_000_000
QUICK_TRUNK = "efficientnet-lite"
# s, the least that the method took for a picture so far: the owner may register any network.
QUICK_SECONDS = 2.0
# Comparisons that a filter makes, 0.4 µs each: fifty conditions with != took 9 s with 250,000
# pictures.
QUICK_COMPARISONS = 2_000_000
# Pictures times the effort of the re-rankers, about 0.6 µs each: augmentation took 2.4 s with
# 250,000 pictures.
QUICK_EFFORT = 500_000
DEPTH = 1000  # pictures that a store or an approximate search is asked for


def rank_picture(
    index: Index,
    method: Method,
    picture: Image.Image,
    box: Box | None = None,
    top: int | None = None,
    verify: int = SHORTLIST,
    then: Sequence[str] = (),
    *,
    collection: Collection | None = None,
    own: str | None = None,
    depth: int = DEPTH,
    where: str = "",
) -> Ranking:
    """Rank the pictures of an index by their likeness to a picture, or to a box in it.

    top: length of the ranking; None ranks the whole database.
    verify: pictures of DELF's shortlist whose geometry is verified. The exhaustive search of the
    report verifies all pictures.
    then: names of re-rankers, see ``chain.RERANKERS`` and ``chain.parse_chain``.
    collection: where re-rankers find the pictures whose local features are not beside the index.
    own: name of the query picture, where the index contains it.
    depth: length of the shortlist of a store or an approximate search, at least; the ranking is no
    longer than it.
    where: a filter, as ``landmark == "chapel"``. A store applies it to its own metadata, before
    anything is ranked; for a folder, ``metadata_filter.matching`` is applied to the ranking.
    The score of a global method is the cosine. DELF orders its shortlist by votes of local
    features, then by inliers: the score is inliers (0 below the noise floor) + votes (in [0, 1)).
    Raises RetrievalError when method and index do not belong together, or for a bad box.
    """
    index.check_method(method)
    chain.check_chain(then, index)
    started = time.perf_counter()
    features = describe_query(method, picture, box)
    timings = {"extraction": time.perf_counter() - started}
    query = Query(index, features, picture, box, collection=collection)
    return rank_query(query, top, verify, then, own=own, depth=depth, where=where, timings=timings)


def describe_query(method: Method, picture: Image.Image, box: Box | None) -> Features:
    """Features of the picture to search with, or of a box in it."""
    leave_to_slow_workers(method)
    started = time.perf_counter()
    features = method.describe(picture, box)
    note_seconds(method, time.perf_counter() - started)
    return features


def leave_to_slow_workers(method: Method) -> None:
    """Move the work of this thread to slow workers, where the method takes long."""
    share = 1 if method.checkpoint.trunk.startswith(QUICK_TRUNK) else 8
    if share * method.pixels > QUICK_PIXELS or method.seconds > QUICK_SECONDS:
        workers.move_to_slow_workers()


def rank_query(
    query: Query,
    top: int | None = None,
    verify: int = SHORTLIST,
    then: Sequence[str] = (),
    *,
    own: str | None = None,
    depth: int = DEPTH,
    where: str = "",
    timings: Mapping[str, float] | None = None,
) -> Ranking:
    """``rank_picture`` for a query whose features are computed already; the same parameters.

    timings: seconds that earlier stages took.
    """
    index, features, timings = query.index, query.features, dict(timings or {})
    allowed = None if index.filters or not where else _names_matching(query, where)
    started = time.perf_counter()
    shortlist = index.shortlist(features, max(depth, top or 0), where)
    if shortlist is not index:
        stage = "store" if "store" in shortlist.origin else "shortlist"
        timings[stage] = time.perf_counter() - started
    if len(shortlist) * sum(chain.RERANKERS[name].effort for name in then) > QUICK_EFFORT:
        workers.move_to_slow_workers()
    # Re-rankers, a filter and the removal of the query's own picture need the whole ranking.
    whole = then or allowed or own is not None
    first = rank_features(shortlist, features, None if whole else top, verify)
    first = replace(first, timings={**timings, **first.timings})
    position = shortlist.positions.get(own) if own is not None else None
    ranking = chain.rerank(first, replace(query, index=shortlist, own=position), then)
    if allowed:
        ranking = ranking.only(allowed)
        if not len(ranking):
            raise RetrievalError(
                f"No picture fits {where}, of the {len(first)} that are most like the query."
            )
        ranking = replace(ranking, provenance={**ranking.provenance, "filter": where})
    if query.picture is not None:
        # A picture always finds itself, so its own rank says nothing about the other results.
        without_own = ranking if own is None else ranking.without(own)
        judged = confidence.judge(without_own, index, query.picture, query.box, features)
        ranking = replace(ranking, confidence=judged)
    return ranking.in_whole_index(shortlist.whole_positions).best(top)


def _names_matching(query: Query, where: str) -> set[str]:
    """Names of the pictures that fit a filter, for an index in a folder.

    Raises RetrievalError where no picture fits, and where the query has no collection, which holds
    the metadata.
    """
    if query.collection is None:
        raise RetrievalError(
            f"A filter needs the collection of {query.index}, which has the metadata, and that "
            "cannot be opened."
        )
    metadata = query.collection.metadata
    if count_values(where) * len(metadata) > QUICK_COMPARISONS:
        workers.move_to_slow_workers()
    names = matching(metadata, where) & query.index.positions.keys()
    if not names:
        raise RetrievalError(f"No picture of {query.collection.title} fits the filter {where}.")
    return names


def rank_features(
    index: Index, features: Features, top: int | None = None, verify: int = SHORTLIST
) -> Ranking:
    """Rank the pictures of an index for the features of a query, without re-rankers.

    top, verify: as for ``rank_picture``. Raises RetrievalError for an index of keypoints, for
    descriptors of another length than those of the index or with NaN, and for ``top`` below 1.
    """
    if index.kind == "keypoints":
        raise RetrievalError(
            f"{index} holds features to check other indexes with; search one of those."
        )
    if top is not None and top < 1:
        raise RetrievalError("Ask for at least one result.")
    count = len(index) if top is None else min(top, len(index))
    descriptors = as_vector(features) if index.kind == "global" else as_local(features).descriptors
    if len(index.arrays["descriptors"]):
        index.check_width(descriptors)
    # FAISS would answer with position -1, which NumPy takes for the last picture.
    if not np.isfinite(descriptors).all():
        raise RetrievalError("The network gives no numbers for this picture; use another network.")
    started = time.perf_counter()
    if index.kind == "global":
        positions, scores = index.searcher.rank(descriptors, count)
        inliers = None
        timings = {"search": time.perf_counter() - started}
    else:
        positions, votes = index.searcher.rank(descriptors, max(count, verify))
        searched = time.perf_counter()
        positions, scores, inliers = _verified(index, as_local(features), positions, votes, verify)
        positions, scores, inliers = positions[:count], scores[:count], inliers[:count]
        timings = {
            "search": searched - started,
            "verification": time.perf_counter() - searched,
        }
    names = tuple(map(index.names.__getitem__, positions.tolist()))
    return Ranking(positions, scores, names, inliers, timings, provenance(index))


def provenance(index: Index) -> dict[str, Any]:
    """Where the scores of an index come from (collection, method, checkpoint, …), for JSON."""
    record = checkpoints.REGISTRY.get(index.checkpoint)
    return {
        "collection": index.manifest["collection"]["name"],
        "pictures": index.manifest["pictures"],
        "method": index.method,
        "checkpoint": index.checkpoint,
        "checkpoint_sha256": index.manifest["checkpoint"]["sha256"],
        "stands_in_for": record.stands_in_for if record else None,
        "settings": index.settings,
        "search": index.search_stated,
        "index_made": index.manifest["made"],
        **index.origin,
    }


def _verified(
    index: Index, query: LocalFeatures, positions: np.ndarray, votes: np.ndarray, verify: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order the first ``verify`` pictures of a shortlist by inliers; the others keep their order.

    query: its local features. positions: (K,) int64 in the index, by votes, best first.
    votes: (K,) float32. Returns positions (K,), scores (K,) float32 and inliers (K,) int64 in the
    new order.
    """
    inliers = np.zeros(len(positions), np.int64)
    for rank, position in enumerate(positions[:verify].tolist()):
        features = as_local(index.features(position))
        _, verified = geometry.verify_features(query, features, index.size(position))
        # Fewer inliers than the noise floor mean nothing: such pictures stay ordered by votes.
        inliers[rank] = verified.count if verified.count >= geometry.NOISE_FLOOR else 0
    scores = (inliers + np.minimum(votes, MAX_FRACTION)).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    return positions[order], scores[order], inliers[order]
