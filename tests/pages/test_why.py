"""What "Why this result?" says of a score, in the embedded collection."""

import re
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from pages.parts.search import why
from pages.parts.search.answer import score_text
from retrieval import index
from retrieval.collections import PRECOMPUTED, open_collection
from retrieval.evaluation import similarity
from retrieval.ranking.ranking import Ranking

ROOT = Path(__file__).parents[2]
TOWN = PRECOMPUTED / "town"
pytestmark = pytest.mark.skipif(
    not (TOWN / "sir-lite0").is_dir(), reason="the embedded collection is not here"
)


def opened(method, place, **link):
    """What the page says with one result of a search open."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params.update(collection="town", query="museum_017.jpg", method=method, **link)
    app.run()
    [card] = [one for one in app.button if one.key == f"open-{method}-{place}"]
    card.click().run()
    assert not app.exception, app.exception
    return " ".join(one.value for one in [*app.markdown, *app.caption])


def test_how_many_pairs_with_such_a_score_show_one_landmark():
    said = opened("sir", 0)
    score = float(re.search(r"This pair has a cosine of \*\*([\d.]+)\*\*", said).group(1))
    counts = re.search(
        r"As alike or more: \*\*([\d,]+)\*\* of the ([\d,]+) pairs of the same landmark, "
        r"\*\*([\d,]+)\*\* of the ([\d,]+) pairs of different places",
        said,
    )
    same_place, of_same, different, of_different = (
        int(count.replace(",", "")) for count in counts.groups()
    )
    town = open_collection("town")
    same, others = similarity.pair_cosines(index.load(TOWN / "sir-lite0"), town.names, town.queries)
    # The page has the score with all its digits.
    near = score + np.linspace(-0.005, 0.005, 21)
    right, wrong = (np.array([(some >= edge).sum() for edge in near]) for some in (same, others))
    assert right.min() <= same_place <= right.max()
    assert wrong.min() <= different <= wrong.max()
    assert (of_same, of_different) == (len(same), len(others))
    assert float(re.search(r"Rank \*\*1\*\* · SIR · cosine ([\d.]+)", said).group(1)) == (
        pytest.approx(score, abs=0.006)
    )
    assert np.quantile(others, 0.99) == pytest.approx(
        float(re.search(r"only 1 such pair in 100 has ([\d.]+)", said).group(1)), abs=0.006
    )


def test_a_pair_counts_itself(monkeypatch):
    """'No pair of different places is so alike' stood beside the one that was, less by rounding."""
    said = []
    monkeypatch.setattr(why.st, "markdown", said.append)
    monkeypatch.setattr(why.st, "altair_chart", lambda *_, **__: None)
    cosines = np.array([0.3]), np.array([0.6920332, 0.1])
    monkeypatch.setattr(why.loaders, "pair_cosines", lambda *_: cosines)
    why._show_histogram(None, None, 0.6920561, 2000)
    counts = "**0** of the 1 pairs of the same landmark, **1** of the 2 pairs of different places."
    assert said[0].endswith(f" As alike or more: {counts}")
    why._show_histogram(None, None, 0.6920561, 2001)
    assert said[1].endswith(f" As alike or more among the first 2,000 pictures: {counts}")


def test_inliers_beside_those_of_other_places():
    said = opened("delf", 4)
    own = re.search(r"Inliers in this search: \*\*(\d+)\*\* here", said).group(1)
    assert f"· DELF · {own} inliers ·" in said
    assert re.search(r"at most \d+ in pictures of other places", said)


@pytest.mark.parametrize("reranker", ["geometry", "geometry-lighterglue"])
def test_what_geometry_saw_is_what_the_re_ranker_counted(reranker):
    said = opened("sir", 0, then=reranker)
    counted = re.search(r"\*\*1\*\* · SIR · (\d+) inliers", said).group(1)
    assert f"**{counted} of " in said[said.index("What geometry saw") :]
    assert ("LighterGlue matches them" in said) == (reranker != "geometry")


@pytest.mark.parametrize("place", range(0, 12, 3))
def test_what_re_rankers_did_to_a_result(place):
    """Beside a picture that diffusion moved up stood only that its cosine says little."""
    said = opened("cnn-irwnha", place, then="geometry,diffusion")
    moved = re.search(rf"Rank \*\*{place + 1}\*\* · CNN-IRwNHA · [^·]+ · (▲|▼) (\d+) ·", said)
    if moved:
        first = place + 1 + (int(moved[2]) if moved[1] == "▲" else -int(moved[2]))
        assert f"The search alone put it at rank {first}," in said
        assert f"Re-ranking then put it at rank {place + 1}." in said
    else:
        assert f"Re-ranking left it at rank {place + 1}." in said


def show_inliers_of_own_pictures():
    import numpy as np

    from pages.parts.judging import Judged
    from pages.parts.search.why import show_inliers
    from retrieval.ranking.ranking import Ranking

    names, inliers = ("a", "b"), np.array([30, 25])
    ranking = Ranking(np.arange(2), inliers + 0.5, names, inliers, {}, {})
    judged = Judged(None, {}, "classic", {"a": "positive"}, "", others=None)
    show_inliers(ranking, judged, 0)


def test_nothing_is_said_of_other_places_where_none_is_known():
    app = AppTest.from_function(show_inliers_of_own_pictures).run()
    assert not app.exception, app.exception
    [said] = [one.value for one in app.markdown]
    assert said == "Inliers in this search: **30** here (grey line)."


def test_a_picture_that_geometry_never_looked_at_is_not_said_to_have_few_inliers():
    votes, inliers = np.array([40.3, 0.2]), np.array([40, 0])
    ranking = Ranking(np.arange(2), votes, ("a", "b"), inliers, {}, {})
    assert [score_text(ranking, n) for n in (0, 1)] == ["40 inliers", "votes 0.200"]


def test_every_pair_is_in_the_histogram():
    """Cosines of copies, 1.0001, were left out, and pairs less alike than any unrelated ones."""
    right, unrelated = np.array([1.0001, 0.7, -0.3]), np.array([0.1, 0.2])
    bars = why._histogram(right, unrelated, 0.5).layer[0].data.values
    for kind in ("Same landmark", "Different places"):
        shares = [bar["share"] for bar in bars if bar["Pairs"] == kind]
        assert sum(shares) == pytest.approx(1)
