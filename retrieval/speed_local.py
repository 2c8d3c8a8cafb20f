"""``bench delf``: the report's exhaustive matching against the inverted file, on one index.

The report matched a query with every database picture: a KD-tree over its descriptors, then
scikit-image's RANSAC. That takes minutes a query, so it is timed on a sample of pairs and
extrapolated, and the output says so. Everything else is measured whole.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from retrieval import geometry, images, methods, runs, search
from retrieval import index as indexes
from retrieval.errors import RetrievalError
from retrieval.evaluation import evaluate
from retrieval.index.asmk import InvertedFile
from retrieval.index.store import human_bytes
from retrieval.methods.base import LocalFeatures

SAMPLE = 40  # pairs the report's procedure is timed on
QUERIES = 20  # queries of the timings and of the comparison of mAP
GROWTH = (1, 5_000, 100_000)  # pictures; 1 stands for the collection itself
SIGN_NOISE, WORD_NOISE = 0.1, 0.2  # of a repeated picture: bits flipped, words dropped


def delf() -> int:
    """Print the comparison for the DELF index of the embedded collection."""
    found = indexes.find("town")
    if "delf" not in found:
        raise RetrievalError(
            "There is no DELF index of town: python -m retrieval index town --method delf"
        )
    index = indexes.load(found["delf"])
    collection = runs.collection_of(index)
    method = methods.for_index(index)
    queries = collection.queries[:: max(1, len(collection.queries) // QUERIES)][:QUERIES]
    print(
        f"{index.checkpoint} on {len(index)} pictures of {collection.name}, "
        f"{len(index.arrays['descriptors']) / len(index):.0f} keypoints a picture, "
        f"{len(queries)} queries"
    )
    started = time.perf_counter()
    features = [
        method.describe(images.read(collection.path(query.name)), query.box) for query in queries
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
        whole = pair * len(index)
        print(
            f"the report's procedure: {pair:.3f} s a pair (median of {SAMPLE}), extrapolated "
            f"{whole:.0f} s a query: ours is {whole / total:.0f} times as fast"
        )

    _compare_maps(index, collection, queries, features, rankings)
    _sizes(index)
    for pictures in GROWTH:
        _grow(index, features, max(pictures, len(index)))
    return 0


def _report_seconds(index, features: list[LocalFeatures]) -> float | None:
    """Median seconds for a pair: KD-tree, distance below 0.8, RANSAC with an affine map."""
    try:
        from skimage.measure import ransac
        from skimage.transform import AffineTransform
    except ImportError:
        return None
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(0)
    seconds = []
    for position in rng.choice(len(index), SAMPLE):
        query, other = features[len(seconds) % len(features)], index.features(int(position))
        started = time.perf_counter()
        tree = cKDTree(other.descriptors)
        distance, nearest = tree.query(query.descriptors, distance_upper_bound=0.8)
        near = np.isfinite(distance)
        if near.sum() > 3:
            pairs = other.keypoints[nearest[near]], query.keypoints[near]
            ransac(pairs, AffineTransform, min_samples=3, residual_threshold=20, max_trials=1000)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _compare_maps(index, collection, queries, features, rankings) -> None:
    """mAP of the shortlist alone, with verification, and of verifying every picture."""
    positions = {name: position for position, name in enumerate(collection.names)}
    order = np.array([positions[name] for name in index.names])
    every = np.full((len(collection.names), len(queries)), -1, np.int32)
    ours, short = every.copy(), every.copy()
    seconds = []
    for column, (feature, ranking) in enumerate(zip(features, rankings, strict=True)):
        started = time.perf_counter()
        counts = [
            geometry.verify_features(
                feature,
                index.features(position),
                tuple(index.sizes[position]),
                search.MIN_SIMILARITY,
                search.TOLERANCE,
            )[1].count
            for position in range(len(index))
        ]
        seconds.append(time.perf_counter() - started)
        every[: len(index), column] = order[np.argsort(-np.array(counts), kind="stable")]
        ours[: len(index), column] = order[ranking.positions]
        shortlist, _ = index.searcher.rank(feature.descriptors, len(index))
        short[: len(index), column] = order[shortlist]
    truth = replace(collection, queries=tuple(queries))
    print(f"{'mAP':42}" + "".join(f"{protocol:>8}" for protocol in collection.protocols))
    for label, ranks in (
        ("shortlist alone", short),
        (f"shortlist and verification of {search.SHORTLIST}", ours),
        (f"verification of all, {np.median(seconds):.2f} s a query", every),
    ):
        scores = evaluate(ranks, truth)
        print(f"{label:42}" + "".join(f"{100 * one.map:8.1f}" for one in scores.values()))


def _sizes(index) -> None:
    files = index.manifest["files"]
    words = sum(files[f"{name}.npy"]["bytes"] for name in ("word_pictures", "word_signs"))
    local = sum(file["bytes"] for name, file in files.items() if name.endswith(".npy")) - words
    local -= files["codebook.npy"]["bytes"]
    print(
        f"bytes a picture: {human_bytes(words / len(index))} inverted file (in memory), "
        f"{human_bytes(local / len(index))} local features (on disk, mapped)"
    )


def _grow(index, features: list[LocalFeatures], pictures: int) -> None:
    """Time the shortlist of a larger collection: this one repeated, with noise."""
    base: InvertedFile = index.searcher
    copies = -(-pictures // len(index))
    rng = np.random.default_rng(0)
    word = np.repeat(np.arange(len(base.codebook)), np.diff(base.starts))
    words, owners, signs = [], [], []
    for copy in range(copies):
        kept = rng.random(len(word)) >= (WORD_NOISE if copy else 0)
        noise = np.zeros(kept.sum(), np.uint64)
        if copy:
            flips = rng.random((kept.sum(), base.codebook.shape[1])) < SIGN_NOISE
            bits = np.left_shift(np.uint64(1), np.arange(flips.shape[1], dtype=np.uint64))
            noise = (flips * bits).sum(axis=1, dtype=np.uint64)
        words.append(word[kept].astype(np.int32))
        owners.append(base.pictures[kept] + np.int32(copy * len(index)))
        signs.append(base.signs[kept] ^ noise)
    word = np.concatenate(words)
    order = np.argsort(word, kind="stable")
    owner = np.concatenate(owners)
    grown = InvertedFile(
        base.codebook,
        np.searchsorted(word[order], np.arange(len(base.codebook) + 1)),
        owner[order],
        np.concatenate(signs)[order],
        np.bincount(owner, minlength=copies * len(index)).astype(np.int32),
    )
    seconds = []
    for feature in features:
        started = time.perf_counter()
        grown.rank(feature.descriptors, search.SHORTLIST)
        seconds.append(time.perf_counter() - started)
    memory = grown.pictures.nbytes + grown.signs.nbytes + grown.counts.nbytes
    how = "as it is" if copies == 1 else f"repeated {copies} times with noise"
    print(
        f"{copies * len(index):7,} pictures ({how}): shortlist {1000 * np.median(seconds):.0f} "
        f"ms, inverted file {human_bytes(memory)}"
    )
