"""``bench scale``: search in collections that are larger than any at hand.

Vectors are made up: those of the embedded collection with noise of the collection's own covariance,
as strong as makes a made-up vector as like its original as a picture is to its nearest. DELF's
inverted file is that of the embedded collection, repeated with noise. What is extrapolated says so.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from retrieval import index as indexes
from retrieval.benchmarks import delf, index_of_town, process_status
from retrieval.files import human_bytes
from retrieval.index import asmk
from retrieval.index.approximate import KINDS, RECALL_AT, Approximate
from retrieval.index.layout import EXACT
from retrieval.index.store import Index, dequantise
from retrieval.index.vectors import BLOCK, ExactSearcher, nearest
from retrieval.methods.base import as_local
from retrieval.ranking.search import SHORTLIST

T = TypeVar("T")

SMALLEST = 10_000
QUERIES = 200
SEED = 0


class Built(NamedTuple):
    """What a build cost: seconds, seconds of processor time, bytes of the process at its peak."""

    seconds: float
    processor: float
    peak: int


class Asked(NamedTuple):
    """What a search costs: bytes in memory, seconds a query (median); and the cosines of what it
    found, (QUERIES, RECALL_AT)."""

    memory: int
    seconds: float
    scores: np.ndarray


def run(method: str, count: int) -> None:
    """The command: 10 000 pictures, and ten times as many until there are ``count``."""
    index = indexes.load(index_of_town(method))
    sizes = [SMALLEST]
    while sizes[-1] * 10 <= count:
        sizes.append(sizes[-1] * 10)
    measure = _inverted_file if index.kind == "local" else _vectors
    for size in sizes:
        measure(index, min(size, count))


def _vectors(index: Index, count: int) -> None:
    """Print a line for each way to search vectors."""
    base = index.arrays["descriptors"].astype(np.float32)
    like = float(np.median(index.nearest_sample))
    rng = np.random.default_rng(SEED)
    queries = made_up(base, like, QUERIES, rng).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        vectors = np.lib.format.open_memmap(path, "w+", np.float16, (count, base.shape[1]))
        for start in range(0, count, BLOCK):
            end = min(start + BLOCK, count)
            vectors[start:end] = made_up(base, like, end - start, rng)
        vectors.flush()
        exact = nearest(vectors, queries, RECALL_AT)[0]
        print(
            f"{count:,} vectors × {base.shape[1]}, cosine of the nearest {exact[:, 0].mean():.2f}, "
            f"of the tenth {exact[:, -1].mean():.2f}"
        )
        print(
            f"  {'search':8}{'recall@10':>10}{'ms a query':>12}{'memory':>10}{'build':>10}"
            f"{'processor':>11}{'at its peak':>13}"
        )
        for search in (EXACT, *KINDS):
            built = _apart(build, search, path)
            asked = _apart(ask, search, path, queries)
            recall = (asked.scores >= exact[:, -1:] - 1e-6).mean()
            print(
                f"  {search:8}{recall:10.3f}{1000 * asked.seconds:12.2f}"
                f"{human_bytes(asked.memory):>10}{built.seconds:8.0f} s{built.processor:9.0f} s"
                f"{human_bytes(built.peak):>13}",
                flush=True,
            )


def made_up(base: np.ndarray, like: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors (count, D) float16 that are distributed like base (N, D), also of unit length.

    like: their cosine to the vector of base that they come from.
    """
    deviations = base - base.mean(axis=0)
    spread = np.square(deviations).sum(axis=1).mean()
    strength = np.sqrt((1 / like**2 - 1) / spread)
    # Sums of deviations with random signs and sizes have their covariance.
    noise = rng.standard_normal((count, len(base)), np.float32) @ deviations / np.sqrt(len(base))
    vectors = base[rng.integers(0, len(base), count)] + strength * noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def build(search: str, path: Path) -> Built:
    """Make a search over the vectors in a file, and keep its arrays beside it."""
    vectors = np.load(path, mmap_mode="r")
    started, spent = time.perf_counter(), time.process_time()
    if search == EXACT:
        ExactSearcher(vectors)
    else:
        for name, array in KINDS[search].make(vectors).arrays().items():
            np.save(path.with_name(f"{name}.npy"), array)
    seconds, processor = time.perf_counter() - started, time.process_time() - spent
    return Built(seconds, processor, process_status("VmHWM") or 0)


def ask(search: str, path: Path, queries: np.ndarray) -> Asked:
    """Open a search and put queries to it, one by one."""
    vectors = np.load(path, mmap_mode="r")
    nearest(vectors[:1000], queries, 1)  # FAISS itself is no part of what is measured
    before = process_status("RssAnon") or 0
    searcher: ExactSearcher | Approximate
    if search == EXACT:
        searcher = ExactSearcher(vectors)
    else:
        kind = KINDS[search]
        arrays = {one: np.load(path.with_name(f"{one}.npy"), mmap_mode="r") for one in kind.types}
        searcher = kind.of(vectors, arrays)
    memory = (process_status("RssAnon") or 0) - before
    seconds, scores = [], []
    for query in queries:
        started = time.perf_counter()
        scores.append(searcher.rank(query, RECALL_AT)[1])
        seconds.append(time.perf_counter() - started)
    return Asked(memory, float(np.median(seconds)), np.stack(scores))


def _apart(do: Callable[..., T], *arguments: object) -> T:
    """What ``do`` returns in a process of its own, whose memory is that of ``do`` alone."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(do, *arguments).result()


def _inverted_file(index: Index, count: int) -> None:
    """Print time and memory of each stage of DELF's inverted file."""
    rng = np.random.default_rng(SEED)
    stored, offsets = index.arrays["descriptors"], index.arrays["offsets"]
    descriptors = dequantise(stored)
    total = len(descriptors) * count // len(index)
    size = asmk.codebook_size(total)
    # As many words as the rule says, but not learned: descriptors with a little noise.
    words = descriptors[rng.integers(0, len(descriptors), size)]
    words = words + 0.3 * rng.standard_normal(words.shape, np.float32) / np.sqrt(words.shape[1])
    codebook = np.ascontiguousarray(words, np.float32)

    started = time.process_time()
    nearest_words = asmk.assign(codebook, descriptors, 1)
    assigning = (time.process_time() - started) / len(descriptors)
    started = time.process_time()
    for start, end in pairwise(offsets):
        asmk.aggregate(codebook, descriptors[start:end], nearest_words[start:end])
    aggregating = (time.process_time() - started) / len(index)
    base = asmk.InvertedFile.build(codebook, descriptors, offsets)
    started = time.process_time()
    grown = delf.grown(base, count)
    growing = time.process_time() - started
    seconds = []
    for position in rng.integers(0, len(index), 20).tolist():
        asked = as_local(index.features(position)).descriptors
        started = time.perf_counter()
        grown.rank(asked, SHORTLIST)
        seconds.append(time.perf_counter() - started)

    trained = min(total, asmk.TRAINING)
    print(f"{len(grown.counts):,} pictures, {total:,} descriptors, {size:,} words")
    for stage, value in (
        ("learning the words", f"{asmk.ITERATIONS * trained * assigning:.0f} s"),
        ("finding the word of each descriptor", f"{total * assigning:.0f} s"),
        ("signs of each picture's words", f"{count * aggregating:.0f} s"),
    ):
        print(f"  {stage:40}{value:>10} of processor time, extrapolated")
    print(f"  {'sorting, with the noise made up':40}{growing:8.0f} s of processor time")
    files = grown.pictures.nbytes + grown.signs.nbytes + grown.counts.nbytes + codebook.nbytes
    rows = sum(index.arrays[name].nbytes for name in ("descriptors", "keypoints", "scales"))
    rows += index.arrays["scores"].nbytes
    print(f"  {'inverted file, in memory':40}{human_bytes(files):>10}")
    print(f"  {'local features, on disk':40}{human_bytes(rows / len(index) * count):>10}")
    print(f"  {'a query, shortlist':40}{1000 * np.median(seconds):7.0f} ms", flush=True)
