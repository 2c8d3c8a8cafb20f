"""``bench rerank``: seconds a query of every re-ranker, and how diffusion grows.

All times are measured, but for the neighbours in the largest collection: those of a sample are
timed and extrapolated, and the output says so.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from retrieval import images, methods, threads
from retrieval import index as indexes
from retrieval.benchmarks import index_of_town, process_status
from retrieval.errors import RetrievalError
from retrieval.files import human_bytes
from retrieval.index import Index, finding
from retrieval.index.neighbours import COUNT, Neighbours
from retrieval.index.vectors import ExactSearcher
from retrieval.ranking import chain, diffusion, verification
from retrieval.ranking.ranking import Query, Ranking
from retrieval.ranking.search import rank_features

QUERIES = 20
SHORTLISTS = (10, 20, 50, 100)
GROWTH = (5_000, 100_000)  # pictures
SAMPLE = 2_048  # pictures whose neighbours are searched for
NOISE = 0.02  # added to each number of a repeated vector
BLOCK = 1_000  # copies of a picture that are compared with one another, about


def run(path: Path | None = None, named: str | None = None) -> None:
    """The command: print the times for an index, by default that of CNN-IRwNHA and town.

    named: the collection of the index; by default the one that its manifest names. Raises
    RetrievalError for a collection without queries.
    """
    index = indexes.load(path or index_of_town("cnn-irwnha"))
    collection = finding.collection_of(index, named)
    method = methods.for_index(index)
    chosen = collection.queries[:: max(1, len(collection.queries) // QUERIES)][:QUERIES]
    if not chosen:
        raise RetrievalError(f"{collection.title} has no queries to search with.")
    print(
        f"{index.checkpoint} on {len(index)} pictures of {collection.name}, {len(chosen)} queries, "
        f"{threads.usable_cores()} cores; seconds a query, median"
    )
    queries = []
    for entry in chosen:
        picture = images.read(collection.path(entry.name))
        features = method.describe(picture, entry.box)
        own = index.positions.get(entry.name)
        queries.append(Query(index, features, picture, entry.box, own, collection))
    rankings = [rank_features(index, query.features) for query in queries]
    timings = (ranking.timings for ranking in rankings)
    print(f"{'the method alone':32}{_median_total(timings):8.3f}")
    for name in [*chain.RERANKERS, ",".join(chain.BEST)]:
        names = chain.parse_chain(name)
        try:
            chain.check_chain(names, index)
            for ranking, query in zip(rankings, queries, strict=True):  # loads what it needs
                chain.rerank(ranking, query, names)
            _print_reranker(name, rankings, queries)
        except RetrievalError as error:
            print(f"{name:32}{'–':>8}  {error}")
    print("XFeat has described the queries before: 0.1 s each on a quiet core")
    if any(index.digests):
        _print_shortlists(rankings, queries)
    if index.kind == "global":
        for pictures in GROWTH:
            _print_diffusion(index, pictures)
    peak = process_status("VmHWM")
    if peak:
        print(f"peak memory of all this: {human_bytes(peak)}")


def _print_reranker(name: str, rankings: list[Ranking], queries: list[Query]) -> None:
    """Print the median seconds of a chain of re-rankers. name: as text, with commas between."""
    stages = chain.parse_chain(name)
    timings = []
    for ranking, query in zip(rankings, queries, strict=True):
        reranked = chain.rerank(ranking, query, stages)
        timings.append({stage: reranked.timings[stage] for stage in stages})
    print(f"{name:32}{_median_total(timings):8.3f}")


def _print_shortlists(rankings: list[Ranking], queries: list[Query]) -> None:
    """Print the median seconds of geometry for shortlists of several lengths."""
    for name, rerank in (
        ("geometry", verification.geometry_xfeat),
        ("geometry-lighterglue", verification.geometry_lighterglue),
    ):
        for count in SHORTLISTS:
            if name != "geometry" and count > verification.LIGHTERGLUE_SHORTLIST:
                continue
            seconds = [
                rerank(ranking.best(count), query).timings[name]
                for ranking, query in zip(rankings, queries, strict=True)
            ]
            print(f"{f'{name}, best {count}':32}{statistics.median(seconds):8.3f}")


def _print_diffusion(index: Index, pictures: int) -> None:
    """Print the seconds of diffusion on at least so many pictures: the collection repeated with
    noise.
    """
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
        neighbours = _neighbours_among_copies(vectors, copies)
        seconds *= len(vectors) / len(rows)
        note = f" (extrapolated from {len(rows)})"
    started = time.perf_counter()
    matrix = diffusion.matrix(neighbours)
    matrix_seconds = time.perf_counter() - started
    times = []
    for row in range(0, len(vectors), len(vectors) // QUERIES):
        y = np.zeros(len(vectors))
        y[row] = 1
        started = time.perf_counter()
        np.argsort(-diffusion.solve(matrix, y), kind="stable")
        times.append(time.perf_counter() - started)
    print(
        f"diffusion on {len(vectors)} pictures: {statistics.median(times):.3f} s a query; once: "
        f"neighbours {seconds:.0f} s{note}, matrix {matrix_seconds:.1f} s"
    )


def _neighbours_among_copies(vectors: np.ndarray, copies: int) -> Neighbours:
    """Neighbours among the copies of the same picture, which nearly all neighbours are.

    vectors: (N, D) of unit length, the copies of a picture one after another. Of very many copies
    only some are compared: of an index of two pictures, all would take 30 GB.
    """
    positions, similarity = [], []
    blocks = len(vectors) // copies * max(1, copies // BLOCK)
    for rows in np.array_split(np.arange(len(vectors)), blocks):
        block = vectors[rows]
        block_similarity = block @ block.T
        np.fill_diagonal(block_similarity, -1)
        nearest = np.argsort(-block_similarity, axis=1)[:, :COUNT]
        positions.append(nearest + rows[0])
        similarity.append(np.take_along_axis(block_similarity, nearest, axis=1))
    return Neighbours(np.concatenate(positions).astype(np.int32), np.concatenate(similarity))


def _median_total(timings: Iterable[Mapping[str, float]]) -> float:
    """The median of the sums of all stages. timings: seconds by stage, of each query."""
    return statistics.median(sum(stages.values()) for stages in timings)
