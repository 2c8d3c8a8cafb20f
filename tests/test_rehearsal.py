"""Files that take more than a process may are refused, and others read as without it."""

import pickle

import pytest

from retrieval import rehearsal
from retrieval.collections.ground_truth_files import read_ground_truth
from retrieval.errors import RetrievalError

GROUND_TRUTH = {"imlist": [f"{n}.jpg" for n in range(200_000)], "qimlist": [], "gnd": []}


@pytest.fixture
def labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(GROUND_TRUTH))
    return "gnd.pkl"


def test_what_takes_little_is_read(labels):
    assert read_ground_truth(labels).names == tuple(GROUND_TRUTH["imlist"])


@pytest.mark.parametrize(("limit", "value"), [("MEMORY", 60_000_000), ("SECONDS", 0.01)])
def test_what_takes_more_is_refused(labels, monkeypatch, limit, value):
    monkeypatch.setattr(rehearsal, limit, value)
    with pytest.raises(RetrievalError, match=r"^gnd\.pkl is refused: it takes more"):
        read_ground_truth(labels)


def test_what_is_refused_for_another_reason_says_so(labels, tmp_path):
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(range(3)))
    with pytest.raises(RetrievalError, match=r"^gnd\.pkl is refused: it contains the name"):
        read_ground_truth(labels)
