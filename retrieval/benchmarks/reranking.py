"""``bench rerank``: what every re-ranker costs, and how that grows.

Everything is measured, except the neighbours of the largest collection: some are found and timed,
and the output says so.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from retrieval import images, methods, threads
from retrieval import index as indexes
from retrieval.benchmarks import index_of_town
from retrieval.errors import RetrievalError
from retrieval.evaluation import runs
from retrieval.index import Index
from retrieval.index.neighbours import COUNT, Neighbours
from retrieval.index.vectors import ExactSearcher
from retrieval.ranking import chain, diffusion, verification
from retrieval.ranking.ranking import Query, Ranking
from retrieval.ranking.search import rank_features

QUERIES = 20
SHORTLISTS = (10, 20, 50, 100)
GROWTH = (5_000, 100_000)  # pictures
SAMPLE = 2_048  # of them whose neighbours are found
NOISE = 0.02  # added to each number of a repeated vector


def run(path: Path | None = None, named: str | None = None) -> None:
    """The command: print the times for an index, by default that of CNN-IRwNHA and town."""
    index = indexes.load(path or index_of_town("cnn-irwnha"))
    collection = runs.collection_of(index, named)
    method = methods.for_index(index)
    asked = collection.queries[:: max(1, len(collection.queries) // QUERIES)][:QUERIES]
    if not asked:
        raise RetrievalError(f"{collection.title} has no queries to search with.")
    print(
        f"{index.checkpoint} on {len(index)} pictures of {collection.name}, {len(asked)} queries, "
        f"{threads.usable_cores()} cores; seconds a query, median"
    )
    questions = []
    for one in asked:
        picture = images.read(collection.path(one.name))
        features = method.describe(picture, one.box)
        own = index.positions.get(one.name)
        questions.append(Query(index, features, picture, one.box, own, collection))
    first = [rank_features(index, query.features) for query in questions]
    print(f"{'the method alone':32}{_median(one.timings for one in first):8.3f}")
    for name in [*chain.RERANKERS, ",".join(chain.BEST)]:
        names = chain.parse_chain(name)
        try:
            chain.check_chain(names, index)
            for query, ranking in zip(questions, first, strict=True):  # loads what it needs
                chain.rerank(ranking, query, names)
            _print(name, questions, first, names)
        except RetrievalError as error:
            print(f"{name:32}{'–':>8}  {error}")
    print("XFeat has described the queries before: 0.1 s each on a quiet core")
    if any(index.digests):
        _shortlists(questions, first)
    if index.kind == "global":
        for pictures in GROWTH:
            _grow(index, pictures)
    _memory()


def _print(name: str, questions: list[Query], first: list[Ranking], names) -> None:
    found = [chain.rerank(one, query, names) for one, query in zip(first, questions, strict=True)]
    stages = [{key: one.timings[key] for key in names} for one in found]
    print(f"{name:32}{_median(stages):8.3f}")


def _shortlists(questions: list[Query], first: list[Ranking]) -> None:
    """Geometry grows with the number of pictures that are looked at."""
    for name, rerank in (
        ("geometry", verification.geometry_xfeat),
        ("geometry-lighterglue", verification.geometry_lighterglue),
    ):
        for count in SHORTLISTS:
            if name != "geometry" and count > verification.LIGHTERGLUE_SHORTLIST:
                continue
            seconds = [
                rerank(one.best(count), query).timings[name]
                for one, query in zip(first, questions, strict=True)
            ]
            print(f"{f'{name}, best {count}':32}{statistics.median(seconds):8.3f}")


def _grow(index: Index, pictures: int) -> None:
    """Diffusion on so many (or a few more): the collection repeated with noise."""
    rng = np.random.default_rng(0)
    copies = -(-pictures // len(index))
    vectors = np.repeat(index.arrays["descriptors"].astype(np.float32), copies, axis=0)
    vectors += rng.normal(0, NOISE, vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    searcher = ExactSearcher(vectors)
    rows = vectors[: SAMPLE if copies > COUNT else len(vectors)]
    started = time.perf_counter()
    similarity, positions = searcher.flat.search(rows, COUNT + 1)
    seconds = time.perf_counter() - started
    if len(rows) == len(vectors):
        neighbours = Neighbours(positions[:, 1:].astype(np.int32), similarity[:, 1:])
        note = ""
    else:
        neighbours = _of_copies(vectors, copies)
        seconds *= len(vectors) / len(rows)
        note = f" (extrapolated from {len(rows)})"
    started = time.perf_counter()
    matrix = diffusion.matrix(neighbours)
    made = time.perf_counter() - started
    times = []
    for row in range(0, len(vectors), len(vectors) // QUERIES):
        y = np.zeros(len(vectors))
        y[row] = 1
        started = time.perf_counter()
        np.argsort(-diffusion.solve(matrix, y), kind="stable")
        times.append(time.perf_counter() - started)
    print(
        f"diffusion on {len(vectors)} pictures: {statistics.median(times):.3f} s a query; once: "
        f"neighbours {seconds:.0f} s{note}, matrix {made:.1f} s"
    )


def _of_copies(vectors: np.ndarray, copies: int) -> Neighbours:
    """Neighbours among the copies of the same picture, where nearly all of them are."""
    positions, similarity = [], []
    for start in range(0, len(vectors), copies):
        part = vectors[start : start + copies]
        similar = part @ part.T
        np.fill_diagonal(similar, -1)
        nearest = np.argsort(-similar, axis=1)[:, :COUNT]
        positions.append(nearest + start)
        similarity.append(np.take_along_axis(similar, nearest, axis=1))
    return Neighbours(np.concatenate(positions).astype(np.int32), np.concatenate(similarity))


def _memory() -> None:
    if sys.platform == "win32":
        return
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory of all this: {peak / (1e9 if sys.platform == 'darwin' else 1e6):.2f} GB")


def _median(timings) -> float:
    return statistics.median(sum(one.values()) for one in timings)
