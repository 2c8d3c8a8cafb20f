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


def test_lighterglue_needs_more_inliers():
    """With 52 a search in town for the Pitt Rivers Museum said "Very likely right": a wall."""
    sure = confidence.sure_inliers("geometry-lighterglue")
    assert "with 60 or more both" in confidence.meaning(52, 12, sure)
    assert confidence.sure_inliers("geometry") == confidence.sure_inliers("") == 20
