"""Which pictures are taken: an ordered, seeded list, and where the camera stands for each.

No Blender in here. The order matters: any prefix of the list is a balanced, usable collection.
"""

from math import atan, cos, pi, sin, tan

import numpy as np
from landmarks import LANDMARKS

SEED = 20260
LONG_SIDE = 640
SITES = ("street", "park", "suburb", "square", "lane", "crescent")
DISTRACTORS = 26  # for each site

# role, azimuth (share of the arc), fill, light, season, occluder, kind, black and white
#   azimuth: -1..1 of the landmark's walkable arc; kind: view, far, detail, cut
_Q = [
    ("q", 0.05, 0.85, "noon", "summer", "", "view", 0),
    ("q", -0.5, 0.9, "evening", "summer", "", "view", 0),
    ("q", 0.55, 0.85, "overcast", "summer", "people", "view", 0),
    ("q", -0.2, 0.8, "dusk", "summer", "", "view", 0),
    ("q", 0.3, 1.35, "noon", "winter", "", "cut", 0),
]
_DB = [
    ("d", 0.15, 0.85, "overcast", "summer", "", "view", 0),
    ("d", 0.9, 0.7, "evening", "summer", "", "view", 0),
    ("d", -0.35, 0.75, "noon", "summer", "people", "view", 0),
    ("d", -0.75, 0.6, "dusk", "winter", "", "view", 0),
    ("d", 0.35, 0.24, "noon", "summer", "", "far", 0),
    ("d", -0.1, 2.6, "overcast", "summer", "", "detail", 0),
    ("d", 0.45, 0.7, "noon", "winter", "bus", "view", 0),
    ("d", -1.0, 0.55, "noon", "summer", "tree", "view", 0),
    ("d", 0.2, 0.7, "dusk", "summer", "lamp", "view", 0),
    ("d", -0.55, 0.9, "overcast", "snow", "", "view", 0),
    ("d", 0.7, 1.5, "evening", "summer", "", "cut", 0),
    ("d", -0.25, 0.8, "evening", "winter", "scaffold", "view", 1),
    ("d", 0.6, 0.2, "dusk", "summer", "tree", "far", 0),
    ("d", 0.0, 3.2, "evening", "summer", "", "detail", 0),
    ("d", -0.85, 0.35, "overcast", "winter", "van", "far", 0),
    ("d", 0.98, 0.75, "dusk", "snow", "people", "view", 0),
    ("d", -0.45, 1.7, "noon", "summer", "tree", "cut", 1),
]


def rounds():
    """The shooting list: a list of rounds, each a list of view dictionaries."""
    result = []
    names = list(LANDMARKS)
    rng = np.random.default_rng(SEED)
    # queries and the first views come first, then everything else in turn
    shots = [
        _Q[0],
        _DB[0],
        _DB[1],
        _Q[1],
        _DB[2],
        _DB[3],
        _Q[2],
        _DB[4],
        _DB[5],
        _Q[3],
        _DB[6],
        _DB[7],
        _Q[4],
    ]
    shots += _DB[8:]
    cuts = (0, 6, 12, 17, len(shots))
    per_round = (7, 7, 6, 6)
    used = dict.fromkeys(SITES, 0)
    number = 0
    for k in range(4):
        views = []
        for name in names:
            for shot in shots[cuts[k] : cuts[k + 1]]:
                role, share, fill, light, season, occluder, kind, grey = shot
                local = np.random.default_rng([SEED, number])
                arc = LANDMARKS[name]["arc"]
                mirror = -1 if names.index(name) % 2 else 1
                views.append(
                    {
                        "id": f"v{number:04d}",
                        "site": name,
                        "role": role,
                        "kind": kind,
                        "light": light,
                        "season": season,
                        "occluder": occluder,
                        "grey": bool(grey) and bool(local.random() < 0.8),
                        "azimuth": float(
                            np.clip(mirror * share * arc + local.normal(0, 5), -arc - 4, arc + 4)
                        ),
                        "fill": fill * local.uniform(0.9, 1.1),
                        "seed": number,
                    }
                )
                number += 1
        for site in SITES:
            for _ in range(per_round[k]):
                local = np.random.default_rng([SEED, number])
                light = str(
                    local.choice(
                        ["noon", "evening", "overcast", "dusk"], p=[0.35, 0.25, 0.25, 0.15]
                    )
                )
                season = str(local.choice(["summer", "winter", "snow"], p=[0.65, 0.22, 0.13]))
                kind = str(local.choice(["scene", "house", "sky"], p=[0.55, 0.37, 0.08]))
                views.append(
                    {
                        "id": f"v{number:04d}",
                        "site": site,
                        "role": "x",
                        "kind": kind,
                        "light": light,
                        "season": season,
                        "occluder": str(local.choice(["", "", "", "people", "lamp"])),
                        "grey": bool(local.random() < 0.06),
                        "azimuth": float(local.uniform(-180, 180)),
                        "fill": 1.0,
                        "seed": number,
                    }
                )
                number += 1
                used[site] += 1
        result.append(views)
    rng.shuffle(result[0][:0])
    return result


def sun_for(view, rng):
    """Sun elevation and azimuth (degrees; azimuth as the camera's: 0 stands in front)."""
    light = view["light"]
    if light == "noon":
        elevation = rng.uniform(36, 58) if view["season"] == "summer" else rng.uniform(16, 26)
        return elevation, rng.uniform(-85, 85)
    if light == "evening":
        return rng.uniform(5, 13), float(rng.choice([-1, 1])) * rng.uniform(35, 95)
    if light == "dusk":
        return rng.uniform(-4.0, 0.5), float(rng.choice([-1, 1])) * rng.uniform(60, 170)
    return 40.0, rng.uniform(-90, 90)


def look(position, target):
    """Camera axes (right, up, back) for a camera at position looking at target, no roll."""
    back = np.asarray(position, float) - target
    back /= np.linalg.norm(back)
    right = np.cross([0, 0, 1.0], back)
    right /= np.linalg.norm(right)
    return right, np.cross(back, right), back


def frame_size(portrait):
    short = LONG_SIDE * 3 // 4
    return (short, LONG_SIDE) if portrait else (LONG_SIDE, short)


def solve(view, spec, core, rng):
    """A camera for a view of a landmark: position, target, focal length (mm), roll, size.

    `core` are points (N, 3) of the part that the photographer wants in the picture.
    """
    azimuth = (view["azimuth"] + rng.normal(0, 3)) * pi / 180
    distance = spec["distance"] * rng.uniform(0.8, 1.2)
    if view["kind"] == "far":
        distance *= rng.uniform(1.25, 1.5)
    height = 1.65 + rng.normal(0, 0.08)
    if rng.random() < 0.14:
        height = rng.uniform(4, 10)  # from a window or a wall
    position = np.array([distance * sin(azimuth), 2 - distance * cos(azimuth), height])
    width = np.ptp(core[:, 0]) * abs(cos(azimuth)) + np.ptp(core[:, 1]) * abs(sin(azimuth))
    tall = np.ptp(core[:, 2]) > width * 0.95
    portrait = bool(rng.random() < (0.8 if tall else 0.15))
    if view["kind"] == "detail":
        front = core[
            (core[:, 2] > 2.0)
            & (
                core @ [sin(azimuth), -cos(azimuth), 0]
                > np.quantile(core @ [sin(azimuth), -cos(azimuth), 0], 0.6)
            )
        ]
        target = front[rng.integers(len(front))] * (0.8, 1, 0.9)
    else:
        target = np.array([0, 2, spec["aim"]])
    size = frame_size(portrait)
    for _ in range(4):
        axes = np.stack(look(position, target))
        p = (core - position) @ axes.T
        p = p[p[:, 2] < -1]
        u, v = p[:, 0] / -p[:, 2], p[:, 1] / -p[:, 2]
        if view["kind"] == "detail":
            break
        mid = np.array([(u.max() + u.min()) / 2, (v.max() + v.min()) / 2, -1.0])
        target = position + (mid @ axes) * np.linalg.norm(target - position)
    half_long = max(
        (u.max() - u.min()) / 2 * LONG_SIDE / size[0], (v.max() - v.min()) / 2 * LONG_SIDE / size[1]
    )
    focal = float(np.clip(18 * view["fill"] / half_long, 15, 135))
    spread = {"view": 0.07, "far": 0.25, "detail": 0.02, "cut": 0.3}[view["kind"]]
    shift = rng.normal(0, spread, 2).clip(-0.42, 0.42) * (1, 0.6)
    half = 18 / focal
    move = np.array(
        [shift[0] * 2 * half * size[0] / LONG_SIDE, shift[1] * 2 * half * size[1] / LONG_SIDE, -1.0]
    )
    target = position + (move @ axes) * np.linalg.norm(target - position)
    roll = float(rng.normal(0, 1.3)) if rng.random() < 0.8 else float(rng.normal(0, 5))
    return {
        "position": position.tolist(),
        "target": target.tolist(),
        "focal": focal,
        "roll": roll,
        "size": size,
    }


def solve_scene(view, spots, rng):
    """A camera for a picture without a landmark. `spots` = [(x, y, heading or None), ...]."""
    x, y, heading = spots[rng.integers(len(spots))]
    x, y = x + rng.normal(0, 1.2), y + rng.normal(0, 1.2)
    heading = rng.uniform(0, 2 * pi) if heading is None else heading + rng.normal(0, 0.25)
    kind = view["kind"]
    if kind == "house":
        heading += float(rng.choice([-1, 1])) * rng.uniform(0.7, 1.5)
    pitch = {
        "scene": rng.normal(0.04, 0.04),
        "house": rng.normal(0.14, 0.05),
        "sky": rng.uniform(0.45, 0.75),
    }[kind]
    focal = float(
        {"scene": rng.uniform(22, 45), "house": rng.uniform(22, 34), "sky": rng.uniform(22, 40)}[
            kind
        ]
    )
    position = np.array([x, y, 1.65 + rng.normal(0, 0.08)])
    direction = np.array([sin(heading) * cos(pitch), cos(heading) * cos(pitch), sin(pitch)])
    size = frame_size(bool(rng.random() < 0.25))
    return {
        "position": position.tolist(),
        "target": (position + 20 * direction).tolist(),
        "focal": focal,
        "roll": float(rng.normal(0, 1.5)),
        "size": size,
    }


def half_angle(focal):
    """Half the field of view along the longer side, radians."""
    return atan(18 / focal)


def zoom(focal, distance):
    """Pixels a metre of the landmark takes: what scale ratios are made of."""
    return LONG_SIDE / 2 / tan(half_angle(focal)) / distance
