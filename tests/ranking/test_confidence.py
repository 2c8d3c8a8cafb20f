from retrieval.ranking import confidence


def test_what_inliers_mean():
    """On town, two of three pictures with 10 to 14 inliers of DELF show another landmark."""
    assert confidence.meaning(9, least=10) == "Fewer than 10 can be chance."
    for inliers in (10, 19):
        assert confidence.meaning(inliers, least=10).startswith("Look-alikes reach that too")
    assert confidence.meaning(11, least=12) == "Fewer than 12 can be chance."
    for inliers in (20, 500):
        sentence = "With 20 or more both pictures very likely show one thing."
        assert confidence.meaning(inliers, least=12) == sentence
