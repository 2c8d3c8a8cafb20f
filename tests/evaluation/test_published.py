from retrieval.evaluation import published
from retrieval.evaluation import published_descriptors as features


def test_rows_are_those_of_the_report_and_of_the_authors():
    rows = published.rows("roxford5k")
    report = {row.method: tuple(row.map.values()) for row in rows if row.origin == "report"}
    assert report == {
        "SIR": (14.4, 11.85, 2.34),
        "DELF": (58.56, 42.04, 16.98),
        "CNN-IRwNHA": (85.08, 68.65, 44.24),
    }
    (ours,) = (row for row in rows if row.checkpoint == features.CHECKPOINT)
    assert ours.map == {"easy": 84.81, "medium": 64.67, "hard": 38.47}
    assert ours.mp["hard"] == (81.43, 63.0, 53.0)
    assert {row.checkpoint for row in rows} >= {"gl18-resnet152", "rsfm120k-resnet50"}
    classic = [row.map for row in published.rows("oxford5k") if row.origin == "report"]
    assert classic == [{"classic": 23.34}, {"classic": 66.69}, {"classic": 82.09}]
    assert published.rows("town") == []
