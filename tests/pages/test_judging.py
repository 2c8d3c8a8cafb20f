"""How good a ranking on show is."""

import numpy as np

from pages.parts.judging import Judged
from retrieval.collections import Collection
from retrieval.ranking.ranking import Ranking


def test_pictures_that_the_collection_lacks_are_wrong():
    """An index or a store of a stranger may name them: the search page ended in a traceback."""
    collection = Collection("little", "Little", None, ("a", "b"))
    judged = Judged(collection, {"ok": np.array([0])}, "classic", {"a": "positive"}, "")
    ranking = Ranking(np.arange(3), np.array([0.9, 0.8, 0.7]), ("x", "a", "y"), None, {}, {})
    # The right one comes second: its precision grows from 0 of 1 to 1 of 2.
    assert judged.average_precision(ranking) == 0.25
