"""A small mesh builder: arrays in, one Blender mesh out.

Everything is built in a local frame: x to the right, y *into* the building (a wall's outer face
looks towards -y), z up, in metres. `Mesh.at(...)` moves that frame, so the same wall function
makes all four sides of a tower. Faces carry a material name and one random number (`rnd`), which
materials use to make each window, stone or leaf a little different.
"""

from contextlib import contextmanager
from math import cos, pi, sin

import numpy as np


def rotation_z(angle):
    """4x4 rotation about the vertical axis, radians, counter-clockwise."""
    c, s = cos(angle), sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def translation(x, y, z):
    """4x4 translation."""
    matrix = np.eye(4)
    matrix[:3, 3] = (x, y, z)
    return matrix


_BOX_FACES = np.array(
    [[0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7], [4, 5, 6, 7], [3, 2, 1, 0]]
)


class Mesh:
    """Collects vertices and faces under a stack of transformations."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.verts = []  # (N, 3) arrays, already in the object's frame
        self.count = 0
        self.faces = []  # (M, k) index array, material name, rnd (M,)
        self.matrix = np.eye(4)

    # -- frames ---------------------------------------------------------------------------------
    @contextmanager
    def at(self, x=0.0, y=0.0, z=0.0, turn=0.0, scale=1.0):
        """Work in a frame moved by (x, y, z), turned about z by degrees, then scaled."""
        old = self.matrix
        size = np.diag([*np.broadcast_to(np.asarray(scale, float), 3), 1.0])
        self.matrix = old @ translation(x, y, z) @ rotation_z(turn * pi / 180) @ size
        try:
            yield self
        finally:
            self.matrix = old

    # -- the only way in ------------------------------------------------------------------------
    def add(self, verts, faces, mat, rnd=None):
        """Add vertices (N, 3) and faces: an (M, k) array or a list of index lists."""
        verts = np.asarray(verts, float) @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        self.verts.append(verts)
        if isinstance(faces, np.ndarray):
            groups = [faces]
        else:
            by_size = {}
            for face in faces:
                by_size.setdefault(len(face), []).append(face)
            groups = [np.array(group) for group in by_size.values()]
        value = float(self.rng.random()) if rnd is None else rnd
        for group in groups:
            values = np.broadcast_to(np.asarray(value, float), (len(group),))
            self.faces.append((group + self.count, mat, values))
        self.count += len(verts)

    # -- solids ---------------------------------------------------------------------------------
    def box(self, x0, x1, y0, y1, z0, z1, mat, rnd=None):
        """An axis-parallel box of the current frame."""
        v = [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)]
        v += [(x, y, z1) for x, y, _ in v]
        self.add(v, _BOX_FACES, mat, rnd)

    def extrude_y(self, outline, y0, y1, mat, rnd=None):
        """A polygon in (x, z), counter-clockwise seen from -y, pushed from y0 back to y1."""
        n = len(outline)
        v = [(x, y0, z) for x, z in outline] + [(x, y1, z) for x, z in outline]
        ring = [(i, i + n, (i + 1) % n + n, (i + 1) % n) for i in range(n)]
        self.add(v, [list(range(n)), list(range(2 * n - 1, n - 1, -1)), *ring], mat, rnd)

    def extrude_z(self, outline, z0, z1, mat, rnd=None):
        """A polygon in (x, y), counter-clockwise seen from above, from z0 up to z1."""
        n = len(outline)
        v = [(x, y, z0) for x, y in outline] + [(x, y, z1) for x, y in outline]
        ring = [(i, (i + 1) % n, (i + 1) % n + n, i + n) for i in range(n)]
        self.add(v, [list(range(2 * n - 1, n - 1, -1))[::-1], *ring], mat, rnd)
        self.add(v[:n], [list(range(n - 1, -1, -1))], mat, rnd)

    def lathe(self, profile, n, mat, rnd=None, wobble=None, start=0.0, sweep=2 * pi):
        """Turn a profile [(r, z), ...] (bottom to top) about z. `wobble(k)` scales the radii."""
        full = abs(sweep - 2 * pi) < 1e-6
        count = n if full else n + 1
        angles = start + np.arange(count) * sweep / n
        factor = np.ones(count) if wobble is None else np.array([wobble(k) for k in range(count)])
        profile = np.asarray(profile, float)
        r = profile[:, 0:1] * factor[None]
        v = np.stack(
            [r * np.cos(angles), r * np.sin(angles), np.repeat(profile[:, 1:2], count, 1)], -1
        )
        i, k = np.meshgrid(np.arange(len(profile) - 1), np.arange(n), indexing="ij")
        i, k = i.ravel(), k.ravel()
        k2 = (k + 1) % count
        faces = np.stack(
            [i * count + k, i * count + k2, (i + 1) * count + k2, (i + 1) * count + k], 1
        )
        self.add(v.reshape(-1, 3), faces, mat, rnd)

    def ribbon(self, line, width, y0, y1, mat, closed=False, rnd=None):
        """A band of `width` along a polyline in (x, z), from y0 (front) to y1 (back)."""
        p = np.asarray(line, float)
        if closed:
            ahead, behind = np.roll(p, -1, 0), np.roll(p, 1, 0)
        else:
            ahead = np.vstack([p[1:], p[-1:]])
            behind = np.vstack([p[:1], p[:-1]])
        d = ahead - behind
        d /= np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-9)
        side = np.stack([-d[:, 1], d[:, 0]], 1) * width / 2
        a, b = p + side, p - side
        n = len(p)
        v = np.zeros((4 * n, 3))
        for k, (edge, y) in enumerate(((a, y0), (b, y0), (a, y1), (b, y1))):
            v[k * n : (k + 1) * n] = np.stack([edge[:, 0], np.full(n, y), edge[:, 1]], 1)
        i = np.arange(n if closed else n - 1)
        j = (i + 1) % n
        front = np.stack([i + n, j + n, j, i], 1)
        upper = np.stack([i, j, j + 2 * n, i + 2 * n], 1)
        lower = np.stack([j + n, i + n, i + 3 * n, j + 3 * n], 1)
        self.add(v, np.vstack([front, upper, lower]), mat, rnd)

    def tube(self, points, radius, mat, n=6, rnd=None):
        """A round bar along 3-D points; `radius` is one number or one for each point."""
        p = np.asarray(points, float)
        radius = np.broadcast_to(np.asarray(radius, float), (len(p),))
        d = np.vstack([p[1:] - p[:-1], p[-1:] - p[-2:-1]])
        d /= np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-9)
        helper = np.where(np.abs(d[:, 2:3]) > 0.9, [[1.0, 0, 0]], [[0, 0, 1.0]])
        a = np.cross(d, helper)
        a /= np.linalg.norm(a, axis=1, keepdims=True)
        b = np.cross(d, a)
        t = np.arange(n) * 2 * pi / n
        ring = a[:, None] * np.cos(t)[None, :, None] + b[:, None] * np.sin(t)[None, :, None]
        v = p[:, None] + ring * radius[:, None, None]
        i, k = np.meshgrid(np.arange(len(p) - 1), np.arange(n), indexing="ij")
        i, k = i.ravel(), k.ravel()
        k2 = (k + 1) % n
        faces = np.stack([i * n + k2, i * n + k, (i + 1) * n + k, (i + 1) * n + k2], 1)
        self.add(v.reshape(-1, 3), faces, mat, rnd)

    def pyramid(self, half, z0, z1, mat, sides=4, rnd=None):
        """A pyramid with a regular base whose sides lie `half` from the axis."""
        angles = pi / sides + np.arange(sides) * 2 * pi / sides
        r = half / cos(pi / sides)
        v = [(r * cos(t), r * sin(t), z0) for t in angles] + [(0, 0, z1)]
        self.add(v, np.array([(i, (i + 1) % sides, sides) for i in range(sides)]), mat, rnd)

    def quad(self, a, b, c, d, mat, rnd=None):
        """One quadrilateral."""
        self.add([a, b, c, d], np.array([[0, 1, 2, 3]]), mat, rnd)

    def paste(self, other, **frame):
        """Add another Mesh's content in a moved frame (columns, pinnacles: build once)."""
        with self.at(**frame):
            verts = np.concatenate(other.verts)
            verts = verts @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        self.verts.append(verts)
        shift = self.rng.random() * 0.2 - 0.1
        for group, mat, values in other.faces:
            self.faces.append((group + self.count, mat, np.clip(values + shift, 0, 1)))
        self.count += len(verts)

    # -- out ------------------------------------------------------------------------------------
    def arrays(self):
        """Vertices (N, 3), loops, loop starts, material names, material ids, rnd, loop UVs."""
        verts = np.concatenate(self.verts)
        names = sorted({mat for _, mat, _ in self.faces})
        loops, sizes, mats, rnds, uvs = [], [], [], [], []
        for group, mat, values in self.faces:
            corners = verts[group]  # (M, k, 3)
            loops.append(group.ravel())
            sizes.append(np.full(len(group), group.shape[1]))
            mats.append(np.full(len(group), names.index(mat)))
            rnds.append(values)
            uvs.append(_wall_uv(corners))
        sizes = np.concatenate(sizes)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        return (
            verts,
            np.concatenate(loops),
            starts,
            names,
            np.concatenate(mats),
            np.concatenate(rnds),
            np.concatenate(uvs),
        )

    def outer_triangles(self):
        """Triangles (T, 3, 3) by fans: enough for drawing sample points on the surface."""
        verts = np.concatenate(self.verts)
        parts = []
        for group, _, _ in self.faces:
            for k in range(1, group.shape[1] - 1):
                parts.append(verts[group[:, [0, k, k + 1]]])
        return np.concatenate(parts)


def _wall_uv(corners):
    """Metric texture coordinates: u along the wall, v up it (or up the slope of a roof)."""
    a = corners[:, 1] - corners[:, 0]
    b = corners[:, 2] - corners[:, 0]
    normal = np.cross(a, b)
    if corners.shape[1] > 3:  # a degenerate first triangle must not decide
        other = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 0])
        weak = np.linalg.norm(normal, axis=1) < 1e-9
        normal[weak] = other[weak]
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    along = np.stack([-normal[:, 1], normal[:, 0], np.zeros(len(normal))], 1)
    flat = np.abs(normal[:, 2]) > 0.99
    along[flat] = (1, 0, 0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    up = np.cross(normal, along)
    u = np.einsum("mkc,mc->mk", corners, along)
    v = np.einsum("mkc,mc->mk", corners, up)
    return np.stack([u, v], -1).reshape(-1, 2)
