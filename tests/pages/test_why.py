"""What "Why this result?" says of a score, in the embedded collection."""

import re
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from retrieval import index
from retrieval.collections import PRECOMPUTED, open_collection
from retrieval.evaluation import similarity

ROOT = Path(__file__).parents[2]
TOWN = PRECOMPUTED / "town"
pytestmark = pytest.mark.skipif(
    not (TOWN / "sir-lite0").is_dir(), reason="the embedded collection is not here"
)


def opened(method, place):
    """What the page says with one result of a search open."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params.update(collection="town", query="museum_017.jpg", method=method)
    app.run()
    [card] = [one for one in app.button if one.key == f"open-{method}-{place}"]
    card.click().run()
    assert not app.exception, app.exception
    return " ".join(one.value for one in app.markdown)


def test_how_many_pairs_with_such_a_score_show_one_landmark():
    said = opened("sir", 0)
    score = float(re.search(r"This pair has a cosine of \*\*([\d.]+)\*\*", said).group(1))
    share = int(re.search(r"or more, \*\*(\d+)%\*\* show the same landmark", said).group(1))
    town = open_collection("town")
    same, others = similarity.pair_cosines(index.load(TOWN / "sir-lite0"), town.names, town.queries)
    # The page has the score with all its digits.
    near = score + np.linspace(-0.005, 0.005, 21)
    right, wrong = (np.array([(some >= edge).sum() for edge in near]) for some in (same, others))
    shares = 100 * right / (right + wrong)
    assert shares.min() - 0.5 <= share <= shares.max() + 0.5
    assert np.quantile(others, 0.99) == pytest.approx(
        float(re.search(r"only 1 such pair in 100 has ([\d.]+)", said).group(1)), abs=0.006
    )


def test_inliers_beside_those_of_other_places():
    said = opened("delf", 4)
    own = re.search(r"Inliers in this search: \*\*(\d+)\*\* here", said).group(1)
    assert f"· DELF · {own} inliers ·" in said
    assert re.search(r"at most (\d+|fewer than 10) in pictures of other places", said)
