"""Runs: the rankings of all queries of a collection, their scores, and the files that keep them.

The files lie beside the index: ``evaluation.npz`` has the rankings and the seconds of each,
``evaluation.json`` the scores, and the settings and data that they depend on. With re-rankers they
are called ``evaluation-geometry+diffusion``, without the boxes of the queries ``evaluation-whole``.
Scores are always computed from the rankings; the JSON is for people who read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from retrieval import files, methods
from retrieval.collections import Collection
from retrieval.collections.ground_truth import Query
from retrieval.errors import RetrievalError
from retrieval.evaluation import Scores, evaluate
from retrieval.evaluation.queries import Turn, at_once, check_size, rank_queries
from retrieval.index import Index
from retrieval.methods.base import Method
from retrieval.ranking import chain, verifiers
from retrieval.ranking.search import provenance

FORMAT = 1
# Bytes that evaluation.json may have: at most MAX_RECORD, and no more than BESIDE with QUERY for
# each query and PICTURE for each picture. Ours have 4000, 300 a query, and the names of pictures.
MAX_RECORD, BESIDE, QUERY, PICTURE = 100_000_000, 1_000_000, 20_000, 1000
MAX_STATED = 100_000  # characters of its provenance, which is kept and shown; ours have 1000
MAX_STAGES = 20  # of a search, whose seconds are kept; a chain of re-rankers has at most ten


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
        """What to know where the rankings do not list all pictures; else ''."""
        pictures = self.record["provenance"].get("pictures")
        ranked = self.record.get("ranked", pictures)
        notes = []
        if unread := self.record.get("not_in_the_index"):
            notes.append(
                f"Pictures that could not be read when the index was made: {len(unread):,}. A "
                "right picture among them counts as not found."
            )
        if ranked != pictures:
            notes.append(
                f"Each ranking ends with the best {ranked:,} of {pictures:,} pictures. A right "
                "picture behind them counts as not found, so mAP is a little too low."
            )
        return " ".join(notes)


def record_run(
    index: Index,
    collection: Collection,
    ranks: np.ndarray,
    timings: Mapping[str, np.ndarray],
    then: Sequence[str] = (),
    pictures: str | None = None,
) -> Run:
    """Score the rankings (N, Q) of an index and keep the run beside it.

    pictures: ``query_pictures_digest`` when the queries were ranked, '' where there was none; by
    default that of now.
    Nothing is written where the same rankings are kept already: a repeated evaluation would change
    only the times in the files. Raises RetrievalError where the index was replaced.
    """
    run = Run(ranks, timings, evaluate(ranks, collection), {})
    if pictures is None:
        pictures = query_pictures_digest(collection)
    try:
        previous = load_run(index, collection, then)
    except RetrievalError:  # damaged, of an earlier index, or of other labels
        previous = None
    record = _record(
        index,
        collection,
        datetime.now(UTC).isoformat(timespec="microseconds"),
        {
            **provenance(index),
            **({"then": chain.stated(then)} if then else {}),
            "collection_fingerprint": collection.fingerprint,
            "labels_sha256": labels_digest(collection.queries),
            **({"query_pictures_sha256": pictures} if pictures else {}),
            "index_sha256": index.digest_on_disk(),
            **_delf_index(index, then),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
        run,
    )
    run = replace(run, record=record)
    if previous is None or not np.array_equal(previous.ranks, ranks):
        _keep(index.path / _stem(then, collection.whole), run)
    return run


def _record(
    index: Index,
    collection: Collection,
    made: str,
    stated: Mapping[str, Any],
    run: Run,
) -> dict[str, Any]:
    """The content of ``evaluation.json``. stated: the provenance. run: without a record yet."""
    skipped = {entry["name"] for entry in index.manifest["skipped"]}
    return {
        "format": FORMAT,
        "made": made,
        "provenance": stated,
        "seconds_a_query": {
            stage: round(float(seconds.mean()), 5) for stage, seconds in run.timings.items()
        },
        # How many pictures the shortest ranking lists.
        "ranked": int((run.ranks >= 0).sum(axis=0).min(initial=len(run.ranks))),
        "not_in_the_index": [name for name in collection.names if name in skipped],
        "queries": [
            {"name": query.name, "box": query.box, "landmark": query.landmark}
            for query in collection.queries
        ],
        "protocols": {protocol: result.to_json() for protocol, result in run.scores.items()},
    }


def _keep(path: Path, run: Run) -> None:
    """Write ``<path>.npz`` and then ``<path>.json``, each as a whole or not at all."""
    small = np.int16 if len(run.ranks) <= np.iinfo(np.int16).max else np.int32
    try:
        with files.replacing(path.with_name(f"{path.name}.npz")) as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                ranks=run.ranks.astype(small),
                **{f"seconds_{stage}": seconds for stage, seconds in run.timings.items()},
            )
        files.write_json(path.with_name(f"{path.name}.json"), run.record)
    except OSError as error:
        raise RetrievalError(
            f"The evaluation cannot be kept in {path.parent}: {error.strerror or error}."
        ) from error


def kept_chains(index: Index) -> list[tuple[str, ...]]:
    """The chains of re-rankers whose runs are kept beside an index; () is the method alone."""
    chains = []
    for path in sorted(index.path.glob("evaluation*.json")):
        names = path.stem.removeprefix("evaluation").removeprefix("-")
        then = tuple(names.split("+")) if names else ()
        if _stem(then) == path.stem and chain.RERANKERS.keys() >= set(then):
            chains.append(then)
    return chains


def _stem(then: Sequence[str], whole: bool = False) -> str:
    stem = "evaluation-whole" if whole else "evaluation"
    return f"{stem}-{'+'.join(then)}" if then else stem


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
    made, stated, stages = _read_record(path, index, collection, then, again)
    queries = len(collection.queries)
    check_size(collection)
    # Up to 4 bytes a rank and a second of each stage, and headers.
    max_bytes = 4 * (len(collection.names) + 100) * queries + 100_000
    timings = {}
    try:
        ranks = files.read_array(arrays, "ranks", max_bytes)
        scores = evaluate(ranks, collection)
        for stage in stages:
            seconds = files.read_array(arrays, f"seconds_{stage}", max_bytes)
            if (
                seconds.shape != (queries,)
                or seconds.dtype.kind != "f"
                or not ((seconds >= 0) & (seconds < 1e9)).all()
            ):
                raise RetrievalError("no seconds")
            timings[stage] = seconds
    except RetrievalError as error:
        raise RetrievalError(f"{arrays} is damaged{again}.") from error
    ranks = ranks.astype(np.int32, copy=False)
    # What a stranger's file says besides is not kept: the app has 24 runs in memory.
    run = Run(ranks, timings, scores, {})
    return replace(run, record=_record(index, collection, made, stated, run))


def _read_record(
    path: Path, index: Index, collection: Collection, then: Sequence[str], again: str
) -> tuple[str, dict[str, Any], list[str]]:
    """Of ``evaluation.json``, checked: its date, its provenance, and the stages with seconds.

    again: the end of error messages, with the command that evaluates again. Raises RetrievalError
    where the file is damaged, or is of another index, other labels, other query pictures or other
    re-rankers.
    """
    pictures = query_pictures_digest(collection)
    max_bytes = BESIDE + QUERY * len(collection.queries) + PICTURE * len(collection.names)
    try:
        record = files.read_json(path, min(max_bytes, MAX_RECORD))
        stated = record["provenance"]
        same = (
            stated["index_sha256"] == files.digest(index.path / "manifest.json")
            and stated["labels_sha256"] == labels_digest(collection.queries)
            and stated["collection_fingerprint"] == collection.fingerprint
            and stated.get("then", []) == chain.stated(then)
            and stated.items() >= _delf_index(index, then).items()
            and (pictures is None or stated.get("query_pictures_sha256", pictures) == pictures)
        )
        valid = (
            stated.get("method") == index.method
            and stated.get("pictures") == len(index)
            and stated.get("checkpoint") == index.checkpoint
            and isinstance(record["seconds_a_query"], dict)
            and len(record["seconds_a_query"]) <= MAX_STAGES
            and isinstance(record["made"], str)
            and len(record["made"]) < 100
            and len(json.dumps(stated)) <= MAX_STATED
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RetrievalError(f"{path} is damaged{again}.") from error
    if not same:
        raise RetrievalError(
            f"The evaluation in {index.path} is of an earlier index, other labels, other query "
            f"pictures or other settings{again}."
        )
    if not valid:
        raise RetrievalError(f"{path} is damaged{again}.")
    return record["made"], stated, list(record["seconds_a_query"])


def _delf_index(index: Index, then: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of the manifest of the DELF index that ``geometry-delf`` uses, if any."""
    if "geometry-delf" not in then or index.kind == "local":
        return {}
    delf = verifiers.delf_beside(index.local)
    return {"delf_index_sha256": delf.digest_on_disk()} if delf else {}


def evaluate_index(
    index: Index,
    collection: Collection,
    method: Method | None,
    progress: Callable[[int, int, str], None] | None = None,
    then: Sequence[str] = (),
    turn: Turn = at_once,
) -> Run:
    """Rank all queries with an index, score the rankings, and keep the run beside the index.

    Parameters as for ``rank_queries``. Raises RetrievalError where nothing can be written there.
    """
    files.check_writable(index.path, "evaluation")
    # Before: of a picture that is replaced meanwhile, nobody knows which one was ranked.
    pictures = query_pictures_digest(collection)
    ranks, timings = rank_queries(index, method, collection, progress, then, turn)
    return record_run(index, collection, ranks, timings, then, pictures)


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
    index.check_collection(collection)
    try:
        run = load_run(index, collection, then)
    except RetrievalError:  # of an earlier index, or of other labels
        run = None
    if run is not None:
        return run
    if method is None and not index.brings_queries:
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
