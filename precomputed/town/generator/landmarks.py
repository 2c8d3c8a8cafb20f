"""The fourteen landmarks. Each function draws one building, its front towards -y.

`LANDMARKS` lists them with what the camera planner has to know: the part to aim at, how far round
the building one can walk, a good viewing distance, and which building it was made to resemble.
"""

import itertools
from math import cos, pi, sin, tan

import numpy as np
from mesh import Mesh
from parts import (
    arch,
    balustrade,
    battlement,
    buttress,
    chimney,
    column,
    cornice,
    course,
    dormer,
    gable_coping,
    gable_roof,
    hip_roof,
    opening,
    pierced,
    pinnacle,
    quoins,
    rose,
    steps,
    wall,
)


def sides(m, x0, x1, y0, y1):
    """The four walls of a rectangle: yields (index, half length) in a frame with the wall at y=0.

    Index 0 is the front, then the right side, back and left side.
    """
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    w, d = (x1 - x0) / 2, (y1 - y0) / 2
    for i, (half, away) in enumerate(((w, d), (d, w), (w, d), (d, w))):
        # a hair's breadth of difference, or faces meet in one plane at the corners and render black
        tight = (1 - 0.008 / half, 1, 1)
        with m.at(x=cx, y=cy, turn=90 * i), m.at(y=-away - 0.002 * i, z=0.004 * i, scale=tight):
            yield i, half


def facets(m, n, r, start=0.0):
    """The sides of a regular polygon around the origin: yields (index, half width)."""
    half = r * tan(pi / n)
    for i in range(n):
        with m.at(turn=start + 360 * i / n), m.at(y=-r, z=0.005 * (i % 2)):
            yield i, half


def urn(m, x, y, z, mat, size=1.0):
    with m.at(x=x, y=y, z=z, scale=size):
        m.lathe(
            [
                (0.3, 0),
                (0.3, 0.2),
                (0.12, 0.35),
                (0.35, 0.8),
                (0.42, 1.1),
                (0.25, 1.3),
                (0.3, 1.4),
                (0.08, 1.6),
                (0.1, 1.75),
                (0, 1.9),
            ],
            12,
            mat,
        )


def statue(m, x, y, z, mat, h=2.4):
    """A draped figure, good enough at a distance."""
    with m.at(x=x, y=y, z=z, scale=h / 2.0):
        m.box(-0.35, 0.35, -0.35, 0.35, -0.3, 0.05, mat)
        m.lathe(
            [
                (0.3, 0),
                (0.33, 0.3),
                (0.24, 0.9),
                (0.3, 1.25),
                (0.26, 1.5),
                (0.09, 1.6),
                (0.09, 1.68),
                (0.14, 1.8),
                (0.13, 1.93),
                (0, 2.0),
            ],
            10,
            mat,
            wobble=lambda k: 1 + 0.12 * (k % 2),
        )
        m.tube([(0.25, 0, 1.42), (0.45, -0.1, 1.1), (0.3, -0.35, 0.95)], 0.08, mat)
        m.tube([(-0.25, 0, 1.42), (-0.5, -0.05, 1.5), (-0.55, -0.1, 1.95)], 0.07, mat)


def clock_face(m, x, z, r):
    """A blue dial with gilt ring, hours and hands, just proud of the wall."""
    t = np.linspace(0, 2 * pi, 33)[:-1]
    ring = np.stack([np.sin(t), np.cos(t)], 1)
    m.add([(x + r * a, -0.1, z + r * b) for a, b in ring], [list(range(32))[::-1]], "clock")
    m.ribbon(np.array([x, z]) + ring * r, 0.14 * r, -0.18, 0, "gilt", closed=True)
    for i in range(12):
        d = np.array([sin(i * pi / 6), cos(i * pi / 6)])
        m.ribbon([(x, z) + d * r * 0.7, (x, z) + d * r * 0.88], 0.09 * r, -0.13, -0.1, "gilt")
    m.ribbon([(x, z), (x + 0.35 * r, z + 0.3 * r)], 0.08 * r, -0.14, -0.1, "gilt")
    m.ribbon([(x, z), (x - 0.2 * r, z + 0.7 * r)], 0.06 * r, -0.15, -0.1, "gilt")


def shield(m, x, z, size, trim, y=0.0):
    """Heraldic panel: frame, shield, chevron, supporters as lumps."""
    s = size
    m.box(x - s, x + s, y - 0.1, y, z - s * 1.1, z + s * 1.1, trim, 0.8)
    m.ribbon(
        [(x - s, z - 1.1 * s), (x + s, z - 1.1 * s), (x + s, z + 1.1 * s), (x - s, z + 1.1 * s)],
        0.16,
        y - 0.22,
        y,
        trim,
        closed=True,
    )
    m.extrude_y(
        [
            (x - 0.5 * s, z - 0.1 * s),
            (x, z - 0.8 * s),
            (x + 0.5 * s, z - 0.1 * s),
            (x + 0.5 * s, z + 0.7 * s),
            (x - 0.5 * s, z + 0.7 * s),
        ],
        y - 0.25,
        y,
        "red_paint",
    )
    m.ribbon(
        [(x - 0.45 * s, z - 0.1 * s), (x, z + 0.35 * s), (x + 0.45 * s, z - 0.1 * s)],
        0.16 * s,
        y - 0.29,
        y,
        "gilt",
    )
    for k in (-1, 1):
        m.tube(
            [
                (x + k * 0.75 * s, y - 0.15, z - 0.9 * s),
                (x + k * 0.7 * s, y - 0.2, z),
                (x + k * 0.6 * s, y - 0.2, z + 0.7 * s),
            ],
            [0.2 * s, 0.16 * s, 0.07 * s],
            trim,
        )


def stone_range(
    m,
    x0,
    x1,
    y0,
    y1,
    mat,
    trim,
    floors=2,
    floor_h=3.9,
    bay=3.2,
    roof="stone_tile",
    parapet=True,
    seed=0,
    doors=(1,),
):
    """A plain college range with stone-mullioned windows, used as wings of several landmarks."""
    h = floors * floor_h
    for i, half in sides(m, x0, x1, y0, y1):
        n = max(1, int(2 * half / bay))
        openings = []
        for k in range(n):
            x = -half + (k + 0.5) * 2 * half / n
            for f in range(floors):
                if f == 0 and i == 0 and k in doors:
                    openings.append(opening(x, 0.15, 1.3, 2.0, "tudor", "door", hood=True))
                else:
                    openings.append(
                        opening(
                            x, f * floor_h + 1.2, 1.5, 1.7, "rect", "stone", hood=f == 0, lights=2
                        )
                    )
        wall(m, -half, half, 0, h, openings, mat, trim)
        m.box(-half, half, -0.12, 0, 0, 0.6, mat)
        for f in range(1, floors + 1):
            course(m, -half, half, f * floor_h - 0.1, trim)
        if parapet:
            battlement(m, -half, half, h, mat, trim, 0.8, 0.6, 0.55)
    gable_roof(
        m, x0, x1, y0 + 0.5, y1 - 0.5, h + 0.2, min(3.0, (y1 - y0) * 0.35), roof, over=0.1, ends=mat
    )
    for x in np.arange(x0 + 4, x1 - 2, 9.0):
        chimney(m, x, (y0 + y1) / 2 + 1.2, h + 1, h + 5.0, mat, 3)


# -- 1 ----------------------------------------------------------------------------------------
def rotunda():
    """A domed library: rusticated base, paired columns, balustrade with urns, leaded dome."""
    m = Mesh(101)
    for i, half in facets(m, 16, 12.0):
        if i % 2 == 0:
            o = opening(
                0,
                0.6,
                1.9,
                2.7,
                "round",
                "door" if i % 4 == 0 else "void",
                key=True,
                back=0.8,
                frame="dark_wood",
                surround=0.3,
                fan=i % 4 == 0,
            )
            wall(m, -half, half, 0, 5.4, [o], "rusticated", "honey_trim", depth=0.6)
            m.ribbon([(-1.9, 4.7), (0, 5.35), (1.9, 4.7)], 0.22, -0.35, 0, "honey_trim")
        else:
            wall(
                m,
                -half,
                half,
                0,
                5.4,
                [opening(0, 1.5, 1.1, 1.5, "rect", "sash", key=True)],
                "rusticated",
                "honey_trim",
            )
        course(m, -half, half, 5.3, "honey_trim", 0.35, 0.3, ends=False)
        m.box(-half, half, -0.2, 0, 0, 0.8, "rusticated")
        balustrade(m, -half, half, 5.6, "honey_trim", 0.7, 5)
    for i, half in facets(m, 16, 9.3):
        lower = opening(
            0, 6.9, 1.25, 2.1, "rect", "sash", pediment=("triangle", "curve")[i % 2], nx=2
        )
        upper = opening(0, 11.6, 1.1, 1.4, "rect", "sash", nz=2, nx=2, surround=0.2)
        wall(m, -half, half, 5.5, 15.6, [lower, upper], "honey", "honey_trim")
        cornice(m, -half - 0.15, half + 0.15, 15.5, "honey_trim", 1.3, 1.1)
        balustrade(m, -half, half, 16.8, "honey_trim", 0.9, 8)
    col = column(8.6, 0.42, "honey_trim", "corinthian")
    for i in range(16):
        for s in (-0.75, 0.75):
            a = (i + 0.5) * 2 * pi / 16
            r = 10.0
            m.paste(
                col, x=r * sin(a) + s * cos(a), y=-r * cos(a) + s * sin(a), z=6.9, turn=a * 180 / pi
            )
        with m.at(turn=(i + 0.5) * 22.5):
            m.box(-1.4, 1.4, -10.7, -9.2, 5.5, 6.9, "honey_trim")
            m.box(-1.5, 1.5, -10.6, -9.2, 15.4, 16.7, "honey_trim")
            urn(m, 0, -9.4, 18.0, "honey_trim", 0.9)
    for i, half in facets(m, 16, 7.6):
        wall(
            m,
            -half,
            half,
            16.5,
            21.0,
            [opening(0, 17.6, 1.0, 1.5, "round", "sash", nx=2, nz=3)]
            if i % 2 == 0
            else [opening(0, 17.8, 0.9, 0.9, "rect", "void", back=0.3)],
            "honey",
            "honey_trim",
        )
        cornice(m, -half, half, 20.6, "honey_trim", 0.7, 0.5)
        m.extrude_z([(-0.5, -0.6), (0.5, -0.6), (0.5, 0.2), (-0.5, 0.2)], 16.5, 19.5, "honey_trim")
    t = np.linspace(0, pi / 2 * 0.88, 14)
    m.lathe([(7.5 * cos(a), 21.2 + 7.6 * sin(a)) for a in t], 64, "lead", 0.5)
    for i in range(16):
        a = i * pi / 8
        m.tube(
            [(7.6 * cos(q) * sin(a), -7.6 * cos(q) * cos(a), 21.2 + 7.7 * sin(q)) for q in t],
            0.17,
            "lead",
        )
    with m.at(z=28.4):
        for _, half in facets(m, 8, 1.5):
            wall(
                m,
                -half,
                half,
                0,
                3.0,
                [opening(0, 0.5, 0.7, 1.4, "round", "sash", nx=1, nz=3)],
                "honey_trim",
                depth=0.15,
            )
            cornice(m, -half, half, 2.8, "honey_trim", 0.4, 0.35, dentils=False)
        m.lathe(
            [
                (1.6, 3.2),
                (1.4, 3.9),
                (0.9, 4.6),
                (0.3, 5.0),
                (0.14, 5.6),
                (0.3, 5.9),
                (0.05, 6.2),
                (0, 7.2),
            ],
            24,
            "lead",
        )
    steps(m, -2.2, 2.2, -12.0, 4, "honey_trim")
    return m


# -- 2 ----------------------------------------------------------------------------------------
def _gothic_tower(m, w, stages, mat, trim, belfry, lights=2, blind=True):
    """A square tower about the origin; stages = [(z0, z1, window), ...]."""
    for _, half in sides(m, -w / 2, w / 2, -w / 2, w / 2):
        for z0, z1, what in stages:
            openings = []
            if what == "window":
                openings = [
                    opening(
                        0,
                        z0 + 1.5,
                        w * 0.34,
                        (z1 - z0) * 0.5,
                        "pointed",
                        "tracery",
                        hood=True,
                        lights=lights,
                    )
                ]
            elif what == "belfry":
                openings = [
                    opening(
                        s * w * 0.2,
                        z0 + 1.0,
                        w * 0.24,
                        (z1 - z0) * 0.58,
                        "pointed",
                        "louvre",
                        hood=True,
                        surround=0.22,
                    )
                    for s in (-1, 1)
                ]
            elif what == "slits":
                openings = [opening(0, z0 + 1.2, 0.5, 1.6, "pointed", "void", back=0.5, hood=True)]
            elif what == "door":
                openings = [
                    opening(
                        0,
                        0.2,
                        w * 0.34,
                        2.6,
                        "pointed",
                        "door",
                        hood=True,
                        surround=0.5,
                        frame="oak",
                    )
                ]
            wall(m, -half, half, z0, z1, openings, mat, trim, depth=0.5)
            course(m, -half, half, z1 - 0.15, trim, 0.35, 0.22)
            if blind and what in ("window", "belfry"):  # panelling beside the openings
                for s in (-1, 1):
                    x = s * (half - 0.95)
                    m.ribbon(
                        [
                            (x - 0.35, z0 + 0.8),
                            (x - 0.35, z1 - 1.7),
                            (x, z1 - 1.1),
                            (x + 0.35, z1 - 1.7),
                            (x + 0.35, z0 + 0.8),
                        ],
                        0.12,
                        -0.12,
                        0,
                        trim,
                    )
        top = stages[-1][1]
        pierced(m, -half, half, top, trim, 1.2)
        for s in (-1, 1):
            buttress(m, s * (half - 0.45), 0, top - 2, mat, trim, 0.85, 1.3, len(stages))
    top = stages[-1][1]
    m.box(-w / 2, w / 2, -w / 2, w / 2, top - 0.3, top + 0.05, "lead")


def twin_towers():
    """A minster front: two pinnacled towers, rose window, triple portal, nave behind."""
    m = Mesh(102)
    mat, trim = "grey", "grey_trim"
    stages = [
        (0, 8.5, "door"),
        (8.5, 16.5, "window"),
        (16.5, 20.5, "slits"),
        (20.5, 29.5, "belfry"),
    ]
    big, small = pinnacle(6.0, 1.1, trim, 6), pinnacle(3.2, 0.6, trim, 4)
    for s in (-1, 1):
        with m.at(x=s * 8.6):
            _gothic_tower(m, 7.6, stages, mat, trim, 0)
            for a in (-1, 1):
                for b in (-1, 1):
                    m.paste(big, x=a * 3.75, y=b * 3.75, z=28.6)
                m.paste(small, x=0, y=a * 3.7, z=30.8)
                m.paste(small, x=a * 3.7, y=0, z=30.8)
    with m.at(y=-3.2):
        great = opening(
            0, 0.3, 3.4, 3.6, "pointed", "door", surround=0.3, hood=True, frame="oak", depth=1.0
        )
        five = [opening(x, 8.6, 1.2, 1.6, "pointed", "tracery", hood=True) for x in (-3, -1, 1, 3)]
        wall(m, -4.8, 4.8, 0, 18.5, [great, *five], mat, trim, top=lambda x: (4.8 - abs(x)) * 1.05)
        rose(m, 0, 15.2, 2.6, trim, 12)
        for k in range(3):  # the portal's receding orders
            m.ribbon(
                [(x, 3.9 + z) for x, z in arch("pointed", 4.0 + 0.7 * k, 3.6 + 0.5 * k)],
                0.28,
                -0.55 + 0.15 * k,
                0,
                trim,
            )
            for side in (-1, 1):
                m.box(
                    side * (2.0 + 0.35 * k) - 0.14,
                    side * (2.0 + 0.35 * k) + 0.14,
                    -0.5 + 0.15 * k,
                    0,
                    0,
                    3.9,
                    trim,
                )
        m.extrude_y([(-3.6, 5.0), (3.6, 5.0), (0, 9.4)], -0.2, 0.0, mat)
        m.ribbon([(-3.7, 5.0), (0, 9.6), (3.7, 5.0)], 0.3, -0.6, 0, trim)
        for x in (-4.2, -3.5, -2.8, 2.8, 3.5, 4.2):
            statue(m, x, -0.35, 2.6, trim, 2.0)
            m.extrude_y([(x - 0.3, 4.8), (x + 0.3, 4.8), (x, 5.5)], -0.5, 0, trim)
        course(m, -4.8, 4.8, 8.1, trim, 0.35, 0.25, ends=False)
        course(m, -4.8, 4.8, 12.0, trim, 0.3, 0.2, ends=False)
        gable_coping(m, -4.8, 4.8, 18.5, 5.0, trim)
    for s in (-1, 1):  # nave walls
        with m.at(turn=90 * s), m.at(y=-6.2):
            bays = []
            for k in range(6):
                x = s * (6.4 + 4.6 * k)
                bays.append(opening(x, 3.0, 2.2, 5.2, "pointed", "tracery", hood=True, lights=3))
            lo, hi = sorted((s * 3.5, s * 32))
            wall(m, lo, hi, 0, 14, bays, mat, trim, depth=0.5)
            course(m, lo, hi, 13.6, trim)
            pierced(m, lo, hi, 14.0, trim)
            for k in range(7):
                x = s * (4.1 + 4.6 * k)
                buttress(m, x, 0, 12.5, mat, trim, 0.8, 1.6)
                m.paste(small, x=x, y=-0.4, z=14)
    with m.at(turn=90):
        gable_roof(m, -2.5, 32, -5.6, 5.6, 14.2, 8.2, "lead", over=0.2, ends=mat)
    steps(m, -5, 5, -4.3, 3, trim)
    return m


# -- 3 ----------------------------------------------------------------------------------------
def bell_tower():
    """A slender bell tower with octagonal corner turrets and eight pinnacles; a low range."""
    m = Mesh(103)
    mat, trim = "honey", "honey_trim"
    w, top = 7.0, 31.0
    levels = [0, 7, 13.5, 19.5, top]
    for _, half in sides(m, -w / 2, w / 2, -w / 2, w / 2):
        openings = [
            opening(0, 0.2, 2.2, 2.4, "tudor", "door", hood=True),
            opening(0, 8.6, 1.4, 2.2, "tudor", "stone", hood=True),
            opening(0, 14.8, 1.0, 1.7, "tudor", "stone", hood=True, lights=1),
        ]
        openings += [
            opening(s * 1.25, 21.2, 1.7, 5.0, "pointed", "louvre", hood=True, surround=0.2)
            for s in (-1, 1)
        ]
        wall(m, -half, half, 0, top, openings, mat, trim, depth=0.5)
        for z in levels[1:]:
            course(m, -half, half, z - 0.2, trim, 0.4, 0.25)
        clock_face(m, 0, 17.9, 1.0)
        m.ribbon(
            [(-1.3, 16.6), (1.3, 16.6), (1.3, 19.2), (-1.3, 19.2)], 0.2, -0.2, 0, trim, closed=True
        )
        for k in range(9):  # carved frieze under the parapet
            x = -half + 0.9 + k * (2 * half - 1.8) / 8
            m.box(x - 0.16, x + 0.16, -0.18, 0, top - 1.1, top - 0.7, trim)
        pierced(m, -half, half, top + 0.1, trim, 1.5, 0.7)
    big, small = pinnacle(5.6, 0.95, trim, 7), pinnacle(4.2, 0.6, trim, 5)
    for a in (-1, 1):
        for b in (-1, 1):
            with m.at(x=a * w / 2, y=b * w / 2):
                for i, half in facets(m, 8, 0.95):
                    wall(m, -half, half, 0, top + 1.6, [], mat)
                    for z in levels[1:]:
                        course(m, -half, half, z - 0.2, trim, 0.4, 0.2, ends=False)
                    m.ribbon([(0, 21), (0, 29.5)], 0.1, -0.08, 0, trim)
                    if i % 2:
                        m.box(-0.08, 0.08, -0.02, 0.02, 10, 11.2, "void")
                m.paste(big, z=top + 1.6)
        m.paste(small, x=a * w / 2, z=top + 1.2)
        m.paste(small, y=a * w / 2, z=top + 1.2)
    m.box(-w / 2, w / 2, -w / 2, w / 2, top - 0.3, top, "lead")
    stone_range(m, 4.4, 25, -2.6, 5.4, mat, trim, 2, 3.9, 3.0, doors=(2,))
    stone_range(m, -13, -4.4, -2.2, 5.4, mat, trim, 2, 3.6, 2.8, doors=(0,))
    return m


# -- 4 ----------------------------------------------------------------------------------------
def bridge():
    """A covered bridge over a lane between two houses."""
    m = Mesh(104)
    mat, trim = "rubble", "honey_trim"
    for s, floors, width in ((-1, 3, 11.0), (1, 3, 13.0)):
        x0, x1 = sorted((s * 4.6, s * (4.6 + width)))
        h = 3.7 * floors
        for i, half in sides(m, x0, x1, -4.5, 6.5):
            n = int(2 * half / 2.6)
            openings = []
            for k in range(n):
                x = -half + (k + 0.5) * 2 * half / n
                for f in range(floors):
                    if f == 0 and i == 0 and k == n // 2:
                        openings.append(
                            opening(
                                x,
                                0.15,
                                1.3,
                                2.3,
                                "round",
                                "door",
                                fan=True,
                                key=True,
                                frame="blue_paint" if s > 0 else "red_paint",
                            )
                        )
                    else:
                        openings.append(
                            opening(
                                x,
                                f * 3.7 + 1.1,
                                1.15,
                                (2.0, 1.9, 1.5)[f],
                                "rect",
                                "sash",
                                key=f < 2,
                                surround=0.18,
                                nz=(4, 4, 2)[f],
                            )
                        )
            wall(m, -half, half, 0, h, openings, mat if s < 0 else "plaster_ochre", trim)
            quoins(m, -half, 0, h, trim, 1)
            quoins(m, half, 0, h, trim, -1)
            course(m, -half, half, 3.6, trim)
            cornice(m, -half, half, h - 0.1, trim, 0.7, 0.5)
        hip_roof(m, x0, x1, -4.5, 6.5, h + 0.6, 3.2, "slate" if s > 0 else "stone_tile")
        chimney(m, s * 6.0, 2, h + 1, h + 5.5, mat, 4)
        chimney(m, s * (3 + width), 1, h + 1, h + 5, mat, 3)
        for k in range(2):
            dormer(m, s * (7 + 4.2 * k), h + 0.75, "plaster_white", "lead", y=-3.6)
    bow = arch("segment", 9.2, 1.9, 12)
    for y, flip in ((-1.6, 0), (1.6, 180)):  # both faces of the bridge
        with m.at(y=y, turn=flip):
            xs = [p[0] for p in bow]
            low = [3.6 + z for _, z in bow]
            for k in range(len(xs) - 1):  # spandrel up to the floor of the gallery
                m.quad(
                    (xs[k], 0, low[k]),
                    (xs[k + 1], 0, low[k + 1]),
                    (xs[k + 1], 0, 6.4),
                    (xs[k], 0, 6.4),
                    mat,
                )
            m.ribbon([(x, 3.6 + z + 0.22) for x, z in bow], 0.45, -0.1, 0, trim)
            for x, z in bow[1:-1:2]:  # voussoirs
                m.box(x - 0.12, x + 0.12, -0.16, 0, 3.55 + z, 4.2 + z, trim)
            shield(m, -2.9, 5.4, 0.55, trim)
            shield(m, 2.9, 5.4, 0.55, trim)
            course(m, -4.6, 4.6, 6.3, trim, 0.4, 0.25, ends=False)
            openings = [
                opening(x, 7.3, 1.0, 1.5, "round", "sash", key=True, surround=0.2, glass="leaded")
                for x in (-3.6, -2.1, 2.1, 3.6)
            ]
            openings.append(
                opening(
                    0,
                    7.0,
                    1.5,
                    1.9,
                    "round",
                    "sash",
                    key=True,
                    pediment="curve",
                    glass="leaded",
                    surround=0.25,
                )
            )
            wall(m, -4.6, 4.6, 6.4, 10.0, openings, "honey", trim)
            for x in (-4.4, -2.85, -1.3, 1.3, 2.85, 4.4):
                m.box(x - 0.16, x + 0.16, -0.14, 0, 6.7, 9.9, trim)
                m.box(x - 0.22, x + 0.22, -0.2, 0, 9.5, 9.75, trim)
            cornice(m, -4.6, 4.6, 9.9, trim, 0.6, 0.4)
            m.extrude_y(
                [(-1.6, 10.5), (1.6, 10.5), (1.2, 11.4), (0, 11.9), (-1.2, 11.4)], -0.1, 0.4, trim
            )
            shield(m, 0, 11.1, 0.4, trim, -0.1)
    under = [(x, y, 3.6 + z) for y in (-1.6, 1.6) for x, z in bow]
    n = len(bow)
    m.add(under, np.array([(i, i + 1, i + 1 + n, i + n) for i in range(n - 1)]), mat)
    with m.at(z=0):
        curve = [(x, 10.5 + z) for x, z in arch("segment", 3.8, 1.0, 8)]
        with m.at(turn=90):
            m.ribbon(curve, 0.15, -4.7, 4.7, "lead")
    return m


# -- 5 ----------------------------------------------------------------------------------------
def cloister():
    """Three sides of a cloister court: traceried arcade, buttresses, an upper floor, a turret."""
    m = Mesh(105)
    mat, trim = "pale", "pale_trim"

    def side(length, n, upper=True):
        step = length / n
        arches = [
            opening(
                -length / 2 + (k + 0.5) * step,
                0.9,
                step - 1.1,
                1.9,
                "pointed",
                "open",
                rise=1.6,
                depth=0.6,
                hood=True,
                sill=True,
            )
            for k in range(n)
        ]
        upstairs = [
            opening(
                -length / 2 + (k + 0.5) * step,
                6.6,
                1.7,
                1.4,
                "rect",
                "stone",
                hood=True,
                lights=3,
                transoms=0,
            )
            for k in range(n)
        ]
        wall(m, -length / 2, length / 2, 0, 9.4, arches + upstairs, mat, trim)
        course(m, -length / 2, length / 2, 5.4, trim, 0.35, 0.2, ends=False)
        course(m, -length / 2, length / 2, 9.0, trim, 0.35, 0.25, ends=False)
        battlement(m, -length / 2, length / 2, 9.4, mat, trim, 0.9, 0.7, 0.6)
        small = pinnacle(2.6, 0.5, trim, 4)
        for k in range(n):
            x = -length / 2 + (k + 0.5) * step
            o = opening(x, 0.9, step - 1.1, 1.9, "pointed", "open", rise=1.6)
            lights = 3
            lw = o["w"] / lights
            for i in range(lights):
                a = x - o["w"] / 2 + i * lw
                if i:
                    m.box(a - 0.08, a + 0.08, 0.15, 0.4, 0.9, 3.4, trim)
                m.ribbon(
                    [(a + lw / 2 + p, 2.8 + q) for p, q in arch("pointed", lw, lw * 0.9, 6)],
                    0.12,
                    0.15,
                    0.4,
                    trim,
                )
            t = np.linspace(0, 2 * pi, 21)[:-1]
            for dx in (-0.3, 0.3):
                r = 0.3 * (0.8 + 0.22 * np.cos(4 * t))
                ring = np.array([x + dx * lw * 1.7, 3.62]) + r[:, None] * np.stack(
                    [np.sin(t), np.cos(t)], 1
                )
                m.ribbon(ring, 0.08, 0.18, 0.38, trim, closed=True)
            edge = x - step / 2
            buttress(m, edge, 0, 6.5, mat, trim, 0.55, 0.9, 2)
            m.paste(small, x=edge, y=-0.15, z=9.6)
            if k % 2:
                m.box(x - 0.25, x + 0.25, -0.35, 0, 5.7, 6.1, trim)  # gargoyle corbels
                m.tube([(x, -0.2, 5.9), (x, -0.9, 6.0)], [0.2, 0.1], trim)
        # the walk behind: inner wall with doors, vault ribs, floor
        with m.at(y=4.0):
            doors = [
                opening(
                    -length / 2 + (k + 0.5) * step, 0.1, 1.2, 1.9, "pointed", "door", surround=0.2
                )
                for k in range(1, n, 3)
            ]
            wall(m, -length / 2, length / 2, 0, 5.4, doors, "plaster_white", trim)
        for k in range(n + 1):
            x = -length / 2 + k * step
            with m.at(x=x, turn=90):
                m.ribbon(
                    [(0.3 + 1.85 + p, 2.6 + q) for p, q in arch("round", 3.7, 2.2, 7)],
                    0.25,
                    -0.12,
                    0.12,
                    trim,
                )
        m.box(-length / 2, length / 2, 0, 4.0, 5.0, 5.4, mat)
        for turn, x in ((-90, -length / 2), (90, length / 2)):  # the ends of the range
            with m.at(x=x, turn=turn):
                lo, hi = (-8.0, 0.0) if turn == -90 else (0.0, 8.0)
                door = opening((lo + hi) / 2, 0.1, 1.5, 2.2, "pointed", "door", hood=True)
                tall = opening((lo + hi) / 2, 6.4, 2.4, 1.6, "rect", "stone", hood=True, lights=4)
                wall(
                    m,
                    lo,
                    hi,
                    0,
                    9.4,
                    [door, tall],
                    mat,
                    trim,
                    top=lambda x: max(0, 4 - abs(abs(x) - 4)) * 0.7,
                )
                course(m, lo, hi, 5.4, trim, 0.35, 0.2)
        with m.at(turn=180), m.at(y=-8):
            rear = [
                opening(-length / 2 + (k + 0.5) * step, z, 1.3, 1.7, "rect", "stone")
                for k in range(n)
                for z in (1.2, 6.2)
            ]
            wall(m, -length / 2, length / 2, 0, 9.4, rear, mat, trim)
        gable_roof(
            m, 0.2 - length / 2, length / 2 - 0.2, 0.6, 7.8, 9.6, 2.6, "stone_tile", over=0.1
        )

    with m.at(y=13):
        side(34.0, 9)
    with m.at(x=17, y=0, turn=-90):
        side(26.0, 7)
    with m.at(x=-17, y=0, turn=90):
        side(26.0, 7)
    with m.at(x=-16.4, y=12.4):
        for i, half in facets(m, 8, 1.9):
            wall(
                m,
                -half,
                half,
                0,
                15.5,
                [opening(0, 11.8, 0.6, 1.6, "pointed", "louvre", lights=1, hood=True)]
                + ([opening(0, 6, 0.4, 1.0, "pointed", "void", back=0.4)] if i % 2 else []),
                mat,
                trim,
            )
            for z in (5.4, 9.2, 11.2, 15.2):
                course(m, -half, half, z, trim, 0.3, 0.18, ends=False)
            battlement(m, -half, half, 15.5, mat, trim, 0.5, 0.3, 0.5, 0.25)
        m.pyramid(1.8, 15.5, 20, "lead", 8)
    with m.at(y=-1):  # a well head in the middle of the garth
        m.lathe(
            [
                (1.5, 0),
                (1.5, 0.3),
                (1.1, 0.35),
                (1.0, 0.9),
                (1.15, 1.0),
                (1.15, 1.15),
                (0.9, 1.15),
                (0.9, 0.8),
            ],
            16,
            trim,
        )
        for s in (-1, 1):
            m.tube(
                [(s * 0.95, 0, 1.1), (s * 0.95, 0, 2.4), (s * 0.5, 0, 3.0), (0, 0, 3.2)],
                0.05,
                "iron",
            )
    return m


# -- 6 ----------------------------------------------------------------------------------------
def gatehouse():
    """A Tudor gatehouse: octagonal turrets with ogee caps, oriel, arms; battlemented wings."""
    m = Mesh(106)
    mat, trim = "brown", "brown_trim"
    with m.at(y=-1.5):
        gate = opening(0, 0, 4.0, 3.4, "tudor", "open", surround=0.45, hood=True, depth=1.2)
        small = [opening(s * 3.1, 1.2, 0.6, 1.2, "pointed", "void", back=0.5) for s in (-1, 1)]
        tall = [opening(s * 2.9, 7.4, 1.1, 2.0, "tudor", "stone", hood=True) for s in (-1, 1)]
        tall += [opening(s * 2.0, 12.4, 1.6, 1.8, "tudor", "stone", hood=True) for s in (-1, 1)]
        wall(m, -3.7, 3.7, 0, 17, [gate, *small, *tall], mat, trim)
        for z in (6.2, 11.4, 16.6):
            course(m, -3.7, 3.7, z, trim, 0.4, 0.25, ends=False)
        battlement(m, -3.7, 3.7, 17, mat, trim, 0.9, 0.6, 0.8)
        with m.at(y=-0.1, z=6.6):  # oriel
            for turn in (-45, 0, 45):
                with m.at(turn=turn), m.at(y=-1.35):
                    wall(
                        m,
                        -0.56,
                        0.56,
                        0,
                        4.4,
                        [
                            opening(
                                0,
                                0.8,
                                0.8,
                                2.6,
                                "tudor",
                                "stone",
                                lights=2,
                                transoms=1,
                                surround=0.08,
                            )
                        ],
                        trim,
                        depth=0.15,
                    )
                    battlement(m, -0.56, 0.56, 4.4, trim, trim, 0.3, 0.2, 0.3, 0.2)
            m.lathe([(0.2, -2.0), (0.5, -1.4), (0.9, -0.8), (1.3, -0.3), (1.45, 0)], 12, trim)
        shield(m, 0, 13.8, 0.95, trim)
        shield(m, -2.6, 5.4, 0.45, trim)
        shield(m, 2.6, 5.4, 0.45, trim)
        statue(m, 0, -0.3, 15.3, trim, 1.5)
    m.box(-3.7, 3.7, -1.5, 7, 16.6, 16.8, "lead")
    for x in (-3.7, 3.7):
        m.quad((x, -1.5, 5), (x, 7, 5), (x, 7, 17), (x, -1.5, 17), mat)
    with m.at(turn=180), m.at(y=-7):
        wall(
            m,
            -3.7,
            3.7,
            0,
            17,
            [
                opening(0, 0, 4.0, 3.4, "tudor", "open", surround=0.45),
                opening(0, 8, 2.6, 2.4, "tudor", "stone", lights=4, hood=True),
            ],
            mat,
            trim,
        )
        battlement(m, -3.7, 3.7, 17, mat, trim, 0.9, 0.6, 0.8)
    for s in (-1, 1):
        m.box(s * 2.0, s * 3.7, -0.4, 7, 0, 5.4, mat)
        for z0 in (17.0,):
            m.box(s * 3.5 - 0.2, s * 3.5 + 0.2, -1.5, 7, z0, z0 + 1.2, mat)
        with m.at(x=s * 4.9, y=-1.2):
            for i, half in facets(m, 8, 1.75):
                slits = (
                    [
                        opening(
                            0,
                            z,
                            0.5,
                            1.3,
                            "tudor",
                            "stone",
                            lights=1,
                            hood=i % 2 == 0,
                            surround=0.1,
                        )
                        for z in (2.2, 8.0, 13.0)
                    ]
                    if i % 2 == 0
                    else [opening(0, 18.4, 0.45, 1.0, "tudor", "void", back=0.4)]
                )
                wall(m, -half, half, 0, 21, slits, mat, trim)
                for z in (6.2, 11.4, 16.6, 20.4):
                    course(m, -half, half, z, trim, 0.4, 0.22, ends=False)
                battlement(m, -half, half, 21, mat, trim, 0.55, 0.35, 0.6, 0.3)
            m.lathe(
                [
                    (1.6, 21.2),
                    (1.75, 22.2),
                    (1.6, 23.2),
                    (0.9, 24.2),
                    (0.4, 25.2),
                    (0.15, 26.4),
                    (0.3, 26.6),
                    (0, 27.2),
                ],
                8,
                "lead",
                start=pi / 8,
            )
            m.tube([(0, 0, 27), (0, 0, 28.6)], 0.05, "iron")
            m.box(0, 0.9, -0.02, 0.02, 28.0, 28.5, "gilt")
    stone_range(m, -24, -6.4, 0, 8, mat, trim, 2, 4.3, 3.3, doors=(), roof="slate")
    stone_range(m, 6.4, 21, 0, 8, mat, trim, 2, 4.3, 3.6, doors=(3,), roof="slate")
    return m


# -- 7 and 12 ---------------------------------------------------------------------------------
def chapel():
    """A perpendicular chapel: seven bays, tall tracery, pinnacled buttresses, a west front."""
    m = Mesh(107)
    mat, trim = "honey", "honey_trim"
    length, w, h = 32.0, 5.6, 14.0
    pin = pinnacle(4.2, 0.75, trim, 6)
    for s in (-1, 1):
        with m.at(y=length / 2 - 4, turn=90 * s), m.at(y=-w):
            n = 7
            step = length / n
            xs = [-length / 2 + (k + 0.5) * step for k in range(n)]
            wall(
                m,
                -length / 2,
                length / 2,
                0,
                h,
                [
                    opening(
                        x,
                        2.6,
                        2.7,
                        6.2,
                        "pointed",
                        "tracery",
                        hood=True,
                        lights=4,
                        transom=0.45,
                        glass="stained",
                        rise=2.6,
                    )
                    for x in xs
                ],
                mat,
                trim,
                depth=0.55,
            )
            course(m, -length / 2, length / 2, 2.0, trim)
            course(m, -length / 2, length / 2, h - 0.3, trim, 0.4, 0.25)
            pierced(m, -length / 2, length / 2, h, trim, 1.3, 0.65)
            for k in range(n + 1):
                x = -length / 2 + k * step
                buttress(m, x, 0, 12.4, mat, trim, 0.8, 1.7, 3)
                m.paste(pin, x=x, y=-0.3, z=13.4)
    with m.at(y=-4.0):
        wall(
            m,
            -w,
            w,
            0,
            h,
            [
                opening(0, 0.2, 2.4, 2.6, "tudor", "door", hood=True, surround=0.4),
                opening(
                    0,
                    5.2,
                    6.0,
                    5.0,
                    "pointed",
                    "tracery",
                    lights=5,
                    transom=0.45,
                    hood=True,
                    foils=6,
                    glass="stained",
                    rise=3.7,
                ),
            ],
            mat,
            trim,
            depth=0.6,
            top=lambda x: (w - abs(x)) * 0.5,
        )
        course(m, -w, w, 4.3, trim, 0.4, 0.25)
        for x in (-2.3, 2.3):
            statue(m, x, -0.4, 1.9, trim, 1.7)
            m.box(x - 0.4, x + 0.4, -0.6, 0, 1.4, 1.6, trim)
            m.extrude_y([(x - 0.4, 3.5), (x + 0.4, 3.5), (x, 4.2)], -0.55, 0, trim)
        gable_coping(m, -w, w, h + 0.2, 2.8, trim)
        for k in range(7):
            x = -2.7 + k * 0.9
            m.ribbon(
                [(x - 0.3, 3.5), (x - 0.3, 4.0), (x, 4.25), (x + 0.3, 4.0), (x + 0.3, 3.5)],
                0.08,
                -0.1,
                0,
                trim,
            )
    for s in (-1, 1):
        with m.at(x=s * w, y=-4.0):
            for i, half in facets(m, 8, 1.15):
                wall(
                    m,
                    -half,
                    half,
                    0,
                    18,
                    [opening(0, 15.6, 0.45, 1.1, "pointed", "void", back=0.3)] if i % 2 else [],
                    mat,
                    trim,
                )
                for z in (4.3, 10, 13.7, 17.6):
                    course(m, -half, half, z, trim, 0.35, 0.2, ends=False)
                m.ribbon(
                    [(-0.25, 10.6), (-0.25, 13), (0, 13.4), (0.25, 13), (0.25, 10.6)],
                    0.08,
                    -0.08,
                    0,
                    trim,
                )
            m.pyramid(1.1, 18, 22.5, trim, 8)
            for i in range(8):
                a = i * pi / 4 + pi / 8
                for k in range(5):
                    r = 1.15 * (1 - (k + 0.5) / 5.5)
                    z = 18 + 4.5 * (k + 0.5) / 5.5
                    m.box(
                        r * cos(a) - 0.1,
                        r * cos(a) + 0.1,
                        r * sin(a) - 0.1,
                        r * sin(a) + 0.1,
                        z,
                        z + 0.25,
                        trim,
                    )
    with m.at(turn=90):
        gable_roof(m, -3.8, length - 4, -w, w, h + 0.1, 2.8, "lead", over=0.0, ends=mat)
    return m


def priory():
    """Look-alike of the chapel: five bays, steep tiled roof, bellcote, plainer windows, a porch."""
    m = Mesh(112)
    mat, trim = "honey", "honey_trim"
    length, w, h = 27.0, 5.4, 9.5
    for s in (-1, 1):
        with m.at(y=length / 2 - 4, turn=90 * s), m.at(y=-w):
            n = 5
            step = length / n
            xs = [-length / 2 + (k + 0.5) * step for k in range(n)]
            wall(
                m,
                -length / 2,
                length / 2,
                0,
                h,
                [
                    opening(
                        x,
                        2.4,
                        2.3,
                        3.6,
                        "pointed",
                        "tracery",
                        hood=True,
                        lights=3 if k % 2 else 2,
                        glass="stained",
                    )
                    for k, x in enumerate(xs)
                ],
                mat,
                trim,
                depth=0.55,
            )
            course(m, -length / 2, length / 2, 1.8, trim)
            course(m, -length / 2, length / 2, h - 0.2, trim, 0.35, 0.3)
            for k in range(int(length / 0.8)):  # corbel table
                x = -length / 2 + 0.4 + k * 0.8
                m.box(x - 0.12, x + 0.12, -0.25, 0, h - 0.5, h - 0.2, trim)
            for k in range(n + 1):
                buttress(m, -length / 2 + k * step, 0, 7.0, mat, trim, 0.9, 1.6, 2)
            if s > 0:
                with m.at(x=xs[1], y=-3.2):
                    wall(
                        m,
                        -2,
                        2,
                        0,
                        3.6,
                        [opening(0, 0.1, 1.8, 1.85, "pointed", "door", hood=True, surround=0.3)],
                        mat,
                        trim,
                        top=lambda x: (2 - abs(x)) * 1.0,
                    )
                    gable_coping(m, -2, 2, 3.6, 2.0, trim)
                    m.box(-2, -1.9, 0, 3.2, 0, 3.6, mat)
                    m.box(1.9, 2, 0, 3.2, 0, 3.6, mat)
                    with m.at(turn=90):
                        gable_roof(m, 0, 3.2, -2, 2, 3.6, 2.0, "stone_tile", over=0.2)
    with m.at(y=-4.0):
        lancets = [
            opening(x, 4.2, 1.3, hh, "pointed", "tracery", lights=2, hood=True, glass="stained")
            for x, hh in ((-2.1, 3.6), (0, 4.1), (2.1, 3.6))
        ]
        wall(
            m,
            -w,
            w,
            0,
            h,
            [opening(0, 0.2, 2.0, 2.0, "pointed", "door", hood=True, surround=0.5), *lancets],
            mat,
            trim,
            depth=0.6,
            top=lambda x: (w - abs(x)) * 1.25,
        )
        rose(m, 0, 12.6, 1.1, trim, 6)
        course(m, -w, w, 3.7, trim, 0.3, 0.2)
        gable_coping(m, -w, w, h, 6.75, trim, finial=False)
        for s in (-1, 1):
            buttress(m, s * (w - 0.45), 0, 8.6, mat, trim, 0.9, 1.6, 3)
            m.paste(pinnacle(3.2, 0.8, trim, 4), x=s * (w - 0.2), y=0.1, z=h - 0.2)
    with m.at(y=-3.6, z=16.2):  # bellcote
        for s in (-1, 1):
            m.box(s * 1.0 - 0.25, s * 1.0 + 0.25, -0.4, 0.4, -1.6, 2.0, mat)
        m.box(-0.22, 0.22, -0.4, 0.4, -1.0, 2.0, mat)
        m.extrude_y([(-1.5, 2.0), (1.5, 2.0), (0, 4.0)], -0.45, 0.45, trim)
        m.box(-1.4, 1.4, -0.45, 0.45, -1.4, -0.2, mat)
        for x in (-0.6, 0.6):
            with m.at(x=x, z=0.6):
                m.lathe([(0.35, 0), (0.25, 0.3), (0.18, 0.6), (0, 0.75)], 10, "bronze")
    with m.at(turn=90):
        gable_roof(m, -3.8, length - 4, -w, w, h + 0.1, 6.6, "stone_tile", over=0.3, ends=mat)
    with m.at(y=16):
        m.pyramid(0.8, 15.8, 24, "lead", 8)
    return m


# -- 8 and 14 ---------------------------------------------------------------------------------
def _pediment(m, half, z, rise, depth, mat, trim):
    """A temple pediment over y = -depth..0, sculpture in the tympanum."""
    cornice(m, -half, half, z, trim, 1.3, 0.7)
    z += 1.3
    m.extrude_y([(-half, z), (half, z), (0, z + rise)], 0.1, 0.6, mat)
    m.ribbon(
        [(-half - 0.9, z + 0.05), (0, z + rise + 0.45), (half + 0.9, z + 0.05)],
        0.5,
        -0.8,
        0.6,
        trim,
    )
    n = 22
    for k in range(n):
        for s in (-1, 1):
            f = (k + 0.5) / n
            x = s * half * (1 - f)
            m.box(x - 0.1, x + 0.1, -0.5, 0, z + rise * f - 0.1, z + rise * f + 0.12, trim)
    return z


def museum():
    """An octastyle Ionic museum front with pediment sculpture, broad steps and pavilion wings."""
    m = Mesh(108)
    mat, trim = "pale", "pale_trim"
    base = 2.08
    half = 12.2
    with m.at(z=base):
        col = column(10.0, 0.62, trim, "ionic")
        for k in range(8):
            m.paste(col, x=-half + 0.9 + k * (2 * half - 1.8) / 7, y=-4.0)
        for s in (-1, 1):
            m.paste(col, x=s * (half - 0.9), y=-1.2)
        for i, h in sides(m, -half, half, -4.7, 0):
            if i != 2:
                m.box(-h, h, 0, 1.2, 10.0, 11.0, trim)
                m.ribbon([(-h, 10.4), (h, 10.4)], 0.1, -0.06, 0, trim)
        with m.at(y=-4.8):
            z = _pediment(m, half, 11.0, 4.6, 5, mat, trim)
            for k, x in enumerate((-8.5, -6.6, -4.8, -3.2, -1.6, 0, 1.6, 3.2, 4.8, 6.6, 8.5)):
                statue(
                    m, x, -0.05, z + 0.25, trim, 3.6 * (1 - abs(x) / 11.2) + 0.5 - 0.12 * (k % 2)
                )
            statue(m, 0, 0, z + 5.2, trim, 2.6)
            for s in (-1, 1):
                urn(m, s * (half + 0.4), 0, z + 0.4, trim, 1.3)
        with m.at(turn=90):
            gable_roof(m, -4.5, 6, -half, half, 12.2, 4.6, "lead", over=0.2)
        doors = [
            opening(
                x, 0.1, 2.2, 4.2, "rect", "door", pediment="triangle", surround=0.35, frame="bronze"
            )
            for x in (-5.2, 0, 5.2)
        ]
        doors += [opening(x, 7.0, 1.6, 1.5, "rect", "sash", surround=0.2) for x in (-5.2, 0, 5.2)]
        wall(m, -half, half, 0, 10.6, doors, mat, trim)
        m.box(-half, half, -4.6, 0, -base, 0, trim)
        m.box(-half, half, -4.6, 0, 9.9, 10.1, trim)
    steps(m, -half - 0.6, half + 0.6, -4.8, 13, trim)
    for s in (-1, 1):
        m.box(s * (half + 1.6) - 1.0, s * (half + 1.6) + 1.0, -9.6, -1, 0, 1.6, mat)
        m.box(s * (half + 1.6) - 1.1, s * (half + 1.6) + 1.1, -9.7, -1, 1.5, 1.75, trim)
        statue(m, s * (half + 1.6), -8.6, 2.1, "bronze", 2.6)
        x0, x1 = sorted((s * (half - 0.06), s * 28))
        for _, h in sides(m, x0, x1, -0.5, 14):
            n = int(2 * h / 3.0)
            xs = [-h + (k + 0.5) * 2 * h / n for k in range(n)]
            openings = [
                opening(
                    x,
                    3.4,
                    1.5,
                    3.0,
                    "rect",
                    "sash",
                    pediment=("triangle", "curve")[k % 2],
                    surround=0.25,
                    nz=5,
                )
                for k, x in enumerate(xs)
            ]
            openings += [opening(x, 8.9, 1.4, 1.5, "rect", "sash", nz=2, surround=0.2) for x in xs]
            openings += [opening(x, 0.8, 1.2, 1.0, "rect", "sash", nz=2) for x in xs]
            wall(m, -h, h, 0, 12.4, openings, mat, trim)
            m.box(-h, h, -0.2, 0, 0, 0.5, mat)
            course(m, -h, h, 2.5, trim, 0.4, 0.2)
            for x in np.linspace(-h + 0.4, h - 0.4, n + 1):
                m.box(x - 0.38, x + 0.38, -0.2, 0, 2.9, 12.0, trim)
                m.box(x - 0.5, x + 0.5, -0.3, 0, 11.6, 12.1, trim)
            cornice(m, -h, h, 12.2, trim, 1.2, 0.7)
            balustrade(m, -h, h, 13.4, trim, 0.8)
        m.box(x0, x1, -0.5, 14, 13.0, 13.4, "lead")
    return m


def exchange():
    """Look-alike of the museum: six columns, arched windows, flanking pavilions, a clock cupola."""
    m = Mesh(114)
    mat, trim = "pale", "pale_trim"
    base, half = 1.12, 8.6
    with m.at(z=base):
        col = column(9.0, 0.58, trim, "ionic", fluted=False)
        for k in range(6):
            m.paste(col, x=-half + 0.9 + k * (2 * half - 1.8) / 5, y=-2.8)
        for i, h in sides(m, -half, half, -3.5, 0):
            if i != 2:
                m.box(-h, h, 0, 1.1, 9.0, 10.0, trim)
                n = int(2 * h / 1.4)
                for k in range(n):  # frieze of wreaths
                    t = np.linspace(0, 2 * pi, 13)[:-1]
                    c = np.array([-h + (k + 0.5) * 2 * h / n, 9.55])
                    m.ribbon(
                        c + 0.3 * np.stack([np.sin(t), np.cos(t)], 1),
                        0.1,
                        -0.08,
                        0,
                        trim,
                        closed=True,
                    )
        with m.at(y=-3.6):
            z = _pediment(m, half, 10.0, 3.4, 4, mat, trim)
            shield(m, 0, z + 1.3, 0.8, trim)
            for s in (-1, 1):
                m.tube(
                    [(s * 1.2, -0.1, z + 0.4), (s * 3.4, -0.15, z + 0.8), (s * 5.6, -0.1, z + 0.4)],
                    [0.4, 0.3, 0.15],
                    trim,
                )
        with m.at(turn=90):
            gable_roof(m, -3.3, 8, -half, half, 11.2, 3.4, "lead", over=0.2)
        arches = [
            opening(
                x,
                0.1,
                1.8,
                3.0,
                "round",
                "door",
                key=True,
                surround=0.3,
                fan=True,
                frame="green_paint",
            )
            for x in (-5.4, 0, 5.4)
        ]
        arches += [
            opening(x, 1.2, 1.3, 2.4, "round", "sash", key=True, surround=0.2) for x in (-2.7, 2.7)
        ]
        arches += [
            opening(x, 6.0, 1.4, 1.7, "rect", "sash", surround=0.2)
            for x in (-5.4, -2.7, 0, 2.7, 5.4)
        ]
        wall(m, -half, half, 0, 9.6, arches, mat, trim)
        m.box(-half, half, -3.4, 0, -base, 0, trim)
    steps(m, -half - 0.4, half + 0.4, -3.6, 7, trim)
    for s in (-1, 1):
        x0, x1 = sorted((s * (half - 0.06), s * 20))
        for _, h in sides(m, x0, x1, -1.0, 13):
            n = int(2 * h / 3.7)
            xs = [-h + (k + 0.5) * 2 * h / n for k in range(n)]
            openings = [
                opening(x, 1.4, 1.7, 3.0, "round", "sash", key=True, surround=0.3, nz=4) for x in xs
            ]
            openings += [
                opening(x, 7.2, 1.5, 2.0, "rect", "sash", pediment="flat", surround=0.2) for x in xs
            ]
            wall(m, -h, h, 0, 11.2, openings, mat, trim)
            m.box(-h, h, -0.15, 0, 0, 0.9, "rusticated")
            course(m, -h, h, 6.0, trim, 0.5, 0.25)
            quoins(m, -h, 0.9, 11, trim, 1, 0.5)
            quoins(m, h, 0.9, 11, trim, -1, 0.5)
            cornice(m, -h, h, 11.0, trim, 1.1, 0.7)
            m.box(-h, h, 0, 0.3, 12.1, 13.2, mat)
            m.box(-h, h, -0.1, 0.4, 13.2, 13.4, trim)
            for x in (-h + 0.5, h - 0.5):
                urn(m, x, 0.2, 13.4, trim, 1.0)
        m.box(x0, x1, -1, 13, 12.0, 12.3, "lead")
    with m.at(y=4, z=13.2):  # cupola
        m.box(-2.2, 2.2, -2.2, 2.2, -2, 2.6, mat)
        for _, h in sides(m, -2.2, 2.2, -2.2, 2.2):
            clock_face(m, 0, 1.2, 1.0)
            cornice(m, -h, h, 2.4, trim, 0.5, 0.35)
        for _, h in facets(m, 8, 1.6):
            with m.at(z=2.9):
                wall(
                    m, -h, h, 0, 3.2, [opening(0, 0.4, 0.7, 1.7, "round", "louvre", lights=1)], trim
                )
                cornice(m, -h, h, 3.0, trim, 0.4, 0.3, dentils=False)
        t = np.linspace(0, pi / 2, 9)
        m.lathe([(1.75 * cos(a), 6.2 + 2.0 * sin(a)) for a in t], 24, "copper")
        m.tube([(0, 0, 8.1), (0, 0, 10.2)], 0.06, "gilt")
    return m


# -- 9 ----------------------------------------------------------------------------------------
def market():
    """A market street: timbered hall on arches with a clock turret, gabled shops each side."""
    m = Mesh(109)
    trim = "honey_trim"

    def timber_front(w, z0, z1, gable, colour, windows):
        """Half-timbering on a wall at y = 0."""
        openings = [
            opening(
                x,
                z0 + 1.0,
                1.5,
                1.3,
                "rect",
                "stone",
                lights=3,
                transoms=0,
                surround=0.12,
                frame="dark_wood",
                glass="leaded",
            )
            for x in windows
        ]
        wall(
            m,
            -w / 2,
            w / 2,
            z0,
            z1,
            openings,
            colour,
            "dark_wood",
            depth=0.12,
            top=(lambda x: (w / 2 - abs(x)) * 1.25) if gable else None,
        )
        beams = [((-w / 2, z), (w / 2, z)) for z in (z0 + 0.12, z0 + 0.85, z1 - 0.12)]
        count = max(4, int(w / 0.8))
        for k in range(count + 1):
            x = -w / 2 + 0.1 + k * (w - 0.2) / count
            if all(abs(x - q) > 0.8 for q in windows):
                beams.append(((x, z0), (x, z1)))
            else:
                beams.append(((x, z0), (x, z0 + 0.85)))
        if gable:
            for k in range(1, 4):
                z = z1 + w / 2 * 1.25 * k / 4
                e = w / 2 * (1 - k / 4)
                beams.append(((-e, z), (e, z)))
                beams += [
                    ((s * e * 0.5, z1 + w / 2 * 1.25 * (k - 1) / 4), (s * e * 0.5, z))
                    for s in (-1, 1)
                ]
            m.ribbon(
                [(-w / 2 - 0.3, z1 - 0.2), (0, z1 + w / 2 * 1.25 + 0.2), (w / 2 + 0.3, z1 - 0.2)],
                0.3,
                -0.3,
                -0.15,
                "dark_wood",
            )
        for s in (-1, 1):
            beams.append(((s * w / 2 * 0.95, z0 + 0.85), (s * w / 2 * 0.7, z1 - 0.1)))
        for a, b in beams:
            m.ribbon([a, b], 0.2, -0.06, 0, "dark_wood")

    # the hall
    with m.at(y=-2):
        arches = [
            opening(
                x, 0.0, 2.3, 2.2, "round", "open", key=True, depth=0.7, surround=0.3, sill=False
            )
            for x in (-5.7, -1.9, 1.9, 5.7)
        ]
        wall(m, -7.6, 7.6, 0, 4.6, arches, "rubble", trim)
        course(m, -7.6, 7.6, 4.3, trim, 0.4, 0.3)
        for i, x in enumerate((-5.05, 0, 5.05)):
            with m.at(x=x, y=-0.5):
                timber_front(
                    5.05, 4.7, 8.2, True, "plaster_white", (-1.0, 1.0) if i != 1 else (0.0,)
                )
                m.box(-2.5, 2.5, 0, 0.6, 4.5, 4.75, "dark_wood")
                for q in np.linspace(-2.3, 2.3, 6):
                    m.extrude_y(
                        [(q - 0.1, 4.0), (q + 0.1, 4.0), (q + 0.1, 4.6), (q - 0.1, 4.6)],
                        -0.05,
                        0.5,
                        "dark_wood",
                    )
                with m.at(turn=90):
                    gable_roof(m, -0.2, 6, -2.52, 2.52, 8.2, 3.15, "clay", over=0.25)
    gable_roof(m, -7.6, 7.6, -1.5, 7, 8.2, 4.0, "clay", over=0.3, ends="plaster_white")
    for i, h in sides(m, -7.6, 7.6, -2, 7):
        if i in (1, 3):
            wall(
                m,
                -h,
                h,
                0,
                8.2,
                [opening(x, 0, 2.2, 2.2, "round", "open", depth=0.6) for x in (-2.4, 1.4)],
                "rubble",
                trim,
            )
    m.box(-7.6, 7.6, 6.6, 7.0, 0, 8.2, "rubble")
    m.box(-7.5, 7.5, -1.8, 6.8, 4.3, 4.5, "dark_wood")
    with m.at(y=2.6):
        for _, h in sides(m, -1.4, 1.4, -1.4, 1.4):
            wall(m, -h, h, 11.4, 15.2, [], "plaster_white", trim)
            clock_face(m, 0, 13.7, 0.85)
            m.ribbon([(-h, 12.2), (h, 12.2)], 0.2, -0.08, 0, "dark_wood")
            for s in (-1, 1):
                m.box(s * h - 0.12, s * h + 0.12, -0.08, 0.1, 11, 15.2, "dark_wood")
        m.pyramid(1.8, 15.1, 16.2, "clay")
        for _, h in facets(m, 6, 0.8):
            m.box(-h, -h + 0.14, -0.05, 0.1, 15.6, 17.6, "white_wood")
        m.pyramid(1.15, 17.5, 20.4, "lead", 6)
        m.tube([(0, 0, 20), (0, 0, 21.6)], 0.05, "gilt")
    # the shops
    shops = [
        (-11.2, 6.6, "plaster_rose", "awning_red", "blue_paint", 3, "timber"),
        (-17.3, 5.4, "plaster_sage", "awning_green", "green_paint", 3, "sash"),
        (-23.2, 6.2, "red_brick", "awning_blue", "red_paint", 3, "dutch"),
        (11.4, 7.0, "plaster_blue", "awning_green", "red_paint", 3, "dutch"),
        (18.0, 6.0, "plaster_ochre", "awning_red", "green_paint", 3, "timber"),
        (24.2, 6.2, "yellow_brick", "awning_blue", "blue_paint", 2, "sash"),
    ]
    for k, (x, w, colour, cloth, paint, floors, style) in enumerate(shops):
        with m.at(x=x, y=-1.0 + 0.3 * (k % 2)):
            front = opening(
                -w * 0.12,
                0.05,
                w * 0.62,
                2.4,
                "rect",
                "shop",
                frame=paint,
                surround=0.1,
                sill=False,
            )
            door = opening(w * 0.34, 0.05, 0.95, 2.2, "rect", "door", frame=paint, surround=0.1)
            wall(m, -w / 2, w / 2, 0, 3.4, [front, door], colour, paint)
            m.box(-w / 2, w / 2, -0.2, 0, 2.75, 3.3, paint)
            letters = int(w / 0.5)
            for q in range(letters):
                if m.rng.random() < 0.8:
                    a = -w / 2 + 0.5 + q * (w - 1) / letters
                    m.ribbon(
                        [(a, 2.88), (a + 0.1, 3.15), (a + 0.2, 2.9 + 0.2 * m.rng.random())],
                        0.05,
                        -0.24,
                        -0.2,
                        "gilt",
                    )
            a = [
                (-w / 2 + 0.1, -0.2, 2.75),
                (w * 0.25, -0.2, 2.75),
                (w * 0.25, -1.5, 2.25),
                (-w / 2 + 0.1, -1.5, 2.25),
            ]
            m.quad(*a, cloth)
            m.quad(a[3], a[2], (a[2][0], -1.5, 2.0), (a[3][0], -1.5, 2.0), cloth)
            if style == "timber":
                for f in range(1, floors):
                    with m.at(y=-0.35 * f):
                        timber_front(
                            w,
                            3.4 + (f - 1) * 3.0,
                            3.4 + f * 3.0,
                            f == floors - 1,
                            colour,
                            (-w * 0.22, w * 0.22),
                        )
                        m.box(
                            -w / 2,
                            w / 2,
                            0,
                            0.4,
                            3.3 + (f - 1) * 3.0,
                            3.5 + (f - 1) * 3,
                            "dark_wood",
                        )
                with m.at(turn=90):
                    gable_roof(
                        m,
                        -0.6,
                        9,
                        -w / 2,
                        w / 2,
                        3.4 + 3.0 * (floors - 1),
                        w / 2 * 1.25,
                        "clay",
                        over=0.3,
                        ends=colour,
                    )
            else:
                z1 = 3.4 + 3.1 * (floors - 1)
                n = 3 if style == "sash" else 2
                openings = [
                    opening(
                        -w / 2 + (q + 0.5) * w / n,
                        4.2 + 3.1 * f,
                        1.0,
                        1.8,
                        "segment" if style == "dutch" else "rect",
                        "sash",
                        key=True,
                        surround=0.14,
                    )
                    for q in range(n)
                    for f in range(floors - 1)
                ]
                wall(m, -w / 2, w / 2, 3.4, z1, openings, colour, trim)
                cornice(m, -w / 2, w / 2, z1 - 0.1, trim, 0.6, 0.35)
                if style == "dutch":
                    shape = [
                        (-w / 2, 0),
                        (w / 2, 0),
                        (w / 2, 0.8),
                        (w * 0.34, 1.0),
                        (w * 0.3, 2.2),
                        (w * 0.18, 2.5),
                        (w * 0.15, 3.4),
                        (0, 4.0),
                        (-w * 0.15, 3.4),
                        (-w * 0.18, 2.5),
                        (-w * 0.3, 2.2),
                        (-w * 0.34, 1.0),
                        (-w / 2, 0.8),
                    ]
                    m.extrude_y([(p, z1 + 0.5 + q) for p, q in shape], 0, 0.4, colour)
                    m.ribbon([(p, z1 + 0.5 + q) for p, q in shape[2:]], 0.2, -0.12, 0.45, trim)
                    m.ribbon(
                        [(0.5 * cos(t), z1 + 2.2 + 0.5 * sin(t)) for t in np.linspace(0, 6.28, 17)],
                        0.16,
                        -0.1,
                        0,
                        trim,
                    )
                    with m.at(turn=90):
                        gable_roof(m, 0.2, 9, -w / 2, w / 2, z1, 3.6, "clay", over=0.0, ends=colour)
                else:
                    balustrade(m, -w / 2, w / 2, z1 + 0.5, trim, 0.7)
                    gable_roof(m, -w / 2, w / 2, 0.5, 9, z1, 3.0, "slate", over=0.0, ends=colour)
                    dormer(m, 0, z1 + 0.6, "plaster_white", "lead", y=0.9)
            m.box(-w / 2, -w / 2 + 0.05, 0, 9, 0, 3.4 + 3.0 * (floors - 1), colour)
            m.box(w / 2 - 0.05, w / 2, 0, 9, 0, 3.4 + 3.0 * (floors - 1), colour)
            chimney(m, -w / 2 + 0.7, 4.5, 9, 14.5, "red_brick", 3)
            with m.at(x=w / 2 - 0.3, z=4.0):  # hanging sign
                m.tube([(0, 0, 0), (0, -1.1, 0.1)], 0.03, "iron")
                m.box(-0.03, 0.03, -1.05, -0.35, -0.75, -0.05, paint)
    return m


# -- 10 and 13 --------------------------------------------------------------------------------
def _college_bay(m, x, z, w, trim, kind):
    if kind == "pair":
        return [
            opening(
                x + s * 0.55, z, 0.8, 1.6, "pointed", "tracery", lights=1, surround=0.14, hood=False
            )
            for s in (-1, 1)
        ]
    return [opening(x, z, w, 1.7, "pointed", "tracery", lights=2, surround=0.2, hood=True)]


def brick_college():
    """A Victorian college in banded and diapered brick, with a gate tower and gabled dormers."""
    m = Mesh(110)
    mat, trim = "poly_a", "pale_trim"
    for x0, x1, bays in ((-30, -9.4, 6), (-2.6, 24, 8)):
        for i, h in sides(m, x0, x1, 0, 9):
            n = bays if i in (0, 2) else 2
            xs = [-h + (k + 0.5) * 2 * h / n for k in range(n)]
            openings = []
            for k, x in enumerate(xs):
                if k % 3 == 1 and i == 0:
                    openings.append(
                        opening(x, 0.15, 1.2, 2.0, "pointed", "door", hood=True, frame="dark_wood")
                    )
                else:
                    openings += _college_bay(m, x, 1.2, 1.5, trim, "one")
                openings += _college_bay(m, x, 5.0, 1.5, trim, "pair")
                openings += _college_bay(m, x, 8.7, 1.3, trim, "pair" if k % 2 else "one")
            wall(m, -h, h, 0, 12, openings, mat, trim, depth=0.3)
            m.box(-h, h, -0.15, 0, 0, 0.7, trim)
            for z in (4.2, 7.9):
                course(m, -h, h, z, trim, 0.22, 0.1)
            for k in range(int(2 * h / 0.45)):
                x = -h + 0.2 + k * 0.45
                m.box(x - 0.1, x + 0.1, -0.18, 0, 11.5, 11.85, "red_brick")
            course(m, -h, h, 11.85, trim, 0.3, 0.25)
        gable_roof(m, x0, x1, 0, 9, 12.1, 5.4, "slate", ends=mat)
        for k in range(bays // 2):
            x = x0 + (2 * k + 1) * (x1 - x0) / bays
            with m.at(x=x):
                wall(
                    m,
                    -1.7,
                    1.7,
                    12,
                    15.2,
                    [opening(0, 12.5, 1.1, 1.3, "pointed", "tracery", hood=True)],
                    mat,
                    trim,
                    top=lambda t: (1.7 - abs(t)) * 1.3,
                )
                gable_coping(m, -1.7, 1.7, 15.2, 2.2, trim)
                for s in (-1, 1):
                    m.quad(
                        (s * 1.7, 0, 12),
                        (s * 1.7, 3.2, 12),
                        (s * 1.7, 3.2, 15.2),
                        (s * 1.7, 0, 15.2),
                        mat,
                    )
                with m.at(turn=90):
                    gable_roof(m, 0.1, 5, -1.7, 1.7, 15.2, 2.2, "slate", over=0.0)
        for k in range(bays // 2):
            chimney(m, x0 + (2 * k + 2) * (x1 - x0) / bays - 0.3, 4.5, 15, 21.5, mat, 4)
    with m.at(x=-6):
        for i, h in sides(m, -3.4, 3.4, -1.2, 6.0):
            openings = [
                opening(
                    0,
                    0,
                    3.0,
                    3.0,
                    "pointed",
                    "void" if i else "open",
                    surround=0.45,
                    hood=True,
                    back=1.2,
                    depth=0.9,
                    sill=False,
                ),
                opening(0, 7.6, 2.6, 2.2, "pointed", "tracery", lights=3, hood=True),
            ]
            openings += [
                opening(x, 13.2, 0.9, 2.2, "pointed", "tracery", lights=1, hood=True)
                for x in (-1.6, 0, 1.6)
            ]
            wall(m, -h, h, 0, 18, openings, mat, trim)
            for z in (6.4, 12.2, 17.5):
                course(m, -h, h, z, trim, 0.4, 0.22)
            for s in (-1, 1):
                buttress(m, s * (h - 0.4), 0, 14, mat, trim, 0.8, 0.9, 3)
            battlement(m, -h, h, 18, mat, trim, 0.8, 0.6, 0.7)
        m.box(-0.0, 3.3, 0.5, 6, 0, 0.1, "void")
        shield(m, 0, 5.9, 0.45, trim, -1.25)
        for a in (-3.4, 3.4):
            for b in (-1.2, 6.0):
                m.paste(pinnacle(3.2, 0.7, trim, 4), x=a, y=b, z=18)
        with m.at(y=2.4):
            m.pyramid(3.0, 18.2, 25, "slate")
            m.tube([(0, 0, 24.8), (0, 0, 27)], 0.06, "iron")
    return m


def hall_college():
    """Look-alike of the brick college: other bands, a tall hall with big windows, a turret."""
    m = Mesh(113)
    mat, trim = "poly_b", "pale_trim"
    for i, h in sides(m, -27, -4, 0, 10):  # the hall
        n = 5 if i in (0, 2) else 1
        xs = [-h + (k + 0.5) * 2 * h / n for k in range(n)]
        openings = [
            opening(
                x,
                3.4,
                2.2,
                5.2,
                "pointed",
                "tracery",
                lights=3,
                hood=True,
                transom=0.5,
                glass="stained",
            )
            for x in xs
        ]
        openings += [opening(x, 0.9, 1.0, 1.0, "rect", "stone", lights=2, transoms=0) for x in xs]
        wall(m, -h, h, 0, 12.4, openings, mat, trim, depth=0.45)
        m.box(-h, h, -0.15, 0, 0, 0.6, trim)
        course(m, -h, h, 2.6, trim, 0.3, 0.15)
        course(m, -h, h, 12.1, trim, 0.4, 0.25)
        for k in range(n + 1):
            buttress(m, -h + k * 2 * h / n, 0, 10.5, mat, trim, 0.75, 1.1, 3)
        battlement(m, -h, h, 12.4, mat, trim, 1.1, 0.7, 0.6)
    gable_roof(m, -27, -4, 0.5, 9.5, 12.6, 6.2, "slate", over=0.0, ends=mat)
    with m.at(x=-15.5, y=5, z=18.2):
        for _, h in facets(m, 6, 0.9):
            wall(
                m,
                -h,
                h,
                0,
                2.4,
                [opening(0, 0.4, 0.6, 1.2, "pointed", "louvre", lights=1)],
                "white_wood",
                depth=0.1,
            )
        m.pyramid(1.3, 2.3, 7.0, "lead", 6)
    with m.at(x=-2.6, y=-0.6):  # round stair turret
        m.lathe([(2.1, 0), (2.1, 18)], 28, mat, 0.5)
        for z in (4.4, 8.8, 13.2, 17.6):
            m.lathe([(2.1, z - 0.1), (2.3, z), (2.3, z + 0.2), (2.1, z + 0.3)], 28, trim, 0.5)
        for k in range(9):
            a = -2.4 + 0.6 * k
            z = 2.0 + 1.7 * k
            with m.at(turn=a * 180 / pi), m.at(y=-2.08):
                m.box(-0.25, 0.25, -0.06, 0.05, z, z + 1.2, trim)
                m.box(-0.13, 0.13, -0.08, 0.0, z + 0.12, z + 1.08, "glass")
        for k in range(12):
            with m.at(turn=30 * k):
                m.box(-0.3, 0.3, -2.2, -1.9, 18, 18.9, trim)
        m.lathe([(2.4, 18.3), (1.2, 22), (0.1, 26)], 28, "slate")
    for i, h in sides(m, -0.8, 25, 0.6, 9.6):  # the rooms
        n = 7 if i in (0, 2) else 2
        xs = [-h + (k + 0.5) * 2 * h / n for k in range(n)]
        openings = []
        for k, x in enumerate(xs):
            if k == 3 and i == 0:
                openings.append(
                    opening(x, 0.15, 1.5, 2.2, "pointed", "door", hood=True, surround=0.35)
                )
            else:
                openings.append(opening(x, 1.1, 1.7, 1.9, "rect", "stone", hood=True))
            openings.append(opening(x, 4.9, 1.7, 1.9, "rect", "stone", hood=True, lights=3))
            openings += [
                opening(x + s * 0.6, 8.4, 0.8, 1.5, "pointed", "tracery", lights=1) for s in (-1, 1)
            ]
        wall(m, -h, h, 0, 11.2, openings, mat, trim)
        m.box(-h, h, -0.15, 0, 0, 0.6, trim)
        for z in (4.2, 7.7):
            course(m, -h, h, z, trim, 0.24, 0.12)
        course(m, -h, h, 10.9, trim, 0.4, 0.3)
    gable_roof(m, -0.8, 25, 0.6, 9.6, 11.3, 5.0, "slate", ends=mat)
    for x in (2.6, 10.0, 17.4, 23.0):
        with m.at(x=x, y=0.6):
            wall(
                m,
                -1.6,
                1.6,
                11.2,
                13.6,
                [opening(0, 11.7, 1.5, 1.4, "rect", "stone", hood=True, lights=2)],
                mat,
                trim,
            )
            m.extrude_y(
                [
                    (-1.6, 13.6),
                    (1.6, 13.6),
                    (1.6, 14.3),
                    (0.9, 14.3),
                    (0.9, 15.2),
                    (0.4, 15.2),
                    (0.4, 16),
                    (-0.4, 16),
                    (-0.4, 15.2),
                    (-0.9, 15.2),
                    (-0.9, 14.3),
                    (-1.6, 14.3),
                ],
                0,
                0.5,
                mat,
            )
            for a, z in ((1.25, 14.3), (-1.25, 14.3), (0.65, 15.2), (-0.65, 15.2), (0, 16)):
                m.box(a - 0.4, a + 0.4, -0.1, 0.6, z, z + 0.14, trim)
            with m.at(turn=90):
                gable_roof(m, 0.3, 4.5, -1.6, 1.6, 13.5, 1.8, "slate", over=0.0)
    for x in (6.3, 13.7, 20.2):
        chimney(m, x, 5, 14, 20, mat, 3)
        chimney(m, x + 1.4, 5, 14, 20, mat, 2)
    return m


# -- 11 ---------------------------------------------------------------------------------------
def observatory():
    """An octagonal tower with sculpted wind panels and a copper dome above a bowed brick villa."""
    m = Mesh(111)
    mat, trim = "yellow_brick", "pale_trim"
    for x0, x1, h in ((-9, 9, 8.6), (-18, -9, 5.0), (9, 18, 5.0)):
        for _, half in sides(m, x0, x1, -5 if h > 6 else -3, 6):
            n = max(2, int(2 * half / 3.2))
            xs = [-half + (k + 0.5) * 2 * half / n for k in range(n)]
            openings = [
                opening(x, 0.9, 1.3, 2.3, "round", "sash", key=True, surround=0.22) for x in xs
            ]
            if h > 6:
                openings += [
                    opening(x, 5.4, 1.2, 1.7, "rect", "sash", surround=0.2, pediment="flat")
                    for x in xs
                ]
            wall(m, -half, half, 0, h, openings, mat, trim)
            m.box(-half, half, -0.15, 0, 0, 0.6, trim)
            quoins(m, -half, 0.6, h, trim, 1)
            quoins(m, half, 0.6, h, trim, -1)
            if h > 6:
                course(m, -half, half, 4.4, trim, 0.5, 0.2)
            cornice(m, -half, half, h - 0.1, trim, 0.8, 0.5)
            balustrade(m, -half, half, h + 0.7, trim, 0.7)
        m.box(x0, x1, -4.9 if h > 6 else -2.9, 6, h + 0.4, h + 0.7, "lead")
    # bow with columns
    col = column(6.2, 0.36, trim, "ionic", fluted=False)
    with m.at(y=-5):
        for k in range(7):
            a = (-75 + 25 * k) * pi / 180
            m.paste(col, x=4.6 * sin(a), y=-4.6 * cos(a), z=0.5)
        m.lathe([(5.1, 0), (5.1, 0.5), (4, 0.5)], 40, trim, 0.5, start=pi, sweep=pi)
        m.lathe(
            [(4.2, 6.7), (5.0, 6.7), (5.0, 7.4), (5.4, 7.5), (5.4, 7.8), (0, 7.9)],
            40,
            trim,
            0.5,
            start=pi,
            sweep=pi,
        )
        for k in range(5):
            a = -62 + 31 * k
            with m.at(turn=a), m.at(y=-3.5):
                wall(
                    m,
                    -1.0,
                    1.0,
                    0.4,
                    6.8,
                    [opening(0, 1.0, 1.1, 2.6, "round", "sash", key=True)],
                    mat,
                    trim,
                )
    with m.at(y=1.0):
        for i, half in facets(m, 8, 4.6):
            o = (
                [opening(0, 10.2, 1.7, 3.2, "round", "sash", nz=5, key=True, surround=0.3)]
                if i % 2 == 0
                else [
                    opening(0, 10.6, 1.2, 1.6, "rect", "sash", pediment="triangle", surround=0.22)
                ]
            )
            o.append(opening(0, 16.4, 1.4, 1.4, "rect", "sash", nx=4, nz=2, surround=0.15))
            wall(m, -half, half, 8.6, 19.6, o, mat, trim)
            course(m, -half, half, 9.4, trim, 0.4, 0.2, ends=False)
            course(m, -half, half, 15.4, trim, 0.5, 0.3, ends=False)
            m.box(-half, -half + 0.35, -0.12, 0.05, 9.6, 19.6, trim)
            m.box(half - 0.35, half, -0.12, 0.05, 9.6, 19.6, trim)
            # the winds: a carved panel on every face
            m.box(-1.5, 1.5, -0.1, 0, 18.35, 19.5, trim, 0.9)
            s = 1 if i % 2 else -1
            m.tube(
                [(-1.2 * s, -0.15, 18.7), (-0.3 * s, -0.25, 19.0), (0.5 * s, -0.25, 19.05)],
                [0.12, 0.26, 0.2],
                trim,
            )
            m.tube(
                [(0.5 * s, -0.25, 19.05), (1.0 * s, -0.2, 19.25 - 0.1 * (i % 3))], [0.17, 0.1], trim
            )
            m.tube([(-0.3 * s, -0.2, 19.1), (-1.0 * s, -0.15, 19.42)], [0.22, 0.05], trim)
            cornice(m, -half, half, 19.5, trim, 1.0, 0.8)
            balustrade(m, -half, half, 20.5, trim, 0.7, 8)
        m.lathe([(3.7, 20.3), (3.7, 22.0), (3.95, 22.1), (3.95, 22.4)], 40, "white_wood", 0.5)
        t = np.linspace(0, pi / 2, 12)
        m.lathe([(3.8 * cos(a), 22.4 + 3.8 * sin(a)) for a in t], 40, "copper", 0.5)
        slit = [(3.9 * cos(a), 22.4 + 3.9 * sin(a)) for a in t[1:]]
        with m.at(turn=20):
            m.tube([(0.55, -r, z) for r, z in slit], 0.12, "copper")
            m.tube([(-0.55, -r, z) for r, z in slit], 0.12, "copper")
            for (r0, z0), (r1, z1) in itertools.pairwise(slit):
                m.quad((-0.5, -r0, z0), (0.5, -r0, z0), (0.5, -r1, z1), (-0.5, -r1, z1), "void")
        for i in range(10):
            a = i * pi / 5
            m.tube(
                [
                    (3.85 * cos(q) * sin(a), -3.85 * cos(q) * cos(a), 22.4 + 3.85 * sin(q))
                    for q in t
                ],
                0.07,
                "copper",
            )
        m.tube([(0, 0, 26), (0, 0, 28.5)], 0.06, "iron")
        m.lathe([(0, 27), (0.3, 27.3), (0, 27.6)], 12, "gilt")
    return m


# name, builder, aim height, half angle of the walkable arc, distance, ground, resembles
LANDMARKS = {
    "rotunda": {
        "build": rotunda,
        "aim": 13.0,
        "arc": 150,
        "distance": 42,
        "ground": "cobbles",
        "like": None,
    },
    "minster": {
        "build": twin_towers,
        "aim": 16.0,
        "arc": 100,
        "distance": 48,
        "ground": "paving",
        "like": None,
    },
    "belltower": {
        "build": bell_tower,
        "aim": 16.0,
        "arc": 85,
        "distance": 46,
        "ground": "asphalt",
        "like": None,
    },
    "bridge": {
        "build": bridge,
        "aim": 6.8,
        "arc": 52,
        "distance": 22,
        "ground": "cobbles",
        "like": None,
    },
    "cloister": {
        "build": cloister,
        "aim": 5.5,
        "arc": 40,
        "distance": 25,
        "ground": "grass",
        "like": None,
    },
    "gatehouse": {
        "build": gatehouse,
        "aim": 11.0,
        "arc": 65,
        "distance": 34,
        "ground": "cobbles",
        "like": None,
    },
    "chapel": {
        "build": chapel,
        "aim": 9.0,
        "arc": 105,
        "distance": 36,
        "ground": "grass",
        "like": None,
    },
    "museum": {
        "build": museum,
        "aim": 8.5,
        "arc": 65,
        "distance": 40,
        "ground": "paving",
        "like": None,
    },
    "market": {
        "build": market,
        "aim": 7.0,
        "arc": 55,
        "distance": 28,
        "ground": "cobbles",
        "like": None,
    },
    "bricks": {
        "build": brick_college,
        "aim": 10.0,
        "arc": 65,
        "distance": 38,
        "ground": "grass",
        "like": None,
    },
    "observatory": {
        "build": observatory,
        "aim": 12.0,
        "arc": 85,
        "distance": 38,
        "ground": "gravel",
        "like": None,
    },
    "priory": {
        "build": priory,
        "aim": 8.0,
        "arc": 105,
        "distance": 32,
        "ground": "grass",
        "like": "chapel",
    },
    "hall": {
        "build": hall_college,
        "aim": 9.5,
        "arc": 65,
        "distance": 36,
        "ground": "grass",
        "like": "bricks",
    },
    "exchange": {
        "build": exchange,
        "aim": 8.5,
        "arc": 62,
        "distance": 36,
        "ground": "paving",
        "like": "museum",
    },
}
