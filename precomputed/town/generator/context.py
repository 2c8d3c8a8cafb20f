"""Everything that is not a landmark: houses, trees, people, cars, street furniture."""

from math import cos, pi, sin

import numpy as np
from mesh import Mesh
from parts import (
    chimney,
    cornice,
    course,
    dormer,
    gable_coping,
    gable_roof,
    hip_roof,
    opening,
    quoins,
    wall,
)

HOUSES = 16
TREES = 5
PEOPLE = 8


def house(k):
    """One of the town's ordinary houses; k chooses and seeds it."""
    m = Mesh(500 + k)
    r = np.random.default_rng(700 + k)
    mat = (
        "plaster",
        "red_brick",
        "yellow_brick",
        "plaster",
        "rubble",
        "brown_brick",
        "plaster",
        "honey",
    )[k % 8]
    trim = (
        "white_wood",
        "pale_trim",
        "honey_trim",
        "white_wood",
        "honey_trim",
        "pale_trim",
        "pale_trim",
        "honey_trim",
    )[k % 8]
    bays = int(r.integers(2, 5))
    w, d = bays * r.uniform(2.3, 2.9) + 0.6, r.uniform(8, 10)
    floors = int(r.integers(2, 4))
    fh = r.uniform(2.9, 3.3)
    h = floors * fh
    paint = ("green_paint", "red_paint", "blue_paint", "dark_wood", "white_wood")[
        int(r.integers(5))
    ]
    kind = ("rect", "rect", "segment", "rect", "round")[int(r.integers(5))]
    nx, nz = ((2, 2), (3, 4), (2, 4), (1, 2))[int(r.integers(4))]
    shop = k % 4 == 3
    door_at = int(r.integers(bays))
    for y, turn in ((0, 0), (d, 180)):
        with m.at(y=y, turn=turn):
            openings = []
            for b in range(bays):
                x = -w / 2 + (b + 0.5) * w / bays
                for f in range(floors):
                    if f == 0 and shop and turn == 0:
                        continue
                    if f == 0 and b == door_at:
                        openings.append(
                            opening(
                                x,
                                0.2,
                                1.0,
                                2.1,
                                "rect",
                                "door",
                                frame=paint,
                                surround=0.14,
                                pediment=(None, "flat", "triangle")[k % 3],
                            )
                        )
                    else:
                        openings.append(
                            opening(
                                x,
                                f * fh + 0.95,
                                1.1,
                                fh - 1.65 - 0.15 * f,
                                kind,
                                "sash",
                                nx=nx,
                                nz=nz,
                                key=k % 3 == 1,
                                surround=0.12,
                            )
                        )
            if shop and turn == 0:
                openings.append(
                    opening(
                        -0.6,
                        0.05,
                        w - 2.4,
                        2.3,
                        "rect",
                        "shop",
                        frame=paint,
                        surround=0.1,
                        sill=False,
                    )
                )
                openings.append(opening(w / 2 - 0.9, 0.05, 0.95, 2.2, "rect", "door", frame=paint))
                m.box(-w / 2, w / 2, -0.25, 0, 2.5, 2.95, paint)
                if k % 8 == 3:
                    m.quad(
                        (-w / 2, -0.2, 2.5),
                        (w / 2 - 1.5, -0.2, 2.5),
                        (w / 2 - 1.5, -1.4, 2.05),
                        (-w / 2, -1.4, 2.05),
                        ("awning_red", "awning_green")[k % 2],
                    )
            wall(m, -w / 2, w / 2, 0, h, openings, mat, trim, depth=0.18)
            m.box(-w / 2, w / 2, -0.05, 0, 0, 0.4, "rubble" if k % 2 else mat)
            if k % 3 == 0:
                quoins(m, -w / 2, 0, h, trim, 1)
                quoins(m, w / 2, 0, h, trim, -1)
            if k % 2:
                course(m, -w / 2, w / 2, fh - 0.1, trim, 0.2, 0.08, ends=False)
            cornice(m, -w / 2, w / 2, h - 0.3, trim, 0.35, 0.28, dentils=k % 3 == 1)
            x = w / 2 - 0.2
            m.tube([(x, -0.08, 0), (x, -0.08, h - 0.2)], 0.05, "iron")
    for s in (-1, 1):
        m.quad((s * w / 2, 0, 0), (s * w / 2, d, 0), (s * w / 2, d, h), (s * w / 2, 0, h), mat)
    roof = ("clay", "slate", "slate", "stone_tile", "clay")[int(r.integers(5))]
    rise = r.uniform(2.4, 3.8)
    style = k % 5
    if style == 2:
        hip_roof(m, -w / 2, w / 2, 0, d, h, rise, roof)
    elif style == 4:
        wall(m, -w / 2, w / 2, h, h + 0.01, [], mat, top=lambda x: (w / 2 - abs(x)) * 1.1)
        gable_coping(m, -w / 2, w / 2, h, w / 2 * 1.1, trim, finial=False)
        with m.at(turn=90):
            gable_roof(m, 0.3, d, -w / 2, w / 2, h, w / 2 * 1.1, roof, over=0.1, ends=mat)
    else:
        gable_roof(m, -w / 2, w / 2, 0, d, h, rise, roof, ends=mat)
        if k % 3 != 1:
            for b in range(1 if bays < 3 else 2):
                x = (b - (0 if bays < 3 else 0.5)) * w * 0.5
                dormer(m, x, h + 0.5, "plaster_white", roof, y=0.9)
    chimney(m, -w / 2 + 0.7, d / 2, h + rise * 0.5, h + rise + 1.6, "red_brick", 3)
    if k % 2:
        chimney(m, w / 2 - 0.6, d / 2, h + rise * 0.5, h + rise + 1.4, "brown_brick", 2)
    return m


# -- trees ------------------------------------------------------------------------------------
def _branches(m, r, p, d, radius, length, level, tips, mat):
    """Grow one branch and its children; remember where the leaves go."""
    points, radii = [p], [radius]
    for _ in range(4):
        d = d + r.normal(0, 0.13, 3) + np.array([0, 0, 0.05 if level else 0.1])
        d /= np.linalg.norm(d)
        p = p + d * length / 4
        points.append(p)
        radii.append(radii[-1] * 0.84)
    m.tube(points, radii, mat, n=7 if level == 0 else 4 if level < 3 else 3)
    if level >= 2:
        tips += points[2:] if level == 2 else points[1:]
    if level == 4:
        return
    for _ in range((7, 4, 4, 3)[level]):
        k = int(r.integers(2, 5))
        out = r.normal(0, 1, 3)
        out -= out @ d * d
        out /= np.linalg.norm(out)
        child = d * r.uniform(0.35, 0.8) + out * r.uniform(0.6, 1.0) + np.array([0, 0, 0.15])
        _branches(
            m,
            r,
            points[k],
            child / np.linalg.norm(child),
            radii[k] * r.uniform(0.5, 0.68),
            length * r.uniform(0.55, 0.78),
            level + 1,
            tips,
            mat,
        )


def leaf_cards(m, r, centres, spread, size, mat):
    """Two-triangle leaves (small sprays of leaves at picture scale), in one go."""
    n = len(centres)
    c = centres + r.normal(0, spread, (n, 3))
    a = r.normal(0, 1, (n, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(a, r.normal(0, 1, (n, 3)))
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    s = size * r.uniform(0.6, 1.3, (n, 1))
    v = np.stack([c - a * s, c + b * s * 0.55, c + a * s, c - b * s * 0.55], 1).reshape(-1, 3)
    m.add(v, np.arange(4 * n).reshape(n, 4), mat, r.random(n))


def tree(k, winter):
    """A broad-leaved tree, in leaf or bare."""
    r = np.random.default_rng(900 + k)
    m = Mesh(900 + k)
    tips = []
    height = (3.2, 4.2, 3.0, 2.6, 4.6)[k % 5]
    _branches(m, r, np.zeros(3), np.array([0, 0, 1.0]), 0.1 * height, height, 0, tips, "bark")
    tips = np.array(tips)
    if not winter:
        count = 15000
        mat = ("leaf", "leaf_dark", "leaf", "leaf", "leaf_dark")[k % 5]
        leaf_cards(m, r, tips[r.integers(0, len(tips), count)], 0.36, 0.135, mat)
    elif k == 3:  # one tree keeps its dead leaves
        leaf_cards(m, r, tips[r.integers(0, len(tips), 1500)], 0.25, 0.14, "leaf_rust")
    return m


def conifer(k):
    """A dark evergreen in drooping tiers."""
    r = np.random.default_rng(960 + k)
    m = Mesh(960 + k)
    h = 9.0 + 3 * k
    m.tube([(0, 0, 0), (0, 0, h)], [0.28, 0.03], "bark")
    centres = []
    for _ in range(420):
        f = r.random() ** 0.8
        z = 1.2 + f * (h - 1.4)
        reach = (1 - f) * 2.9 + 0.2
        a = r.random() * 2 * pi
        for q in np.linspace(0.25, 1, 12):
            centres.append((reach * q * cos(a), reach * q * sin(a), z - 0.5 * q * q * reach * 0.6))
    leaf_cards(m, r, np.array(centres), 0.1, 0.18, "needle")
    return m


def bush(k, length=0.0):
    """A shrub, or with a length a clipped hedge."""
    r = np.random.default_rng(980 + k)
    m = Mesh(980 + k)
    if length:
        n = int(length * 700)
        p = r.random((n, 3)) * (length, 0.9, 1.3) - (length / 2, 0.45, 0)
        face = r.integers(0, 3, n)
        p[face == 0, 1] = -0.45
        p[face == 1, 1] = 0.45
        p[face == 2, 2] = 1.3
        m.box(-length / 2, length / 2, -0.38, 0.38, 0, 1.22, "leaf_dark", 0.0)
        leaf_cards(m, r, p, 0.05, 0.08, "ivy")
    else:
        p = r.normal(0, 1, (5200, 3))
        p /= np.linalg.norm(p, axis=1, keepdims=True)
        p = p * (r.random((5200, 1)) ** 0.3) * (0.9, 0.9, 0.75) + (0, 0, 0.7)
        leaf_cards(m, r, p[p[:, 2] > 0], 0.08, 0.055, "ivy" if k % 2 else "leaf")
        if k % 3 == 2:
            leaf_cards(m, r, p[(p[:, 2] > 0.5)][:160], 0.1, 0.07, "bloom")
    return m


# -- street furniture and what moves ----------------------------------------------------------
def lamp():
    m = Mesh(1)
    m.lathe(
        [(0.22, 0), (0.2, 0.5), (0.09, 0.7), (0.07, 3.2), (0.12, 3.25), (0.05, 3.4)], 10, "iron"
    )
    m.tube([(-0.35, 0, 3.1), (0.35, 0, 3.1)], 0.025, "iron")
    m.lathe([(0.1, 3.4), (0.22, 3.9)], 6, "lamp")
    m.lathe([(0.26, 3.9), (0.1, 4.15), (0.03, 4.2), (0.04, 4.35), (0, 4.4)], 6, "iron")
    for k in range(6):
        a = k * pi / 3
        m.tube(
            [(0.1 * cos(a), 0.1 * sin(a), 3.4), (0.22 * cos(a), 0.22 * sin(a), 3.9)],
            0.015,
            "iron",
            n=3,
        )
    return m


def bench():
    m = Mesh(2)
    for k in range(4):
        m.box(-0.8, 0.8, -0.05 + 0.12 * k, 0.04 + 0.12 * k, 0.43, 0.46, "oak")
        m.box(-0.8, 0.8, 0.46, 0.49, 0.52 + 0.11 * k, 0.6 + 0.11 * k, "oak")
    for x in (-0.75, 0.75):
        m.tube([(x, 0.5, 0), (x, 0.47, 0.95)], 0.03, "iron", n=4)
        m.tube([(x, 0.0, 0), (x, 0.0, 0.65), (x, 0.45, 0.65)], 0.03, "iron", n=4)
    return m


def _wheel(m, x, z, r, mat="rubber", y=0.0, tube=0.02):
    t = np.linspace(0, 2 * pi, 21)
    m.tube([(x + r * cos(a), y, z + r * sin(a)) for a in t], tube, mat, n=5)
    for a in t[:-1:2]:
        m.tube([(x, y, z), (x + r * cos(a), y, z + r * sin(a))], 0.004, "steel", n=3)


def bicycle(k=0):
    m = Mesh(3 + k)
    paint = ("red_paint", "blue_paint", "iron")[k % 3]
    _wheel(m, -0.52, 0.34, 0.33)
    _wheel(m, 0.52, 0.34, 0.33)
    for p, q in (
        ((-0.52, 0.34), (-0.12, 0.32)),
        ((-0.12, 0.32), (0.36, 0.78)),
        ((-0.22, 0.78), (0.36, 0.8)),
        ((-0.12, 0.32), (-0.26, 0.95)),
        ((-0.52, 0.34), (-0.22, 0.78)),
        ((0.52, 0.34), (0.34, 0.98)),
    ):
        m.tube([(p[0], 0, p[1]), (q[0], 0, q[1])], 0.018, paint, n=5)
    m.tube(
        [(0.2, -0.26, 1.0), (0.34, -0.1, 1.0), (0.34, 0.1, 1.0), (0.2, 0.26, 1.0)],
        0.014,
        "steel",
        n=5,
    )
    m.box(-0.4, -0.14, -0.08, 0.08, 0.94, 1.0, "dark_wood")
    m.box(0.42, 0.72, -0.17, 0.17, 0.72, 0.95, "plank")
    return m


def bicycles():
    """A rack with seven bicycles."""
    m = Mesh(30)
    for k in range(7):
        with m.at(x=k * 0.55 - 1.6, y=0.06 * (k % 3), turn=78 + 5 * (k % 4)):
            m.paste(bicycle(k))
    for x in (-1.7, -0.6, 0.5, 1.6):
        m.tube([(x, -0.4, 0), (x, -0.4, 0.75), (x, 0.4, 0.75), (x, 0.4, 0)], 0.025, "steel")
    return m


def car(k=0):
    """A parked car: an extruded side profile with window band, wheels, lights."""
    m = Mesh(40 + k)
    length = (4.1, 4.5, 3.7)[k % 3]
    body = [
        (0, 0.3),
        (length, 0.3),
        (length, 0.72),
        (length - 0.1, 0.88),
        (length * 0.74, 0.96),
        (0.12, 0.98),
        (0, 0.85),
    ]
    top = {
        0: [(0.1, 0.95), (length * 0.76, 0.95), (length * 0.58, 1.42), (length * 0.2, 1.45)],
        1: [(0.3, 0.95), (length * 0.75, 0.95), (length * 0.58, 1.4), (length * 0.3, 1.42)],
        2: [(0.04, 0.95), (length * 0.8, 0.95), (length * 0.62, 1.5), (length * 0.08, 1.54)],
    }[k % 3]
    m.extrude_y(body, -0.85, 0.85, "car_paint", 0.5)
    inner = [(x + (0.06 if x < length / 2 else -0.06), z) for x, z in top]
    m.extrude_y(inner, -0.72, 0.72, "glass", 0.2)
    m.ribbon([top[1], top[2], top[3], top[0]], 0.09, -0.74, -0.7, "car_paint", rnd=0.5)
    m.ribbon([top[1], top[2], top[3], top[0]], 0.09, 0.7, 0.74, "car_paint", rnd=0.5)
    m.box(top[3][0], top[2][0], -0.7, 0.7, top[2][1] - 0.02, top[3][1] + 0.04, "car_paint", 0.5)
    for f in (0.38, 0.55):
        for y in (-0.73, 0.73):
            m.box(
                length * f - 0.03,
                length * f + 0.03,
                y - 0.02,
                y + 0.02,
                0.95,
                1.42,
                "car_paint",
                0.5,
            )
    for x in (0.75, length - 0.8):
        for y in (-0.86, 0.66):
            with m.at(y=y):
                t = np.linspace(0, 2 * pi, 17)[:-1]
                m.extrude_y(
                    [(x + 0.32 * cos(a), 0.32 + 0.32 * sin(a)) for a in t], 0, 0.2, "rubber"
                )
                m.extrude_y(
                    [(x + 0.19 * cos(a), 0.32 + 0.19 * sin(a)) for a in t], -0.01, 0.21, "steel"
                )
    for y in (-0.8, 0.5):
        m.box(length - 0.04, length + 0.02, y, y + 0.3, 0.62, 0.76, "white_sheet")
        m.box(-0.02, 0.04, y, y + 0.3, 0.68, 0.82, "red_paint")
    m.box(length - 0.01, length + 0.02, -0.26, 0.26, 0.42, 0.53, "white_sheet")
    return m


def bus():
    """A red double-decker."""
    m = Mesh(50)
    m.box(-4.6, 4.6, -1.22, 1.22, 0.35, 4.25, "red_paint", 0.3)
    m.box(-4.4, 4.4, -1.1, 1.1, 4.25, 4.38, "white_sheet")
    for z0, z1 in ((1.35, 2.15), (2.95, 3.7)):
        for k in range(7):
            x = -4.3 + 1.25 * k
            for y in (-1.24, 1.22):
                m.box(x, x + 1.12, y, y + 0.02, z0, z1, "glass")
        for x in (-4.62, 4.6):
            m.box(x, x + 0.02, -1.05, 1.05, z0 - 0.1, z1, "glass", 0.3)
    m.box(-4.63, 4.63, -1.24, 1.24, 2.4, 2.7, "white_sheet", 0.3)
    for y in (-1.26, 1.24):
        m.box(-3.4, 2.6, y, y + 0.02, 2.25, 2.8, "blue_paint")
        m.box(-3.0, -1.0, y - 0.01, y + 0.03, 2.38, 2.66, "gilt")
    for x in (-3.0, 2.9):
        for y in (-1.26, 1.0):
            with m.at(y=y):
                t = np.linspace(0, 2 * pi, 21)[:-1]
                m.extrude_y(
                    [(x + 0.48 * cos(a), 0.48 + 0.48 * sin(a)) for a in t], 0, 0.26, "rubber"
                )
                m.extrude_y(
                    [(x + 0.25 * cos(a), 0.48 + 0.25 * sin(a)) for a in t], -0.01, 0.27, "steel"
                )
    return m


def van():
    """A white delivery van."""
    m = Mesh(51)
    m.extrude_y(
        [(0, 0.35), (5.4, 0.35), (5.4, 1.2), (4.9, 1.45), (4.3, 2.35), (0, 2.45)],
        -1,
        1,
        "white_sheet",
        0.2,
    )
    m.extrude_y(
        [(4.85, 1.5), (4.35, 2.2), (3.6, 2.2), (3.6, 1.45)][::-1], -1.02, 1.02, "glass", 0.2
    )
    m.box(0.4, 3.2, -1.02, 1.02, 1.1, 1.5, "green_paint")
    for x in (1.0, 4.4):
        for y in (-1.03, 0.83):
            with m.at(y=y):
                t = np.linspace(0, 2 * pi, 17)[:-1]
                m.extrude_y(
                    [(x + 0.35 * cos(a), 0.35 + 0.35 * sin(a)) for a in t], 0, 0.2, "rubber"
                )
    return m


def person(k):
    """A figure in a coat: small in the picture, so mostly silhouette and clothes."""
    m = Mesh(60 + k)
    r = np.random.default_rng(60 + k)
    h = r.uniform(0.92, 1.08)
    stride = r.uniform(0.08, 0.26)
    with m.at(scale=h):
        legs, coat = r.random(), r.random()
        for s in (-1, 1):
            m.tube(
                [
                    (s * 0.09, s * stride, 0.03),
                    (s * 0.1, s * stride * 0.4, 0.48),
                    (s * 0.08, 0, 0.9),
                ],
                [0.06, 0.075, 0.1],
                "cloth",
                rnd=legs,
            )
            m.box(
                s * 0.09 - 0.05,
                s * 0.09 + 0.05,
                s * stride - 0.16,
                s * stride + 0.08,
                0,
                0.08,
                "rubber",
            )
            m.tube(
                [
                    (s * 0.2, 0, 1.4),
                    (s * 0.27, s * stride * 0.5, 1.12),
                    (s * 0.25, -0.1 - s * stride * 0.4, 0.9),
                ],
                [0.065, 0.06, 0.045],
                "cloth",
                rnd=coat,
            )
            m.tube(
                [(s * 0.25, -0.1 - s * stride * 0.4, 0.9), (s * 0.25, -0.12, 0.82)], 0.045, "skin"
            )
        m.lathe(
            [
                (0.16, 0.78 if k % 2 else 0.6),
                (0.19, 0.95),
                (0.17, 1.15),
                (0.23, 1.38),
                (0.12, 1.48),
                (0.06, 1.53),
            ],
            10,
            "cloth",
            coat,
            wobble=lambda i: (1.0, 0.92, 0.75, 0.92)[i % 4],
        )
        m.lathe(
            [(0.055, 1.48), (0.06, 1.55), (0.095, 1.62), (0.1, 1.7), (0.07, 1.79), (0, 1.82)],
            10,
            "skin",
        )
        m.lathe(
            [(0.107, 1.66), (0.112, 1.72), (0.08, 1.8), (0, 1.84)],
            10,
            ("dark_wood", "oak", "iron")[k % 3],
        )
        if k % 3 == 0:
            m.box(-0.16, 0.16, 0.12, 0.3, 1.0, 1.42, "cloth")
    return m


def scaffold():
    """Scaffolding 12 m wide, 12 m high, planked, half of it netted."""
    m = Mesh(70)
    for x in np.linspace(-6, 6, 7):
        for y in (0, 1.1):
            m.tube([(x, y, 0), (x, y, 12.6)], 0.03, "steel", n=5)
    for z in np.arange(2, 12.1, 2):
        for y in (0, 1.1):
            m.tube([(-6.3, y, z), (6.3, y, z)], 0.028, "steel", n=5)
            m.tube([(-6.3, y, z + 1), (6.3, y, z + 1)], 0.025, "steel", n=5)
        for k in range(4):
            m.box(-6.2, 6.2, 0.05 + 0.26 * k, 0.28 + 0.26 * k, z + 0.03, z + 0.08, "plank")
    for k in range(6):
        a = -6 + 2 * k
        m.tube([(a, -0.05, 2 * (k % 3)), (a + 2, -0.05, 2 * (k % 3) + 6)], 0.025, "steel", n=5)
    for k in range(6):
        for q in range(5):
            if m.rng.random() < 0.4:
                m.quad(
                    (-6 + 2 * k, -0.07, 2 + 2 * q),
                    (-4 + 2 * k, -0.07, 2 + 2 * q),
                    (-4 + 2 * k, -0.07, 4 + 2 * q),
                    (-6 + 2 * k, -0.07, 4 + 2 * q),
                    "net",
                )
    m.box(-6.2, 6.2, -0.2, -0.15, 0, 2.0, "plank")
    m.box(-1.5, 1.2, -0.24, -0.2, 0.7, 1.7, "blue_paint")
    return m


def stall(k=0):
    """A market stall under a striped awning."""
    m = Mesh(80 + k)
    cloth = ("awning_red", "awning_green", "awning_blue")[k % 3]
    for x in (-1.4, 1.4):
        for y in (-1, 1):
            m.tube([(x, y, 0), (x, y, 2.3 + 0.3 * (y > 0))], 0.03, "steel", n=5)
    m.quad((-1.6, -1.3, 2.2), (1.6, -1.3, 2.2), (1.6, 1.2, 2.75), (-1.6, 1.2, 2.75), cloth)
    m.quad((-1.6, -1.3, 2.2), (1.6, -1.3, 2.2), (1.6, -1.32, 1.9), (-1.6, -1.32, 1.9), cloth)
    m.box(-1.4, 1.4, -0.9, 0.4, 0.7, 0.8, "plank")
    m.box(-1.4, 1.4, -0.92, -0.88, 0.05, 0.75, "white_sheet")
    for i in range(7):
        for j in range(3):
            x, y = -1.25 + 0.38 * i, -0.75 + 0.38 * j
            m.box(x, x + 0.3, y, y + 0.3, 0.8, 0.88 + 0.12 * m.rng.random(), "plank")
            for _ in range(6):
                with m.at(
                    x=x + 0.05 + 0.2 * m.rng.random(), y=y + 0.05 + 0.2 * m.rng.random(), z=0.9
                ):
                    m.lathe([(0, 0), (0.06, 0.05), (0.05, 0.1), (0, 0.13)], 6, "goods")
    return m


def railing(length=6.0):
    """Iron railings on a stone plinth."""
    m = Mesh(90)
    m.box(-length / 2, length / 2, -0.15, 0.15, 0, 0.45, "rubble")
    m.box(-length / 2, length / 2, -0.18, 0.18, 0.45, 0.53, "pale_trim")
    for k in range(int(length / 0.16)):
        x = -length / 2 + 0.08 + 0.16 * k
        m.box(x - 0.012, x + 0.012, -0.012, 0.012, 0.5, 1.55, "iron")
    for z in (0.7, 1.4):
        m.box(-length / 2, length / 2, -0.02, 0.02, z, z + 0.04, "iron")
    return m


def sign():
    """A street sign and a litter bin."""
    m = Mesh(91)
    m.tube([(0, 0, 0), (0, 0, 2.6)], 0.035, "steel")
    m.box(-0.5, 0.5, -0.03, -0.01, 2.1, 2.4, "blue_paint")
    m.box(-0.4, 0.4, -0.04, -0.02, 2.22, 2.28, "white_sheet")
    with m.at(x=0.8):
        m.lathe([(0.25, 0), (0.27, 0.9), (0.3, 0.95), (0.2, 1.1), (0, 1.12)], 12, "iron")
    return m


def bollard():
    m = Mesh(92)
    m.lathe(
        [(0.14, 0), (0.12, 0.15), (0.09, 0.2), (0.08, 0.8), (0.12, 0.86), (0.1, 0.95), (0, 1.0)],
        10,
        "iron",
    )
    return m


def library():
    """Every instanced object: name -> Mesh."""
    items = {f"house{k}": house(k) for k in range(HOUSES)}
    items |= {f"tree{k}_summer": tree(k, False) for k in range(TREES)}
    items |= {f"tree{k}_winter": tree(k, True) for k in range(TREES)}
    items |= {f"conifer{k}": conifer(k) for k in range(2)}
    items |= {f"bush{k}": bush(k) for k in range(3)}
    items |= {f"person{k}": person(k) for k in range(PEOPLE)}
    items |= {f"car{k}": car(k) for k in range(3)}
    items |= {f"stall{k}": stall(k) for k in range(3)}
    items |= {
        "hedge": bush(9, 5.0),
        "lamp": lamp(),
        "bench": bench(),
        "bicycles": bicycles(),
        "bus": bus(),
        "van": van(),
        "scaffold": scaffold(),
        "railing": railing(),
        "sign": sign(),
        "bollard": bollard(),
        "bicycle": bicycle(0),
    }
    return items
