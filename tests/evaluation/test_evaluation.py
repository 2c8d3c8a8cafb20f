import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retrieval.benchmarks.evaluation import average_precision_by_loop
from retrieval.collections.ground_truth import GroundTruth, Query
from retrieval.collections.ground_truth_files import read_ground_truth
from retrieval.errors import RetrievalError
from retrieval.evaluation import evaluate, explain, precision_recall
from retrieval.evaluation import protocols as evaluation

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"


def truth(pictures, *labels):
    names = tuple(f"{i}.jpg" for i in range(pictures))
    return GroundTruth(
        names,
        tuple(
            Query(
                f"q{i}.jpg",
                None,
                f"place {i // 2}",
                {kind: np.array(sorted(positions), np.int64) for kind, positions in one.items()},
            )
            for i, one in enumerate(labels)
        ),
    )


def classic(ranking, ok, junk=(), pictures=None):
    one = truth(pictures or len(ranking), {"ok": ok, "junk": junk})
    return evaluate(np.array(ranking)[:, None], one)["classic"]


@pytest.mark.parametrize(
    ("ranking", "ok", "junk", "expected"),
    [
        ([3, 0, 1, 2], [3], [], 1),
        ([3, 0, 1, 2], [0], [], 1 / 4),  # (0/1 + 1/2) / 2
        ([3, 0, 1, 2], [0], [3], 1),  # the ignored one moves it to the top
        ([0, 1, 2, 3], [1, 3], [0], 19 / 24),  # (1 + 1)/2/2 + (1/2 + 2/3)/2/2
        ([0, 1, 2, 3], [2, 3], [], 7 / 24),  # (0 + 1/3)/2/2 + (1/3 + 2/4)/2/2
        ([0, 1, 2, 3], [0, 1, 2, 3], [], 1),
    ],
)
def test_average_precision_by_hand(ranking, ok, junk, expected):
    assert classic(ranking, ok, junk).map == pytest.approx(expected, abs=1e-15)


def test_precision_and_recall_at_k_by_hand():
    # Without the ignored 0 the positives 1 and 3 have ranks 1 and 3.
    scores = classic([0, 1, 2, 3], [1, 3], [0])
    assert scores.mp == {1: 1, 5: 2 / 3, 10: 2 / 3}  # divided by min(k, 3)
    assert scores.recall == {1: 1 / 2, 5: 1, 10: 1}


def test_interpolated_curve_by_hand():
    # Precision 1/2 at recall 1/2 and 2/3 at recall 1: the later one is better everywhere.
    assert np.allclose(classic([9, 0, 1, *range(2, 9)], [0, 1]).curve, 2 / 3)
    # Precision 1 up to recall 1/2, then 2/4.
    curve = classic([0, 2, 3, 1], [0, 1]).curve
    assert (curve[:51] == 1).all()
    assert (curve[51:] == 0.5).all()


def test_the_three_revisited_protocols_by_hand():
    one = truth(5, {"easy": [1], "hard": [3], "junk": [0]})
    scores = evaluate(np.arange(5)[:, None], one)
    assert list(scores) == ["easy", "medium", "hard"]
    assert scores["easy"].map == 1  # 0 ignored
    assert scores["medium"].map == pytest.approx(19 / 24)
    assert scores["hard"].map == pytest.approx(1 / 4)  # 0, 1 ignored: 2 3 4 → (0 + 1/2) / 2


def test_queries_without_positives_are_not_counted():
    two = truth(3, {"easy": [0], "hard": [], "junk": []}, {"easy": [], "hard": [1], "junk": []})
    scores = evaluate(np.array([[0, 0], [1, 1], [2, 2]]), two)
    assert scores["easy"].counted.tolist() == [True, False]
    assert scores["easy"].map == 1
    assert np.isnan(scores["easy"].aps[1])
    assert scores["easy"].mp[1] == 1
    assert scores["easy"].to_json()["aps"] == [1.0, None]
    assert scores["easy"].to_json()["queries"] == 1
    assert scores["hard"].by_landmark(two.queries) == {"place 0": 0.25}
    json.dumps(scores["easy"].to_json(), allow_nan=False)


def test_no_query_counts():
    with pytest.raises(RetrievalError, match="no query has a right picture"):
        evaluate(np.zeros((1, 1), int), truth(1, {"ok": [], "junk": []}))


def test_unlisted_positives_add_no_area_and_still_count():
    full, short = classic([0, 2, 1, 3], [0, 3]), classic([0, 2], [0, 3], pictures=4)
    assert full.map == pytest.approx(0.5 + (1 / 3 + 2 / 4) / 4)
    assert short.map == 0.5
    assert short.listed.tolist() == [1]
    assert short.mp == {1: 1, 5: 1 / 5, 10: 1 / 10}  # the last positive's rank is unknown
    padded = classic([0, 2, -1, -1], [0, 3])
    assert padded.map == short.map
    assert padded.mp == short.mp
    nothing = classic([1, 2], [0], pictures=4)
    assert nothing.map == 0
    assert nothing.mp == {1: 0, 5: 0, 10: 0}
    assert (nothing.curve == 0).all()


def test_empty_ranking():
    scores = evaluate(np.zeros((0, 1), int), truth(3, {"ok": [1], "junk": []}))["classic"]
    assert scores.map == 0


def test_ties_keep_the_order_of_the_database():
    scores = np.array([[1.0, 0.5], [2.0, 0.5], [2.0, np.nan], [1.0, 0.5]])
    assert evaluation.ranks_from_scores(scores).T.tolist() == [[1, 2, 0, 3], [0, 1, 3, 2]]
    unsigned = np.array([[1], [3], [3]], np.uint8)
    assert evaluation.ranks_from_scores(unsigned).T.tolist() == [[1, 2, 0]]


def test_rank_descriptors():
    database = np.eye(3, dtype=np.float32)
    queries = np.array([[0.1, 0.9, 0.2]], np.float32)
    assert evaluation.rank_descriptors(queries, database).T.tolist() == [[1, 2, 0]]
    with pytest.raises(RetrievalError, match=r"\(1, 2\) and \(3, 3\)"):
        evaluation.rank_descriptors(queries[:, :2], database)


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        (np.zeros((3, 2), int), "2 columns for 1 queries"),
        (np.zeros((1, 3), int), "looks transposed"),
        (np.zeros((4, 1), int), "list 4 pictures, but the database has 3"),
        (
            np.array([[0], [1], [3]]),
            "position 3, but the database has 3 pictures: use positions 0 to 2",
        ),
        (np.array([[1], [2], [3]]), "count from zero"),
        (np.array([[0], [1], [-2]]), "position -2"),
        (np.array([[0], [-1], [1]]), "after an empty entry"),
        (np.array([[0], [2], [2]]), "column 0 lists position 2 twice"),
        (np.array([[0.0], [1.0]]), "whole numbers"),
        (np.array([0, 1, 2]), "whole numbers in two dimensions"),
        (np.array([["a"]]), "whole numbers"),
    ],
)
def test_rankings_that_do_not_fit(ranks, words):
    with pytest.raises(RetrievalError, match=words):
        evaluate(ranks, truth(3, {"ok": [0]}))


def test_labels_that_are_not_there():
    with pytest.raises(RetrievalError, match="no query has a right picture"):
        evaluate(np.zeros((1, 1), int), truth(1, {}))
    with pytest.raises(RetrievalError, match="no labels for the protocol 'hard'; there are for cl"):
        evaluate(np.zeros((1, 1), int), truth(1, {"ok": [0]}), ["hard"])


def test_explanation_by_hand():
    labels = {"easy": np.array([1]), "hard": np.array([3, 5]), "junk": np.array([0])}
    explanation = explain(np.array([0, 1, 2, 3, 4, -1]), labels, "medium")
    assert explanation.kinds.tolist() == ["ignored", "positive", "wrong", "positive", "wrong"]
    assert explanation.positives == 3
    assert explanation.missing == (5,)
    first, second = explanation.steps
    assert (first.position, first.label, first.raw_rank, first.rank) == (1, "easy", 2, 1)
    assert (first.ignored_above, first.precision_before, first.precision_after) == (1, 1, 1)
    assert (first.recall, first.area) == (1 / 3, 1 / 3)
    assert (second.position, second.label, second.raw_rank, second.rank) == (3, "hard", 4, 3)
    assert (second.precision_before, second.precision_after) == (1 / 2, 2 / 3)
    assert second.area == pytest.approx(7 / 36)
    assert explanation.average_precision == pytest.approx(1 / 3 + 7 / 36)
    recall, precision = precision_recall(explanation)
    assert recall == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3])
    assert precision == pytest.approx([1, 1, 1 / 2, 2 / 3])


def test_explanation_without_positives():
    explanation = explain(np.array([0, 1]), {"ok": np.array([], int)}, "classic")
    assert explanation.steps == ()
    assert math.isnan(explanation.average_precision)


@st.composite
def cases(draw):
    pictures = draw(st.integers(1, 30))
    ranking = draw(st.permutations(range(pictures)))[: draw(st.integers(0, pictures))]
    kinds = draw(
        st.lists(
            st.sampled_from(["easy", "hard", "junk", "easy junk", ""]),
            min_size=pictures,
            max_size=pictures,
        )
    )
    labels = {
        kind: [i for i, one in enumerate(kinds) if kind in one] for kind in ("easy", "hard", "junk")
    }
    return pictures, ranking, labels


@settings(max_examples=150, deadline=None)
@given(cases())
def test_agrees_with_the_plain_loop_and_the_explanation(case):
    pictures, ranking, labels = case
    assume(labels["easy"] or labels["hard"])
    one = truth(pictures, labels)
    scores = evaluate(np.array(ranking, int)[:, None], one)
    for name in scores:
        rule = evaluation.PROTOCOLS[name]
        positives, ignored = ({i for kind in kinds for i in labels[kind]} for kinds in rule)
        ignored -= positives
        expected = average_precision_by_loop(ranking, positives, ignored)
        assert scores[name].aps[0] == pytest.approx(expected, abs=1e-12, nan_ok=True)
        explanation = explain(np.array(ranking, int), one.queries[0].labels, name)
        if positives:
            assert sum(step.area for step in explanation.steps) == pytest.approx(expected)
            recall, precision = precision_recall(explanation)
            assert np.trapezoid(precision, recall) == pytest.approx(expected)
            clean = [i for i in ranking if i not in ignored]
            for k, value in zip((1, 5, 10), scores[name].recalls[0], strict=True):
                assert value == len(positives & set(clean[:k])) / len(positives)
            last = max(clean.index(i) for i in positives) + 1 if positives <= set(clean) else 100
            for k, value in zip((1, 5, 10), scores[name].prs[0], strict=True):
                depth = min(k, last)
                assert value == len(positives & set(clean[:depth])) / depth


needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs ../shared/reference")


@needs_reference
@pytest.mark.parametrize("name", ["roxford5k", "oxford5k"])
def test_matches_the_reference_evaluation(name):
    expected = json.loads((REFERENCE / "scores.json").read_text())[name]
    ranks = np.load(REFERENCE / "ranks.npz")[name]
    scores = evaluate(ranks, read_ground_truth(REFERENCE / f"gnd_{name}.pkl"))
    assert set(scores) == set(expected)
    for protocol, one in expected.items():
        found = scores[protocol]
        assert found.map == pytest.approx(one["map"], abs=1e-9)
        assert list(found.mp.values()) == pytest.approx(one["mp@1,5,10"], abs=1e-9)
        for query, ap in enumerate(one["aps"]):
            assert found.counted[query] == (ap is not None)
            if ap is not None:
                assert found.aps[query] == pytest.approx(ap, abs=1e-9)
                assert found.prs[query] == pytest.approx(one["prs"][query], abs=1e-9)


@needs_reference
def test_reader_gives_what_pickle_gives():
    for name in ("roxford5k", "oxford5k", "paris6k"):
        path = REFERENCE / f"gnd_{name}.pkl"
        plain = pickle.loads(path.read_bytes())  # these files are ours
        found = read_ground_truth(path)
        assert list(found.names) == plain["imlist"]
        assert [query.name for query in found.queries] == plain["qimlist"]
        for query, entry in zip(found.queries, plain["gnd"], strict=True):
            assert list(query.box) == entry["bbx"]
            for kind, positions in query.labels.items():
                assert positions.tolist() == sorted(entry[kind])
