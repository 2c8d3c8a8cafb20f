"""The nearest pictures of each picture: found, kept beside the index, and found again."""

import threading

import numpy as np
import pytest
from made_up import exact, save, scene

from retrieval import index
from retrieval.collections import PRECOMPUTED
from retrieval.index import neighbours
from retrieval.workers import Workers


def test_neighbours_are_the_nearest_and_are_kept(tmp_path):
    vectors, _ = scene(7, count=50)
    opened = save(tmp_path / "index", vectors)
    similar = exact(opened) @ exact(opened).T
    np.fill_diagonal(similar, -9)
    found = opened.neighbours
    assert found.positions.tolist() == np.argsort(-similar, axis=1)[:, :20].tolist()
    np.testing.assert_allclose(found.similarity, -np.sort(-similar, axis=1)[:, :20], atol=1e-5)
    kept = opened.path / neighbours.FILE
    before = kept.read_bytes()
    np.testing.assert_array_equal(index.load(opened.path).neighbours.positions, found.positions)
    assert kept.read_bytes() == before


def test_those_of_the_embedded_delf_are_shipped(monkeypatch):
    """The first search that spread likeness took five seconds in a new installation."""
    shipped = index.load(PRECOMPUTED / "town" / "delf-lite0")
    with monkeypatch.context() as patch:
        patch.setattr(neighbours, "find", lambda index: pytest.fail("there are none"))
        found = shipped.neighbours
    for row in (0, 200, len(shipped) - 1):
        positions, similarity = neighbours._nearest(shipped, row, neighbours.COUNT)
        assert found.positions[row].tolist() == positions.tolist()
        np.testing.assert_allclose(found.similarity[row], similarity, rtol=1e-5)


def test_nobody_waits_for_neighbours_but_those_who_need_them(tmp_path, monkeypatch):
    """Two searches that needed those of 5000 pictures with DELF kept all others waiting for more
    than 120 s."""
    vectors, _ = scene(7, count=50)
    right = save(tmp_path / "a", vectors).neighbours
    opened = save(tmp_path / "b", vectors)
    monkeypatch.setattr(neighbours, "PART", 350)  # seven pictures
    monkeypatch.setattr(neighbours, "LEAST_PART", 1)
    go_on, find = threading.Event(), neighbours._find_part
    monkeypatch.setattr(neighbours, "_find_part", lambda *args: go_on.wait(60) and find(*args))
    some = Workers(1, 10, slow=Workers(1, 10))
    need = [some.submit("a", lambda: opened.neighbours) for _ in range(2)]
    try:
        assert some.submit("b", lambda: "found").result(60)
        assert not any(future.done() for future in need)
    finally:
        go_on.set()
    for future in need:
        np.testing.assert_array_equal(future.result(60).positions, right.positions)
        np.testing.assert_allclose(future.result().similarity, right.similarity, atol=1e-6)
    assert len(opened.near) == 8


def test_neighbours_of_a_large_index_are_found_for_many_pictures_at_a_time(tmp_path, monkeypatch):
    """41 at a time, of 100,000 with 512 numbers, took 914 s and not 122: FAISS multiplies matrices
    of few rows slowly."""
    vectors, _ = scene(9, count=1300, dimensions=256)
    opened = save(tmp_path / "town", vectors)
    monkeypatch.setattr(neighbours, "PART", 1300)
    sizes, search_all = [], opened.searcher.search
    monkeypatch.setattr(
        opened.searcher, "search", lambda q, count: sizes.append(q.size) or search_all(q, count)
    )
    assert len(opened.neighbours.positions) == 1300
    assert [size // 256 for size in sizes] == [512, 512, 276]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "pickle", "range", "self", "other"])
def test_a_damaged_file_of_neighbours_is_made_again(tmp_path, damage):
    vectors, _ = scene(8, count=30)
    opened = save(tmp_path / "index", vectors)
    right = opened.neighbours
    path = opened.path / neighbours.FILE
    with np.load(path) as arrays:
        parts = dict(arrays)
    if damage in ("cut", "empty", "text"):
        data = path.read_bytes()
        path.write_bytes({"cut": data[:200], "empty": b"", "text": b"hello"}[damage])
    else:
        if damage == "pickle":
            parts["positions"] = np.array([{}], object)
        elif damage == "range":
            parts["positions"][3, 3] = 30
        elif damage == "self":
            parts["positions"][3, 3] = 3
        else:
            parts["index"] = parts["index"][::-1]
        np.savez(path, **parts)
    found = index.load(opened.path).neighbours
    np.testing.assert_array_equal(found.positions, right.positions)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["positions"], right.positions)


def test_neighbours_in_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    vectors, _ = scene(9, count=10)
    opened = save(tmp_path / "index", vectors)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(neighbours.np, "savez", full)
    assert opened.neighbours.positions.shape == (10, 9)
    assert [path.name for path in opened.path.glob("neighbours*")] == []
