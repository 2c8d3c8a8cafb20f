"""The label rule: from the table of views to ground truth in the form of Revisited Oxford.

Plain Python, no Blender, no numpy: `gnd_from_views(rows)` recomputes the committed
`ground_truth.json` from `views.csv`, and the tests hold it to that.

Every picture of a landmark carries, all measured in the render and none of it guessed:

* `points`: which of 512 fixed sample points on the landmark's surface it shows (hex bit mask);
* `visible`: shown points / points it would show with nothing in front and an endless frame;
* `frame_share`: the landmark's pixels / all pixels;
* `azimuth`, `scale` (pixels that one metre of the landmark takes), `light`, `season`, `grey`.
"""

import csv

THRESHOLDS = {
    # junk: hardly any of the landmark is there, or it shares (almost) no surface with the query
    "junk_frame_share": 0.012,
    "junk_visible": 0.06,
    "junk_visible_unless_frame_share": 0.30,  # a detail that fills the frame is not junk
    "junk_overlap": 0.08,
    # easy: clearly visible under conditions like the query's
    "easy_visible": 0.45,
    "easy_frame_share": 0.06,
    "easy_azimuth": 50.0,
    "easy_scale_ratio": 3.0,
    "easy_overlap": 0.35,
}
DAYLIGHT = ("noon", "evening", "overcast")


def read_views(path):
    """Rows of views.csv with numbers as numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for key in ("azimuth", "scale", "visible", "frame_share"):
            row[key] = float(row[key]) if row[key] else 0.0
        for key in ("x1", "y1", "x2", "y2", "grey"):
            row[key] = int(row[key]) if row[key] else 0
        row["mask"] = int(row["points"], 16) if row["points"] else 0
    return rows


def overlap(a, b):
    """Share of the surface seen in the poorer of two views that the other shows as well."""
    least = min(a["mask"].bit_count(), b["mask"].bit_count())
    return (a["mask"] & b["mask"]).bit_count() / least if least else 0.0


def turn_between(a, b):
    """Angle between two views of a landmark, degrees."""
    return abs((a["azimuth"] - b["azimuth"] + 180) % 360 - 180)


def label(query, view, limits=THRESHOLDS):
    """'easy', 'hard' or 'junk' for a database view of the query's landmark."""
    shared = overlap(query, view)
    if view["frame_share"] < limits["junk_frame_share"] or shared < limits["junk_overlap"]:
        return "junk"
    fills = view["frame_share"] >= limits["junk_visible_unless_frame_share"]
    if view["visible"] < limits["junk_visible"] and not fills:
        return "junk"
    ratio = max(query["scale"], view["scale"]) / max(1e-9, min(query["scale"], view["scale"]))
    same_light = (query["light"] in DAYLIGHT) == (view["light"] in DAYLIGHT)
    same_season = (query["season"] == "snow") == (view["season"] == "snow")
    if (
        view["visible"] >= limits["easy_visible"]
        and view["frame_share"] >= limits["easy_frame_share"]
        and turn_between(query, view) <= limits["easy_azimuth"]
        and ratio <= limits["easy_scale_ratio"]
        and shared >= limits["easy_overlap"]
        and same_light
        and same_season
        and not view["grey"]
    ):
        return "easy"
    return "hard"


def gnd_from_views(rows, limits=THRESHOLDS):
    """imlist, qimlist, gnd and landmarks from the rows of views.csv."""
    database = [row for row in rows if row["role"] == "database"]
    queries = [row for row in rows if row["role"] == "query"]
    gnd = []
    for query in queries:
        entry = {"bbx": [query["x1"], query["y1"], query["x2"], query["y2"]]}
        entry |= {"easy": [], "hard": [], "junk": []}
        for k, view in enumerate(database):
            if view["landmark"] and view["landmark"] == query["landmark"]:
                entry[label(query, view, limits)].append(k)
        gnd.append(entry)
    return {
        "imlist": [row["name"] for row in database],
        "qimlist": [row["name"] for row in queries],
        "gnd": gnd,
        "landmarks": [row["landmark"] for row in queries],
    }
