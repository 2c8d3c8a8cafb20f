"""The town in Blender: sites, sky, camera, one rendered picture and its passes."""

import itertools
import time
from math import atan2, cos, hypot, pi, radians, sin

import bpy
import context
import exr
import materials
import numpy as np
import plan
from landmarks import LANDMARKS
from mathutils import Matrix, Vector
from mathutils.bvhtree import BVHTree

POINTS = 512  # sample points on a landmark's surface
SCENERY = ("bus", "van", "scaffold", "lamp", "bicycles")


def to_blender(name, mesh):
    """A Blender mesh from a mesh.Mesh."""
    verts, loops, starts, names, mats, rnds, uvs = mesh.arrays()
    data = bpy.data.meshes.new(name)
    data.vertices.add(len(verts))
    data.vertices.foreach_set("co", verts.astype(np.float32).ravel())
    data.loops.add(len(loops))
    data.loops.foreach_set("vertex_index", loops.astype(np.int32))
    data.polygons.add(len(starts))
    data.polygons.foreach_set("loop_start", starts.astype(np.int32))
    for mat in names:
        data.materials.append(bpy.data.materials[mat])
    data.polygons.foreach_set("material_index", mats.astype(np.int32))
    data.attributes.new("rnd", "FLOAT", "FACE").data.foreach_set("value", rnds.astype(np.float32))
    layer = data.uv_layers.new(name="UVMap")
    layer.data.foreach_set("uv", uvs.astype(np.float32).ravel())
    data.update(calc_edges=True)
    return data


class Town:
    """All sites in one scene; one of them visible at a time."""

    def __init__(self, samples=10, threads=0):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.scene = bpy.context.scene
        self.samples, self.threads = samples, threads
        materials.make_all()
        self.meshes = {name: to_blender(name, mesh) for name, mesh in context.library().items()}
        self.points, self.cores, self.spots, self.blocked, self.trees = {}, {}, {}, {}, {}
        self.collections = {}
        self._settings()
        self._sky()
        for name in LANDMARKS:
            self._landmark_site(name)
        for name in plan.SITES:
            self._plain_site(name)
        self.extras = self._collection("extras")
        self.layers = {c.name: c for c in bpy.context.view_layer.layer_collection.children}

    # -- building -------------------------------------------------------------------------------
    def _collection(self, name):
        collection = bpy.data.collections.new(name)
        self.scene.collection.children.link(collection)
        return collection

    def _put(self, collection, item, x, y, turn=0.0, scale=1.0, z=0.0):
        """Place an instance; `turn` in degrees."""
        obj = bpy.data.objects.new(item, self.meshes[item])
        obj.location = (x, y, z)
        obj.rotation_euler = (0, 0, radians(turn))
        obj.scale = (scale,) * 3 if np.isscalar(scale) else scale
        self.collections[collection].objects.link(obj)
        return obj

    def _site(self, name):
        for suffix in ("", "_summer", "_winter"):
            self.collections[name + suffix] = self._collection(name + suffix)
        self.blocked[name] = []
        self.trees[name] = []

    def _patch(self, site, rect, mat, z):
        """A flat piece of ground."""
        x0, x1, y0, y1 = rect
        mesh = bpy.data.meshes.new(mat)
        mesh.from_pydata([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], [], [(0, 1, 2, 3)])
        layer = mesh.uv_layers.new(name="UVMap")
        for loop, uv in zip(layer.data, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), strict=True):
            loop.uv = uv
        mesh.materials.append(bpy.data.materials[mat])
        obj = bpy.data.objects.new(mat, mesh)
        self.collections[site].objects.link(obj)

    def _tree(self, site, rng, x, y, scale=None):
        k = int(rng.integers(context.TREES + 1))
        scale = rng.uniform(1.1, 1.75) if scale is None else scale
        turn = rng.uniform(0, 360)
        if k == context.TREES:
            self._put(site, f"conifer{rng.integers(2)}", x, y, turn, scale * 0.8)
        else:
            self._put(site + "_summer", f"tree{k}_summer", x, y, turn, scale)
            self._put(site + "_winter", f"tree{k}_winter", x, y, turn, scale)
        self.blocked[site].append((x, y, 1.2))
        self.trees[site].append((x, y))

    def _house(self, site, rng, x, y, turn):
        k = int(rng.integers(context.HOUSES))
        self._put(site, f"house{k}", x, y, turn)
        a = radians(turn)
        self.blocked[site].append((x - 5 * sin(a), y + 5 * cos(a), 8.0))

    def _horizon(self, site, rng):
        """Hills and a line of trees all round, so that no picture ends in an empty plain."""
        n = 96
        t = np.arange(n) * 2 * pi / n
        h = 16 + 9 * np.sin(t * 2 + rng.random() * 6) + 5 * np.sin(t * 5 + rng.random() * 6)
        verts = [(420 * cos(a), 420 * sin(a), z) for a, z in zip(t, np.zeros(n), strict=True)]
        verts += [(560 * cos(a), 560 * sin(a), z) for a, z in zip(t, h, strict=True)]
        faces = [(i, (i + 1) % n, (i + 1) % n + n, i + n) for i in range(n)]
        mesh = bpy.data.meshes.new("hills")
        mesh.from_pydata(verts, [], faces)
        mesh.materials.append(bpy.data.materials["far_hill"])
        obj = bpy.data.objects.new("hills", mesh)
        self.collections[site].objects.link(obj)
        for _ in range(46):
            a, r = rng.uniform(0, 2 * pi), rng.uniform(125, 230)
            self._tree(site, rng, r * cos(a), r * sin(a), rng.uniform(1.4, 2.2))
        self._patch(site, (-600, 600, -600, 600), "grass", -0.03)

    def _ring(self, site, rng, radius, gaps=0.1, centre=(0, -8)):
        """Houses all round, facing the middle."""
        a = rng.uniform(0, 1)
        stop = a + 2 * pi
        while a < stop - 7 / radius:
            if rng.random() > gaps:
                r = radius + rng.normal(0, 1.0)
                x, y = centre[0] + r * sin(a), centre[1] - r * cos(a)
                self._house(site, rng, x, y, 180 + a * 180 / pi)
            a += rng.uniform(8.6, 11.0) / radius

    def _people(self, site, rng, count, area):
        for _ in range(count):
            x, y = rng.uniform(*area[:2]), rng.uniform(*area[2:])
            heading = rng.uniform(0, 360)
            self._put(site, f"person{rng.integers(context.PEOPLE)}", x, y, heading)
            if rng.random() < 0.4:
                self._put(
                    site,
                    f"person{rng.integers(context.PEOPLE)}",
                    x + 0.6,
                    y + 0.2,
                    heading + rng.normal(0, 15),
                )

    def _landmark_site(self, name):
        spec = LANDMARKS[name]
        self._site(name)
        rng = np.random.default_rng([plan.SEED, 1, list(LANDMARKS).index(name)])
        mesh = spec["build"]()
        obj = bpy.data.objects.new(name, to_blender(name, mesh))
        obj.pass_index = 1
        self.collections[name].objects.link(obj)
        verts = np.concatenate(mesh.verts)
        reach = {
            "belltower": 8,
            "gatehouse": 10,
            "bridge": 9,
            "museum": 20,
            "exchange": 15,
            "market": 15,
            "bricks": 22,
            "hall": 18,
            "cloister": 16,
        }.get(name, 30)
        shift = {"bricks": -4, "hall": -3}.get(name, 0)
        depth = {"minster": 8, "chapel": 12, "priory": 10, "cloister": 15}.get(name, 40)
        core = verts[(abs(verts[:, 0] - shift) < reach) & (verts[:, 1] < depth)]
        self.cores[name] = core[rng.integers(0, len(core), 1500)]
        x0, y0, x1, y1 = *verts.min(0)[:2], *verts.max(0)[:2]
        self._points(name, mesh, rng, spec)
        for x in np.arange(x0, x1 + 1, 5):  # the footprint is no place for trees or cameras
            for y in np.arange(y0, y1 + 1, 5):
                if name != "cloister":
                    self.blocked[name].append((x, y, 4.0))
        self._horizon(name, rng)
        self._ring(name, rng, rng.uniform(66, 72), 0.08)
        self._ring(name, rng, 88, 0.3)
        kind = spec["ground"]
        if kind == "grass":
            self._patch(
                name,
                (-60, 60, -62, -24),
                "cobbles" if name in ("chapel", "hall") else "asphalt",
                0.0,
            )
            self._patch(name, (-60, 60, -25.5, -21.5), "paving", 0.06)
            self._patch(name, (-1.6, 1.6, -22, y0), "gravel", 0.02)
            self._patch(name, (x0 - 2, x1 + 2, y0 - 2.2, y0), "gravel", 0.015)
        else:
            self._patch(name, (-62, 62, -62, 50), kind, 0.0)
            self._patch(name, (x0 - 3, x1 + 3, y0 - 3, y1 + 2), "paving", 0.05)
            for _ in range(3):
                x, y = rng.uniform(-45, 45), rng.uniform(-52, -20)
                if abs(x) > 12:
                    self._patch(name, (x - 6, x + 6, y - 4, y + 4), "grass", 0.08)
        for _ in range(26):  # trees beside and behind, a few in front
            a = rng.uniform(-pi, pi)
            r = rng.uniform(24, 60)
            x, y = r * sin(a), -8 - r * cos(a)
            if abs(a) < 0.75 and rng.random() < 0.75:
                continue
            if self.free(name, x, y, 5.0):
                self._tree(name, rng, x, y)
        for _ in range(14):
            x, y = rng.uniform(-40, 40), rng.uniform(-45, 20)
            if self.free(name, x, y, 2.0):
                self._put(
                    name, f"bush{rng.integers(3)}", x, y, rng.uniform(0, 360), rng.uniform(0.7, 1.5)
                )
        for x in (-22, -9, 9, 22):
            for y in (-18.5, -38):
                self._put(name, "lamp", x + rng.normal(0, 1.5), y + rng.normal(0, 1))
        for _ in range(5):
            x, y = rng.uniform(-30, 30), rng.uniform(-40, -14)
            if self.free(name, x, y, 2):
                self._put(name, "bench", x, y, rng.choice([0, 180, 90]))
        for x in (-11, 7, 15):
            if name not in ("cloister", "bridge"):
                self._put(name, "bicycles", x + rng.normal(0, 2), y0 - 2.5, rng.choice([0, 180]))
        for k in range(7):
            side = rng.choice([-1, 1])
            if name != "cloister":
                self._put(
                    name,
                    f"car{rng.integers(3)}",
                    side * rng.uniform(22, 46),
                    -40 - 3.4 * (k % 3),
                    rng.choice([0, 180]) + rng.normal(0, 3),
                )
        if name in ("market", "museum", "exchange"):
            for k in range(7):
                x, y = rng.uniform(-22, 22), rng.uniform(-17, -10)
                self._put(name, f"stall{k % 3}", x, y, rng.normal(0, 12) + 180 * (k % 2))
        if kind == "grass" and name != "cloister":
            for x in (-33, -27, -21, -15, -9, 9, 15, 21, 27, 33):
                if rng.random() < 0.6:
                    self._put(name, str(rng.choice(["railing", "hedge"])), x, -21.0)
        self._put(name, "sign", rng.uniform(-16, 16), -19)
        for k in range(6):
            self._put(name, "bollard", -7.5 + 3 * k, -19.8)
        self._people(name, rng, 16, (-28, 28, -36, min(-6, y0 - 2)))

    def _points(self, name, mesh, rng, spec):
        """Sample points on what can be seen of the landmark from where people walk."""
        tri = mesh.outer_triangles()
        area = np.linalg.norm(np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0]), axis=1)
        pick = rng.choice(len(tri), 7000, p=area / area.sum())
        u = rng.random((7000, 2))
        u[u.sum(1) > 1] = 1 - u[u.sum(1) > 1]
        t = tri[pick]
        points = t[:, 0] + u[:, :1] * (t[:, 1] - t[:, 0]) + u[:, 1:] * (t[:, 2] - t[:, 0])
        points = points[points[:, 2] > 0.1]
        verts = np.concatenate(mesh.verts).tolist()
        faces = [tuple(f) for group, _, _ in mesh.faces for f in group.tolist()]
        tree = BVHTree.FromPolygons(verts, faces)
        seen = np.zeros(len(points), int)
        for azimuth in np.linspace(-spec["arc"], spec["arc"], 12) * pi / 180:
            eye = (spec["distance"] * sin(azimuth), 2 - spec["distance"] * cos(azimuth), 1.7)
            seen += self.faces(tree, points, eye)
        points = points[seen >= 2]
        self.points[name] = (points[rng.permutation(len(points))[:POINTS]], tree)

    @staticmethod
    def faces(tree, points, eye):
        """Which points the bare landmark shows to an eye: nothing of itself in between."""
        origin = Vector(eye)
        out = np.zeros(len(points), bool)
        for k, p in enumerate(points):
            ray = Vector(p) - origin
            length = ray.length
            hit = tree.ray_cast(origin, ray / length, length - 0.04)
            out[k] = hit[0] is None
        return out

    def free(self, site, x, y, margin):
        return all(hypot(x - a, y - b) > r + margin for a, b, r in self.blocked[site])

    def _plain_site(self, name):
        """Ordinary places without a landmark."""
        self._site(name)
        rng = np.random.default_rng([plan.SEED, 2, plan.SITES.index(name)])
        self._horizon(name, rng)
        spots = []
        if name in ("street", "lane", "crescent"):
            width = {"street": 9.0, "lane": 4.6, "crescent": 13.0}[name]
            bend = {"street": 0.0, "lane": 0.010, "crescent": 0.006}[name]
            ground = {"street": "asphalt", "lane": "cobbles", "crescent": "asphalt"}[name]
            self._patch(name, (-70, 70, -130, 130), ground, 0.0)
            s = -110.0
            while s < 110:
                heading = bend * s
                x = s * s * bend / 2
                step = rng.uniform(8.8, 10.5)
                for side in (-1, 1):
                    if rng.random() < 0.94:
                        off = width + rng.normal(0, 0.15)
                        self._house(name, rng, x + side * off, s, -90 * side - heading * 180 / pi)
                    else:
                        self._tree(name, rng, x + side * (width + 3), s)
                    if name != "lane" and rng.random() < 0.55:
                        self._put(
                            name,
                            f"car{rng.integers(3)}",
                            x + side * (width - 3.2),
                            s,
                            90 + 180 * (side > 0),
                        )
                    if name == "crescent" and rng.random() < 0.6:
                        self._put(name, "railing", x + side * (width - 1.2), s, 90)
                    if name == "crescent" and rng.random() < 0.4:
                        self._tree(name, rng, x + side * 1.0, s, rng.uniform(0.8, 1.2))
                if rng.random() < 0.5:
                    self._put(name, "lamp", x + rng.choice([-1, 1]) * (width - 1.3), s + 2)
                if rng.random() < 0.25:
                    self._put(name, "bicycles", x + rng.choice([-1, 1]) * (width - 1.0), s + 4, 90)
                if rng.random() < 0.1:
                    self._put(name, "van", x + width - 3, s + 4, 90)
                for way in (0, pi):
                    if abs(s) < 80:
                        spots.append(
                            (
                                x + (rng.uniform(-1, 1) * (width - 4.5 if width > 6 else 1.5)),
                                s,
                                -heading * 0 + way,
                            )
                        )
                s += step
            for side in (-1, 1):
                self._patch(
                    name,
                    (side * (width - 2) - 1.2, side * (width - 2) + 1.2, -130, 130),
                    "paving",
                    0.08,
                ) if bend == 0 else None
            self._people(name, rng, 34, (-width + 1.5, width - 1.5, -80, 80))
        elif name == "park":
            self._patch(name, (-2, 2, -90, 90), "gravel", 0.01)
            self._patch(name, (-90, 90, 8, 11.5), "gravel", 0.012)
            self._patch(name, (12, 38, -40, -14), "water", 0.02)
            self._patch(name, (10.6, 39.4, -41.4, -12.6), "paving", 0.012)
            self._ring(name, rng, 100, 0.15, (0, 0))
            for _ in range(85):
                x, y = rng.uniform(-75, 75), rng.uniform(-75, 75)
                if (
                    self.free(name, x, y, 4)
                    and abs(x) > 5
                    and abs(y - 9) > 5
                    and not (6 < x < 44 and -46 < y < -8)
                ):
                    self._tree(name, rng, x, y)
            for y in range(-60, 61, 15):
                for s in (-1, 1):
                    self._put(name, "bench", s * 3.4, y, 90 * s)
                    self._put(name, "lamp", s * 3.0, y + 7)
                    self._put(name, "hedge", s * 9, y + 5, 90)
            for _ in range(40):
                self._put(
                    name,
                    f"bush{rng.integers(3)}",
                    rng.uniform(-50, 50),
                    rng.uniform(-60, 60),
                    0,
                    rng.uniform(0.7, 1.6),
                )
            self._people(name, rng, 30, (-25, 25, -50, 50))
            spots = [(rng.uniform(-45, 45), rng.uniform(-55, 55), None) for _ in range(30)]
        elif name == "suburb":
            self._patch(name, (-5, 5, -130, 130), "asphalt", 0.0)
            self._patch(name, (-130, 130, -4, 4), "asphalt", 0.002)
            for s in np.arange(-100, 101, 15.0):
                for side in (-1, 1):
                    for axis in (0, 1):
                        if abs(s) < 14:
                            continue
                        x, y = (side * rng.uniform(13, 16), s + rng.normal(0, 1))
                        turn = -90 * side
                        if axis:
                            x, y, turn = y, x, 180 if side < 0 else 0
                        if self.free(name, x, y, 3):
                            self._house(name, rng, x, y, turn)
                        hx, hy = (side * 7, s) if not axis else (s, side * 7)
                        self._put(
                            name,
                            str(rng.choice(["hedge", "railing"])),
                            hx,
                            hy + (0 if axis else 2),
                            0 if axis else 90,
                        )
                        for _ in range(3):
                            bx, by = (
                                hx * rng.uniform(1.1, 1.5) if not axis else hx,
                                hy if not axis else hy * 1.4,
                            )
                            self._put(
                                name,
                                f"bush{rng.integers(3)}",
                                bx,
                                by + rng.normal(0, 2),
                                0,
                                rng.uniform(0.6, 1.3),
                            )
                        tx, ty = (side * 9.5, s + 7) if not axis else (s + 7, side * 9.5)
                        if rng.random() < 0.6:
                            self._tree(name, rng, tx, ty, rng.uniform(0.8, 1.3))
                        if rng.random() < 0.5:
                            cx, cy = (side * 4, s + 3) if not axis else (s + 3, side * 3)
                            self._put(name, f"car{rng.integers(3)}", cx, cy, 0 if axis else 90)
                for way in (0, pi):
                    spots += [(rng.uniform(-3, 3), s, way), (s, rng.uniform(-3, 3), way + pi / 2)]
            for _ in range(70):  # back gardens
                x, y = rng.uniform(-95, 95, 2)
                if min(abs(x), abs(y)) > 15 and self.free(name, x, y, 3):
                    self._tree(name, rng, x, y, rng.uniform(0.8, 1.5))
            self._ring(name, rng, 112, 0.2, (0, 0))
            self._people(name, rng, 20, (-6, 6, -80, 80))
        else:  # square
            self._patch(name, (-40, 40, -40, 40), "cobbles", 0.0)
            self._ring(name, rng, 36, 0.05, (0, 0))
            self._ring(name, rng, 56, 0.2, (0, 0))
            for _ in range(13):
                self._put(
                    name,
                    f"stall{rng.integers(3)}",
                    rng.uniform(-20, 20),
                    rng.uniform(-14, 14),
                    rng.choice([0, 90, 180]),
                )
            for _ in range(9):
                a = rng.uniform(0, 2 * pi)
                self._tree(name, rng, 25 * cos(a), 25 * sin(a), rng.uniform(0.8, 1.2))
            for _ in range(8):
                a = rng.uniform(0, 2 * pi)
                self._put(name, "lamp", 21 * cos(a), 21 * sin(a))
                self._put(name, "bench", 18 * cos(a + 0.3), 18 * sin(a + 0.3), a * 57)
                self._put(
                    name, f"car{rng.integers(3)}", 29 * cos(a + 0.2), 29 * sin(a + 0.2), a * 57 + 90
                )
            self._people(name, rng, 40, (-22, 22, -22, 22))
            spots = [(rng.uniform(-22, 22), rng.uniform(-22, 22), None) for _ in range(30)]
        self.spots[name] = spots

    # -- light and rendering ----------------------------------------------------------------------
    def _settings(self):
        scene = self.scene
        scene.render.engine = "CYCLES"
        c = scene.cycles
        c.device = "CPU"
        c.samples = self.samples
        c.use_adaptive_sampling = True
        c.adaptive_threshold = 0.06
        c.adaptive_min_samples = 4
        c.use_denoising = True
        c.denoiser = "OPENIMAGEDENOISE"
        c.denoising_prefilter = "FAST"
        c.denoising_quality = "FAST"
        c.denoising_input_passes = "RGB_ALBEDO_NORMAL"
        c.max_bounces = 3
        c.diffuse_bounces = 2
        c.glossy_bounces = 2
        c.transmission_bounces = 2
        c.transparent_max_bounces = 4
        c.caustics_reflective = c.caustics_refractive = False
        c.sample_clamp_indirect = 4.0
        c.debug_use_spatial_splits = False
        scene.render.use_persistent_data = True
        scene.render.resolution_percentage = 100
        if self.threads:
            scene.render.threads_mode = "FIXED"
            scene.render.threads = self.threads
        layer = scene.view_layers[0]
        layer.use_pass_z = True
        layer.use_pass_object_index = True
        out = scene.render.image_settings
        out.media_type = "MULTI_LAYER_IMAGE"
        out.file_format = "OPEN_EXR_MULTILAYER"
        out.color_depth = "32"
        out.exr_codec = "ZIP"
        out.use_exr_interleave = True  # one part: simpler to read
        scene.view_settings.view_transform = "Raw"
        camera = bpy.data.cameras.new("camera")
        camera.sensor_width = 36
        camera.clip_end = 2000
        camera.clip_start = 0.1
        self.camera = bpy.data.objects.new("camera", camera)
        scene.collection.objects.link(self.camera)
        scene.camera = self.camera

    def _sky(self):
        """Physical sky with clouds for the camera; mixes to a grey overcast dome."""
        world = bpy.data.worlds.new("sky")
        self.scene.world = world
        world.use_nodes = True
        n = materials.Nodes(world.node_tree)
        self.sky = n.new("ShaderNodeTexSky", _sky_type="MULTIPLE_SCATTERING", _sun_disc=True)
        self.sky.sun_size = radians(1.2)
        direction = n.new("ShaderNodeTexCoord").outputs["Generated"]
        parts = n.new("ShaderNodeSeparateXYZ", Vector=direction)
        height = parts.outputs[2]
        lift = n.math("ADD", n.math("MAXIMUM", height, 0.0), 0.12)
        flat = n.new(
            "ShaderNodeCombineXYZ",
            X=n.math("DIVIDE", parts.outputs[0], lift),
            Y=n.math("DIVIDE", parts.outputs[1], lift),
            Z=0.0,
        ).outputs[0]
        self.cloud_place = n.new(
            "ShaderNodeVectorMath", _operation="ADD", i0=flat, i1=(0.0, 0.0, 0.0)
        )
        cloud = n.noise(self.cloud_place.outputs[0], 0.75, 6.0, 0.58)
        self.cloud_cover = n.new("ShaderNodeMapRange", i0=cloud, i1=0.5, i2=0.72, i3=0.0, i4=1.0)
        self.grey = n.new("ShaderNodeMapRange", i0=height, i1=-0.1, i2=1.0, i3=0.7, i4=1.25)
        self.overcast = n.new("ShaderNodeValue")
        self.cloud_light = n.new("ShaderNodeRGB")
        soft = n.noise(self.cloud_place.outputs[0], 1.6, 4.0, 0.6)
        lit = n.mix(
            1.0,
            self.cloud_light.outputs[0],
            n.mix(n.span(soft, 0.32, 0.68), (0.45, 0.46, 0.5), (1.3, 1.3, 1.28)),
            "MULTIPLY",
        )
        clear = n.mix(self.cloud_cover.outputs[0], self.sky.outputs[0], lit)
        dull = n.mix(1.0, lit, self.grey.outputs[0], "MULTIPLY")
        dull = n.mix(1.0, dull, (0.55, 0.56, 0.58), "MULTIPLY")
        colour = n.mix(self.overcast.outputs[0], clear, dull)
        ray = n.new("ShaderNodeLightPath").outputs["Is Camera Ray"]
        seen = n.mix(
            ray,
            n.mix(self.overcast.outputs[0], self.sky.outputs[0], self.cloud_light.outputs[0]),
            colour,
        )
        background = n.new("ShaderNodeBackground", Color=seen, Strength=1.0)
        n.new("ShaderNodeOutputWorld", Surface=background.outputs[0])
        world.cycles.sampling_method = "MANUAL"
        world.cycles.sample_map_resolution = 512

    def set_light(self, view, sun, rng):
        """Sky, clouds, season and lit windows for one view. `sun` = (elevation, azimuth)."""
        elevation, azimuth = sun
        light = view["light"]
        self.sky.sun_elevation = radians(elevation)
        self.sky.sun_rotation = radians(180 - azimuth)
        self.sky.sun_disc = light in ("noon", "evening")
        self.sky.air_density = 1.0 if light != "evening" else 1.3
        self.sky.aerosol_density = rng.uniform(0.6, 2.0)
        self.overcast.outputs[0].default_value = {"overcast": 1.0}.get(light, 0.0)
        place = rng.uniform(-20, 20, 2)
        self.cloud_place.inputs[1].default_value = (place[0], place[1], 0)
        cover = {
            "noon": rng.uniform(0.44, 0.62),
            "evening": rng.uniform(0.44, 0.6),
            "overcast": 0.3,
            "dusk": rng.uniform(0.46, 0.6),
        }[light]
        self.cloud_cover.inputs[1].default_value = cover
        self.cloud_cover.inputs[2].default_value = cover + 0.2
        self.cloud_light.outputs[0].default_value = {
            "noon": (8.5, 8.6, 8.8, 1),
            "evening": (3.6, 2.9, 2.3, 1),
            "overcast": (1.6, 1.7, 1.85, 1),
            "dusk": (0.02, 0.021, 0.03, 1),
        }[light]
        season = view["season"]
        materials.set_globals(
            snow={"snow": rng.uniform(0.8, 1.0)}.get(season, 0.0),
            brown=0.0 if season == "summer" else 1.0,
            lit=rng.uniform(0.5, 1.0) if light == "dusk" else 0.0,
        )

    def show(self, view):
        """Make only this view's site and season visible."""
        site = view["site"]
        half = "_summer" if view["season"] == "summer" else "_winter"
        for name, layer in self.layers.items():
            hide = name not in (site, site + half, "extras")
            if layer.exclude != hide:
                layer.exclude = hide

    def aim(self, pose):
        """Put the camera there."""
        right, up, back = plan.look(pose["position"], np.array(pose["target"]))
        matrix = Matrix(
            [
                [right[0], up[0], back[0], 0],
                [right[1], up[1], back[1], 0],
                [right[2], up[2], back[2], 0],
                [0, 0, 0, 1],
            ]
        )
        matrix = (
            Matrix.Translation(pose["position"])
            @ matrix
            @ Matrix.Rotation(radians(pose["roll"]), 4, "Z")
        )
        self.camera.matrix_world = matrix
        self.camera.data.lens = pose["focal"]
        self.scene.render.resolution_x, self.scene.render.resolution_y = pose["size"]
        return matrix

    def lens_is_free(self, pose, reach=2.2):
        """Nothing within arm's reach of the lens: no leaf across half the picture."""
        depsgraph = bpy.context.evaluated_depsgraph_get()
        right, up, back = plan.look(pose["position"], np.array(pose["target"]))
        half = 18 / pose["focal"]
        for a in np.linspace(-0.9, 0.9, 7):
            for b in np.linspace(-0.9, 0.9, 7):
                ray = Vector(right * a * half + up * b * half - back).normalized()
                if self.scene.ray_cast(depsgraph, Vector(pose["position"]), ray, distance=reach)[0]:
                    return False
        return True

    def clear_between(self, position, points):
        """Share of the points that nothing but the landmark itself hides from a position."""
        depsgraph = bpy.context.evaluated_depsgraph_get()
        origin = Vector(position)
        good = 0
        for p in points:
            ray = Vector(p) - origin
            hit, _, _, _, _, _ = self.scene.ray_cast(
                depsgraph, origin, ray.normalized(), distance=ray.length - 0.3
            )
            good += not hit
        return good / max(1, len(points))

    def place_extra(self, view, pose, rng):
        """Set the things that stand in front in this view."""
        for obj in list(self.extras.objects):
            bpy.data.objects.remove(obj)
        kind = view["occluder"]
        if not kind:
            return
        self.collections["extras"] = self.extras
        position, target = np.array(pose["position"]), np.array(pose["target"])
        ahead = target[:2] - position[:2]
        reach = np.linalg.norm(ahead)
        ahead /= reach
        across = np.array([ahead[1], -ahead[0]])
        heading = atan2(ahead[1], ahead[0]) * 180 / pi
        half = 18 / pose["focal"] * pose["size"][0] / plan.LONG_SIDE

        def at(depth, side):
            return position[:2] + ahead * depth + across * side * depth * half

        if kind == "people":
            for _ in range(int(rng.integers(3, 8))):
                p = at(rng.uniform(6, 13), rng.uniform(-0.9, 0.9))
                self._put(
                    "extras", f"person{rng.integers(context.PEOPLE)}", *p, rng.uniform(0, 360)
                )
        elif kind in ("bus", "van"):
            p = at(min(reach * 0.5, 20 if kind == "bus" else 13), rng.uniform(-0.5, 0.5))
            self._put("extras", kind, *p, heading + 90 + rng.normal(0, 8))
        elif kind == "tree":
            p = at(rng.uniform(9, 14), rng.choice([-1, 1]) * rng.uniform(0.35, 0.8))
            k = int(rng.integers(context.TREES))
            season = "summer" if view["season"] == "summer" else "winter"
            self._put("extras", f"tree{k}_{season}", *p, rng.uniform(0, 360), rng.uniform(0.8, 1.2))
        elif kind == "lamp":
            p = at(rng.uniform(4.5, 7), rng.uniform(-0.6, 0.6))
            self._put("extras", "lamp", *p)
            q = at(rng.uniform(6, 9), rng.uniform(-0.8, 0.8))
            self._put("extras", "bicycles", *q, heading + rng.normal(90, 30))
        elif kind == "scaffold":
            core = self.cores[view["site"]]
            front = np.quantile(core[:, 1], 0.02)
            x = rng.uniform(-0.4, 0.4) * np.ptp(core[:, 0])
            self._put("extras", "scaffold", x, front - 2.4)

    def pose_for(self, view, rng):
        """Find a camera: try a few, keep the first from which the subject is clear enough."""
        site = view["site"]
        best, best_share = None, -1.0
        for _ in range(14):
            if site in LANDMARKS:
                pose = plan.solve(view, LANDMARKS[site], self.cores[site], rng)
                x, y, _ = pose["position"]
                if not self.free(site, x, y, 1.5 if site != "cloister" else 0.5):
                    continue
                points, tree = self.points[site]
                sample = points[:160]
                sample = sample[self.faces(tree, sample, pose["position"])]
                share = self.clear_between(pose["position"], sample)
                enough = (
                    0.85 if view["role"] == "q" else 0.7 if view["kind"] in ("view", "cut") else 0.5
                )
            else:
                pose = plan.solve_scene(view, self.spots[site], rng)
                x, y, _z = pose["position"]
                if not self.free(site, x, y, 1.0):
                    continue
                direction = np.array(pose["target"]) - pose["position"]
                fan = [
                    np.array(pose["position"]) + direction / 20 * 6 + (0, 0, dz)
                    for dz in (-1.0, 0, 1.0, 2.0)
                ]
                share = self.clear_between(pose["position"], fan)
                enough = 0.9
            if not self.lens_is_free(pose):
                share *= 0.3
            if share > best_share:
                best, best_share = pose, share
            if share >= enough:
                break
        if best is None:
            best = pose
        return best

    def shoot(self, view, folder):
        """Render one view; returns its record. The passes go to <folder>/<id>.npz."""
        start = time.time()
        rng = np.random.default_rng([plan.SEED, 7, view["seed"]])
        for obj in list(self.extras.objects):
            bpy.data.objects.remove(obj)
        self.show(view)
        bpy.context.view_layer.update()
        pose = self.pose_for(view, rng)
        self.place_extra(view, pose, rng)
        sun = plan.sun_for(view, rng)
        self.set_light(view, sun, rng)
        matrix = self.aim(pose)
        path = f"{folder}/{view['id']}.exr"
        self.scene.render.filepath = path
        clock = [start, time.time()]
        bpy.ops.render.render(write_still=True)
        clock.append(time.time())
        channels = exr.read(path)

        def get(*ends):
            return next(v for k, v in channels.items() if k.endswith(ends))

        rgb = np.stack([get(f"Combined.{c}") for c in "RGB"], -1)
        depth, index = get("Depth.Z", "Depth.V"), get("Index.X", "IndexOB.X", "Index.V")
        np.savez_compressed(
            f"{folder}/{view['id']}.npz",
            rgb=rgb.astype(np.float16),
            depth=depth.astype(np.float32),
            mask=np.packbits(index > 0.5, axis=None),
            shape=np.array(index.shape),
        )
        record = dict(view) | pose | {"sun_elevation": float(sun[0]), "sun_azimuth": float(sun[1])}
        if view["site"] in LANDMARKS:
            record |= self._measure(view["site"], pose, matrix, depth, index > 0.5)
        clock.append(time.time())
        record["seconds"] = [round(b - a, 2) for a, b in itertools.pairwise(clock)]
        return record

    def _measure(self, site, pose, matrix, depth, mask):
        """Which sample points the picture shows, and which it would show if nothing hid them."""
        points, tree = self.points[site]
        eye = np.array(pose["position"])
        facing = self.faces(tree, points, eye)
        local = (points - eye) @ np.array(matrix.to_3x3())
        z = -local[:, 2]
        h, w = mask.shape
        f = pose["focal"] / 36 * max(h, w)
        x = w / 2 + f * local[:, 0] / np.maximum(z, 1e-6)
        y = h / 2 - f * local[:, 1] / np.maximum(z, 1e-6)
        inside = facing & (z > 0.1) & (x >= 0) & (x < w) & (y >= 0) & (y < h)
        seen = np.zeros(len(points), bool)
        for k in np.flatnonzero(inside):
            i, j = int(y[k]), int(x[k])
            window = (slice(max(0, i - 1), i + 2), slice(max(0, j - 1), j + 2))
            near = np.abs(depth[window] - z[k]) < 0.35 + 0.012 * z[k]
            seen[k] = bool((near & mask[window]).any())
        middle = np.array([0, 2, LANDMARKS[site]["aim"]])
        return {
            "facing": int(facing.sum()),
            "inside": int(inside.sum()),
            "seen": int(seen.sum()),
            "bits": np.packbits(seen).tobytes().hex(),
            "distance": float(np.linalg.norm(eye[:2] - middle[:2])),
            "true_azimuth": float(atan2(eye[0], -(eye[1] - 2)) * 180 / pi),
        }
