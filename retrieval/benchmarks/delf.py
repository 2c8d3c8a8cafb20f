"""``bench delf``: the report's exhaustive matching against the inverted file, on one index.

The report matched a query with every database picture: a KD-tree over its descriptors, then
scikit-image's RANSAC. That takes minutes a query, so it is timed on a sample of pairs and
extrapolated, and the output says so. Everything else is measured in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrieval import images, methods
from retrieval import index as indexes
from retrieval.benchmarks import index_of_town
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import evaluate
from retrieval.evaluation.queries import ranks_of
from retrieval.files import human_bytes
from retrieval.index import Index, finding
from retrieval.index.asmk import InvertedFile
from retrieval.methods.base import LocalFeatures, Method, as_local
from retrieval.ranking import geometry, search
from retrieval.ranking.ranking import Ranking

SAMPLE = 40  # pairs of pictures on which the report's procedure is timed
QUERIES = 20  # of the timings and of the comparison of mAP
GROWTH = (1, 5_000, 100_000)  # pictures; 1 stands for the collection itself
MAX_ENTRIES = 100_000_000  # of an inverted file that is made up; sorting them takes 4 GB
SIGN_NOISE, WORD_NOISE = 0.1, 0.2  # of a repeated picture: bits flipped, words dropped

Progress = Callable[[int, int, str], None]


def run(
    path: Path | None = None, named: str | None = None, progress: Progress | None = None
) -> None:
    """The command: print the comparison for a DELF index, by default that of town.

    named: the collection of the index; by default the one that its manifest names. progress(done,
    total, name) is called for each database picture that is described in full precision. Raises
    RetrievalError for another index and for a collection without labels.
    """
    index = indexes.load(path or index_of_town("delf"))
    if index.kind != "local":
        raise RetrievalError(f"{index.path} is not a DELF index.")
    collection = finding.collection_of(index, named)
    method = methods.for_index(index)
    queries = collection.queries[:: max(1, len(collection.queries) // QUERIES)][:QUERIES]
    if not queries or not collection.protocols:
        raise RetrievalError(f"{collection.title} has no labelled queries to compare with.")
    print(
        f"{index.checkpoint} on {len(index)} pictures of {collection.name}, "
        f"{len(index.arrays['descriptors']) / len(index):.0f} keypoints a picture, "
        f"{len(queries)} queries"
    )
    started = time.perf_counter()
    features = [
        as_local(method.describe(images.read(collection.path(query.name)), query.box))
        for query in queries
    ]
    print(f"extraction of a query: {(time.perf_counter() - started) / len(queries):.2f} s (mean)")

    rankings = [search.rank_features(index, feature) for feature in features]
    total = np.median([sum(ranking.timings.values()) for ranking in rankings])
    shortlist = np.median([ranking.timings["search"] for ranking in rankings])
    print(
        f"ours: {total:.3f} s a query (median), {1000 * shortlist:.0f} ms of it the shortlist, "
        f"the rest the verification of {min(search.SHORTLIST, len(index))}"
    )
    pair = _report_seconds(index, features)
    if pair is None:
        print("the report's procedure: not timed, pip install scikit-image to do so")
    else:
        query_seconds = pair * len(index)
        print(
            f"the report's procedure: {pair:.3f} s a pair (median of {SAMPLE}), extrapolated "
            f"{query_seconds:.0f} s a query: ours is {query_seconds / total:.0f} times as fast"
        )
    _print_maps(
        _FullPrecisionIndex(index, collection, method, progress),
        index,
        replace(collection, queries=tuple(queries)),
        features,
        rankings,
    )
    _print_sizes(index)
    for pictures in GROWTH:
        _print_growth(index, features, max(pictures, len(index)), total - shortlist)


class _FullPrecisionIndex(Index):
    """An index whose descriptors are computed again in float32; stored ones have 8 bits."""

    def __init__(
        self, index: Index, collection: Collection, method: Method, progress: Progress | None
    ):
        super().__init__(index.path, index.manifest, [], index.arrays)
        self.names, self.sizes = index.names, index.sizes
        self.local_features = []
        for done, name in enumerate(index.names, 1):
            picture = images.read(collection.path(name))
            self.local_features.append(as_local(method.describe(picture)))
            if progress:
                progress(done, len(index), name)
        lengths = [len(features) for features in self.local_features]
        self.searcher = InvertedFile.build(
            index.arrays["codebook"],
            np.concatenate([features.descriptors for features in self.local_features]),
            np.concatenate([[0], np.cumsum(lengths)]),
        )

    def features(self, position: int) -> LocalFeatures:
        return self.local_features[position]


def _report_seconds(index: Index, features: list[LocalFeatures]) -> float | None:
    """Median seconds for a pair: KD-tree, distance below 0.8, RANSAC with an affine map.

    features: of the queries. None where scikit-image is not installed.
    """
    try:
        from skimage.measure import ransac
        from skimage.transform import AffineTransform
    except ImportError:
        return None
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(0)
    seconds: list[float] = []
    for position in rng.choice(len(index), SAMPLE):
        query, other = (
            features[len(seconds) % len(features)],
            as_local(index.features(int(position))),
        )
        started = time.perf_counter()
        tree = cKDTree(other.descriptors)
        distance, nearest = tree.query(query.descriptors, distance_upper_bound=0.8)
        near = np.isfinite(distance)
        if near.sum() > 3:
            pairs = other.keypoints[np.asarray(nearest)[near]], query.keypoints[near]
            ransac(pairs, AffineTransform, min_samples=3, residual_threshold=20, max_trials=1000)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _print_maps(
    exact: Index,
    index: Index,
    collection: Collection,
    features: Sequence[LocalFeatures],
    rankings: Sequence[Ranking],
) -> None:
    """Print what the shortlist, 8 bits and verifying only its pictures cost in mAP.

    exact: the index with descriptors in float32. collection: with the queries that ``features`` and
    ``rankings`` are of.
    """
    print(f"{'mAP':44}" + "".join(f"{protocol:>8}" for protocol in collection.protocols))
    started = time.perf_counter()
    exhaustive = [_exhaustive(index, feature) for feature in features]
    seconds = (time.perf_counter() - started) / len(features)
    votes = [index.searcher.rank(feature.descriptors, len(index))[0] for feature in features]
    for label, positions in (
        ("shortlist alone", votes),
        (
            f"shortlist and verification of {search.SHORTLIST}",
            [ranking.positions for ranking in rankings],
        ),
        (
            "  the same with descriptors in float32",
            [search.rank_features(exact, feature).positions for feature in features],
        ),
        (f"verification of all, {seconds:.2f} s a query", exhaustive),
    ):
        scores = evaluate(ranks_of(index, collection, positions), collection)
        maps = (protocol_scores.map for protocol_scores in scores.values())
        print(f"{label:44}" + "".join(f"{100 * value:8.1f}" for value in maps))


def _exhaustive(index: Index, query: LocalFeatures) -> np.ndarray:
    """Positions (N,) of all pictures, sorted by inliers, highest first."""
    counts = [
        geometry.verify_features(
            query,
            as_local(index.features(position)),
            index.size(position),
        )[1].count
        for position in range(len(index))
    ]
    return np.argsort(-np.array(counts), kind="stable")


def _print_sizes(index: Index) -> None:
    """Print the bytes of a picture in memory and on disk."""
    files = index.manifest["files"]
    words = sum(files[f"{name}.npy"]["bytes"] for name in ("word_pictures", "word_signs"))
    local = sum(file["bytes"] for name, file in files.items() if name.endswith(".npy")) - words
    local -= files["codebook.npy"]["bytes"]
    print(
        f"bytes a picture: {human_bytes(words / len(index))} inverted file (in memory), "
        f"{human_bytes(local / len(index))} local features (on disk, mapped)"
    )


def _print_growth(
    index: Index, features: list[LocalFeatures], pictures: int, verification: float
) -> None:
    """Print the time of the shortlist in a larger collection: this one repeated, with noise.

    features: of the queries. verification: seconds a query for the pictures of a shortlist, whose
    number does not grow.
    """
    if len(index.searcher.pictures) * -(-pictures // len(index)) > MAX_ENTRIES:
        print(
            f"{pictures:7,} pictures: not measured, {MAX_ENTRIES:,} words in all pictures would "
            "not be enough"
        )
        return
    larger = grown(index.searcher, pictures)
    seconds = []
    for feature in features:
        started = time.perf_counter()
        larger.rank(feature.descriptors, search.SHORTLIST)
        seconds.append(time.perf_counter() - started)
    memory = larger.pictures.nbytes + larger.signs.nbytes + larger.counts.nbytes
    copies = len(larger.counts) // len(index)
    origin = "as it is" if copies == 1 else f"repeated {copies} times with noise"
    print(
        f"{len(larger.counts):7,} pictures ({origin}): shortlist {1000 * np.median(seconds):.0f} "
        f"ms, with verification {np.median(seconds) + verification:.2f} s a query; "
        f"inverted file {human_bytes(memory)}"
    )


def grown(base: InvertedFile, pictures: int) -> InvertedFile:
    """An inverted file of at least ``pictures`` pictures: ``base`` repeated, with noise.

    In copies, ``SIGN_NOISE`` of the bits are flipped and ``WORD_NOISE`` of the words left out.
    """
    count = len(base.counts)
    copies = -(-pictures // count)
    rng = np.random.default_rng(0)
    word_of_entry = np.repeat(np.arange(len(base.codebook)), np.diff(base.starts))
    word_parts, picture_parts, sign_parts = [], [], []
    for copy in range(copies):
        kept = rng.random(len(word_of_entry)) >= (WORD_NOISE if copy else 0)
        noise = np.zeros(kept.sum(), np.uint64)
        if copy:
            flips = rng.random((kept.sum(), base.codebook.shape[1])) < SIGN_NOISE
            bits = np.left_shift(np.uint64(1), np.arange(flips.shape[1], dtype=np.uint64))
            noise = (flips * bits).sum(axis=1, dtype=np.uint64)
        word_parts.append(word_of_entry[kept].astype(np.int32))
        picture_parts.append(base.pictures[kept] + np.int32(copy * count))
        sign_parts.append(base.signs[kept] ^ noise)
    words, owners = np.concatenate(word_parts), np.concatenate(picture_parts)
    order = np.argsort(words, kind="stable")
    return InvertedFile(
        base.codebook,
        np.searchsorted(words[order], np.arange(len(base.codebook) + 1)),
        owners[order],
        np.concatenate(sign_parts)[order],
        np.bincount(owners, minlength=copies * count).astype(np.int32),
    )
