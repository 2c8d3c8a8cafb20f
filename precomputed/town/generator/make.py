"""Make the town again: render what is missing, then develop, label and write the collection.

    python precomputed/town/generator/make.py            # everything (resumes)
    python precomputed/town/generator/make.py --finish   # only develop and label what is rendered
    python precomputed/town/generator/make.py --only v0003 v0017

Renders go to a scratch folder (default ./.town-render), one .npz of raw passes and one .json of
measurements for each view; a view whose .json is there is skipped. Needs its own Python 3.11:
pip install bpy "numpy<2" pillow
"""

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path

import labels
import numpy as np
import plan
from finish import develop, jpeg
from landmarks import LANDMARKS

HERE = Path(__file__).resolve().parent.parent
COLUMNS = [
    "name",
    "landmark",
    "role",
    "kind",
    "light",
    "season",
    "occluder",
    "grey",
    "azimuth",
    "pitch",
    "distance",
    "focal",
    "roll",
    "x",
    "y",
    "z",
    "sun_elevation",
    "sun_azimuth",
    "width",
    "height",
    "scale",
    "visible",
    "frame_share",
    "x1",
    "y1",
    "x2",
    "y2",
    "effects",
    "points",
]
DISTRACTOR_NAMES = dict(
    zip(plan.SITES, ("street", "park", "garden", "square", "lane", "crescent"), strict=True)
)


def all_views():
    return [view for part in plan.rounds() for view in part]


def render(folder, views, samples, threads):
    """Render what is not there yet, in order; a view counts as done once its .json is written."""
    todo = [view for view in views if not (folder / f"{view['id']}.json").exists()]
    if not todo:
        return
    import scene  # Blender takes a while to load and is not needed for the rest

    start = time.time()
    town = scene.Town(samples=samples, threads=threads)
    print(f"town built in {time.time() - start:.0f} s, {len(todo)} views to render", flush=True)
    for k, view in enumerate(todo):
        record = town.shoot(view, str(folder))
        (folder / f"{view['id']}.exr").unlink()
        temporary = folder / f"{view['id']}.tmp"
        temporary.write_text(json.dumps(record))
        os.replace(temporary, folder / f"{view['id']}.json")
        rate = (time.time() - start) / (k + 1)
        print(
            f"{k + 1}/{len(todo)} {view['id']} {view['site']} {record['seconds']} mean {rate:.1f}",
            file=sys.stderr,
            flush=True,
        )


def box_of(mask):
    """Tight box (x1, y1, x2, y2) of a mask, leaving out stray pixels (0.2 % at each side)."""
    ys, xs = np.nonzero(mask)
    return [
        int(np.quantile(xs, 0.002)),
        int(np.quantile(ys, 0.002)),
        int(np.quantile(xs, 0.998)) + 1,
        int(np.quantile(ys, 0.998)) + 1,
    ]


def row_for(record, mask, effects):
    """One line of views.csv."""
    position, target = np.array(record["position"]), np.array(record["target"])
    ahead = target - position
    h, w = mask.shape
    row = dict.fromkeys(COLUMNS, "")
    row |= {
        "role": "query" if record["role"] == "q" else "database",
        "kind": record["kind"],
        "light": record["light"],
        "season": record["season"],
        "occluder": record["occluder"],
        "grey": int(record["grey"]),
        "pitch": round(float(np.degrees(np.arctan2(ahead[2], np.hypot(*ahead[:2])))), 1),
        "focal": round(record["focal"], 1),
        "roll": round(record["roll"], 1),
        "x": round(position[0], 2),
        "y": round(position[1], 2),
        "z": round(position[2], 2),
        "sun_elevation": round(record["sun_elevation"], 1),
        "sun_azimuth": round(record["sun_azimuth"], 1),
        "width": w,
        "height": h,
        "effects": effects,
    }
    if record["site"] in LANDMARKS:
        row |= {
            "landmark": record["site"],
            "azimuth": round(record["true_azimuth"], 1),
            "distance": round(record["distance"], 1),
            "scale": round(plan.zoom(record["focal"], record["distance"]), 2),
            "visible": round(record["seen"] / max(1, record["facing"]), 3),
            "frame_share": round(float(mask.mean()), 4),
            "points": record["bits"],
        }
        if mask.any():
            row |= dict(zip(("x1", "y1", "x2", "y2"), box_of(mask), strict=True))
    return row


def finish(folder, views):
    """Develop every rendered view and write images, views.csv and ground_truth.json."""
    records = []
    for view in views:
        path = folder / f"{view['id']}.json"
        if path.exists():
            records.append(json.loads(path.read_text()) | {"grey": view["grey"]})
    images = HERE / "images"
    images.mkdir(exist_ok=True)
    for old in images.glob("*.jpg"):
        old.unlink()
    groups = {}
    for record in records:
        groups.setdefault(record["site"], []).append(record)
    shuffle = np.random.default_rng([plan.SEED, 3])
    rows = []
    for site, members in groups.items():
        numbers = shuffle.permutation(len(members)) + 1  # a number says nothing about the view
        for number, record in zip(numbers, members, strict=True):
            data = np.load(folder / f"{record['id']}.npz")
            shape = tuple(data["shape"])
            mask = (
                np.unpackbits(data["mask"], count=shape[0] * shape[1]).reshape(shape).astype(bool)
            )
            rng = np.random.default_rng([plan.SEED, 9, record["seed"]])
            picture, effects, quality = develop(data["rgb"], data["depth"], record, rng)
            name = f"{DISTRACTOR_NAMES.get(site, site)}_{number:03d}.jpg"
            (images / name).write_bytes(jpeg(picture, quality))
            row = row_for(record, mask, effects)
            usable = row["role"] == "database" or (
                row["visible"] >= 0.2 and row["frame_share"] >= 0.05
            )
            if not usable:  # a query that came out badly serves as a database picture instead
                row["role"] = "database"
            rows.append(row | {"name": name})
    rows.sort(key=lambda row: row["name"])
    with open(HERE / "views.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    truth = labels.gnd_from_views(labels.read_views(HERE / "views.csv"))
    truth = {
        "name": "town",
        "seed": plan.SEED,
        "licence": "CC0-1.0",
        "credit": "made by this project",
        "thresholds": labels.THRESHOLDS,
    } | truth
    (HERE / "ground_truth.json").write_text(json.dumps(truth) + "\n")
    size = sum(path.stat().st_size for path in images.glob("*.jpg")) / 1e6
    sums = {key: sum(len(entry[key]) for entry in truth["gnd"]) for key in ("easy", "hard", "junk")}
    print(
        f"{len(rows)} pictures, {size:.1f} MB; {len(truth['imlist'])} database, "
        f"{len(truth['qimlist'])} queries, {sums}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--folder", type=Path, default=Path(".town-render"), help="scratch folder for raw passes"
    )
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="0: all")
    parser.add_argument("--only", nargs="*", help="view ids")
    parser.add_argument("--finish", action="store_true", help="do not render")
    args = parser.parse_args()
    args.folder = args.folder.resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    views = all_views()
    if not args.finish:
        render(
            args.folder,
            [v for v in views if not args.only or v["id"] in args.only],
            args.samples,
            args.threads,
        )
    if not args.only:
        finish(args.folder, views)


if __name__ == "__main__":
    main()
