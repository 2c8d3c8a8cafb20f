"""Groups: what geometry confirms is joined, and nearly equal views come first."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from attack.indexes import edit, forge
from PIL import Image

from retrieval import index, methods
from retrieval.collections import PRECOMPUTED, Collection
from retrieval.collections.ground_truth import Query
from retrieval.decoding import Decoder
from retrieval.errors import RetrievalError
from retrieval.ranking import groups
from retrieval.ranking.groups import Pair
from retrieval.ranking.verifiers import DatabaseFeatures, _described, xfeat


def test_pairs_join_pictures_to_groups():
    pairs = [Pair(0, 1, 30, 0.2), Pair(4, 5, 25, 0.9), Pair(1, 2, 40, 0.3), Pair(7, 5, 22, 0.1)]
    first, second = groups.grouped(pairs)
    assert first.positions == (4, 5, 7)  # it has the pair most alike
    assert first.pairs == (pairs[1], pairs[3])
    assert second.positions == (0, 1, 2)
    assert second.pairs == (pairs[2], pairs[0])
    rows = groups.rows([first, second], "abcdefgh")
    assert [(row["group"], row["picture"]) for row in rows] == [
        (1, "e"), (1, "f"), (1, "h"), (2, "a"), (2, "b"), (2, "c"),
    ]  # fmt: skip
    assert [row["inliers of its best pair"] for row in rows] == [25, 25, 22, 30, 40, 40]


def test_agreement_with_labels(tmp_path):
    pairs = [Pair(0, 1, 30, 0.2), Pair(1, 2, 25, 0.9), Pair(2, 3, 40, 0.3), Pair(0, 4, 22, 0.1)]
    tower, gate = np.array([0, 1, 4]), np.array([2])
    queries = (
        Query("t", landmark="tower", labels={"easy": tower[:2], "hard": tower[2:]}),
        Query("g", landmark="gate", labels={"ok": gate, "junk": np.array([3])}),
        Query("n", labels={"ok": np.array([1, 2, 3])}),  # of no landmark that has a name
    )
    labelled = Collection("towers", "Towers", tmp_path, tuple("abcde"), queries)
    assert groups.agreement(pairs, "abcde", labelled) == (2, 3)
    both = replace(queries[1], labels={"ok": np.array([1, 2])})  # a picture may show two landmarks
    labelled = replace(labelled, queries=(queries[0], both))
    assert groups.agreement(pairs, "abcde", labelled) == (3, 3)
    assert groups.agreement(pairs, "abcdx", labelled) == (2, 2)  # the index has another picture
    assert groups.agreement(pairs, "abcde", replace(labelled, queries=())) == (0, 0)


def test_no_pairs_no_groups():
    assert groups.grouped([]) == []


@pytest.fixture(scope="module")
def copies(tmp_path_factory, drawn, load):
    """Four pictures; a smaller copy of the first, and a part of the second."""
    root = tmp_path_factory.mktemp("copies")
    pictures = {f"{seed}.png": drawn(seed, (480, 360)) for seed in range(4)}
    pictures["copy.jpg"] = pictures["0.png"].resize((400, 300), Image.Resampling.LANCZOS)
    pictures["part.png"] = pictures["1.png"].crop((100, 60, 420, 330))
    for name, picture in pictures.items():
        picture.save(root / name, **({"quality": 90} if name.endswith("jpg") else {}))
    collection = Collection("copies", "Copies", root, tuple(sorted(pictures)))
    return index.build(collection, load("sir"), root / "index"), collection


def test_copies_and_parts_are_found(copies):
    opened, collection = copies
    database = DatabaseFeatures(opened, collection)
    pairs = groups.pairs_of(opened, database, range(len(opened)))
    one_by_one = [
        pair for n in range(len(opened)) for pair in groups.pairs_of(opened, database, [n])
    ]
    assert pairs == one_by_one
    assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs)
    found = groups.grouped(pair for pair in pairs if pair.inliers >= groups.CONNECTED)
    names = [{opened.names[position] for position in group.positions} for group in found]
    assert names == [{"0.png", "copy.jpg"}, {"1.png", "part.png"}]
    assert found[0].pairs[0].share >= groups.SAME_VIEW


@pytest.mark.parametrize("pairs", [[Pair(0, 3, 30, 0.2), Pair(5, 1, 12, 1 / 3)], []])
def test_pairs_are_kept_with_their_index(copies, tmp_path, pairs):
    built, collection = copies
    shutil.copytree(built.path, tmp_path / "index")
    opened = index.load(tmp_path / "index")
    assert groups.load(opened) is None
    groups.keep(opened, pairs)
    assert groups.load(opened) == pairs
    files = opened.path / groups.FILE, tmp_path / "kept"
    shutil.copy(*files)
    (collection.root / "copy.jpg").rename(tmp_path / "copy.jpg")
    smaller = Collection("copies", "Copies", collection.root, collection.names[:-2])
    other = index.build(smaller, methods.for_index(built), tmp_path / "other")
    (tmp_path / "copy.jpg").rename(collection.root / "copy.jpg")
    shutil.copy(files[1], other.path / groups.FILE)
    assert groups.load(other) is None


@pytest.mark.parametrize(
    "change",
    [
        {"ends": np.array([[0, 6]], np.int32)},
        {"ends": np.array([[-1, 2]], np.int32)},
        {"ends": np.array([[2, 2]], np.int32)},
        {"ends": np.array([[1.0, 2.0]])},
        {"ends": np.array([[1, 2, 3]], np.int32)},
        {"inliers": np.array([11], np.int32)},
        {"inliers": np.array([2**31 - 1], np.int32)},
        {"inliers": np.array(30, np.int32)},
        {"inliers": np.array([[30]], np.int32)},
        {"inliers": np.array([30, 30], np.int32)},
        {"share": np.array([np.nan])},
        {"share": np.array([1.5])},
        {"share": np.array([0.5], np.float16)},
        {"made_from": np.array(["another", "text"])},
        {"ends": np.zeros((5000, 2), np.int32)},
    ],
)
def test_pairs_of_a_stranger_are_computed_again(copies, tmp_path, change):
    shutil.copytree(copies[0].path, tmp_path / "index")
    opened = index.load(tmp_path / "index")
    groups.keep(opened, [Pair(0, 3, 30, 0.2)])
    path = opened.path / groups.FILE
    with np.load(path) as kept:
        arrays = dict(kept)
    np.savez(path, **arrays)
    assert groups.load(opened) == [Pair(0, 3, 30, 0.2)]
    np.savez(path, **arrays | change)
    assert groups.load(opened) is None


@pytest.mark.skipif(not (PRECOMPUTED / "town" / "gem-lite0").is_dir(), reason="town is not here")
def test_the_kept_pairs_of_town_are_those_that_are_found():
    opened = index.load(PRECOMPUTED / "town" / "gem-lite0")
    kept = groups.load(opened)
    assert kept is not None
    some = range(0, len(opened), 13)
    found = groups.pairs_of(opened, DatabaseFeatures(opened, None), some)
    assert len(found) > 20
    # Another OpenCV may count some inliers more or less, and so find other pairs near the limit.
    sure = [{pair[:2] for pair in pairs if pair.inliers >= 25} for pairs in (kept, found)]
    all_of = [{pair[:2] for pair in pairs if pair.first in some} for pairs in (kept, found)]
    assert sure[1] <= all_of[0]
    assert {ends for ends in sure[0] if ends[0] in some} <= all_of[1]


def test_an_index_made_without_pictures_has_no_groups(copies, tmp_path):
    """Those of a stranger said that they were no pixels large: a division by zero."""
    opened, collection = copies
    shutil.copytree(opened.path, tmp_path / "sir")
    index.build(collection, xfeat(), tmp_path / "xfeat")
    unknown = {"sha256": "", "width": 0, "height": 0}
    for name in ("sir", "xfeat"):
        edit(tmp_path / name / "images.json", lambda images: [one | unknown for one in images])
        forge(tmp_path / name)
    stripped = index.load(tmp_path / "sir")
    database = DatabaseFeatures(stripped, collection)
    assert database.stored is not None
    assert groups.pairs_of(stripped, database, range(len(stripped))) == []
    assert "could not be compared" in database.note


def test_pictures_that_cannot_be_read_are_in_no_group(copies):
    opened, _ = copies
    assert groups.pairs_of(opened, DatabaseFeatures(opened, None), range(len(opened))) == []


def test_no_process_to_read_pictures_is_said(copies, monkeypatch):
    """It said that the pictures were changed."""
    opened, collection = copies

    def fail(*_):
        raise RetrievalError("No process can be started.")

    monkeypatch.setattr("retrieval.processes.start", fail)
    monkeypatch.setattr("retrieval.images._collections", Decoder())
    _described.cache_clear()
    with pytest.raises(RetrievalError, match="No process"):
        groups.pairs_of(opened, DatabaseFeatures(opened, collection), range(len(opened)))


def test_a_blank_picture(tmp_path, load):
    for name in "abc":
        Image.new("RGB", (200, 150), "white").save(tmp_path / f"{name}.png")
    collection = Collection("blank", "Blank", tmp_path, ("a.png", "b.png", "c.png"))
    opened = index.build(collection, load("sir"), tmp_path / "index")
    assert groups.pairs_of(opened, DatabaseFeatures(opened, collection), range(3)) == []


def test_methods_without_one_vector(indexes, collection):
    opened = indexes["delf"]
    assert opened.kind == methods.METHODS["delf"].kind
    assert isinstance(groups.pairs_of(opened, DatabaseFeatures(opened, collection), [0, 1]), list)
