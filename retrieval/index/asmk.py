"""ASMK*: aggregated selective match kernel on binarised residuals, in numpy and FAISS.

Tolias, Avrithis and Jégou, "Image Search with Selective Match Kernels: Aggregation Across Single
and Multiple Images", IJCV 2016. The centroids of a k-means clustering, the codebook, are the visual
words. A picture is the set of the words that are nearest to its descriptors. The residual of a
descriptor is its difference to its word; for each word of a picture the residuals are summed, and
only the signs of the d components of the sum are kept.

Two pictures are similar where they share words with similar residuals. A shared word has
u = 1 − 2·h/d, where h of the d signs differ (the Hamming distance), and votes with the selectivity
σ(u) = u^ALPHA, or 0 where u is at most THRESHOLD. The similarity is the sum of the votes divided by
√(number of words of one picture · that of the other).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from retrieval.errors import RetrievalError

# These three as in the authors' code (github.com/jenicek/asmk) for binarised residuals.
ALPHA = 3.0
THRESHOLD = 0.0
ASSIGNMENTS = 5  # words that a query descriptor is assigned to; a database descriptor gets one
TRAINING = 1_000_000  # descriptors that a codebook is trained on, at most
ITERATIONS = 10  # of k-means
FEWEST_WORDS, MAX_WORDS = 64, 65_536
BLOCK = 1000  # pictures whose descriptors are converted to float32 at a time
SEED = 0  # of k-means and of the choice of the descriptors that it learns from
MAX_DIMENSIONS = 64  # bits of the integer that holds the signs of a residual

NAMES = ("codebook", "word_starts", "word_pictures", "word_signs", "word_counts")


def train_codebook(descriptors: np.ndarray, words: int, unit: float = 1) -> np.ndarray:
    """k-means centroids (k, d) float32 of descriptors (n, d); k is at most ``words``.

    descriptors: float32, or int8 in which ``unit`` stands for 1 (``layout.QUANTUM``).
    """
    import faiss

    if len(descriptors) == 0:
        return np.zeros((1, descriptors.shape[1]), np.float32)
    words = min(words, len(descriptors))
    if len(descriptors) > TRAINING:
        rows = np.random.default_rng(SEED).choice(len(descriptors), TRAINING, replace=False)
        descriptors = descriptors[np.sort(rows)]
    descriptors = descriptors.astype(np.float32)
    descriptors /= np.float32(unit)  # a second copy would be 160 MB
    kmeans = faiss.Kmeans(
        descriptors.shape[1],
        words,
        niter=ITERATIONS,
        seed=SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=10**9,  # the sample above is the limit
    )
    kmeans.train(np.ascontiguousarray(descriptors))
    assert kmeans.centroids is not None  # once it is trained
    return kmeans.centroids


def codebook_size(descriptors: int) -> int:
    """How many words a collection with that many descriptors gets: FEWEST_WORDS to MAX_WORDS.

    The power of two that gives 64 to 128 descriptors a word, within these bounds: a finer codebook
    would give similar descriptors different words.
    """
    words = 2 ** np.floor(np.log2(max(descriptors, 1) / 64))
    return int(np.clip(words, FEWEST_WORDS, MAX_WORDS))


def assign(codebook: np.ndarray, descriptors: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` nearest words of each descriptor: (n, count) int64, nearest first.

    codebook: (k, d) float32. descriptors: (n, d) float32.
    """
    import faiss

    flat = faiss.IndexFlatL2(codebook.shape[1])
    flat.add(codebook)
    return flat.search(np.ascontiguousarray(descriptors, np.float32), count)[1]


def aggregate(
    codebook: np.ndarray, descriptors: np.ndarray, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and binarise the residuals of one picture, word by word.

    codebook: (k, d). descriptors: (n, d) float32, d at most 64. words: (n, m) int64, the words that
    each descriptor is assigned to.
    Returns the distinct words (w,) ascending and the signs of their residuals (w,) uint64: bit j is
    set where component j is positive.
    """
    flat = words.ravel()
    residuals = np.repeat(descriptors, words.shape[1], axis=0) - codebook[flat]
    distinct, inverse = np.unique(flat, return_inverse=True)
    sums = np.zeros((len(distinct), descriptors.shape[1]), np.float32)
    np.add.at(sums, inverse, residuals)
    return distinct, _pack(sums)


def _pack(values: np.ndarray) -> np.ndarray:
    """Which components of (n, d ≤ 64) are positive, as the bits of (n,) uint64."""
    weights = np.left_shift(np.uint64(1), np.arange(values.shape[1], dtype=np.uint64))
    return ((values > 0) * weights).sum(axis=1, dtype=np.uint64)


@dataclass(frozen=True)
class InvertedFile:
    """For each visual word, the database pictures that have it.

    codebook: (k, d) float32. starts: (k + 1,) int64; word w has entries starts[w]:starts[w + 1].
    pictures: (e,) int32, position of the picture of each entry. signs: (e,) uint64, signs of its
    residual, see ``aggregate``. counts: (N,) int32, how many words each picture has.
    """

    codebook: np.ndarray
    starts: np.ndarray
    pictures: np.ndarray
    signs: np.ndarray
    counts: np.ndarray

    @classmethod
    def build(
        cls,
        codebook: np.ndarray,
        descriptors: np.ndarray,
        offsets: np.ndarray,
        unit: float = 1,
    ) -> InvertedFile:
        """From all descriptors (M, d); picture i has rows offsets[i]:offsets[i + 1].

        codebook: (k, d) float32. descriptors, unit: as for ``train_codebook``. offsets: (N + 1,)
        int64.
        """
        if codebook.shape[1] > MAX_DIMENSIONS:
            raise RetrievalError(
                f"Local descriptors may have {MAX_DIMENSIONS} dimensions, not {codebook.shape[1]}."
            )
        words, word_counts, signs = [np.empty(0, np.int64)], [], [np.empty(0, np.uint64)]
        for first in range(0, len(offsets) - 1, BLOCK):
            rows = offsets[first : first + BLOCK + 1]
            block = descriptors[rows[0] : rows[-1]].astype(np.float32)
            block /= np.float32(unit)
            nearest = assign(codebook, block, 1)
            for start, end in pairwise(rows - rows[0]):
                distinct, bits = aggregate(codebook, block[start:end], nearest[start:end])
                words.append(distinct)
                signs.append(bits)
                word_counts.append(len(distinct))
        word = np.concatenate(words)
        order = np.argsort(word, kind="stable")
        counts = np.array(word_counts, np.int32)
        picture = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        starts = np.searchsorted(word[order], np.arange(len(codebook) + 1))
        return cls(codebook, starts, picture[order], np.concatenate(signs)[order], counts)

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> InvertedFile:
        """From the arrays of an index on disk."""
        # As plain arrays over the same mapped files: a slice of those takes a tenth of the time.
        return cls(*(np.asarray(arrays[name]) for name in NAMES))

    def arrays(self) -> dict[str, np.ndarray]:
        """As an index keeps them on disk."""
        fields = (self.codebook, self.starts, self.pictures, self.signs, self.counts)
        return dict(zip(NAMES, fields, strict=True))

    def scores(self, descriptors: np.ndarray) -> np.ndarray:
        """Similarity (N,) float32, 0 to 1, of every database picture to the query.

        descriptors: (n, d) float32, of the query.
        """
        scores = np.zeros(len(self.counts), np.float64)
        if not len(descriptors) or not len(self.pictures):
            return scores.astype(np.float32)
        nearest = assign(self.codebook, descriptors, min(ASSIGNMENTS, len(self.codebook)))
        words, signs = aggregate(self.codebook, descriptors, nearest)
        u = 1 - 2 * np.arange(self.codebook.shape[1] + 1) / self.codebook.shape[1]
        votes = np.where(u > THRESHOLD, u.clip(0) ** ALPHA, 0)  # (d + 1,): by Hamming distance
        for word, sign in zip(words, signs, strict=True):
            entries = slice(self.starts[word], self.starts[word + 1])
            distance = np.bitwise_count(self.signs[entries] ^ sign)
            # A picture has a word once, so no position comes twice.
            scores[self.pictures[entries]] += votes[distance]
        norm = np.sqrt(np.maximum(self.counts, 1) * len(words))
        return (scores / norm).astype(np.float32)

    def rank(self, descriptors: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``top`` best for the descriptors (n, d) of a query, best first.

        Returns positions (top,) int64 and scores (top,) float32; equal scores by position.
        """
        scores = self.scores(descriptors)
        order = np.argsort(-scores, kind="stable")[:top]
        return order, scores[order]
