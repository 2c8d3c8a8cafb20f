"""Every re-ranker against a plain version written from the formula of its paper."""

import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retrieval import index
from retrieval.collections import PRECOMPUTED
from retrieval.errors import RetrievalError
from retrieval.index import neighbours, saving
from retrieval.index.content import Content
from retrieval.ranking import chain, diffusion, expansion, reciprocal, search, superglobal
from retrieval.ranking.ranking import Query
from retrieval.workers import Workers

GLOBAL = [name for name, one in chain.RERANKERS.items() if not one.pictures]


def save(folder, vectors):
    """An index of given vectors (N, D), without pictures."""
    folder.mkdir(parents=True)
    names = [f"{i:03}.jpg" for i in range(len(vectors))]
    records = [{"name": name, "sha256": "", "width": 0, "height": 0} for name in names]
    method = SimpleNamespace(
        kind="global", name="sir", settings={}, checkpoint=SimpleNamespace(id="stub", sha256="a")
    )
    collection = SimpleNamespace(name="vectors", fingerprint="f", root=None)
    arrays = {"descriptors": vectors.astype(np.float16)}
    saving.save(folder, folder, method, collection, Content(records, arrays, []))
    return index.load(folder)


def scene(seed, count=60, dimensions=24, things=6):
    """Vectors that lie in groups, as pictures of a few things do, and a query of the first."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(things, dimensions))
    vectors = centres[np.arange(count) % things] + rng.normal(size=(count, dimensions)) * 0.7
    query = centres[0] + rng.normal(size=dimensions) * 0.7
    return unit(vectors), unit(query).astype(np.float32)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    vectors, query = scene(1)
    return save(tmp_path_factory.mktemp("groups") / "index", vectors), query


def exact(opened):
    """The vectors as the index has them, in double precision."""
    return opened.arrays["descriptors"].astype(np.float64)


def with_inliers(ranking, inliers):
    """The ranking as geometry would leave it: inliers (N,) by position, confirmed ones first."""
    counts = np.array(inliers)[ranking.positions]
    order = np.argsort(-counts, kind="stable")
    return dataclasses.replace(
        ranking,
        positions=ranking.positions[order],
        names=tuple(ranking.names[i] for i in order),
        inliers=counts[order],
        before=ranking,
        stage="geometry",
    )


def test_average_expansion(groups):
    opened, query = groups
    first = search.rank_features(opened, query)
    vectors = exact(opened)
    asked = query + sum(vectors[i] for i in first.positions[:5])
    expected = vectors @ unit(asked)
    found = chain.rerank(first, Query(opened, query), ["expansion-average"])
    assert found.positions.tolist() == np.argsort(-expected).tolist()
    np.testing.assert_allclose(found.scores, np.sort(expected)[::-1], atol=1e-5)


def test_expansion_without_geometry_weighs_by_the_cosine(groups):
    opened, query = groups
    first = search.rank_features(opened, query)
    vectors = exact(opened)
    asked = query + sum((vectors[i] @ query) ** 3 * vectors[i] for i in first.positions[:3])
    expected = vectors @ unit(asked)
    found = expansion.expansion(first, Query(opened, query))
    assert found.positions.tolist() == np.argsort(-expected).tolist()


def test_expansion_asks_with_what_geometry_confirmed(groups):
    opened, query = groups
    first = search.rank_features(opened, query)
    inliers = np.zeros(60, int)
    inliers[[7, 13, 40]] = 30, 12, 99
    vectors = exact(opened)
    expected = vectors @ unit(query + vectors[7] + vectors[13] + vectors[40])
    found = expansion.expansion(with_inliers(first, inliers), Query(opened, query))
    assert found.positions.tolist() == np.argsort(-expected).tolist()
    assert found.inliers.tolist() == inliers[found.positions].tolist()


@pytest.mark.parametrize("own", [None, 6])
def test_augmentation_against_a_loop(groups, own):
    opened, query = groups
    vectors = exact(opened)
    expected = {}
    for i in range(60):
        others = [j for j in range(60) if j not in (i, own)]
        near = sorted(others, key=lambda j: -vectors[i] @ vectors[j])[:3]
        expected[i] = unit(vectors[i] + sum(vectors[j] for j in near)) @ query
    first = search.rank_features(opened, query)
    asked = Query(opened, query, own=own)
    found = expansion.augmentation(first, asked)
    # Pictures that are each other's neighbours have the same average: they stay in order.
    order = sorted(first.positions.tolist(), key=lambda i: -round(expected[i], 5))
    assert found.positions.tolist() == order
    np.testing.assert_allclose(found.scores, sorted(expected.values())[::-1], atol=1e-5)


def plain_diffusion(vectors, y, own=None):
    """Iscen et al., CVPR 2017, equations 3 to 8, with the matrix inverted."""
    count = len(vectors)
    similar = vectors @ vectors.T
    near = [
        set(sorted((j for j in range(count) if j != i), key=lambda j: -similar[i, j])[:20])
        for i in range(count)
    ]
    w = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if j in near[i] and i in near[j]:
                w[i, j] = max(similar[i, j], 0) ** 3
    d = w.sum(axis=1)
    s = w / np.sqrt(np.outer(d, d) + 1e-300)
    if own is not None:
        s[own] = s[:, own] = 0
    return np.linalg.inv(np.eye(count) - 0.7 * s) @ y


@pytest.mark.parametrize("own", [None, 12])
@pytest.mark.parametrize("confirmed", [False, True])
def test_diffusion_against_the_inverse_of_the_whole_matrix(groups, confirmed, own):
    opened, query = groups
    first = search.rank_features(opened, query)
    likeness = dict(zip(first.positions.tolist(), first.scores.tolist(), strict=True))
    inliers = np.zeros(60, int)
    if confirmed:
        inliers[[3, 9, 30]] = 40, 12, 13
    sources = [3, 30, 9] if confirmed else first.positions[:5].tolist()
    y = np.zeros(60)
    for i in sources:
        y[i] = max(likeness[i], 1e-3) ** 3
    f = plain_diffusion(exact(opened), y, own)
    before = with_inliers(first, inliers) if confirmed else first
    found = diffusion.diffusion(before, Query(opened, query, own=own))
    place = {position: i for i, position in enumerate(before.positions.tolist())}
    others = sorted(
        (i for i in range(60) if not inliers[i]), key=lambda i: (-max(f[i], 0), place[i])
    )
    same = [*([3, 30, 9] if confirmed else []), *others]
    reached = sum(f > 1e-4 * f.max())  # below, the accuracy of the solution decides
    assert found.positions[:reached].tolist() == same[:reached]
    # Without geometry nothing says that it confirmed no picture.
    assert (found.inliers is None) == (not confirmed)
    shares = found.scores - (0 if found.inliers is None else found.inliers)
    np.testing.assert_allclose(shares, 0.999 * f[found.positions].clip(0) / f.max(), atol=1e-4)


def test_diffusion_leaves_what_nothing_reaches_in_its_order(tmp_path):
    """Two groups without an edge between them: only that of the query is touched."""
    rng = np.random.default_rng(4)
    vectors = np.zeros((60, 20))
    vectors[:25, :10] = np.abs(rng.normal(size=(25, 10)))
    vectors[25:, 10:] = np.abs(rng.normal(size=(35, 10)))
    opened = save(tmp_path / "index", unit(vectors))
    query = unit(np.r_[np.ones(10), np.linspace(0.01, 0.05, 10)]).astype(np.float32)
    first = search.rank_features(opened, query)
    found = diffusion.diffusion(first, Query(opened, query))
    assert set(found.positions[:25].tolist()) == set(range(25))
    assert found.positions[25:].tolist() == [i for i in first.positions.tolist() if i >= 25]
    assert (found.scores[25:] == 0).all()


def plain_k_reciprocal(vectors, query, k1=10, k2=3, weight=0.3):
    """Zhong et al., CVPR 2017, with sets, equation by equation; row 0 is the query."""
    rows = np.vstack([query, vectors]).astype(np.float64)
    count = len(rows)
    squared = np.array([[((a - b) ** 2).sum() for b in rows] for a in rows])
    original = squared / squared.max(axis=1, keepdims=True)

    def nearest(i, k):
        others = sorted((j for j in range(count) if j != i), key=lambda j: (original[i, j], j))
        return [i, *others[:k]]

    def reciprocal(i, k):
        return {j for j in nearest(i, k) if i in nearest(j, k)}

    encoded = np.zeros((count, count))
    for i in range(count):
        members = reciprocal(i, k1)
        larger = set(members)
        for j in members:
            other = reciprocal(j, round(k1 / 2))
            if len(other & members) > 2 / 3 * len(other):
                larger |= other
        for j in larger:
            encoded[i, j] = np.exp(-original[i, j])
        encoded[i] /= encoded[i].sum()
    expanded = np.array([encoded[nearest(i, k2 - 1)].mean(axis=0) for i in range(count)])
    final = []
    for i in range(1, count):
        least = sum(min(a, b) for a, b in zip(expanded[0], expanded[i], strict=True))
        most = sum(max(a, b) for a, b in zip(expanded[0], expanded[i], strict=True))
        final.append((1 - weight) * (1 - least / most) + weight * original[0, i])
    return np.array(final)


@pytest.mark.parametrize("seed", range(3))
def test_k_reciprocal(seed):
    vectors, query = scene(seed, count=40)
    rows = np.vstack([query, vectors])
    found = reciprocal.distances(2 - 2 * rows @ rows.T)
    np.testing.assert_allclose(found, plain_k_reciprocal(vectors, query), atol=1e-6)


def test_k_reciprocal_orders_the_shortlist_only(tmp_path):
    vectors, query = scene(5, count=130)
    opened = save(tmp_path / "index", vectors)
    first = search.rank_features(opened, query)
    found = reciprocal.k_reciprocal(first, Query(opened, query))
    plain = plain_k_reciprocal(unit(exact(opened))[first.positions[:100]], query)
    assert found.positions[:100].tolist() == first.positions[np.argsort(plain)].tolist()
    assert found.positions[100:].tolist() == first.positions[100:].tolist()


def plain_superglobal(vectors, query, neighbours=9, beta=0.15):
    """Shao et al., ICCV 2023, section 3.3: refined pictures, refined query, mean of both."""
    refined = []
    for v in vectors:
        order = sorted(range(len(vectors)), key=lambda j: -(v @ vectors[j]))[1 : neighbours + 1]
        weights = [1, *(beta * (v @ vectors[j]) for j in order)]
        total = sum(w * x for w, x in zip(weights, [v, *vectors[order]], strict=True))
        refined.append(total / sum(weights))
    refined = np.array(refined)
    plain = refined @ query
    best = refined[np.argsort(-plain)[: neighbours + 1]].max(axis=0)
    return (plain + refined @ best) / 2


def test_superglobal_against_a_loop(groups):
    opened, query = groups
    first = search.rank_features(opened, query)
    expected = plain_superglobal(exact(opened)[first.positions], query)
    found = superglobal.superglobal(first, Query(opened, query))
    assert found.positions.tolist() == first.positions[np.argsort(-expected)].tolist()
    np.testing.assert_allclose(found.scores, np.sort(expected)[::-1].clip(0), atol=1e-5)


@pytest.mark.parametrize("name", GLOBAL)
@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), count=st.sampled_from([1, 2, 3, 7, 25]), twins=st.booleans())
@example(seed=4715, count=7, twins=True)
@example(seed=68, count=25, twins=True)  # of augmentation, which was in single precision
def test_small_collections_and_equal_pictures(name, tmp_path_factory, seed, count, twins):
    """k larger than the collection, one picture, copies of one picture: an order of all of it."""
    vectors, query = scene(seed, count=count)
    if twins:
        vectors[:] = vectors[0]
    opened = save(tmp_path_factory.mktemp("small") / "index", vectors)
    first = search.rank_features(opened, query)
    found = chain.rerank(first, Query(opened, query), [name])
    again = chain.rerank(first, Query(opened, query), [name])
    assert sorted(found.positions.tolist()) == list(range(count))
    assert found.positions.tolist() == again.positions.tolist()
    assert np.isfinite(found.scores).all()
    assert (np.diff(found.scores) <= 0).all()
    assert found.before is first
    if twins or count == 1:
        assert found.positions.tolist() == first.positions.tolist(), "ties stay as they were"


@pytest.mark.parametrize("name", GLOBAL)
def test_the_only_picture_asks_for_itself(name, tmp_path):
    opened = save(tmp_path / "index", np.eye(3)[:1])
    query = np.float32([1, 0, 0])
    first = search.rank_features(opened, query)
    found = chain.rerank(first, Query(opened, query, own=0), [name])
    assert found.names == ("000.jpg",)
    assert found.stage == name


def test_one_picture_says_why_diffusion_does_nothing(tmp_path):
    opened = save(tmp_path / "index", np.eye(3)[:1])
    query = np.float32([1, 0, 0])
    found = diffusion.diffusion(search.rank_features(opened, query), Query(opened, query))
    assert found.notes == ["Diffusion needs a collection of at least two pictures."]
    assert found.names == ("000.jpg",)


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


def test_chains_are_read_from_text():
    assert chain.parse_chain("") == chain.parse_chain(" nothing ") == ()
    assert chain.parse_chain("best") == chain.BEST
    assert chain.parse_chain("geometry, diffusion") == ("geometry", "diffusion")
    assert set(chain.BEST) <= set(chain.RERANKERS)
    for wrong in ("geometri", "geometry,,diffusion", "geometry;diffusion", ",", "best,best"):
        with pytest.raises(RetrievalError, match=r"there are geometry, .*best for geometry"):
            chain.parse_chain(wrong)
    with pytest.raises(RetrievalError, match="may have 5 re-rankers, not 6"):
        chain.parse_chain(",".join(["diffusion"] * 6))
    # Five times LighterGlue took 10 s of processor time, which a link asked for.
    with pytest.raises(RetrievalError, match="each re-ranker only once"):
        chain.parse_chain("geometry,diffusion,geometry")


def test_a_ranking_remembers_the_one_before(groups):
    opened, query = groups
    first = search.rank_features(opened, query)
    found = chain.rerank(first, Query(opened, query), ["diffusion", "k-reciprocal"])
    assert [one.stage for one in found.stages] == ["search", "diffusion", "k-reciprocal"]
    assert found.stages[0] is first
    assert set(found.timings) == {"search", "diffusion", "k-reciprocal"}
    assert [one["name"] for one in found.provenance["then"]] == ["diffusion", "k-reciprocal"]
    assert found.provenance["then"][0]["settings"]["alpha"] == diffusion.ALPHA
    assert "then" not in first.provenance
    places = {name: place for place, name in enumerate(first.names)}
    assert found.moved.tolist() == [places[name] - place for place, name in enumerate(found.names)]
    short = found.best(5)
    assert short.moved.tolist() == found.moved[:5].tolist()
    assert [row["moved"] for row in short.rows()] == found.moved[:5].tolist()
    assert "moved" not in first.rows()[0]


def test_a_picture_taken_out_has_not_moved_the_others(groups):
    opened, query = groups
    found = chain.rerank(search.rank_features(opened, query), Query(opened, query), ["diffusion"])
    gone = found.stages[0].names[0]
    left = found.without(gone)
    assert [gone in stage.names for stage in left.stages] == [False, False]
    assert left.names == tuple(name for name in found.names if name != gone)
    places = {name: place for place, name in enumerate(left.stages[0].names)}
    assert left.moved.tolist() == [places[name] - place for place, name in enumerate(left.names)]


@pytest.mark.parametrize("name", GLOBAL)
def test_the_own_picture_of_a_query_keeps_its_place_and_helps_nobody(tmp_path, name):
    """With the query's own picture in the collection the others come as they do without it."""
    vectors, query = scene(11, count=45)
    alone = save(tmp_path / "alone", vectors)
    own = unit(query + 0.02)
    both = save(tmp_path / "both", np.vstack([vectors[:20], own, vectors[20:]]))
    expected = chain.rerank(search.rank_features(alone, query), Query(alone, query), [name])
    first = search.rank_features(both, query)
    assert first.positions[0] == 20
    found = chain.rerank(first, Query(both, query, own=20), [name])
    others = [i - (i > 20) for i in found.positions.tolist() if i != 20]
    assert found.positions[0] == 20
    assert found.scores[0] == first.scores[0]
    # In the graph it may take the place of a twentieth neighbour.
    agree = len(others) if name != "diffusion" else 5
    assert others[:agree] == expected.positions[:agree].tolist()
    assert found.moved[0] == 0
    assert len(found.before) == 46


def test_what_an_index_cannot_serve(groups, indexes):
    opened, query = groups
    for name in ("geometry", "geometry-lighterglue", "geometry-delf"):
        with pytest.raises(RetrievalError, match="looks at the pictures"):
            chain.rerank(search.rank_features(opened, query), Query(opened, query), [name])
    local = indexes["delf"]
    for name, one in chain.RERANKERS.items():
        if one.vectors:
            with pytest.raises(RetrievalError, match="one vector a picture; for delf there are"):
                chain.check_chain([name], local)
        else:
            chain.check_chain([name], local)
