"""Chains of re-rankers: read from text, run one after another, refused; and what holds for each."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up import save, scene, unit

from retrieval.errors import RetrievalError
from retrieval.ranking import chain, diffusion, search
from retrieval.ranking.ranking import Query

GLOBAL = [name for name, one in chain.RERANKERS.items() if not one.pictures]


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
    few = found.best(3).without(gone)  # the stages before have all other pictures still
    assert few.stages[0].names == left.stages[0].names
    assert few.moved.tolist() == left.moved[: len(few)].tolist()
    none = found.only(set())
    assert none.stages[0].names == none.names == ()
    assert none.moved.tolist() == []


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
