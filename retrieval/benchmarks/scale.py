"""``bench scale``: search in collections that are larger than the embedded one.

Vectors are made up: those of town plus noise with the covariance of town. The noise is so strong
that a vector is as similar to its original as a picture is to its nearest neighbour. DELF's
inverted file is that of town, repeated with noise. The output says which numbers are extrapolated.
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
from retrieval.index import Index, asmk
from retrieval.index.approximate import KINDS, RECALL_AT, Approximate
from retrieval.index.layout import EXACT, dequantise
from retrieval.index.vectors import BLOCK, ExactSearcher, nearest
from retrieval.methods.base import as_local
from retrieval.ranking.search import SHORTLIST

T = TypeVar("T")

MIN_PICTURES = 10_000
QUERIES = 200
SEED = 0


class BuildCost(NamedTuple):
    """What a build took: seconds, seconds of processor time, peak of the process in bytes."""

    seconds: float
    processor: float
    peak: int


class SearchCost(NamedTuple):
    """What searches took: bytes in memory, median seconds a query.

    scores: (QUERIES, RECALL_AT), cosines of the pictures found.
    """

    memory: int
    seconds: float
    scores: np.ndarray


def run(method: str, count: int) -> None:
    """The command: measure 10,000 pictures, then ten times as many, until there are ``count``.

    method: 'cnn-irwnha' for vectors or 'delf' for the inverted file.
    """
    index = indexes.load(index_of_town(method))
    sizes = [MIN_PICTURES]
    while sizes[-1] * 10 <= count:
        sizes.append(sizes[-1] * 10)
    measure = _print_inverted_file if index.kind == "local" else _print_vectors
    for size in sizes:
        measure(index, min(size, count))


def _print_vectors(index: Index, count: int) -> None:
    """Print a line for each way to search vectors."""
    base = index.arrays["descriptors"].astype(np.float32)
    similarity = float(np.median(index.nearest_sample))
    rng = np.random.default_rng(SEED)
    queries = made_up(base, similarity, QUERIES, rng).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        vectors = np.lib.format.open_memmap(path, "w+", np.float16, (count, base.shape[1]))
        for start in range(0, count, BLOCK):
            end = min(start + BLOCK, count)
            vectors[start:end] = made_up(base, similarity, end - start, rng)
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
            build_cost = _in_process(build, search, path)
            cost = _in_process(run_searches, search, path, queries)
            recall = (cost.scores >= exact[:, -1:] - 1e-6).mean()
            print(
                f"  {search:8}{recall:10.3f}{1000 * cost.seconds:12.2f}"
                f"{human_bytes(cost.memory):>10}{build_cost.seconds:8.0f} s"
                f"{build_cost.processor:9.0f} s{human_bytes(build_cost.peak):>13}",
                flush=True,
            )


def made_up(
    base: np.ndarray, similarity: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Vectors (count, D) float16 of unit length that are distributed like base (N, D) float32.

    similarity: expected cosine of a vector and the one of base that it is made of.
    """
    deviations = base - base.mean(axis=0)
    variance = np.square(deviations).sum(axis=1).mean()
    strength = np.sqrt((1 / similarity**2 - 1) / variance)
    # Random combinations of the deviations have their covariance.
    noise = rng.standard_normal((count, len(base)), np.float32) @ deviations / np.sqrt(len(base))
    vectors = base[rng.integers(0, len(base), count)] + strength * noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def build(search: str, path: Path) -> BuildCost:
    """Make a searcher over the vectors in a file, and store its arrays beside it.

    search: 'exact' or a key of ``KINDS``. path: of an .npy file (N, D).
    """
    vectors = np.load(path, mmap_mode="r")
    started, spent = time.perf_counter(), time.process_time()
    if search == EXACT:
        ExactSearcher(vectors)
    else:
        for name, array in KINDS[search].make(vectors).arrays().items():
            np.save(path.with_name(f"{name}.npy"), array)
    seconds, processor = time.perf_counter() - started, time.process_time() - spent
    return BuildCost(seconds, processor, process_status("VmHWM") or 0)


def run_searches(search: str, path: Path, queries: np.ndarray) -> SearchCost:
    """Open a searcher that ``build`` stored, and search with queries (QUERIES, D) one by one."""
    vectors = np.load(path, mmap_mode="r")
    nearest(vectors[:1000], queries, 1)  # loads FAISS, whose memory does not count
    before = process_status("RssAnon") or 0
    searcher: ExactSearcher | Approximate
    if search == EXACT:
        searcher = ExactSearcher(vectors)
    else:
        kind = KINDS[search]
        arrays = {
            name: np.load(path.with_name(f"{name}.npy"), mmap_mode="r") for name in kind.types
        }
        searcher = kind.of(vectors, arrays)
    memory = (process_status("RssAnon") or 0) - before
    seconds, scores = [], []
    for query in queries:
        started = time.perf_counter()
        scores.append(searcher.rank(query, RECALL_AT)[1])
        seconds.append(time.perf_counter() - started)
    return SearchCost(memory, float(np.median(seconds)), np.stack(scores))


def _in_process(do: Callable[..., T], *arguments: object) -> T:
    """``do(*arguments)`` in a new process, so that its memory can be measured."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(do, *arguments).result()


def _print_inverted_file(index: Index, count: int) -> None:
    """Print time and memory of each stage of DELF's inverted file."""
    rng = np.random.default_rng(SEED)
    stored, offsets = index.arrays["descriptors"], index.arrays["offsets"]
    descriptors = dequantise(stored)
    total = len(descriptors) * count // len(index)
    size = asmk.codebook_size(total)
    # The codebook has the right size but is not learned: descriptors with a little noise.
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
        query = as_local(index.features(position)).descriptors
        started = time.perf_counter()
        grown.rank(query, SHORTLIST)
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
