"""ASMK* against a plain loop, and against the authors' package where it is installed."""

from itertools import pairwise

import numpy as np
import pytest

from retrieval.index import asmk


def unit(rng, count, dimensions):
    x = rng.normal(size=(count, dimensions)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def collection():
    """Descriptors (M, 64) of six pictures, one of them without any, and a codebook of 16 words."""
    rng = np.random.default_rng(1)
    lengths = [40, 25, 0, 60, 1, 33]
    offsets = np.cumsum([0, *lengths])
    descriptors = unit(rng, offsets[-1], 64)
    return descriptors, offsets, unit(rng, 16, 64)


def plain_score(codebook, query, picture):
    """Σ over shared words of max(0, 1 − 2h/d)³ / √(words of both), word by word."""

    def words(descriptors, assignments):
        found = {}
        for x in descriptors:
            distances = ((codebook - x) ** 2).sum(axis=1)
            for word in np.argsort(distances)[:assignments]:
                found[word] = found.get(word, 0) + x - codebook[word]
        return {word: residual > 0 for word, residual in found.items()}

    a, b = words(query, asmk.ASSIGNMENTS), words(picture, 1)
    if not a or not b:
        return 0.0
    likeness = [1 - 2 * np.mean(a[word] != b[word]) for word in a.keys() & b.keys()]
    return sum(max(0, u) ** 3 for u in likeness) / np.sqrt(len(a) * len(b))


def test_scores_equal_the_plain_loop(collection):
    descriptors, offsets, codebook = collection
    inverted = asmk.InvertedFile.build(codebook, descriptors, offsets)
    query = descriptors[offsets[3] : offsets[4]] * 0.9 + 0.1 * descriptors[:60]
    expected = [
        plain_score(codebook, query, descriptors[start:end]) for start, end in pairwise(offsets)
    ]
    assert inverted.scores(query) == pytest.approx(expected, abs=1e-6)
    positions, scores = inverted.rank(query, 2)
    assert positions.tolist() == np.argsort(expected)[::-1][:2].tolist()
    assert scores[0] > scores[1] > 0


def test_scores_equal_the_package_of_the_authors(collection):
    package = pytest.importorskip("asmk.asmk_method", reason="pip install asmk to compare")
    descriptors, offsets, codebook = collection
    # Their binary similarity pads to words of 32 bits, so 64 dimensions compare exactly.
    parameters = {
        "index": {"gpu_id": None},
        "train_codebook": {"codebook": {"size": "16"}},
        "build_ivf": {
            "kernel": {"binary": True},
            "ivf": {"use_idf": False},
            "quantize": {"multiple_assignment": 1},
            "aggregate": {},
        },
        "query_ivf": {
            "quantize": {"multiple_assignment": asmk.ASSIGNMENTS},
            "aggregate": {},
            "search": {"topk": None},
            "similarity": {"similarity_threshold": asmk.THRESHOLD, "alpha": asmk.ALPHA},
        },
    }
    from asmk import index as asmk_index
    from asmk.codebook import Codebook

    theirs = Codebook(asmk_index.initialize_index(**parameters["index"]), size=16)
    theirs.index(codebook)
    trained = package.ASMKMethod(parameters, {}, codebook=theirs)
    lengths = np.diff(offsets)
    pictures = np.repeat(np.arange(len(lengths)), lengths)
    built = trained.build_ivf(descriptors, pictures)
    query = descriptors[offsets[3] : offsets[4]] * 0.9 + 0.1 * descriptors[:60]
    _, _, ranks, scores = built.query_ivf(query, np.zeros(len(query), int))
    ours = asmk.InvertedFile.build(codebook, descriptors, offsets).scores(query)
    assert ours[ranks[0]] == pytest.approx(scores[0].tolist(), abs=1e-6)


def test_scores_by_hand():
    """Of one word: a residual that agrees in at most half of its signs has no vote."""
    codebook = np.zeros((1, 8), np.float32)
    agreeing = [8, 7, 6, 4, 2, 0]  # components of each picture's one descriptor
    pictures = np.array([[1] * n + [-1] * (8 - n) for n in agreeing], np.float32)
    inverted = asmk.InvertedFile.build(codebook, pictures, np.arange(7))
    assert inverted.scores(pictures[:1]).tolist() == [1, 0.75**3, 0.5**3, 0, 0, 0]


def test_nothing_to_look_for_and_nothing_to_find(collection):
    descriptors, offsets, codebook = collection
    inverted = asmk.InvertedFile.build(codebook, descriptors, offsets)
    assert inverted.scores(descriptors[:0]).tolist() == [0] * 6
    nothing = np.zeros((0, 64), np.float32)
    empty = asmk.InvertedFile.build(
        asmk.train_codebook(nothing, 64), nothing, np.zeros(4, np.int64)
    )
    assert empty.scores(descriptors[:5]).tolist() == [0, 0, 0]


def test_arrays_bring_the_inverted_file_back(collection):
    descriptors, offsets, codebook = collection
    inverted = asmk.InvertedFile.build(codebook, descriptors, offsets)
    again = asmk.InvertedFile.of(inverted.arrays())
    query = descriptors[:20]
    assert again.scores(query).tolist() == inverted.scores(query).tolist()


@pytest.mark.parametrize(
    ("descriptors", "words"), [(0, 64), (10_000, 128), (200_000, 2048), (10**9, 65536)]
)
def test_codebook_grows_with_the_collection(descriptors, words):
    assert asmk.codebook_size(descriptors) == words


def test_codebook_never_has_more_words_than_descriptors():
    few = unit(np.random.default_rng(0), 20, 8)
    assert asmk.train_codebook(few, 64).shape == (20, 8)


def test_whole_numbers_a_few_pictures_at_once(monkeypatch):
    """Descriptors as an index stores them give what their float32 gives, in blocks of any size."""
    rng = np.random.default_rng(4)
    stored = rng.integers(-127, 128, (300, 8), dtype=np.int8)
    offsets = np.concatenate([[0, 0], np.sort(rng.integers(0, 300, 28)), [300]])
    floats = stored.astype(np.float32) / 127
    codebook = asmk.train_codebook(stored, 20, 127)
    np.testing.assert_array_equal(codebook, asmk.train_codebook(floats, 20))
    whole = asmk.InvertedFile.build(codebook, floats, offsets)
    monkeypatch.setattr(asmk, "BLOCK", 7)
    few = asmk.InvertedFile.build(codebook, stored, offsets, 127)
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(few.arrays()[name], array)
