import json
import pickle

import numpy as np
import pytest

from retrieval.collections.ground_truth import (
    Query,
    note_on_own_pictures,
    protocols_of,
    usual_protocol,
)
from retrieval.collections.ground_truth_files import parse_ground_truth, read_ground_truth
from retrieval.errors import RetrievalError

GND = {
    "imlist": ["tower_000001", "oxford_000002", "tower_000003", "bridge_000004"],
    "qimlist": ["tower_000009", "oxford_000010"],
    "gnd": [
        {"bbx": [1, 2.5, 30, 40], "easy": [2, 0], "hard": [], "junk": np.array([3])},
        {"bbx": None, "easy": [], "hard": np.array([3, 1]), "junk": []},
    ],
}


def write(folder, content):
    path = folder / ("gnd.json" if isinstance(content, str) else "gnd.pkl")
    if isinstance(content, str):
        path.write_text(content)
    else:
        path.write_bytes(pickle.dumps(content))
    return path


def check_gnd(truth, suffix=""):
    assert truth.names == tuple(name + suffix for name in GND["imlist"])
    first, second = truth.queries
    assert (first.name, first.box) == ("tower_000009" + suffix, (1, 2.5, 30, 40))
    assert (second.name, second.box) == ("oxford_000010" + suffix, None)
    assert {kind: labels.tolist() for kind, labels in first.labels.items()} == {
        "easy": [0, 2],
        "hard": [],
        "junk": [3],
    }
    assert all(labels.dtype == np.int64 for labels in first.labels.values())
    assert first.landmark == "tower"
    assert second.landmark == "bridge"  # 'oxford' says nothing


def test_the_authors_pickle_is_read(tmp_path):
    check_gnd(read_ground_truth(write(tmp_path, GND)))
    check_gnd(read_ground_truth(write(tmp_path, GND), suffix=".jpg"), ".jpg")


def test_gnd_as_json_with_landmarks(tmp_path):
    content = json.loads(json.dumps(GND, default=lambda array: array.tolist()))
    check_gnd(read_ground_truth(write(tmp_path, json.dumps(content))))
    content["landmarks"] = ["Tower\n of\ud800 X", "The Bridge"]  # no line, no half character
    truth = read_ground_truth(write(tmp_path, json.dumps(content)))
    assert [query.landmark for query in truth.queries] == ["Tower of X", "The Bridge"]
    content["landmarks"] = {"oxford_000010": "The Bridge"}
    truth = read_ground_truth(write(tmp_path, json.dumps(content)))
    assert [query.landmark for query in truth.queries] == ["tower", "The Bridge"]


def test_json_by_name(tmp_path):
    content = {
        "database": ["im/a.jpg", "im/b.jpg", "im/c.jpg"],
        "queries": [
            {
                "image": "im/b.jpg",
                "landmark": "x",
                "bbox": [0, 0, 5, 5],
                "easy": ["im/c.jpg"],
                "hard": ["im/a.jpg"],
                "junk": ["im/b.jpg"],
            }
        ],
    }
    truth = read_ground_truth(write(tmp_path, json.dumps(content)))
    query = truth.queries[0]
    assert (query.name, query.landmark, query.box) == ("im/b.jpg", "x", (0, 0, 5, 5))
    assert [query.labels[kind].tolist() for kind in ("easy", "hard", "junk")] == [[2], [0], [1]]
    content["queries"][0]["easy"] = ["im/z.jpg"]
    with pytest.raises(RetrievalError, match=r"not in the database: 'im/z\.jpg'"):
        read_ground_truth(write(tmp_path, json.dumps(content)))


@pytest.fixture
def classic(tmp_path):
    query = "oxc1_all_souls_000013 136.5 34.1 648.5 955.7\n"
    (tmp_path / "all_souls_1_query.txt").write_text(query)
    (tmp_path / "all_souls_1_good.txt").write_text("all_souls_000026\nall_souls_000001\n")
    (tmp_path / "all_souls_1_ok.txt").write_text("oxford_000002\nnot_in_the_database\n\n")
    (tmp_path / "all_souls_1_junk.txt").write_text("")
    return tmp_path


NAMES = (
    "all_souls_000001.jpg",
    "all_souls_000013.jpg",
    "all_souls_000026.jpg",
    "x/oxford_000002.jpg",
)


def test_classic_text_files(classic):
    truth = read_ground_truth(classic, NAMES)
    (query,) = truth.queries
    assert (query.name, query.landmark) == ("all_souls_000013.jpg", "all_souls")
    assert query.box == (136.5, 34.1, 648.5, 955.7)
    assert query.labels["ok"].tolist() == [0, 2, 3]  # good and ok together
    assert query.labels["junk"].tolist() == []
    assert protocols_of(truth.queries) == ("classic",)
    assert "not in the folder: 1. " in truth.note  # or its mAP would look like that of all labels


def test_queries_that_find_themselves_are_told():
    """Each counts as a wrong result at rank 1, which halves the AP of one right picture."""

    def note(**labels):
        entry = {"image": "a.jpg", "landmark": "a", "easy": ["b.jpg"], **labels}
        truth = {"database": ["a.jpg", "b.jpg", "c.jpg"], "queries": [entry, entry]}
        parsed = parse_ground_truth(json.dumps(truth).encode(), "file")
        positions = {name: n for n, name in enumerate(parsed.names)}
        return note_on_own_pictures(positions, parsed.queries)

    assert "in none of their own lists: 2. Each finds itself first" in note()
    assert note(easy=["a.jpg", "b.jpg"]) == note(junk=["a.jpg"]) == note(wrong=["a.jpg"]) == ""
    assert note(image="ask.jpg") == note(easy=[]) == ""


def test_classic_text_files_with_the_mark_of_windows(classic):
    for file in classic.glob("*.txt"):
        file.write_text(file.read_text(), "utf-8-sig")
    (query,) = read_ground_truth(classic, NAMES).queries
    assert (query.name, query.labels["ok"].tolist()) == ("all_souls_000013.jpg", [0, 2, 3])


def test_classic_text_files_that_could_mean_several_pictures(classic):
    """They name no folder. The last of such pictures was right, and the others wrong answers."""
    with pytest.raises(RetrievalError, match="labels oxford_000002, but several pictures"):
        read_ground_truth(classic, (*NAMES, "y/oxford_000002.jpg"))
    unlabelled = ("x/other.jpg", "y/other.jpg")
    assert len(read_ground_truth(classic, (*NAMES, *unlabelled)).queries) == 1


def test_classic_text_files_that_are_wrong(classic):
    with pytest.raises(RetrievalError, match="which pictures"):
        read_ground_truth(classic)
    (classic / "all_souls_1_query.txt").write_text("oxc1_all_souls_000013 136.5 x 648.5 955.7")
    with pytest.raises(RetrievalError, match=r"all_souls_1_query\.txt must be a name and four"):
        read_ground_truth(classic, NAMES)
    (classic / "all_souls_1_query.txt").write_text("")
    with pytest.raises(RetrievalError, match="must be a name and four"):
        read_ground_truth(classic, NAMES)
    (classic / "all_souls_1_query.txt").write_text("oxc1_all_souls_000013 1 2 3")
    with pytest.raises(RetrievalError, match="not four numbers"):
        read_ground_truth(classic, NAMES)
    (classic / "all_souls_1_junk.txt").unlink()
    with pytest.raises(RetrievalError, match=r"lacks all_souls_1_junk\.txt"):
        read_ground_truth(classic, NAMES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"imlist": "abc"}, "imlist is no list of names"),
        ({"imlist": [1, 2, 3, 4]}, "imlist is no list of names"),
        ({"imlist": ["a", "b", "c", "a"]}, "imlist has a twice"),
        ({"imlist": ["a", "b", "c", "../d"]}, "path below the folder"),
        ({"imlist": ["a", "b", "c", "/etc/passwd"]}, "path below the folder"),
        ({"imlist": ["a", "b", "c", ""]}, "path below the folder"),
        ({"qimlist": ["../../x", "y"]}, "path below the folder"),
        ({"qimlist": ["x"]}, "one entry for each name"),
        ({"gnd": None}, "one entry for each name"),
        ({"gnd": [1, 2]}, "no dictionary"),
        ({"gnd": [{"easy": [4]}, {}]}, "outside the 4 database pictures"),
        ({"gnd": [{"easy": [-1]}, {}]}, "outside the 4 database pictures"),
        ({"gnd": [{"easy": ["a"]}, {}]}, "labels of tower_000009 are not positions"),
        ({"gnd": [{"easy": [0.5]}, {}]}, "not positions"),
        ({"gnd": [{"easy": [float("nan")]}, {}]}, "not positions"),
        ({"gnd": [{"easy": [[0, 1], [2]]}, {}]}, "not positions"),
        ({"gnd": [{"easy": [2**70]}, {}]}, "not positions"),
        ({"gnd": [{"easy": 3}, {}]}, "not positions"),
        ({"gnd": [{"easy": {"a": 1}}, {}]}, "not positions"),
        ({"gnd": [{"bbx": [1, 2, 3]}, {}]}, "not four numbers"),
        ({"gnd": [{"bbx": [1, 2, 3, float("inf")]}, {}]}, "not four numbers"),
        ({"gnd": [{"bbx": "1234"}, {}]}, "not four numbers"),
        ({"gnd": [{"bbx": [5, 2, 3, 4]}, {}]}, "empty or inverted"),
    ],
)
def test_a_ground_truth_that_contradicts_itself_is_refused(change, words, tmp_path):
    with pytest.raises(RetrievalError, match=words):
        read_ground_truth(write(tmp_path, GND | change))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1",
        "[" * 100_000,
        "\x00",
        '"imlist"',
        "{}",
        "[]",
        '{"database": 3}',
        '{"database": ["a"], "queries": 3}',
        '{"database": ["a"], "queries": [{"easy": []}]}',
        '{"database": ["a"], "queries": [{"image": "a", "box": [0, 0, 5, 5]}]}',
    ],
)
def test_no_ground_truth_at_all(content, tmp_path):
    with pytest.raises(RetrievalError):
        read_ground_truth(write(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RetrievalError, match="cannot be read"):
        read_ground_truth(tmp_path / "gnd.json")


def test_labels_shared_by_many_queries_are_limited(tmp_path):
    inner, count = list(range(10_000)), 501
    bomb = {
        "imlist": [str(i) for i in range(10_000)],
        "qimlist": ["q"] * count,
        "gnd": [{"ok": inner}] * count,
    }
    with pytest.raises(RetrievalError, match="more than 5,000,000 labels"):
        read_ground_truth(write(tmp_path, bomb))


def test_protocols_are_those_with_a_right_picture():
    assert protocols_of([]) == ()
    assert protocols_of([Query("q")]) == ()
    nothing, right = np.array([], int), np.array([0])
    assert protocols_of([Query("q", labels={"easy": nothing, "ok": nothing})]) == ()
    # A page for Easy would have no query to show.
    assert protocols_of([Query("q", labels={"easy": nothing, "hard": right})]) == ("medium", "hard")
    easy, hard = Query("a", labels={"easy": right}), Query("b", labels={"hard": right})
    assert protocols_of([easy, hard]) == ("easy", "medium", "hard")


def test_medium_is_shown_first_and_classic_where_there_is_no_other():
    assert usual_protocol(("easy", "medium", "hard")) == "medium"
    assert usual_protocol(("medium", "hard", "classic")) == "medium"
    assert usual_protocol(("classic",)) == "classic"
    assert usual_protocol(()) == ""
