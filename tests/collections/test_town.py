"""The embedded collection "town": what is committed is complete and consistent. No Blender here."""

import functools
import importlib.util
import json
import operator
from pathlib import Path

import pytest
from PIL import Image

TOWN = Path(__file__).resolve().parents[2] / "precomputed" / "town"


def _labels():
    spec = importlib.util.spec_from_file_location("town_labels", TOWN / "generator" / "labels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


labels = _labels()


@pytest.fixture(scope="module")
def truth():
    return json.loads((TOWN / "ground_truth.json").read_text())


@pytest.fixture(scope="module")
def views():
    return {row["name"]: row for row in labels.read_views(TOWN / "views.csv")}


def test_the_town_has_enough_pictures_queries_and_landmarks(truth, views):
    assert 350 <= len(views) <= 500
    assert len(set(truth["landmarks"])) >= 11
    assert len(truth["qimlist"]) == len(truth["gnd"]) == len(truth["landmarks"]) >= 55
    assert sum(not row["landmark"] for row in views.values()) >= 150
    for landmark in set(truth["landmarks"]):
        assert truth["landmarks"].count(landmark) >= 5


def test_pictures_are_there_small_and_640(views):
    files = sorted((TOWN / "images").glob("*.jpg"))
    assert [file.name for file in files] == sorted(views)
    assert sum(file.stat().st_size for file in files) < 40e6
    for file in files:
        with Image.open(file) as picture:
            assert max(picture.size) == 640
            assert picture.size == (int(views[file.name]["width"]), int(views[file.name]["height"]))
            assert picture.mode == "RGB"


def test_queries_are_not_in_the_database(truth, views):
    assert not set(truth["qimlist"]) & set(truth["imlist"])
    assert len(set(truth["imlist"])) == len(truth["imlist"])
    assert set(truth["qimlist"]) | set(truth["imlist"]) == set(views)


def test_boxes_lie_inside_their_pictures(truth, views):
    for name, entry in zip(truth["qimlist"], truth["gnd"], strict=True):
        x1, y1, x2, y2 = entry["bbx"]
        assert 0 <= x1 < x2 <= int(views[name]["width"])
        assert 0 <= y1 < y2 <= int(views[name]["height"])
        assert (x2 - x1) * (y2 - y1) > 0.03 * 640 * 480


def test_labels_are_disjoint_and_of_the_same_landmark(truth, views):
    for entry, landmark in zip(truth["gnd"], truth["landmarks"], strict=True):
        lists = [entry[key] for key in ("easy", "hard", "junk")]
        together = functools.reduce(operator.iadd, lists, [])
        assert len(together) == len(set(together))
        for k in together:
            assert views[truth["imlist"][k]]["landmark"] == landmark
        same = [k for k, name in enumerate(truth["imlist"]) if views[name]["landmark"] == landmark]
        assert sorted(together) == same


def test_every_query_has_something_to_find(truth):
    for entry in truth["gnd"]:
        assert len(entry["easy"]) + len(entry["hard"]) >= 5
        assert len(entry["hard"]) >= 2


def test_ground_truth_follows_from_the_table_and_the_thresholds(truth, views):
    assert truth["thresholds"] == labels.THRESHOLDS
    again = labels.gnd_from_views(list(views.values()))
    for key, value in again.items():
        assert truth[key] == value, key


def test_label_rule_by_hand():
    base = {
        "mask": 0b1111,
        "azimuth": 10.0,
        "scale": 10.0,
        "light": "noon",
        "season": "summer",
        "grey": 0,
        "visible": 0.9,
        "frame_share": 0.4,
    }
    assert labels.label(base, base) == "easy"
    assert labels.label(base, base | {"azimuth": 350.0}) == "easy"
    assert labels.label(base, base | {"azimuth": 80.0}) == "hard"
    assert labels.label(base, base | {"light": "dusk"}) == "hard"
    assert labels.label(base, base | {"scale": 3.0}) == "hard"
    assert labels.label(base, base | {"grey": 1}) == "hard"
    assert labels.label(base, base | {"mask": 0b110000}) == "junk"
    assert labels.label(base, base | {"frame_share": 0.001}) == "junk"
    assert labels.label(base, base | {"visible": 0.03, "frame_share": 0.2}) == "junk"
    assert labels.label(base, base | {"visible": 0.03, "frame_share": 0.5}) == "hard"
