import io
import struct
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval.collections.ground_truth import Query
from retrieval.errors import RetrievalError
from retrieval.evaluation import evaluate, submissions

LABELS = {"easy": np.array([0]), "hard": np.array([2]), "junk": np.array([], np.int64)}


@pytest.fixture
def collection():
    queries = (Query("q.jpg", labels=LABELS), Query("r.jpg", labels=LABELS))
    return SimpleNamespace(title="Shapes", names=("a", "b", "c"), queries=queries)


def packed(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    file.seek(0)
    return file


def member(header: str, data: bytes = b"", name="ranks.npy"):
    """An archive with an array of a header that numpy would not write."""
    file = io.BytesIO()
    text = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
    file.seek(0)
    return file


def test_rankings_are_scored_as_they_are(collection):
    ranks = np.array([[0, 2], [2, 1], [1, 0]], np.int16)
    found = submissions.read_submission(packed(ranks=ranks, other=np.ones(3)), collection)
    assert np.array_equal(found, ranks)
    run = submissions.as_run(found, collection, "mine.npz")
    assert run.scores["medium"].aps.tolist() == evaluate(ranks, collection)["medium"].aps.tolist()
    assert run.record["provenance"]["checkpoint"] == "mine.npz"


def test_descriptors_are_ranked_by_inner_product(collection):
    database = np.eye(3, dtype=np.float16)
    queries = np.array([[0.1, 0, 1], [0, 1, 0.5]])
    found = submissions.read_submission(packed(queries=queries, database=database), collection)
    assert found.T.tolist() == [[2, 0, 1], [1, 2, 0]]


def test_a_collection_without_pictures(collection):
    """It was a ZeroDivisionError."""
    collection.names = ()
    file = packed(queries=np.ones((2, 4)), database=np.ones((0, 4)))
    assert submissions.read_submission(file, collection).shape == (0, 2)


@pytest.mark.parametrize("size", [1e300, 1e30])
def test_descriptors_that_are_too_large(collection, size):
    file = packed(queries=np.full((2, 3), size), database=np.full((3, 3), size))
    with pytest.raises(RetrievalError, match="too large to be compared: scale each to unit length"):
        submissions.read_submission(file, collection)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones(3)}, "must be an .npz with"),
        ({"queries": np.ones((2, 4))}, "must be an .npz with"),
        (
            {"queries": np.ones((1, 4)), "database": np.ones((3, 4))},
            "2 rows, one for each query, not",
        ),
        (
            {"queries": np.ones((2, 4)), "database": np.ones((2, 4))},
            "3 rows, one for each picture, not",
        ),
        ({"ranks": np.ones((3, 2))}, "whole numbers"),
        ({"ranks": np.zeros((2, 3), int)}, "3 columns for 2 queries; it looks transposed"),
        ({"ranks": np.full((3, 2), 3)}, "position 3"),
        ({"ranks": np.zeros((3, 2), int)}, "lists position 0 twice"),
        ({"queries": np.ones((2, 4)), "database": np.ones((4, 4))}, "`database` must be numbers"),
        ({"queries": np.ones((2, 4)), "database": np.ones((3, 5))}, "cannot be compared"),
        ({"queries": np.ones((2, 4)), "database": np.full((3, 4), np.nan)}, "not finite"),
        ({"queries": np.ones((2, 4)), "database": np.full((3, 4), "a")}, "must be numbers"),
    ],
)
def test_what_does_not_fit_is_explained(collection, arrays, message):
    with pytest.raises(RetrievalError, match=message):
        submissions.read_submission(packed(**arrays), collection)


@pytest.mark.parametrize(
    "file",
    [
        io.BytesIO(b""),
        io.BytesIO(b"PK\x03\x04 nothing"),
        packed(ranks=np.array([{}], dtype=object)),
        member(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({10**30}, 2), }}"),
        member(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({10**11}, 2), }}"),
        member("{'descr': '<i8', 'fortran_order': False, 'shape': (-3, 2), }"),
        member("{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (1,), }", b"12345678"),
        member("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n."),
        member("__import__('os').getpid()"),
        member("(" * 110),
        member("no array at all", name="ranks"),
    ],
)
def test_hostile_files_are_refused(collection, file):
    with pytest.raises(RetrievalError):
        submissions.read_submission(file, collection)


def test_too_large_when_unpacked(collection, monkeypatch):
    monkeypatch.setattr(submissions, "MAX_BYTES", 1000)
    with pytest.raises(RetrievalError, match="larger than"):
        submissions.read_submission(packed(ranks=np.zeros((1000, 2), int)), collection)


def test_a_second_array_of_the_same_name(collection, monkeypatch):
    """numpy takes the one, the list of sizes may tell of the other."""
    file = packed(ranks=np.zeros((3, 2), int))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ranks", bytes(5000))
    monkeypatch.setattr(submissions, "MAX_BYTES", 1000)
    with pytest.raises(RetrievalError, match="larger than"):
        submissions.read_submission(file, collection)


def test_small_numbers_that_become_large_ones(collection, monkeypatch):
    """A number of one byte is compared as one of four."""
    arrays = {"queries": np.ones((2, 300), np.uint8), "database": np.ones((3, 300), np.uint8)}
    assert len(submissions.read_submission(packed(**arrays), collection)) == 3
    monkeypatch.setattr(submissions, "MAX_BYTES", 3000)
    with pytest.raises(RetrievalError, match="`database` holds more than"):
        submissions.read_submission(packed(**arrays), collection)


def test_many_rankings_of_few_numbers(collection, monkeypatch):
    """544 bytes became 1.6 GB of rankings of a large collection, and took twice as much."""
    random = np.random.default_rng(0)
    arrays = {"queries": random.random((2, 4)), "database": random.random((3, 4))}
    ranks = submissions.read_submission(packed(**arrays), collection)
    monkeypatch.setattr(submissions, "RANKED", 3)
    assert np.array_equal(submissions.read_submission(packed(**arrays), collection), ranks)
    assert ranks.dtype == np.int32
    collection.names = tuple(map(str, range(500)))
    file = packed(queries=np.zeros((2, 0)), database=np.zeros((500, 0)))
    monkeypatch.setattr(submissions, "MAX_BYTES", 3999)
    with pytest.raises(
        RetrievalError, match="Rankings of 500 pictures for 2 queries are too many: bring `ranks`"
    ):
        submissions.read_submission(file, collection)
