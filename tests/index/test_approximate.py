"""Approximate search: what it finds, what it is made of, and what strangers may make of it."""

import shutil
from copy import copy

import numpy as np
import pytest
from attack.indexes import edited, forge
from stubs import Grid, Thumbnail, paint, refused

from retrieval import cli, files, index
from retrieval.collections import Collection, ground_truth, open_collection
from retrieval.evaluation import queries, runs
from retrieval.index import approximate, saving
from retrieval.index.approximate import KINDS, Cells, Graph
from retrieval.index.content import Content
from retrieval.index.layout import Part
from retrieval.index.vectors import ExactSearcher, nearest
from retrieval.ranking.ranking import Query
from retrieval.ranking.search import rank_query


def clustered(count, seed=0, width=32):
    """Unit vectors about 50 centres, as float16."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(50, width))
    vectors = centres[rng.integers(0, 50, count)] + 0.7 * rng.normal(size=(count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


VECTORS, QUERIES = clustered(3000), clustered(40, 1).astype(np.float32)


@pytest.fixture(scope="module", params=KINDS)
def one_of_each(request):
    return KINDS[request.param].make(VECTORS)


@pytest.fixture
def made(one_of_each):
    """A search of each kind, of its own for a test."""
    return copy(one_of_each)


def plain(vectors, queries, count):
    """Cosines and positions of the best, by sorting all of them."""
    cosines = queries @ vectors.astype(np.float32).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(cosines, order, axis=1), order


def found_part(searcher, vectors=VECTORS):
    """Recall at 10 of the queries, by hand."""
    wanted = plain(vectors, QUERIES, 10)[1]
    found = [searcher.rank(query, 10)[0] for query in QUERIES]
    return np.mean([len({*a} & {*b}) / 10 for a, b in zip(wanted.tolist(), found, strict=True)])


def test_exact_search_is_exact():
    scores, positions = plain(VECTORS, QUERIES, 20)
    for got in (ExactSearcher(VECTORS).search(QUERIES, 20), nearest(VECTORS, QUERIES, 20)):
        np.testing.assert_allclose(got[0], scores, atol=1e-6)
        assert (got[1] == positions).mean() > 0.99  # but for equal ones


def test_the_first_results_are_those_of_the_whole_ranking_beside_copies():
    """With ten results asked for, the command line named other copies of a picture than the app."""
    copies = np.vstack([VECTORS[:3], np.repeat(VECTORS[3:4], 60, axis=0), VECTORS[4:9]])
    searcher = ExactSearcher(copies)
    for query in QUERIES:
        whole = searcher.rank(query, len(copies))
        for top in (1, 5, 10, 30, 64, len(copies)):
            for few, all_of_them in zip(searcher.rank(query, top), whole, strict=True):
                np.testing.assert_array_equal(few, all_of_them[:top])


def test_blocks_change_nothing(monkeypatch):
    whole = nearest(VECTORS, QUERIES, 20)
    monkeypatch.setattr("retrieval.index.vectors.BLOCK", 7)
    few = nearest(VECTORS, QUERIES, 20)
    np.testing.assert_array_equal(whole[1], few[1])
    np.testing.assert_allclose(
        ExactSearcher(VECTORS).search(QUERIES, 5)[0], whole[0][:, :5], atol=1e-6
    )


def test_it_finds_nearly_all_and_scores_exactly(made):
    assert found_part(made) > 0.9
    assert 0.9 < made.recall() <= 1
    for query in QUERIES:
        positions, scores = made.rank(query, 30)
        assert len(set(positions.tolist())) == 30
        np.testing.assert_allclose(scores, VECTORS[positions].astype(np.float32) @ query, atol=1e-6)
        assert (np.diff(scores) <= 0).all()


def test_recall_is_low_where_little_is_found(made, monkeypatch):
    candidates = made._candidates

    def half(queries, count):
        found = candidates(queries, count)
        return np.where(found % 2 == 0, found, -1)

    monkeypatch.setattr(made, "_candidates", half)
    monkeypatch.setattr(approximate, "SHORTLIST", 100)
    assert 0.3 < made.recall() < 0.7


def test_what_is_kept_finds_the_same(made):
    again = type(made).of(VECTORS, made.arrays())
    assert again.arrays().keys() == type(made).types.keys()
    for name, (dtype, dimensions) in type(made).types.items():
        one = again.arrays()[name]
        assert (one.dtype, one.ndim) == (np.dtype(dtype), dimensions)
        np.testing.assert_array_equal(one, made.arrays()[name])
    assert type(made).fits(made.arrays(), VECTORS)
    for a, b in zip(made.search(QUERIES, 20), again.search(QUERIES, 20), strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_is_asked_than_it_leads_to(made, monkeypatch):
    few = np.full((len(QUERIES), 100), -1)
    monkeypatch.setattr(made, "_candidates", lambda queries, count: few[: len(queries)])
    np.testing.assert_array_equal(made.search(QUERIES, 15)[1], nearest(VECTORS, QUERIES, 15)[1])


def test_new_pictures_are_added(made):
    """They come anywhere in the order; nothing is learned or linked anew."""
    total = clustered(3300, 5)
    rows = np.sort(np.random.default_rng(3).choice(3300, 3000, replace=False))
    total[rows] = VECTORS
    kept = np.full(3300, -1)
    kept[rows] = np.arange(3000)
    grown = type(made).make(total, made.arrays(), kept)
    assert type(made).fits(grown.arrays(), total)
    assert found_part(grown, total) > 0.9
    before, after = made.arrays(), grown.arrays()
    if isinstance(made, Graph):
        np.testing.assert_array_equal(after["graph_nodes"][:3000], rows)
        np.testing.assert_array_equal(after["graph_levels"][:3000], before["graph_levels"])
    else:
        np.testing.assert_array_equal(after["cell_centres"], before["cell_centres"])
        np.testing.assert_array_equal(after["cell_quantiser"], before["cell_quantiser"])
        code = dict(zip(after["cell_pictures"], after["cell_codes"], strict=True))
        for picture, one in zip(before["cell_pictures"], before["cell_codes"], strict=True):
            np.testing.assert_array_equal(code[rows[picture]], one)


def test_deleted_pictures_are_gone(made):
    stays = np.flatnonzero(np.arange(3000) % 10 != 3)
    less = VECTORS[stays]
    shrunk = type(made).make(less, made.arrays(), stays)
    assert type(made).fits(shrunk.arrays(), less)
    assert found_part(shrunk, less) > 0.9
    if isinstance(made, Cells):
        np.testing.assert_array_equal(
            shrunk.arrays()["cell_quantiser"], made.arrays()["cell_quantiser"]
        )


def test_many_more_pictures_have_more_cells():
    made = Cells.make(VECTORS)
    total = np.concatenate([VECTORS, clustered(9000, 8)])
    kept = np.concatenate([np.arange(3000), np.full(9000, -1)])
    grown = Cells.make(total, made.arrays(), kept)
    assert len(grown.arrays()["cell_centres"]) == 512 > len(made.arrays()["cell_centres"])


def test_the_levels_of_faiss():
    import faiss

    graph = Graph.trained(VECTORS)
    counts = faiss.vector_to_array(graph.faiss.hnsw.cum_nneighbor_per_level)
    levels = np.arange(len(counts))
    assert len(counts) == Graph.LEVELS + 1
    np.testing.assert_array_equal(counts[1:], np.diff(Graph._offsets(levels))[1:])


@pytest.fixture(scope="module")
def arrays():
    """Of both kinds, by name."""
    return {name: kind.make(VECTORS).arrays() for name, kind in KINDS.items()}


def replaced(name, change):
    def damage(arrays):
        array = arrays[name].copy()
        new = change(array)
        return arrays | {name: array if new is None else new}

    return damage


def put(place, value):
    return lambda array: array.__setitem__(place, value)


def overflowing(starts):
    """Differences of these overflow, and look as if the numbers ascended."""
    starts[1:-1] = 0
    starts[1:4] = 2**63 - 1, -(2**63), -1


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("hnsw", "graph_nodes", put(0, 5)),
        ("hnsw", "graph_nodes", put(0, -1)),
        ("hnsw", "graph_nodes", put(0, 3000)),
        ("hnsw", "graph_nodes", lambda a: a[:-1]),
        ("hnsw", "graph_levels", put(0, 0)),
        ("hnsw", "graph_levels", put(0, 200)),
        ("hnsw", "graph_levels", lambda a: a[:-1]),
        ("hnsw", "graph_levels", lambda a: a[::-1]),
        ("hnsw", "graph_links", put(7, 3000)),
        ("hnsw", "graph_links", put(7, -2)),
        ("hnsw", "graph_links", lambda a: a[:-1]),
        ("hnsw", "graph_links", lambda a: a[:0]),
        ("ivfpq", "cell_centres", put((0, 0), np.nan)),
        ("ivfpq", "cell_centres", lambda a: a[:, 1:]),
        ("ivfpq", "cell_centres", lambda a: a[1:]),
        ("ivfpq", "cell_centres", lambda a: a[:0]),
        ("ivfpq", "cell_starts", put(-1, 10**9)),
        ("ivfpq", "cell_starts", put(0, -1)),
        ("ivfpq", "cell_starts", lambda a: a[::-1]),
        ("ivfpq", "cell_starts", overflowing),
        ("ivfpq", "cell_pictures", put(0, 3000)),
        ("ivfpq", "cell_pictures", put(0, -1)),
        ("ivfpq", "cell_pictures", lambda a: a[1:]),
        ("ivfpq", "cell_codes", lambda a: a[1:]),
        ("ivfpq", "cell_codes", lambda a: a[:, :-1]),
        ("ivfpq", "cell_codes", lambda a: a[:, :0]),
        ("ivfpq", "cell_quantiser", put((0, 0, 0), np.inf)),
        ("ivfpq", "cell_quantiser", lambda a: a[1:]),
        ("ivfpq", "cell_quantiser", lambda a: a[:, :255]),
    ],
)
def test_what_leads_outside_does_not_fit(arrays, kind, name, change):
    assert not KINDS[kind].fits(replaced(name, change)(arrays[kind]), VECTORS)


def test_a_link_to_a_level_that_a_node_has_not(arrays):
    arrays = arrays["hnsw"]
    levels = arrays["graph_levels"]
    high = int(np.flatnonzero(levels > 1)[0])
    first = Graph._offsets(levels)[high] + 2 * Graph.LINKS
    low = int(np.flatnonzero(levels == 1)[0])
    assert not Graph.fits(replaced("graph_links", put(first, low))(arrays), VECTORS)


# In an index


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A hundred and thirty tiny pictures, of which two are labelled queries."""
    root = tmp_path_factory.mktemp("many") / "pictures"
    for seed in range(130):
        paint(root / f"{seed:03}.png", seed, (9, 8))
    return root


def build(pictures, out, search="hnsw", method=None):
    return index.build(open_collection(pictures), method or Thumbnail(), out, search=search)


def test_ranks_equal_those_of_exact_search(pictures, tmp_path):
    found = build(pictures, tmp_path / "hnsw")
    exact = build(pictures, tmp_path / "exact", "exact")
    assert (found.search, exact.search) == ("hnsw", "exact")
    assert found.manifest["search"] == {"type": "hnsw", "recall_at_10": 1.0}
    assert "search" not in exact.manifest
    for position in range(0, 130, 13):
        query = exact.features(position)
        ours, theirs = (rank_query(Query(one, query), 20, depth=100) for one in (found, exact))
        assert ours.names == theirs.names
        np.testing.assert_array_equal(ours.positions, theirs.positions)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
        assert ours.provenance["search"] == "hnsw, recall@10 1.000"
        assert ours.provenance["shortlist"] == 100
        assert theirs.provenance["search"] == "exact"
        assert ours.provenance["pictures"] == theirs.provenance["pictures"] == 130
    np.testing.assert_array_equal(found.neighbours.positions, exact.neighbours.positions)


def test_few_results_come_from_the_shortlist_of_many(pictures, tmp_path):
    found = build(pictures, tmp_path / "hnsw")
    few, all_of_them = (rank_query(Query(found, found.features(3)), top) for top in (5, None))
    assert few.names == all_of_them.names[:5]
    assert few.provenance == all_of_them.provenance


@pytest.mark.parametrize("then", [(), ("expansion",), ("augmentation", "diffusion")])
def test_a_ranking_ends_with_its_shortlist(pictures, tmp_path, then):
    found = build(pictures, tmp_path / "hnsw")
    exact = build(pictures, tmp_path / "exact", "exact")
    query = found.features(3)
    ours = rank_query(Query(found, query), then=then, depth=110)
    assert len(ours) == 110
    assert sorted(ours.names) == sorted(rank_query(Query(exact, query), 110).names)
    assert np.isfinite(ours.scores).all()
    names = [found.names[position] for position in ours.positions]
    assert names == list(ours.names)


def test_an_update_keeps_the_graph_until_a_picture_is_deleted(pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    before = build(folder, tmp_path / "out")
    paint(folder / "000 new.png", 999, (9, 8))
    method = Thumbnail()
    after = build(folder, tmp_path / "out", method=method)
    assert len(method.described) == 1
    nodes = after.arrays["graph_nodes"]
    assert nodes[-1] == after.positions["000 new.png"] == 0
    np.testing.assert_array_equal(nodes[:-1], before.arrays["graph_nodes"] + 1)
    (folder / "077.png").unlink()
    last = build(folder, tmp_path / "out")
    assert len(last.arrays["graph_nodes"]) == len(last) == 130
    assert build(folder, tmp_path / "out", "exact").search == "exact"
    assert not list((tmp_path / "out").glob("graph_*"))


def test_equal_pictures_do_not_change_the_graph(pictures, tmp_path):
    """The same build again replaces nothing: the evaluations beside the index stay."""
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    for name in ("050 again.png", "zz.png"):
        shutil.copy(folder / "050.png", folder / name)
    before = build(folder, tmp_path / "out")
    (tmp_path / "out" / "evaluation.json").touch()
    assert build(folder, tmp_path / "out").manifest == before.manifest
    assert (tmp_path / "out" / "evaluation.json").is_file()


def test_merged_with_a_search(pictures, tmp_path):
    collection = open_collection(pictures)
    parts = [tmp_path / "1", tmp_path / "2"]
    for number, path in enumerate(parts, 1):
        index.build(collection, Thumbnail(), path, part=Part(number, 2))
    merged = index.merge(parts, tmp_path / "merged", search="hnsw")
    whole = build(pictures, tmp_path / "whole")
    for name in whole.arrays:
        np.testing.assert_array_equal(merged.arrays[name], whole.arrays[name])


def test_a_search_that_does_not_fit_is_refused(pictures, tmp_path):
    refused("needs at least 1000 pictures; use --search exact", build, pictures, tmp_path / "x",
            "ivfpq")  # fmt: skip
    refused("DELF is searched by its words", build, pictures, tmp_path / "y", "hnsw", Grid())
    refused("Unknown search 'best'", build, pictures, tmp_path / "z", "best")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["search"].update(type="ivfpq"),
        lambda m: m["search"].update(type="exact"),
        lambda m: m["search"].update(type=[]),
        lambda m: m["search"].update(recall_at_10=2),
        lambda m: m["search"].update(recall_at_10="1"),
        lambda m: m["search"].pop("recall_at_10") and None,
        lambda m: m.update(search="hnsw"),
        lambda m: m.update(search=None),
        lambda m: m.update(part={"number": 1, "parts": 1}),
        lambda m: m.pop("search") and None,
    ],
)
def test_edited_manifests(pictures, tmp_path, change):
    path = build(pictures, tmp_path / "index").path
    refused("edited or damaged", index.load, edited(path, change))


def test_damaged_files(pictures, tmp_path):
    path = build(pictures, tmp_path / "index").path
    links = np.load(path / "graph_links.npy")
    links[3] = 10**6
    np.save(path / "graph_links.npy", links)
    refused("graph_links.npy in the index .* does not have the checksum", index.load, path)
    forge(path)
    refused("contradict its manifest", index.load, path)


def test_it_is_said(pictures, tmp_path, capsys):
    out = tmp_path / "index"
    small = ["--method", "sir", "--size", "32", "--out", str(out)]
    assert cli.main(["index", str(pictures), *small, "--search", "hnsw"]) == 0
    said = "approximate search: hnsw, recall@10 1.000 of exact search"
    assert said in capsys.readouterr().out
    assert cli.main(["search", str(out), str(pictures / "005.png"), "--top", "3"]) == 0
    answer = capsys.readouterr()
    assert answer.out.split()[:3] == ["1", "1.0000", "005.png"]
    assert "on 130 pictures (hnsw, recall@10 1.000)" in answer.err
    assert cli.main(["info", str(out)]) == 0
    assert "search       hnsw, recall@10 1.000" in capsys.readouterr().out


def test_an_evaluation_asks_as_a_search_does(tmp_path, monkeypatch):
    """Asked for more than its cells hold it compares with all: the figures were those of exact."""
    monkeypatch.setattr(queries, "DEPTH", 100)
    names = tuple(f"{number}.png" for number in range(len(VECTORS)))
    asked = tuple(ground_truth.Query(name, labels={"easy": np.array([0])}) for name in names[:40])
    collection = Collection("made up", "Made up", None, names, asked)
    np.save(tmp_path / "queries.npy", QUERIES)
    method = Thumbnail(queries_sha256=files.digest(tmp_path / "queries.npy"))
    records = [{"name": name, "sha256": "", "width": 0, "height": 0} for name in names]
    arrays = {"descriptors": VECTORS, **Cells.make(VECTORS).arrays()}
    more = {"search": {"type": "ivfpq", "recall_at_10": 0.5}}
    saving.save(tmp_path, tmp_path, method, collection, Content(records, arrays, []), more)
    made = index.load(tmp_path)
    ranks, _ = queries.rank_queries(made, None, collection)
    assert (ranks >= 0).sum(axis=0).tolist() == [100] * 40
    for query, ranking in zip(QUERIES, ranks.T, strict=True):
        assert ranking[:10].tolist() == made.searcher.rank(query, 100)[0][:10].tolist()
    assert "ends with the best 100 of 3,000" in runs.record_run(made, collection, ranks, {}).note
