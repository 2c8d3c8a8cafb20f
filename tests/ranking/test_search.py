import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from stubs import Grid, Thumbnail, paint

from retrieval import images, index, methods
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError
from retrieval.ranking import confidence, geometry, search
from retrieval.ranking.ranking import Ranking, Stage, ranks_in

NUMBERS = ("sir", "cnn-irwnha")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """An index of 60 small pictures under the stub of a global method."""
    root = tmp_path_factory.mktemp("many")
    for seed in range(60):
        paint(root / "pictures" / f"{seed:02}.png", seed)
    return index.build(open_collection(root / "pictures"), Thumbnail(), root / "index")


def test_the_order_is_that_of_the_inner_product(many):
    method = Thumbnail()
    for seed in (3, 100, 101):
        array = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        picture = Image.fromarray(array)
        query = method.describe(picture)
        products = [float(many.features(i) @ query) for i in range(len(many))]
        expected = sorted(range(60), key=lambda i: -products[i])
        found = search.rank_picture(many, method, picture)
        assert found.positions.tolist() == expected
        assert found.positions.dtype == np.int64
        assert found.scores.dtype == np.float32
        np.testing.assert_allclose(found.scores, [products[i] for i in expected], atol=1e-6)
        assert found.names == tuple(many.names[i] for i in expected)
        assert found.inliers is None
        assert len(found) == 60


def test_top_cuts_the_whole_ranking(many):
    method, picture = Thumbnail(), Image.new("RGB", (40, 30), "red")
    whole = search.rank_picture(many, method, picture)
    for top in (1, 7, 60, 61, 10**9):
        found = search.rank_picture(many, method, picture, top=top)
        assert found.names == whole.names[:top]
        np.testing.assert_allclose(found.scores, whole.scores[:top], atol=1e-6)
    for top in (0, -1):
        with pytest.raises(RetrievalError, match="at least one result"):
            search.rank_picture(many, method, picture, top=top)


@pytest.mark.parametrize(("where", "apart"), [("a == 1", 0), ("a != 1 or a in [2, 3]", 1)])
def test_a_search_with_many_comparisons_is_slow(many, monkeypatch, where, apart):
    """Beside three clients whose filters had fifty conditions, on 250,000 pictures, another search
    waited for 45 s on a busy machine."""
    moved = []
    monkeypatch.setattr(search.workers, "move_to_slow_workers", lambda: moved.append(where))
    monkeypatch.setattr(search, "QUICK_COMPARISONS", 180)  # three for each of sixty pictures
    numbered = replace(
        open_collection(many.path.with_name("pictures")),
        metadata={name: {"a": number} for number, name in enumerate(many.names)},
    )
    picture = Image.new("RGB", (40, 30), "red")
    search.rank_picture(many, Thumbnail(), picture, collection=numbered, where=where)
    assert len(moved) == apart


@pytest.mark.parametrize(
    ("then", "apart"),
    [([], 0), (["expansion", "superglobal"], 0), (["expansion", "augmentation"], 1)],
)
def test_a_search_with_many_re_rankers_is_slow(many, monkeypatch, then, apart):
    """Beside five clients with four re-rankers each, on 250,000 pictures, a plain search waited."""
    moved = []
    monkeypatch.setattr(search.workers, "move_to_slow_workers", lambda *_: moved.append(then))
    monkeypatch.setattr(search, "QUICK_EFFORT", 120)  # two for each of sixty pictures
    _ = many.neighbours  # which are computed by slow workers, where they are not kept yet
    moved.clear()
    search.rank_picture(many, Thumbnail(), Image.new("RGB", (40, 30), "red"), then=then)
    assert len(moved) == apart


@pytest.mark.parametrize("spread", [1, 10_000_000])
def test_ranks_of_positions_in_a_large_store(spread):
    """A table with a place for each picture took 80 MB for 10 million, once for each card."""
    first = spread * np.random.default_rng(3).permutation(1000)
    ranks = np.array([7, 999, 0, 500])
    tracemalloc.start()
    assert ranks_in(first, first[ranks]).tolist() == ranks.tolist()
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert len(ranks_in(first[:0], first[:0])) == 0


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_descriptors_that_are_no_numbers(many, number):
    """FAISS finds -1 for them: the last picture was every result, or a search a traceback."""
    descriptor = np.full(many.width, number, np.float32)
    with pytest.raises(RetrievalError, match="gives no numbers for this picture"):
        search.rank_features(many, descriptor)


def test_equal_pictures_have_equal_scores_and_one_order(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 1), ("d", 1), ("e", 3)):
        paint(tmp_path / "pictures" / f"{name}.png", seed)
    collection = open_collection(tmp_path / "pictures")
    loaded = index.build(collection, Thumbnail(), tmp_path / "index")
    with Image.open(tmp_path / "pictures" / "a.png") as picture:
        found = search.rank_picture(loaded, Thumbnail(), picture)
        again = search.rank_picture(index.load(loaded.path), Thumbnail(), picture)
    assert found.names[:3] == ("a.png", "c.png", "d.png")
    assert found.scores[0] == found.scores[1] == found.scores[2] > found.scores[3]
    assert found.names == again.names


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_picture_finds_itself_first(indexes, load, folder, name):
    loaded, method = indexes[name], load(name)
    for picture_name in loaded.names:
        found = search.rank_picture(loaded, method, images.read(folder / picture_name))
        assert found.names[0] == picture_name
        assert set(found.names) == set(loaded.names)
        assert (np.diff(found.scores) <= 0).all()
        if name in NUMBERS:
            assert found.scores[0] == pytest.approx(1, abs=2e-3)
        else:
            assert found.inliers[0] > 5 * geometry.NOISE_FLOOR


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_box_is_searched_for(indexes, load, folder, name):
    loaded, method = indexes[name], load(name)
    picture = images.read(folder / "c.png")
    box = 30, 20, 210, 160
    found = search.rank_picture(loaded, method, picture, box)
    if name in NUMBERS:
        query = method.describe(picture, box)
        products = np.array([loaded.features(i) @ query for i in range(6)])
        assert found.positions.tolist() == np.argsort(-products).tolist()
        assert products.max() < 0.999, "or the box was not looked at"
    else:
        assert found.names[0] == "c.png"
        assert found.inliers[0] > geometry.NOISE_FLOOR
    with pytest.raises(RetrievalError, match="covers less than"):
        search.rank_picture(loaded, method, picture, (900, 900, 990, 990))


def test_delf_verifies_its_shortlist(indexes, load, folder, drawn):
    """Order, inliers and scores against a loop over every picture."""
    loaded, method = indexes["delf"], load("delf")
    # Half of one picture beside half of another: two are verified, the rest is not.
    both = images.read(folder / "a.png")
    both.paste(images.read(folder / "b.png").crop((120, 0, 240, 180)), (120, 0))
    query = method.describe(both)
    expected = {}
    for position, name in enumerate(loaded.names):
        size = tuple(loaded.sizes[position])
        _, found = geometry.verify_features(
            query, loaded.features(position), size, geometry.MIN_SIMILARITY, geometry.TOLERANCE
        )
        expected[name] = found.count if found.count >= geometry.NOISE_FLOOR else 0
    found = search.rank_picture(loaded, method, both)
    assert dict(zip(found.names, found.inliers.tolist(), strict=True)) == expected
    assert set(found.names[:2]) == {"a.png", "b.png"}
    assert found.inliers[1] >= geometry.NOISE_FLOOR
    # Verified ones before the others, by inliers; the score is inliers + votes.
    assert (np.diff(found.inliers) <= 0).all()
    assert (np.floor(found.scores) == found.inliers).all()


def test_beyond_the_shortlist_nothing_is_verified(indexes, load, folder):
    loaded, method = indexes["delf"], load("delf")
    picture = images.read(folder / "d é.png")
    found = search.rank_picture(loaded, method, picture, verify=1)
    assert len(found) == 6
    assert (found.inliers > 0).tolist() == [True] + [False] * 5
    assert (found.scores[1:] < 1).all()


def test_exhaustive_search_verifies_every_picture(indexes, monkeypatch):
    loaded, asked = indexes["delf"], []
    real = geometry.verify_features
    monkeypatch.setattr(
        geometry, "verify_features", lambda *all_: (asked.append(1), real(*all_))[1]
    )
    features = loaded.features(3)
    for verify, top, times in ((2, None, 2), (2, 1, 2), (len(loaded), 1, 6), (10**9, None, 6)):
        asked.clear()
        found = search.rank_features(loaded, features, top, verify)
        assert len(asked) == times
        assert found.names[0] == loaded.names[3]


def test_features_already_there(indexes):
    for loaded in indexes.values():
        found = search.rank_features(loaded, loaded.features(2), top=3)
        assert found.positions[0] == 2
        assert len(found) == 3
        assert "extraction" not in found.timings


def test_timings_and_provenance(indexes, load, folder):
    picture = images.read(folder / "a.png")
    for name, loaded in indexes.items():
        found = search.rank_picture(loaded, load(name), picture)
        stages = ["extraction", "search"] + (["verification"] if name == "delf" else [])
        assert list(found.timings) == stages
        assert all(seconds >= 0 for seconds in found.timings.values())
        record = load(name).checkpoint
        expected = {
            "collection": "drawn", "pictures": 6, "method": name, "checkpoint": record.id,
            "checkpoint_sha256": record.sha256, "stands_in_for": record.stands_in_for,
            "settings": loaded.settings,
        }  # fmt: skip
        assert expected.items() <= found.provenance.items()


def test_nothing_to_match(tmp_path):
    """Blank pictures have no local features, in the index or as a query."""
    (tmp_path / "pictures").mkdir()
    blank = Image.new("RGB", (40, 30), "grey")
    blank.save(tmp_path / "pictures" / "blank.png")
    only = index.build(open_collection(tmp_path / "pictures"), Grid(), tmp_path / "only")
    paint(tmp_path / "pictures" / "noise.png", 1)
    both = index.build(open_collection(tmp_path / "pictures"), Grid(), tmp_path / "both")
    noise = images.read(tmp_path / "pictures" / "noise.png")
    for loaded, picture in ((only, blank), (only, noise), (both, blank)):
        found = search.rank_picture(loaded, Grid(), picture)
        assert sorted(found.names) == sorted(loaded.names)
        assert found.inliers.tolist() == [0] * len(loaded)
        assert np.isfinite(found.scores).all()


def test_a_method_that_does_not_belong_to_the_index(indexes, load, many):
    picture = Image.new("RGB", (60, 60))
    with pytest.raises(RetrievalError, match="made with method sir, not delf"):
        search.rank_picture(indexes["sir"], load("delf"), picture)
    with pytest.raises(RetrievalError, match="made with size 128, not size 160"):
        search.rank_picture(indexes["sir"], load("sir", size=160), picture)
    method = Thumbnail()
    method.settings = load("sir").settings
    with pytest.raises(RetrievalError, match="made with checkpoint sir-lite0"):
        search.rank_picture(indexes["sir"], method, picture)


@pytest.mark.parametrize("top", [None, 1])
def test_that_a_picture_finds_itself_does_not_make_the_answer_sure(indexes, collection, load, top):
    name = collection.names[0]
    picture = images.read(collection.path(name))
    found = search.rank_picture(indexes["delf"], load("delf"), picture, top=top, own=name)
    assert found.names[0] == name
    assert found.inliers[0] > 30
    assert found.confidence.level != "sure"
    stranger = search.rank_picture(indexes["delf"], load("delf"), picture, top=top)
    assert stranger.confidence.level == "sure"


def test_small_votes_are_told_apart(indexes, drawn, monkeypatch):
    """Those of DELF are a few thousandths: in two decimals, 0.00 was less than 0.00."""
    opened = indexes["delf"]
    monkeypatch.setitem(vars(opened), "nearest_sample", np.full(4, 0.0042))
    inliers = np.zeros(2, np.int64)
    found = Ranking(np.arange(2), np.array([0.0021, 0.001]), opened.names[:2], inliers, {}, {})
    judged = confidence.judge(found, opened, drawn(3), None, opened.features(0))
    assert judged.level == "unsure"
    assert "Perhaps nothing here shows the same thing." in judged.reason
    assert "best likeness is 0.0021" in judged.reason
    # "about": of all pictures of town, 74 % have that with DELF and 81 to 83 % with the others.
    assert "about three of four pictures of this collection have a " in judged.reason
    assert "neighbour with 0.0042 or more" in judged.reason


def test_a_copy_is_not_unlike_a_collection_of_copies(many, drawn, monkeypatch):
    """Descriptors in the index are rounded: the best likeness was 1, less than the usual 1."""
    monkeypatch.setitem(vars(many), "nearest_sample", np.full(4, 1.00002))
    found = Ranking(np.arange(1), np.array([0.99998]), many.names[:1], None, {}, {})
    judged = confidence.judge(found, many, drawn(3), None, np.ones(4, np.float32))
    assert judged.level == "unchecked"


def test_three_of_four_pictures_reach_the_usual_likeness(many, drawn, monkeypatch):
    """Of three pictures only two reached what was said, a value between two of them."""
    monkeypatch.setitem(vars(many), "nearest_sample", np.array([0.6, 0.6, 0.5]))
    found = Ranking(np.arange(1), np.array([0.3]), many.names[:1], None, {}, {})
    judged = confidence.judge(found, many, drawn(3), None, np.ones(4, np.float32))
    assert "neighbour with 0.5 or more" in judged.reason


def test_nobody_knows_what_is_alike_in_a_collection_of_one_picture(
    indexes, collection, drawn, monkeypatch
):
    """It looked alike, with a hundredth of the votes of a likeness."""
    opened = indexes["delf"]
    monkeypatch.setattr(type(opened), "__len__", lambda index: 1)
    inliers = np.zeros(1, np.int64)
    found = Ranking(np.arange(1), np.array([0.0001]), opened.names[:1], inliers, {}, {})
    judged = confidence.judge(found, opened, drawn(3), None, opened.features(0))
    assert (judged.level, judged.reason) == ("unsure", "Geometry confirms no picture.")


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        ({"geometry": True}, "sure"),
        ({"geometry-lighterglue": True}, "unsure"),
        ({"geometry": True, "geometry-lighterglue": True, "diffusion": False}, "unsure"),
        ({"geometry-lighterglue": True, "geometry": True}, "sure"),
        # One that could check no picture leaves the inliers as they are.
        ({"geometry": True, "geometry-lighterglue": False}, "sure"),
        ({"geometry-lighterglue": True, "geometry-delf": False}, "unsure"),
    ],
)
def test_an_answer_is_sure_by_who_counted_its_inliers(many, drawn, counts, level):
    """Of 71 photographs searched in town, where none is right, six were "Very likely right".

    counts: whether each of some re-rankers, one after the other, counts inliers.
    """
    found = Ranking(np.arange(1), np.array([52.5]), many.names[:1], None, {}, {})
    for name, counted in counts.items():
        inliers = np.array([52]) if counted else None
        found = Stage(name, found, {}).ordered(np.arange(1), found.scores, inliers=inliers)
    judged = confidence.judge(found, many, drawn(3), None, np.ones(4, np.float32))
    assert judged.level == level


def test_geometry_may_have_looked_at_no_picture_that_fits_a_filter(many, drawn, monkeypatch):
    """It said that geometry confirms no picture: of town, one with 20 inliers was at rank 247.

    A store applies its filter before, so that geometry looks at pictures that fit.
    """
    monkeypatch.setitem(vars(many), "nearest_sample", np.full(4, 0.3))
    made = {"filter": "year < 1910"}
    found = Ranking(np.arange(1), np.array([0.5]), many.names[:1], np.zeros(1, np.int64), {}, made)
    query = many, drawn(3), None, np.ones(4, np.float32)
    assert confidence.judge(found, *query).reason == (
        "Geometry confirms no picture that fits the filter. It looks only at the best of all "
        "pictures, whether they fit or not."
    )
    monkeypatch.setattr(type(many), "filters", True)
    judged = confidence.judge(found, *query)
    assert judged.reason == "It looks alike, but geometry confirms no picture."


def test_nothing_is_alike_where_the_query_is_the_only_picture(indexes, collection, load):
    """DELF said that it looks alike, and that geometry confirms no picture."""
    name = collection.names[0]
    picture = images.read(collection.path(name))
    features = load("delf").describe(picture)
    found = Ranking(np.zeros(1, np.int64), np.ones(1), (name,), np.full(1, 99), {}, {})
    alone = found.without(name)
    judged = confidence.judge(alone, indexes["delf"], picture, None, features)
    assert judged.reason == "There is no other picture to find."
