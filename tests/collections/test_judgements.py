"""Judgements: the labels they make, and that they survive being written and read."""

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval.collections import Collection, Query, judgements, open_collection
from retrieval.collections.ground_truth import GroundTruth
from retrieval.collections.ground_truth_files import parse_ground_truth
from retrieval.errors import RetrievalError
from retrieval.evaluation import evaluate

NAMES = ("a.png", "b.png", "c.png", "d.png")
BOX = (0.0, 0.0, 5.0, 5.0)


def judged(*marks, queries=()):
    collection = Collection("mine", "Mine", Path("pictures"), NAMES, queries)
    for name, box, picture, verdict in marks:
        collection = judgements.judge(collection, name, box, picture, verdict)
    return collection


def labels(collection, number=0):
    found = collection.queries[number].labels
    return {kind: one.tolist() for kind, one in found.items() if len(one)}


def test_marks_become_labels_and_the_query_is_left_out():
    collection = judged(
        ("a.png", None, "c.png", "positive"),
        ("a.png", None, "b.png", "positive"),
        ("a.png", None, "d.png", "wrong"),
        ("a.png", None, "b.png", "ignored"),  # changed one's mind
        ("a.png", BOX, "b.png", "positive"),  # another box is another question
    )
    assert labels(collection) == {"ok": [2], "wrong": [3], "junk": [0, 1]}
    assert labels(collection, 1) == {"ok": [1], "junk": [0]}
    assert judgements.count(collection) == 4
    asked = judgements.find(collection, "a.png", None)
    assert judgements.verdicts(collection, asked) == {
        "c.png": "positive", "d.png": "wrong", "b.png": "ignored"}  # fmt: skip
    assert collection.protocols == ("classic",)
    ranks = np.array([[0, 1, 3, 2], [0, 1, 2, 3]]).T  # the query itself and junk do not count
    assert evaluate(ranks, collection)["classic"].aps.tolist() == [0.25, 1.0]


def test_taking_the_last_mark_back_drops_the_query():
    marks = [("a.png", None, "c.png", "positive"), ("a.png", None, "c.png", None)]
    assert judged(*marks).queries == ()


def test_right_is_easy_beside_revisited_labels():
    revisited = Query("a.png", None, "tower", {"hard": np.array([1])})
    collection = judged(("a.png", None, "c.png", "positive"), queries=(revisited,))
    assert labels(collection) == {"hard": [1], "easy": [2], "junk": [0]}
    assert collection.queries[0].landmark == "tower"


def test_written_and_read_beside_the_pictures(tmp_path):
    collection = judged(
        ("a.png", BOX, "c.png", "positive"),
        ("b.png", None, "d.png", "wrong"),
        ("b.png", None, "c.png", "ignored"),
    )
    data = judgements.as_json(collection)
    assert set(json.loads(data)) == {"imlist", "qimlist", "gnd"}
    (tmp_path / "ground_truth.json").write_bytes(data)
    read = open_collection(tmp_path)
    assert read.fingerprint == collection.fingerprint
    assert [(one.name, one.box) for one in read.queries] == [("a.png", BOX), ("b.png", None)]
    assert [labels(read, n) for n in (0, 1)] == [labels(collection, n) for n in (0, 1)]


def test_labels_follow_the_names_into_another_list():
    truth = GroundTruth(
        ("x.png", "b.png", "a.png"),
        (Query("a.png", None, "", {"ok": np.array([0, 1])}), Query("x.png")),
    )
    (query,) = judgements.refer_to(truth, NAMES)  # x.png is not here
    assert query.labels["ok"].tolist() == [1]
    (query,) = judgements.refer_to(truth, ("mine/a.png", "mine/b.png", "c/x.jpg"))
    assert query.name == "mine/a.png"  # by its file
    assert query.labels["ok"].tolist() == [1]
    truth = GroundTruth(("x/a.png", "y/a.png"), (Query("y/a.png", labels={"ok": np.array([0])}),))
    (query,) = judgements.refer_to(truth, ("zip/x/a.png", "zip/y/a.png"))
    assert query.name == "zip/y/a.png"  # by the end of its path
    assert query.labels["ok"].tolist() == [0]
    with pytest.raises(RetrievalError, match="None of its queries is among these pictures"):
        judgements.refer_to(GroundTruth(("x.png",), (Query("x.png"),)), NAMES)


def test_no_picture_stands_for_two():
    """Of a zip with a part of the pictures, labels went to others of the same file name; so did the
    marks of a picture that could not be read."""
    marked = Query("x/1.png", labels={"ok": np.array([0, 3]), "junk": np.array([1, 2])})
    truth = GroundTruth(("y/2.png", "y/1.png", "x/1.png", "x/2.png"), (marked, Query("y/1.png")))
    (query,) = judgements.refer_to(truth, ("x/1.png", "x/2.png"))
    assert {kind: rows.tolist() for kind, rows in query.labels.items()} == {"ok": [1], "junk": [0]}
    (query,) = judgements.refer_to(truth, ("zip/x/1.png", "zip/x/2.png"))
    assert {kind: rows.tolist() for kind, rows in query.labels.items()} == {"ok": [1], "junk": [0]}
    with pytest.raises(RetrievalError, match="None of its queries is among these pictures"):
        judgements.refer_to(truth, ("z/1.png", "z/2.png"))  # which of the two?


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "not readable JSON"),
        (b"[" * 100_000, "not readable JSON"),
        (b'{"imlist": ["a"], "qimlist": ["a"], "gnd": [{"wrong": [7]}]}', "outside the 1"),
        (b'{"imlist": ["../a"], "qimlist": [], "gnd": []}', "must be a path below"),
        (b" " * 32_000_001, "too large"),
    ],
)
def test_a_hostile_file_is_refused_in_one_sentence(data, words):
    with pytest.raises(RetrievalError, match=words):
        parse_ground_truth(data, "This file")
