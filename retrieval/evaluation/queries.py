"""Searches for all queries of a collection: they give rankings, without scores."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from retrieval import files, images
from retrieval.collections import Collection
from retrieval.collections.ground_truth import Query
from retrieval.errors import RetrievalError
from retrieval.index import Index, layout
from retrieval.index.milvus_client import MAX_HITS
from retrieval.methods.base import Method
from retrieval.ranking import chain
from retrieval.ranking.ranking import Query as RankingQuery
from retrieval.ranking.ranking import Ranking
from retrieval.ranking.search import DEPTH, rank_picture, rank_query

MAX_STORED = 100_000_000  # bytes of the descriptors of queries in an index; ours have 0.6 MB
# Does the work of one query when it may be done, and returns its ranking.
Turn = Callable[[Callable[[], Ranking]], Ranking]


def at_once(work: Callable[[], Ranking]) -> Ranking:
    """Do the work at once: the ``turn`` of callers whose work waits for no other."""
    return work()


def rank_queries(
    index: Index,
    method: Method | None,
    collection: Collection,
    progress: Callable[[int, int, str], None] | None = None,
    then: Sequence[str] = (),
    turn: Turn = at_once,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rank the pictures of an index for every query of its collection.

    method: the one that made the index; None where the index holds the descriptors of the queries
    (``queries.npy``, see ``retrieval.evaluation.published_descriptors``).
    progress(done, total, name) is called after each query.
    then: re-rankers, see ``chain.RERANKERS``. Where a query is itself a picture of the index, they
    leave that picture out, so that it does not improve its own ranking.
    turn(work): does the work of one query when it may be done; by default at once.
    Returns the rankings (N, Q) int32 and the seconds (Q,) of each stage. A ranking holds positions
    in the collection, best first, equal scores in the order of the collection. It is filled up with
    -1 where the index skipped pictures, after the best MAX_HITS of a store, and after the
    shortlist of an approximate search.
    Raises RetrievalError where a re-ranker has no features of a picture that it should check, where
    the index holds a picture that is not in the collection, and where a query is a picture of the
    index whose file was replaced since.
    """
    chain.check_chain(then, index)
    # As deep as a search goes: asked for more, an approximate one compares with all pictures.
    depth = MAX_HITS if index.filters else DEPTH
    check_size(collection)
    ranks = np.full((len(collection.names), len(collection.queries)), -1, np.int32)
    timings: dict[str, np.ndarray] = {}
    stored = query_descriptors(index) if method is None else None
    if stored is not None and len(stored) != len(collection.queries):
        raise RetrievalError(
            f"The index {index} has descriptors of {len(stored)} queries, but "
            f"{collection.title} has {len(collection.queries)}; make the index again."
        )

    def rank(column: int, query: Query) -> Ranking:
        if stored is not None:
            described = RankingQuery(index, stored[column])
            return rank_query(described, then=then, own=query.name, depth=depth)
        assert method is not None
        data = images.read_bytes(collection.path(query.name), query.name)
        if query.name in collection.positions:
            _check_not_replaced(index, query.name, data)
        picture = images.read(data, query.name, of_visitor=collection.of_visitor)
        try:
            box = images.check_box(query.box, picture.size) if query.box else None
        except RetrievalError as error:
            raise RetrievalError(f"The query {query.name}: {error}") from error
        return rank_picture(
            index,
            method,
            picture,
            box,
            then=then,
            collection=collection,
            own=query.name,
            depth=depth,
        )

    for column, query in enumerate(collection.queries):
        ranking = turn(partial(rank, column, query))
        if ranking.unchecked:  # the scores would be of something between with and without
            raise RetrievalError(f"{' '.join(ranking.notes)} The query was {query.name}.")
        ranks[: len(ranking), column] = _positions(index, collection, ranking.names)
        for stage, seconds in ranking.timings.items():
            timings.setdefault(stage, np.zeros(len(collection.queries)))[column] = seconds
        if progress:
            progress(column + 1, len(collection.queries), query.name)
    return ranks, timings


def _check_not_replaced(index: Index, name: str, data: bytes) -> None:
    """Refuse a query that is a picture of the index and was replaced since.

    What is kept beside an index counts as long as index, labels and other queries stay the same.
    """
    if index.digest_of(name) not in ("", layout.digest(data)):
        raise RetrievalError(
            f"{name} was replaced since the index {index} was made; index the collection again."
        )


def check_size(collection: Collection) -> None:
    """Refuse a collection whose rankings of all queries would need too much memory."""
    if 4 * len(collection.names) * len(collection.queries) > files.MAX_ARRAYS:
        raise RetrievalError(
            f"{collection.title} has {len(collection.queries):,} queries for "
            f"{len(collection.names):,} pictures: their rankings would take more than "
            f"{files.human_bytes(files.MAX_ARRAYS)}. Evaluate fewer queries."
        )


def ranks_of(index: Index, collection: Collection, rankings: Sequence[np.ndarray]) -> np.ndarray:
    """Rankings of Q queries as one array (N, Q) int32 of positions in the collection.

    rankings: one a query, (K,) positions in the index. Columns are filled up with -1 where the
    index skipped pictures. Raises RetrievalError as ``rank_queries`` does.
    """
    collection_positions = np.array(_positions(index, collection, index.names))
    ranks = np.full((len(collection.names), len(rankings)), -1, np.int32)
    for column, ranking in enumerate(rankings):
        ranks[: len(ranking), column] = collection_positions[ranking]
    return ranks


def _positions(index: Index, collection: Collection, names: Sequence[str]) -> list[int]:
    """The positions of pictures of an index in its collection."""
    try:
        return [collection.positions[name] for name in names]
    except KeyError as error:
        raise RetrievalError(
            f"The index {index} holds {error}, which is not in {collection.title}; index the "
            "collection again."
        ) from error


def query_descriptors(index: Index) -> np.ndarray | None:
    """Descriptors (Q, D) of the queries that are kept in an index; None where there are none.

    Raises RetrievalError where their checksum is not that of the manifest, and for more than
    MAX_STORED bytes.
    """
    stated = index.settings.get("queries_sha256")
    if stated is None:
        return None
    path = index.path / "queries.npy"
    again = "; download the features again"
    try:
        data = files.read(path, MAX_STORED)
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read{again}.") from error
    if hashlib.sha256(data).hexdigest() != stated:
        raise RetrievalError(f"{path} was edited or damaged{again}.")
    queries = files.read_array(io.BytesIO(data))
    if queries.ndim != 2 or queries.dtype.kind != "f" or not np.isfinite(queries).all():
        raise RetrievalError(f"{path} holds no descriptors{again}.")
    return queries
