"""Architectural parts: walls with openings, windows, columns, mouldings, roofs, pinnacles.

All of them draw into a `Mesh` in its current frame: x right, y into the wall, z up.
"""

import itertools
from functools import lru_cache
from math import atan2, cos, hypot, pi, sin

import numpy as np
from mesh import Mesh

RISE = {"rect": 0.0, "round": 0.5, "pointed": 0.9, "segment": 0.14, "tudor": 0.36}


# -- arches and openings ----------------------------------------------------------------------
def arch(kind, width, rise, n=9):
    """Points of an arch's head from left to right, springing at height 0."""
    a = width / 2
    if kind == "rect" or rise <= 0:
        return [(-a, 0.0), (a, 0.0)]
    if kind in ("round", "segment"):
        radius = (a * a + rise * rise) / (2 * rise)
        half = atan2(a, radius - rise)
        steps = np.linspace(-half, half, 2 * n - 1)
        return [(radius * sin(t), radius * cos(t) - radius + rise) for t in steps]
    if kind == "tudor":  # a quick curve at the springing, then nearly straight
        t = np.linspace(0, 1, n)
        left = np.stack([-a + a * t**1.25, rise * (1 - (1 - t) ** 2.0)], 1)
    else:
        radius = (a * a + rise * rise) / (2 * a)
        top = atan2(rise, radius - a)
        t = np.linspace(0, top, n)
        left = np.stack([radius - a - radius * np.cos(t), radius * np.sin(t)], 1)
    right = left[-2::-1] * (-1, 1)
    return [tuple(p) for p in np.vstack([left, right])]


def opening(x, z, w, h, kind="rect", fill="sash", rise=None, **more):
    """A hole in a wall: centre x, sill z, width, height up to the springing of its head."""
    rise = RISE[kind] * w if rise is None else rise
    return dict(x=x, z=z, w=w, h=h, kind=kind, fill=fill, rise=rise, **more)


def outline(o, grow=0.0):
    """The opening's outline, sill left -> up -> head -> down to sill right."""
    head = arch(o["kind"], o["w"] + 2 * grow, o["rise"] + (grow if o["rise"] else 0))
    base = o["z"] + o["h"] + (0 if o["rise"] else grow)
    points = [(x + o["x"], z + base) for x, z in head]
    return [(points[0][0], o["z"]), *points, (points[-1][0], o["z"])]


def head_at(o, x):
    """Height of the opening's head above position x."""
    points = outline(o)[1:-1]
    return float(np.interp(x, [p[0] for p in points], [p[1] for p in points]))


def wall(m, x0, x1, z0, z1, openings, mat, trim=None, depth=0.32, top=None):
    """A wall's outer face with real recesses; `top(x)` gives a gable instead of a level top."""
    xs, zs = {x0, x1}, {z0, z1}
    boxes = []
    for o in openings:
        left, right = o["x"] - o["w"] / 2, o["x"] + o["w"] / 2
        boxes.append((left, right, o["z"], o["z"] + o["h"] + o["rise"]))
        xs.update((left, right))
        zs.update(boxes[-1][2:])
    xs, zs = sorted(xs), sorted(zs)
    quads = []
    for a, b in itertools.pairwise(xs):
        if b - a < 1e-6:
            continue
        run = None
        for c, d in itertools.pairwise(zs):
            x, z = (a + b) / 2, (c + d) / 2
            hole = any(p < x < q and r < z < s for p, q, r, s in boxes)
            if hole:
                run = None
            elif run is not None:
                quads[run][3] = d
            else:
                run = len(quads)
                quads.append([a, b, c, d])
    verts, faces = [], []
    for a, b, c, d in quads:
        k = len(verts)
        verts += [(a, 0, c), (b, 0, c), (b, 0, d), (a, 0, d)]
        faces.append((k, k + 1, k + 2, k + 3))
    if verts:
        m.add(verts, np.array(faces), mat, 0.4)
    if top is not None:
        steps = sorted({x0, x1, (x0 + x1) / 2})
        shape = [(x0, z1), (x1, z1)] + [(x, z1 + top(x)) for x in steps[::-1] if top(x) > 0.01]
        m.add([(x, 0, z) for x, z in shape], [list(range(len(shape)))], mat, 0.4)
    for o in openings:
        _opening(m, o, mat, trim or mat, o.get("depth", depth))


def _opening(m, o, mat, trim, depth):
    """Reveal, spandrels, surround and filling of one opening."""
    line = outline(o)
    if o["rise"]:
        head = line[1:-1]
        top = o["z"] + o["h"] + o["rise"]
        verts, faces = [], []
        for (xa, za), (xb, zb) in itertools.pairwise(head):
            k = len(verts)
            verts += [(xa, 0, za), (xb, 0, zb), (xb, 0, top), (xa, 0, top)]
            faces.append((k, k + 1, k + 2, k + 3))
        m.add(verts, np.array(faces), mat, 0.4)
    n = len(line)
    v = [(x, 0, z) for x, z in line] + [(x, depth, z) for x, z in line]
    m.add(v, np.array([(i, i + n, (i + 1) % n + n, (i + 1) % n) for i in range(n)]), trim, 0.3)
    surround = o.get("surround", 0.16)
    if surround:
        frame = outline(o, surround / 2)
        m.ribbon(frame, surround, -o.get("proud", 0.06), 0.0, trim)
    if o.get("hood"):
        hood = outline(o, surround + 0.1)
        drop = 1 if o["rise"] else 0
        points = hood[1:-1]
        if not drop:
            points = [
                (points[0][0], points[0][1] - 0.3),
                *points,
                (points[-1][0], points[-1][1] - 0.3),
            ]
        m.ribbon(points, 0.13, -0.2, 0.0, trim)
        for x, z in (points[0], points[-1]):
            m.box(x - 0.13, x + 0.13, -0.24, 0, z - 0.22, z, trim)
    if o.get("sill", o["fill"] not in ("door", "open", "void")):
        a = o["w"] / 2 + surround + 0.05
        m.box(o["x"] - a, o["x"] + a, -0.14, depth * 0.6, o["z"] - 0.14, o["z"], trim)
    if o.get("key"):
        z = o["z"] + o["h"] + o["rise"]
        m.extrude_y(
            [
                (o["x"] - 0.14, z - 0.08),
                (o["x"] + 0.14, z - 0.08),
                (o["x"] + 0.22, z + 0.45),
                (o["x"] - 0.22, z + 0.45),
            ],
            -0.14,
            0,
            trim,
        )
    if o.get("pediment"):
        a, z = o["w"] / 2 + surround + 0.2, o["z"] + o["h"] + o["rise"] + surround + 0.1
        m.box(o["x"] - a, o["x"] + a, -0.25, 0, z, z + 0.14, trim)
        if o["pediment"] == "triangle":
            m.extrude_y(
                [(o["x"] - a, z + 0.14), (o["x"] + a, z + 0.14), (o["x"], z + 0.2 + a * 0.45)],
                -0.22,
                0,
                trim,
            )
            m.ribbon(
                [(o["x"] - a, z + 0.2), (o["x"], z + 0.26 + a * 0.45), (o["x"] + a, z + 0.2)],
                0.12,
                -0.32,
                0,
                trim,
            )
        elif o["pediment"] == "curve":
            bow = [(o["x"] + x, z + 0.14 + h) for x, h in arch("segment", 2 * a, a * 0.42)]
            m.extrude_y(bow[::-1], -0.22, 0, trim)
            m.ribbon(bow, 0.13, -0.32, 0, trim)
    FILLS[o["fill"]](m, o, line, depth, trim)


def _pane(m, line, y, mat, rnd=None):
    m.add(
        [(x, y, z) for x, z in line],
        [list(range(len(line)))[::-1]],
        mat,
        m.rng.random() if rnd is None else rnd,
    )


def _sash(m, o, line, depth, trim):
    """Painted frame with glazing bars; nx by nz panes."""
    frame = o.get("frame", "white_wood")
    _pane(m, line, depth, o.get("glass", "glass"))
    m.ribbon(outline(o, -0.04), 0.09, depth - 0.1, depth, frame)
    nx, nz = o.get("nx", 3), o.get("nz", 4)
    left, w = o["x"] - o["w"] / 2, o["w"]
    for i in range(1, nx):
        x = left + w * i / nx
        m.box(x - 0.018, x + 0.018, depth - 0.05, depth, o["z"], head_at(o, x), frame)
    for k in range(1, nz + (1 if o["rise"] else 0)):
        z = o["z"] + o["h"] * k / nz
        t = 0.035 if k == nz // 2 else 0.018
        m.box(left, left + w, depth - 0.06, depth, z - t, z + t, frame)
    m.box(left, left + w, depth - 0.12, depth, o["z"], o["z"] + 0.08, frame)


def _stone(m, o, line, depth, trim):
    """Stone mullions and transoms with leaded lights (Tudor colleges)."""
    _pane(m, line, depth, o.get("glass", "leaded"))
    n, left = o.get("lights", 2), o["x"] - o["w"] / 2
    lw = o["w"] / n
    for i in range(n):
        x = left + lw * i
        if i:
            m.box(x - 0.07, x + 0.07, depth - 0.2, depth, o["z"], head_at(o, x), trim)
        cx = x + lw / 2
        sub = [(cx + p, o["z"] + o["h"] - 0.42 + q) for p, q in arch("pointed", lw - 0.1, 0.34, 5)]
        m.ribbon(sub, 0.1, depth - 0.14, depth, trim)
    for k in range(o.get("transoms", 1)):
        z = o["z"] + o["h"] * (k + 1) / (o.get("transoms", 1) + 1)
        m.box(left, left + o["w"], depth - 0.18, depth, z - 0.06, z + 0.06, trim)


def _tracery(m, o, line, depth, trim):
    """Gothic window: mullions, cusped lights, circles and foils in the head."""
    _pane(m, line, depth, o.get("glass", "leaded"))
    n = o.get("lights", 2)
    left, lw = o["x"] - o["w"] / 2, o["w"] / n
    spring = o["z"] + o["h"]
    bar = min(0.16, lw * 0.16)
    y0 = depth - 0.22
    for i in range(n):
        x = left + lw * i
        if i:
            top = spring if n == 2 else head_at(o, x)
            m.box(x - bar / 2, x + bar / 2, y0, depth, o["z"], top, trim)
        cx = x + lw / 2
        m.ribbon(
            [(cx + p, spring + q) for p, q in arch("pointed", lw, lw * 0.9, 6)],
            bar,
            y0,
            depth,
            trim,
        )
        for side in (-1, 1):  # cusps
            m.ribbon(
                [
                    (cx + side * lw * 0.42, spring + lw * 0.3),
                    (cx + side * lw * 0.16, spring + lw * 0.33),
                    (cx + side * lw * 0.24, spring + lw * 0.6),
                ],
                bar * 0.6,
                y0 + 0.06,
                depth,
                trim,
            )
        if o.get("transom"):
            z = o["z"] + o["h"] * o["transom"]
            m.ribbon(
                [(cx + p, z - lw * 0.5 + q) for p, q in arch("pointed", lw, lw * 0.5, 5)],
                bar * 0.8,
                y0,
                depth,
                trim,
            )
    if o.get("transom"):
        z = o["z"] + o["h"] * o["transom"]
        m.box(left, left + o["w"], y0, depth, z - 0.07, z + 0.07, trim)
    peak = o["rise"]
    rings = [(0.0, 0.62 * peak, 0.2 * min(o["w"], peak * 1.1), o.get("foils", 4))]
    if n >= 4:
        rings += [(s * o["w"] * 0.23, 0.36 * peak, 0.105 * o["w"], 3) for s in (-1, 1)]
    for dx, dz, r, foils in rings:
        t = np.linspace(0, 2 * pi, 29)[:-1]
        centre = np.array([o["x"] + dx, spring + dz])
        circle = centre + r * np.stack([np.sin(t), np.cos(t)], 1)
        m.ribbon(circle, bar, y0, depth, trim, closed=True)
        lobes = r * (0.68 + 0.24 * np.cos(foils * t))
        m.ribbon(
            centre + lobes[:, None] * np.stack([np.sin(t), np.cos(t)], 1),
            bar * 0.6,
            y0 + 0.05,
            depth,
            trim,
            closed=True,
        )


def _louvre(m, o, line, depth, trim):
    """Belfry opening with slanting boards."""
    _pane(m, line, depth + 0.3, "void")
    n = o.get("lights", 2)
    left, lw = o["x"] - o["w"] / 2, o["w"] / n
    z = o["z"] + 0.15
    while z < o["z"] + o["h"] + o["rise"] - 0.2:
        half = o["w"] / 2
        if z > o["z"] + o["h"]:
            half *= max(0.0, 1 - (z - o["z"] - o["h"]) / o["rise"]) ** 0.6
        m.quad(
            (o["x"] - half, depth - 0.1, z),
            (o["x"] + half, depth - 0.1, z),
            (o["x"] + half, depth + 0.2, z + 0.22),
            (o["x"] - half, depth + 0.2, z + 0.22),
            "dark_wood",
        )
        z += 0.32
    for i in range(1, n):
        x = left + lw * i
        m.box(x - 0.1, x + 0.1, depth - 0.25, depth, o["z"], head_at(o, x), trim)
    for i in range(n):
        cx = left + lw * (i + 0.5)
        m.ribbon(
            [(cx + p, o["z"] + o["h"] + q) for p, q in arch("pointed", lw, lw * 0.9, 6)],
            0.14,
            depth - 0.25,
            depth,
            trim,
        )


def _door(m, o, line, depth, trim):
    """Panelled or boarded door."""
    colour = o.get("frame", "oak")
    _pane(m, line, depth, colour)
    left, w = o["x"] - o["w"] / 2, o["w"]
    leaves = 2 if w > 1.3 else 1
    for i in range(leaves):
        a = left + w * i / leaves
        b = a + w / leaves
        m.box(b - 0.03, b + 0.03, depth - 0.05, depth, o["z"], head_at(o, min(b, left + w)), colour)
        for k in range(4):
            z = o["z"] + 0.15 + k * (o["h"] - 0.1) / 4
            mid = (a + b) / 2
            for p, q in ((a + 0.1, mid - 0.04), (mid + 0.04, b - 0.1)):
                m.box(p, q, depth - 0.05, depth, z, z + (o["h"] - 0.1) / 4 - 0.12, colour)
    if o.get("fan"):
        fan = [(x, z) for x, z in line[1:-1]]
        _pane(m, fan, depth - 0.06, "glass")
        centre = (o["x"], o["z"] + o["h"])
        for x, z in fan[2:-2:3]:
            m.ribbon([centre, (x, z)], 0.05, depth - 0.1, depth - 0.05, "white_wood")
    m.box(left - 0.3, left + w + 0.3, -0.5, depth, o["z"] - 0.18, o["z"], trim)


def _void(m, o, line, depth, trim):
    """A dark passage."""
    _pane(m, line, o.get("back", depth + 1.5), "void")


def _open(m, o, line, depth, trim):
    """Nothing: one sees through."""


def _shop(m, o, line, depth, trim):
    """Shop window: big panes, painted stall riser, goods behind."""
    colour = o.get("frame", "green_paint")
    _pane(m, line, depth, "glass", 0.1)
    left, w = o["x"] - o["w"] / 2, o["w"]
    m.box(left, left + w, depth - 0.12, depth, o["z"], o["z"] + 0.55, colour)
    for i in range(o.get("nx", 3) + 1):
        x = left + w * i / o.get("nx", 3)
        m.box(x - 0.05, x + 0.05, depth - 0.12, depth, o["z"], o["z"] + o["h"], colour)
    m.box(
        left, left + w, depth - 0.1, depth, o["z"] + o["h"] * 0.78, o["z"] + o["h"] * 0.82, colour
    )
    for _ in range(6):
        x = left + 0.2 + m.rng.random() * (w - 0.6)
        m.box(
            x,
            x + 0.3,
            depth - 0.04,
            depth - 0.02,
            o["z"] + 0.6,
            o["z"] + 0.7 + m.rng.random(),
            "goods",
        )


FILLS = {
    "sash": _sash,
    "stone": _stone,
    "tracery": _tracery,
    "louvre": _louvre,
    "door": _door,
    "void": _void,
    "open": _open,
    "shop": _shop,
}


# -- mouldings --------------------------------------------------------------------------------
def course(m, x0, x1, z, trim, size=0.22, out=0.12, ends=True):
    """A string course: two steps on a wall's face."""
    e = out if ends else 0
    m.box(x0 - e, x1 + e, -out, 0.05, z, z + size * 0.6, trim)
    m.box(x0 - e * 0.5, x1 + e * 0.5, -out * 0.5, 0.05, z + size * 0.6, z + size, trim)
    m.box(x0 - e * 0.4, x1 + e * 0.4, -out * 0.4, 0.05, z - size * 0.35, z, trim)


def cornice(m, x0, x1, z, trim, size=0.8, out=0.6, dentils=True):
    """A classical cornice with dentils."""
    for k, (a, b) in enumerate(((0.0, 0.25), (0.38, 0.6), (0.6, 0.85), (0.85, 1.0))):
        o = out * (0.2, 0.7, 0.9, 1.0)[k]
        m.box(x0 - o, x1 + o, -o, 0.1, z + size * a, z + size * b, trim, 0.5)
    m.box(x0 - out * 0.3, x1 + out * 0.3, -out * 0.3, 0.1, z + size * 0.25, z + size * 0.38, trim)
    if dentils:
        step = size * 0.42
        n = max(2, int((x1 - x0) / step))
        for i in range(n):
            x = x0 + (i + 0.25) * (x1 - x0) / n
            m.box(x, x + step * 0.5, -out * 0.55, 0, z + size * 0.22, z + size * 0.38, trim, 0.5)


def quoins(m, x, z0, z1, trim, side=1, h=0.42):
    """Long and short corner stones; side=1 runs to the right of x."""
    z, k = z0, 0
    while z + h <= z1 + 0.01:
        w = 0.75 if k % 2 else 0.45
        a, b = (x, x + w) if side > 0 else (x - w, x)
        m.box(a, b, -0.05, 0.02, z + 0.015, z + h - 0.015, trim)
        z, k = z + h, k + 1


def battlement(m, x0, x1, z, mat, trim, merlon=0.9, gap=0.7, h=0.9, thick=0.4):
    """Crenellated parapet with copings."""
    m.box(x0, x1, 0, thick, z, z + 0.5, mat)
    n = max(1, round((x1 - x0 + gap) / (merlon + gap)))
    step = (x1 - x0 + gap) / n
    for i in range(n):
        a = x0 + i * step
        b = a + step - gap
        m.box(a, b, 0, thick, z + 0.5, z + 0.5 + h, mat)
        m.box(a - 0.07, b + 0.07, -0.07, thick + 0.07, z + 0.5 + h, z + 0.64 + h, trim)
    m.box(x0, x1, -0.06, thick + 0.06, z + 0.42, z + 0.52, trim)


@lru_cache(maxsize=64)
def _baluster(mat, h):
    b = Mesh(1)
    b.lathe(
        [
            (0.09, 0),
            (0.09, 0.08 * h),
            (0.055, 0.12 * h),
            (0.1, 0.32 * h),
            (0.05, 0.7 * h),
            (0.08, 0.9 * h),
            (0.08, h),
        ],
        8,
        mat,
        0.5,
    )
    return b


def balustrade(m, x0, x1, z, trim, h=0.85, piers=4.0):
    """Balusters between piers, at y 0..0.3."""
    n = max(1, round((x1 - x0) / piers))
    m.box(x0, x1, -0.04, 0.32, z, z + 0.14, trim)
    m.box(x0, x1, -0.06, 0.34, z + h + 0.14, z + h + 0.32, trim)
    for i in range(n + 1):
        x = x0 + (x1 - x0) * i / n
        m.box(x - 0.22, x + 0.22, -0.06, 0.34, z, z + h + 0.4, trim)
    count = int((x1 - x0) / 0.36)
    for i in range(count):
        m.paste(_baluster(trim, h), x=x0 + (i + 0.5) * (x1 - x0) / count, y=0.14, z=z + 0.14)


def pierced(m, x0, x1, z, trim, h=1.1, step=0.8):
    """A Gothic pierced parapet: rails and a row of foiled rings."""
    m.box(x0, x1, 0, 0.25, z, z + 0.18, trim)
    m.box(x0, x1, -0.05, 0.3, z + h, z + h + 0.18, trim)
    n = max(1, round((x1 - x0) / step))
    t = np.linspace(0, 2 * pi, 17)[:-1]
    r = min(h - 0.2, (x1 - x0) / n) / 2 * (0.8 + 0.18 * np.cos(4 * t))
    for i in range(n):
        centre = np.array([x0 + (i + 0.5) * (x1 - x0) / n, z + 0.09 + h / 2])
        m.ribbon(
            centre + r[:, None] * np.stack([np.sin(t), np.cos(t)], 1),
            0.12,
            0.03,
            0.22,
            trim,
            closed=True,
        )
        x = x0 + i * (x1 - x0) / n
        m.box(x - 0.06, x + 0.06, 0.02, 0.24, z, z + h, trim)


# -- columns and verticals --------------------------------------------------------------------
@lru_cache(maxsize=64)
def column(h, r, mat, order="corinthian", fluted=True):
    """A classical column standing on the ground, as a Mesh to paste."""
    c = Mesh(2)
    base, cap = r * 1.1, r * (2.3 if order == "corinthian" else 1.1)
    c.box(-1.4 * r, 1.4 * r, -1.4 * r, 1.4 * r, 0, base * 0.35, mat, 0.5)
    c.lathe(
        [
            (1.38 * r, base * 0.35),
            (1.42 * r, base * 0.5),
            (1.3 * r, base * 0.62),
            (1.12 * r, base * 0.7),
            (1.24 * r, base * 0.82),
            (1.15 * r, base),
            (r, base * 1.1),
        ],
        20,
        mat,
        0.5,
    )
    z = np.linspace(0, 1, 9)
    shaft = [(r * (1 - 0.15 * t**1.8), base * 1.1 + t * (h - cap - base * 1.1)) for t in z]
    flutes = (lambda k: (1.0, 0.965, 0.93, 0.965)[k % 4]) if fluted else None
    c.lathe(shaft, 64 if fluted else 24, mat, 0.5, flutes)
    t, zc = 0.85 * r, h - cap
    if order == "corinthian":
        c.lathe(
            [
                (t, zc),
                (t * 1.12, zc + 0.03 * cap),
                (t, zc + 0.08 * cap),
                (t * 1.05, zc + cap * 0.3),
                (t * 1.1, zc + cap * 0.6),
                (t * 1.45, zc + cap * 0.88),
            ],
            16,
            mat,
            0.5,
        )
        for row, (z0, z1, k) in enumerate(((0.1, 0.42, 8), (0.36, 0.72, 8))):
            for i in range(k):
                a = (i + 0.5 * row) * 360 / k
                with c.at(turn=a):
                    c.extrude_y(
                        [
                            (-0.3 * t, zc + z0 * cap),
                            (0.3 * t, zc + z0 * cap),
                            (0.24 * t, zc + z1 * cap),
                            (-0.24 * t, zc + z1 * cap),
                        ],
                        -1.24 * t,
                        -t,
                        mat,
                        0.2,
                    )
                    c.box(
                        -0.22 * t,
                        0.22 * t,
                        -1.5 * t,
                        -1.2 * t,
                        zc + (z1 - 0.1) * cap,
                        zc + z1 * cap,
                        mat,
                        0.7,
                    )
        for i in range(4):
            with c.at(turn=45 + 90 * i):
                c.box(
                    -0.18 * t, 0.18 * t, -1.95 * t, -1.3 * t, zc + 0.68 * cap, zc + 0.88 * cap, mat
                )
    elif order == "ionic":
        c.lathe([(t, zc), (t * 1.1, zc + 0.2 * cap), (t * 1.25, zc + 0.55 * cap)], 20, mat, 0.5)
        turn = np.linspace(0.4, 4.6 * pi, 34)
        for side in (-1, 1):
            spiral = [
                (
                    side * 1.15 * t + side * (0.62 * t * u / turn[-1]) * sin(u),
                    zc + 0.42 * cap + 0.62 * t * u / turn[-1] * cos(u),
                )
                for u in turn
            ]
            c.ribbon(spiral, 0.14 * t, -1.25 * t, 1.25 * t, mat)
    else:  # doric
        c.lathe(
            [
                (t, zc),
                (t * 1.1, zc + 0.1 * cap),
                (t, zc + 0.2 * cap),
                (t * 1.02, zc + 0.35 * cap),
                (t * 1.4, zc + 0.75 * cap),
            ],
            20,
            mat,
            0.5,
        )
    c.box(-1.5 * t, 1.5 * t, -1.5 * t, 1.5 * t, h - 0.13 * cap, h, mat, 0.6)
    return c


@lru_cache(maxsize=64)
def pinnacle(h, w, mat, knobs=5):
    """A crocketed pinnacle: panelled shaft, gablets, spirelet with knobs, finial."""
    p = Mesh(3)
    s = h * 0.42
    p.box(-w / 2, w / 2, -w / 2, w / 2, 0, s, mat, 0.5)
    for i in range(4):
        with p.at(turn=90 * i), p.at(y=-w / 2):
            p.ribbon(
                [
                    (-w * 0.3, s * 0.1),
                    (-w * 0.3, s * 0.75),
                    (0, s * 0.95),
                    (w * 0.3, s * 0.75),
                    (w * 0.3, s * 0.1),
                ],
                w * 0.14,
                -0.05 * w,
                0.02,
                mat,
                rnd=0.8,
            )
            p.extrude_y([(-w * 0.55, s), (w * 0.55, s), (0, s + w * 0.9)], -w * 0.1, w * 0.2, mat)
    p.pyramid(w * 0.42, s, h, mat, 4, 0.6)
    for i in range(4):
        a = pi / 4 + i * pi / 2
        for k in range(knobs):
            f = (k + 0.6) / (knobs + 0.5)
            r = w * 0.6 * (1 - f)
            z = s + (h - s) * f
            q = w * 0.13
            x, y = r * cos(a), r * sin(a)
            p.box(x - q, x + q, y - q, y + q, z - q, z + q * 1.3, mat)
    p.lathe(
        [
            (0.02, h - w * 0.5),
            (w * 0.2, h - w * 0.2),
            (w * 0.24, h),
            (w * 0.1, h + w * 0.2),
            (0, h + w * 0.5),
        ],
        6,
        mat,
    )
    return p


def buttress(m, x, z0, z1, mat, trim, w=0.8, out=1.4, stages=3):
    """A stepped buttress against a wall at y = 0, set-offs sloped."""
    for k in range(stages):
        a = z0 + (z1 - z0) * k / stages
        b = z0 + (z1 - z0) * (k + 1) / stages
        o = out * (1 - 0.28 * k)
        nxt = out * (1 - 0.28 * (k + 1)) if k < stages - 1 else 0.05
        m.box(x - w / 2, x + w / 2, -o, 0, a, b, mat, 0.4)
        v = [
            (x - w / 2 - 0.04, -o - 0.05, b),
            (x + w / 2 + 0.04, -o - 0.05, b),
            (x + w / 2 + 0.04, -nxt, b + (o - nxt) * 1.2),
            (x - w / 2 - 0.04, -nxt, b + (o - nxt) * 1.2),
            (x - w / 2 - 0.04, 0, b),
            (x + w / 2 + 0.04, 0, b),
        ]
        m.add(v, [[0, 1, 2, 3], [0, 3, 4], [1, 5, 2]], trim, 0.6)
        m.box(x - w / 2 - 0.06, x + w / 2 + 0.06, -o - 0.08, 0, b - 0.12, b, trim, 0.6)
    m.box(x - w / 2 - 0.12, x + w / 2 + 0.12, -out - 0.15, 0, z0, z0 + 0.7, mat, 0.3)


# -- roofs ------------------------------------------------------------------------------------
def gable_roof(m, x0, x1, y0, y1, z, rise, mat, over=0.35, ridge=None, ends=None):
    """Ridge along x. Slabs with thickness, ridge tiles, and optional gable walls (`ends`)."""
    mid = (y0 + y1) / 2
    half = (y1 - y0) / 2
    drop = over * rise / half
    for s in (-1, 1):
        eave = mid + s * (half + over)
        a, b = x0 - over * 0.5, x1 + over * 0.5
        v = [(a, eave, z - drop), (b, eave, z - drop), (b, mid, z + rise), (a, mid, z + rise)]
        v += [(x, y, q - 0.16) for x, y, q in v]
        order = [[0, 1, 2, 3], [4, 5, 1, 0], [5, 6, 2, 1], [7, 4, 0, 3]]
        m.add(v, order if s < 0 else [f[::-1] for f in order], mat, 0.5)
    n = max(2, int((x1 - x0) / 0.5))
    for i in range(n):
        a = x0 + (x1 - x0) * i / n
        m.box(
            a,
            a + (x1 - x0) / n - 0.02,
            mid - 0.14,
            mid + 0.14,
            z + rise - 0.05,
            z + rise + 0.1,
            ridge or mat,
        )
    if ends:
        for x in (x0, x1):
            v = [(x, y0, z), (x, y1, z), (x, mid, z + rise)]
            m.add(v, [[0, 1, 2]], ends, 0.4)


def hip_roof(m, x0, x1, y0, y1, z, rise, mat, over=0.45):
    """Hipped roof with the ridge along the longer side."""
    x0, x1, y0, y1 = x0 - over, x1 + over, y0 - over, y1 + over
    w, d = x1 - x0, y1 - y0
    if w >= d:
        r = [(x0 + d / 2, (y0 + y1) / 2, z + rise), (x1 - d / 2, (y0 + y1) / 2, z + rise)]
        faces = [[0, 1, 5, 4], [1, 2, 5], [2, 3, 4, 5], [3, 0, 4]]
    else:
        r = [((x0 + x1) / 2, y0 + w / 2, z + rise), ((x0 + x1) / 2, y1 - w / 2, z + rise)]
        faces = [[0, 1, 4], [1, 2, 5, 4], [2, 3, 5], [3, 0, 4, 5]]
    v = [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z), *r]
    m.add(v, faces, mat, 0.5)
    m.box(x0, x1, y0, y1, z - 0.12, z, "white_wood")


def dormer(m, x, z, mat, roof, w=1.3, h=1.3, deep=2.2, y=0.0):
    """A gabled dormer window whose front stands at y."""
    with m.at(x=x, y=y, z=z):
        wall(
            m,
            -w / 2,
            w / 2,
            0,
            h,
            [opening(0, 0.2, w - 0.4, h - 0.35, nx=2, nz=2, surround=0.08)],
            mat,
            depth=0.12,
            top=lambda t: (w / 2 - abs(t)) * 0.8,
        )
        for s in (-1, 1):
            v = [(s * w / 2, 0, 0), (s * w / 2, deep, 0), (s * w / 2, deep, h), (s * w / 2, 0, h)]
            m.add(v, [[0, 1, 2, 3]], mat, 0.4)
            a = s * (w / 2 + 0.15)
            v = [
                (a, -0.15, h - 0.12),
                (a, deep, h - 0.12),
                (0, deep, h + w * 0.4),
                (0, -0.15, h + w * 0.4),
            ]
            m.add(v, [[0, 1, 2, 3]], roof, 0.5)
        m.ribbon(
            [(-w / 2 - 0.15, h - 0.14), (0, h + w * 0.4 - 0.02), (w / 2 + 0.15, h - 0.14)],
            0.12,
            -0.2,
            -0.1,
            "white_wood",
        )


def chimney(m, x, y, z0, z1, mat, pots=3, w=None):
    """Stack with oversailing courses and pots."""
    w = w or 0.35 * pots + 0.3
    m.box(x - w / 2, x + w / 2, y - 0.35, y + 0.35, z0, z1, mat)
    m.box(x - w / 2 - 0.08, x + w / 2 + 0.08, y - 0.43, y + 0.43, z1 - 0.45, z1 - 0.3, mat)
    m.box(x - w / 2 - 0.06, x + w / 2 + 0.06, y - 0.41, y + 0.41, z1 - 0.12, z1, mat)
    for i in range(pots):
        with m.at(x=x + (i - (pots - 1) / 2) * 0.36, y=y, z=z1):
            m.lathe([(0.14, 0), (0.11, 0.35), (0.14, 0.42), (0.14, 0.5)], 8, "clay")


def gable_coping(m, x0, x1, z, rise, trim, finial=True):
    """Raised coping on a gable wall in the plane y = 0, with kneelers and a finial."""
    mid = (x0 + x1) / 2
    m.ribbon(
        [(x0 - 0.2, z + 0.1), (mid, z + rise + 0.25), (x1 + 0.2, z + 0.1)], 0.32, -0.15, 0.45, trim
    )
    for x in (x0, x1):
        m.box(x - 0.35, x + 0.35, -0.2, 0.5, z - 0.35, z + 0.25, trim)
    if finial:
        with m.at(x=mid, y=0.15, z=z + rise + 0.2):
            m.lathe(
                [(0.2, 0), (0.12, 0.2), (0.28, 0.5), (0.3, 0.6), (0.1, 0.8), (0.02, 1.3)], 6, trim
            )
            m.box(-0.4, 0.4, -0.08, 0.08, 0.85, 1.02, trim)


def steps(m, x0, x1, y0, count, trim, tread=0.38, riser=0.16):
    """Stairs going down towards -y from a floor at count * riser."""
    for k in range(count):
        e = 0.004 * k  # sides in one plane would render black
        m.box(x0 - e, x1 + e, y0 - tread * (k + 1), y0 + e, 0, riser * (count - k), trim)


def rose(m, x, z, r, trim, petals=8, depth=0.35):
    """A rose window on a wall face: glass disc, ring mouldings, petals."""
    t = np.linspace(0, 2 * pi, 41)[:-1]
    ring = np.stack([np.sin(t), np.cos(t)], 1)
    centre = np.array([x, z])
    m.add(
        [(x + r * sin(a), -0.01, z + r * cos(a)) for a in t],
        [list(range(40))[::-1]],
        "stained",
        0.9,
    )
    for scale, width, front in ((1.05, 0.22, 0.2), (0.98, 0.12, 0.12), (0.3, 0.12, 0.1)):
        m.ribbon(centre + r * scale * ring, width, -front, 0, trim, closed=True)
    for i in range(petals):
        a = 2 * pi * i / petals
        d = np.array([sin(a), cos(a)])
        m.ribbon([centre + d * r * 0.3, centre + d * r * 0.72], 0.1, -0.1, 0, trim)
        b = a + pi / petals
        hub = centre + np.array([sin(b), cos(b)]) * r * 0.72
        m.ribbon(hub + ring[::3] * r * 0.2, 0.08, -0.09, 0, trim, closed=True)


def gap(a, b):
    """Distance of two points in the plane."""
    return hypot(a[0] - b[0], a[1] - b[1])
