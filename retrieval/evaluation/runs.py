"""A run: every query of a collection put to one index, and the scores of the rankings.

Kept beside the index: ``evaluation.npz`` (the rankings and the seconds each took) and
``evaluation.json`` (scores, and everything they rest on); with re-rankers they are called
``evaluation-geometry+diffusion``, and without the boxes of the queries ``evaluation-whole``.
Scores are always computed from the rankings; the JSON is for readers.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval import files, images
from retrieval.collections import Collection, open_collection, registered
from retrieval.collections.ground_truth import Query
from retrieval.errors import RetrievalError
from retrieval.evaluation import Scores, evaluate

if TYPE_CHECKING:
    from retrieval.index import Index
    from retrieval.methods.base import Method
    from retrieval.ranking.ranking import Ranking

FORMAT = 1
MAX_DEPTH = 16384  # results that a store is asked for: Milvus gives no more at once
MAX_RECORD = 100_000_000  # bytes of evaluation.json; a query takes 300
MAX_STAGES = 20  # of a search, whose seconds are kept; a chain of re-rankers has at most ten
MAX_OTHER_FILES = 10_000  # that are no pictures, in the folder that an index names

# Does the work of one query when it may be done, and returns its ranking.
Turn = Callable[[Callable[[], "Ranking"]], "Ranking"]


@dataclass(frozen=True, eq=False)
class Run:
    """The rankings of all queries of a collection, and their scores.

    ranks: (N, Q) int32, positions in the collection's names, best first, filled up with -1 where
    the index lacks pictures. timings: stage → seconds (Q,) float64. scores: protocol → scores.
    record: the content of evaluation.json.
    """

    ranks: np.ndarray
    timings: Mapping[str, np.ndarray]
    scores: Mapping[str, Scores]
    record: Mapping[str, Any]

    @property
    def note(self) -> str:
        """One sentence where the rankings end before the last picture, else ''."""
        pictures = self.record["provenance"].get("pictures")
        ranked = self.record.get("ranked", pictures)
        if ranked == pictures:
            return ""
        return (
            f"Each ranking ends with the best {ranked:,} of {pictures:,} pictures. A right picture "
            "behind them counts as not found, so mAP is a little too low."
        )


def collection_of(index: Index, where: str | Path | None = None) -> Collection:
    """The collection that an index was made of.

    where: its name or folder; by default what the manifest of the index states.
    Raises RetrievalError when its list of pictures is not the one that was indexed.
    """
    stated = index.manifest["collection"]
    try:
        if where:
            collection = open_collection(where)
        elif "folder" in stated:
            # An index may be a stranger's, and name all of the disk.
            most = MAX_OTHER_FILES + 10 * (len(index) + len(index.manifest["skipped"]))
            collection = open_collection(index.local / stated["folder"], most)
        elif stated["name"] in {entry.name for entry in registered()}:
            collection = open_collection(stated["name"])
        else:
            raise RetrievalError("It does not say where its pictures are.")
    except RetrievalError as error:
        if where:
            raise
        raise RetrievalError(
            f"The collection of {index} cannot be opened; name it with --collection. ({error})"
        ) from error
    index.check_collection(collection)
    return collection


def _at_once(work: Callable[[], Ranking]) -> Ranking:
    return work()


def rank_queries(
    index: Index,
    method: Method | None,
    collection: Collection,
    progress: Callable[[int, int, str], None] | None = None,
    then: Sequence[str] = (),
    turn: Turn = _at_once,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rank the pictures of an index for every query of its collection.

    method: the one that made the index; None where the index brings the descriptors of the
    queries itself (``queries.npy``, see ``retrieval.evaluation.published_descriptors``).
    progress(done, total, name) is called after each query.
    then: re-rankers, see ``chain.RERANKERS``. A query that is a picture of the index is left out of
    their work, so that it does not help itself.
    turn(work): does the work of one query when it may be done; by default at once.
    Returns the rankings (N, Q) int32 and the seconds (Q,) of each stage. A ranking holds positions
    in the collection, best first, equal scores in the order of the collection. It is filled up with
    -1 where the index skipped pictures, after the best MAX_DEPTH of a store, and after the
    shortlist of an approximate search.
    Raises RetrievalError where a re-ranker has no features of a picture that it should look at.
    """
    from retrieval.ranking import chain
    from retrieval.ranking.ranking import Query as RankingQuery
    from retrieval.ranking.search import DEPTH, rank_picture, rank_query

    chain.check_chain(then, index)
    # As deep as a search goes: asked for more, an approximate one compares with all pictures.
    depth = MAX_DEPTH if index.filters else DEPTH
    if 4 * len(collection.names) * len(collection.queries) > files.MAX_ARRAYS:
        raise RetrievalError(
            f"{collection.title} has {len(collection.queries):,} queries for "
            f"{len(collection.names):,} pictures: their rankings would take more than "
            f"{files.human_bytes(files.MAX_ARRAYS)}. Evaluate fewer queries."
        )
    ranks = np.full((len(collection.names), len(collection.queries)), -1, np.int32)
    timings: dict[str, np.ndarray] = {}
    stored = query_descriptors(index) if method is None else None
    if stored is not None and len(stored) != len(collection.queries):
        raise RetrievalError(
            f"The index {index} has descriptors of {len(stored)} queries, but "
            f"{collection.title} has {len(collection.queries)}."
        )

    def rank(column: int, query: Query) -> Ranking:
        if stored is not None:
            described = RankingQuery(index, stored[column])
            return rank_query(described, then=then, own=query.name, depth=depth)
        assert method is not None
        picture = images.read(collection.path(query.name))
        return rank_picture(
            index,
            method,
            picture,
            query.box,
            then=then,
            collection=collection,
            own=query.name,
            depth=depth,
        )

    for column, query in enumerate(collection.queries):
        ranking = turn(partial(rank, column, query))
        if ranking.unchecked:  # the scores would be of something between with and without
            raise RetrievalError(f"{' '.join(ranking.notes)} The query was {query.name}.")
        try:
            ranks[: len(ranking), column] = [collection.positions[name] for name in ranking.names]
        except KeyError as error:
            raise RetrievalError(
                f"The index {index} holds {error}, which is not in {collection.title}; index the "
                "collection again."
            ) from error
        for stage, seconds in ranking.timings.items():
            timings.setdefault(stage, np.zeros(len(collection.queries)))[column] = seconds
        if progress:
            progress(column + 1, len(collection.queries), query.name)
    return ranks, timings


def ranks_of(index: Index, collection: Collection, rankings: Sequence[np.ndarray]) -> np.ndarray:
    """Rankings of Q queries as one array (N, Q) int32 of positions in the collection.

    rankings: one a query, (K,) positions in the index. Columns are filled up with -1 where the
    index skipped pictures.
    """
    collection_positions = np.array([collection.positions[name] for name in index.names])
    ranks = np.full((len(collection.names), len(rankings)), -1, np.int32)
    for column, ranking in enumerate(rankings):
        ranks[: len(ranking), column] = collection_positions[ranking]
    return ranks


def query_descriptors(index: Index) -> np.ndarray | None:
    """Descriptors (Q, D) of the queries that an index brings itself; None where it does not.

    Raises RetrievalError when they are not the ones that its manifest names.
    """
    stated = index.settings.get("queries_sha256")
    if stated is None:
        return None
    path = index.path / "queries.npy"
    again = "; download the features again"
    try:
        data = files.read(path)
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read{again}.") from error
    if hashlib.sha256(data).hexdigest() != stated:
        raise RetrievalError(f"{path} was edited or damaged{again}.")
    queries = files.read_array(io.BytesIO(data))
    if queries.ndim != 2 or queries.dtype.kind != "f" or not np.isfinite(queries).all():
        raise RetrievalError(f"{path} holds no descriptors{again}.")
    return queries


def record_run(
    index: Index,
    collection: Collection,
    ranks: np.ndarray,
    timings: Mapping[str, np.ndarray],
    then: Sequence[str] = (),
) -> Run:
    """Score the rankings (N, Q) of an index and keep the run beside it.

    Nothing is written where the same rankings are kept already, so that a repeated evaluation does
    not change files by its times alone. Raises RetrievalError where the index was replaced.
    """
    from retrieval.ranking.chain import stated
    from retrieval.ranking.search import provenance

    scores = evaluate(ranks, collection)
    pictures = query_pictures_digest(collection)
    try:
        kept = load_run(index, collection, then)
    except RetrievalError:  # damaged, of an earlier index, or of other labels
        kept = None
    skipped = {entry["name"] for entry in index.manifest["skipped"]}
    record = {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="microseconds"),
        "provenance": {
            **provenance(index),
            **({"then": stated(then)} if then else {}),
            "collection_fingerprint": collection.fingerprint,
            "labels_sha256": labels_digest(collection.queries),
            **({"query_pictures_sha256": pictures} if pictures else {}),
            "index_sha256": index.digest_on_disk(),
            **_delf_index(index, then),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
        "seconds_a_query": _means(timings),
        "ranked": _ranked(ranks),
        "not_in_the_index": [name for name in collection.names if name in skipped],
        "queries": [
            {"name": query.name, "box": query.box, "landmark": query.landmark}
            for query in collection.queries
        ],
        "protocols": _as_json(scores),
    }
    if kept is not None and np.array_equal(kept.ranks, ranks):
        return Run(ranks, timings, scores, record)
    _keep(index.path / _stem(then, collection.whole), ranks, timings, record)
    return Run(ranks, timings, scores, record)


def _keep(
    path: Path, ranks: np.ndarray, timings: Mapping[str, np.ndarray], record: Mapping[str, Any]
) -> None:
    """Write ``<path>.npz`` and then ``<path>.json``, each as a whole or not at all."""
    small = np.int16 if len(ranks) <= np.iinfo(np.int16).max else np.int32
    try:
        with files.replacing(path.with_name(f"{path.name}.npz")) as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                ranks=ranks.astype(small),
                **{f"seconds_{stage}": seconds for stage, seconds in timings.items()},
            )
        with files.replacing(path.with_name(f"{path.name}.json")) as file:
            file.write(files.as_json(record))
    except OSError as error:
        raise RetrievalError(
            f"The evaluation cannot be kept in {path.parent}: {error.strerror or error}."
        ) from error


def kept_chains(index: Index) -> list[tuple[str, ...]]:
    """The chains of re-rankers whose runs are kept beside an index; () is the method alone."""
    from retrieval.ranking.chain import RERANKERS

    found = []
    for path in sorted(index.path.glob("evaluation*.json")):
        names = path.stem.removeprefix("evaluation").removeprefix("-")
        then = tuple(names.split("+")) if names else ()
        if _stem(then) == path.stem and RERANKERS.keys() >= set(then):
            found.append(then)
    return found


def _stem(then: Sequence[str], whole: bool = False) -> str:
    return "-".join(
        ["evaluation", *(["whole"] if whole else []), *(["+".join(then)] if then else [])]
    )


def load_run(index: Index, collection: Collection, then: Sequence[str] = ()) -> Run | None:
    """The run that is kept beside an index, its rankings scored anew; None where there is none.

    then: the chain of re-rankers. Raises RetrievalError when it is damaged, or belongs to an
    earlier index, to other labels or query pictures, or to re-rankers with other settings.
    """
    again = f"; run: python -m retrieval evaluate {index}"
    if then:
        again += f" --then {','.join(then)}"
    if collection.whole:
        again += " --no-boxes"
    path = index.path / f"{_stem(then, collection.whole)}.json"
    arrays = path.with_suffix(".npz")
    if not path.is_file() or not arrays.is_file():
        return None
    record = _read_record(path, index, collection, then, again)
    queries = len(collection.queries)
    # Up to 8 bytes a rank and a second of each stage, and headers.
    most = 8 * (len(collection.names) + 100) * queries + 100_000
    try:
        ranks = files.read_array(arrays, "ranks", most)
        scores = evaluate(ranks, collection)
        timings = {
            stage: files.read_array(arrays, f"seconds_{stage}", most)
            for stage in record["seconds_a_query"]
        }
    except RetrievalError as error:
        raise RetrievalError(f"{arrays} is damaged{again}.") from error
    for seconds in timings.values():
        if (
            seconds.shape != (queries,)
            or seconds.dtype.kind != "f"
            or not ((seconds >= 0) & (seconds < 1e9)).all()
        ):
            raise RetrievalError(f"{arrays} is damaged{again}.")
    record |= {
        "seconds_a_query": _means(timings),
        "protocols": _as_json(scores),
        "ranked": _ranked(ranks),
    }
    return Run(ranks.astype(np.int32), timings, scores, record)


def _read_record(
    path: Path, index: Index, collection: Collection, then: Sequence[str], again: str
) -> dict[str, Any]:
    """The content of ``evaluation.json``, checked.

    again: the end of error messages, with the command that evaluates again. Raises RetrievalError
    where the file is damaged, or is of another index, other labels, other query pictures or other
    re-rankers.
    """
    from retrieval.ranking.chain import stated as stated_chain

    pictures = query_pictures_digest(collection)
    try:
        record = files.read_json(path, MAX_RECORD)
        stated = record["provenance"]
        same = (
            stated["index_sha256"] == files.digest(index.path / "manifest.json")
            and stated["labels_sha256"] == labels_digest(collection.queries)
            and stated["collection_fingerprint"] == collection.fingerprint
            and stated.get("then", []) == stated_chain(then)
            and stated.items() >= _delf_index(index, then).items()
            and (pictures is None or stated.get("query_pictures_sha256", pictures) == pictures)
        )
        fine = (
            stated.get("method") == index.method
            and stated.get("pictures") == len(index)
            and stated.get("checkpoint") == index.checkpoint
            and isinstance(record["seconds_a_query"], dict)
            and len(record["seconds_a_query"]) <= MAX_STAGES
            and isinstance(record["made"], str)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RetrievalError(f"{path} is damaged{again}.") from error
    if not same:
        raise RetrievalError(
            f"The evaluation in {index.path} is of an earlier index, other labels, other query "
            f"pictures or other settings{again}."
        )
    if not fine:
        raise RetrievalError(f"{path} is damaged{again}.")
    return record


def _delf_index(index: Index, then: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of the manifest of the other index that ``geometry-delf`` looks at, if any."""
    from retrieval.ranking.verifiers import delf_beside

    if "geometry-delf" not in then or index.kind == "local":
        return {}
    delf = delf_beside(index.path)
    return {"delf_index_sha256": delf.digest_on_disk()} if delf else {}


def _ranked(ranks: np.ndarray) -> int:
    """How many pictures the shortest of rankings (N, Q) lists."""
    return int((ranks >= 0).sum(axis=0).min(initial=len(ranks)))


def _means(timings: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {stage: round(float(seconds.mean()), 5) for stage, seconds in timings.items()}


def _as_json(scores: Mapping[str, Scores]) -> dict[str, Any]:
    return {protocol: result.to_json() for protocol, result in scores.items()}


def evaluate_index(
    index: Index,
    collection: Collection,
    method: Method | None,
    progress: Callable[[int, int, str], None] | None = None,
    then: Sequence[str] = (),
    turn: Turn = _at_once,
) -> Run:
    """Rank all queries with an index, score the rankings, and keep the run beside the index.

    Parameters as for ``rank_queries``. Raises RetrievalError where nothing can be written there.
    """
    if not os.access(index.path, os.W_OK):  # checked before minutes of work, not after
        raise RetrievalError(
            f"The evaluation cannot be kept in {index.path}: nothing can be written there."
        )
    ranks, timings = rank_queries(index, method, collection, progress, then, turn)
    return record_run(index, collection, ranks, timings, then=then)


def evaluated(
    index: Index,
    collection: Collection,
    method: Method | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    then: Sequence[str] = (),
) -> Run:
    """The run that is kept beside an index, or a new one where none fits.

    method: of the index; where it is needed and not given, it is loaded. then: re-rankers.
    """
    from retrieval import methods

    index.check_collection(collection)
    try:
        kept = load_run(index, collection, then)
    except RetrievalError:  # of an earlier index, or of other labels
        kept = None
    if kept is not None:
        return kept
    if method is None and "queries_sha256" not in index.settings:
        method = methods.for_index(index)
    return evaluate_index(index, collection, method, progress, then)


def labels_digest(queries: Sequence[Query]) -> str:
    """SHA-256 of the queries in their order: names, boxes and labels."""
    digest = hashlib.sha256()
    for query in queries:
        labels = {kind: query.labels[kind].tolist() for kind in sorted(query.labels)}
        digest.update(json.dumps([query.name, query.box, labels]).encode())
    return digest.hexdigest()


def query_pictures_digest(collection: Collection) -> str | None:
    """SHA-256 over the files of the queries; None where one of them is not on this machine.

    Queries that are pictures of the collection are left out: its index knows their files.
    """
    digest = hashlib.sha256()
    try:
        for name in sorted({query.name for query in collection.queries} - set(collection.names)):
            digest.update(hashlib.sha256(collection.read_bytes(name)).digest())
    except RetrievalError:
        return None
    return digest.hexdigest()
