"""Procedural materials: stone, brick, slate, glass, leaves, ground.

Walls use metric texture coordinates (u along the wall, v up it), so courses run level on every
side. Three numbers are shared by all materials and set for each picture: `snow`, `brown` (how
wintry the grass is) and `lit` (how bright the windows and lamps are at dusk).
"""

import bpy

GLOBALS = ("snow", "brown", "lit")


class Nodes:
    """Shorthand for writing a node tree by hand."""

    def __init__(self, tree):
        self.tree = tree
        tree.nodes.clear()

    def new(self, kind, **inputs):
        """Make a node; keyword names are inputs, or attributes when written with a leading _."""
        node = self.tree.nodes.new(kind)
        for name, value in inputs.items():
            if name.startswith("_"):
                setattr(node, name[1:], value)
        for name, value in inputs.items():
            if not name.startswith("_"):
                self.set(node, name, value)
        return node

    def set(self, node, name, value):
        """Set an input by its name (spaces as _) or, like i0, by its position."""
        if name[0] == "i" and name[1:].isdigit():
            socket = node.inputs[int(name[1:])]
        else:
            socket = node.inputs[name.replace("_", " ")]
        if isinstance(value, bpy.types.NodeSocket):
            self.tree.links.new(value, socket)
        elif isinstance(value, tuple) and len(value) == 3 and socket.type == "RGBA":
            socket.default_value = (*value, 1)
        else:
            socket.default_value = value

    def math(self, operation, a, b=0.5, clamp=False):
        return self.new(
            "ShaderNodeMath", _operation=operation, _use_clamp=clamp, i0=a, i1=b
        ).outputs[0]

    def mix(self, fac, a, b, blend="MIX"):
        node = self.new("ShaderNodeMix", _data_type="RGBA", _blend_type=blend)
        self.set(node, "i0", fac)
        self.set(node, "i6", a)
        self.set(node, "i7", b)
        return node.outputs[2]

    def noise(self, vector, scale, detail=2.0, rough=0.55):
        return self.new(
            "ShaderNodeTexNoise", Vector=vector, Scale=scale, Detail=detail, Roughness=rough
        ).outputs[0]

    def scaled(self, vector, x, y, z):
        return self.new(
            "ShaderNodeVectorMath", _operation="MULTIPLY", i0=vector, i1=(x, y, z)
        ).outputs[0]

    def span(self, value, a, b, c=0.0, d=1.0):
        """Map a..b to c..d, clamped."""
        return self.new("ShaderNodeMapRange", i0=value, i1=a, i2=b, i3=c, i4=d).outputs[0]

    def attribute(self, name):
        return self.new("ShaderNodeAttribute", _attribute_name=name).outputs["Fac"]

    def ramp(self, fac, colours, constant=True):
        node = self.new("ShaderNodeValToRGB", Fac=fac)
        node.color_ramp.interpolation = "CONSTANT" if constant else "LINEAR"
        elements = node.color_ramp.elements
        while len(elements) < len(colours):
            elements.new(1.0)
        for i, colour in enumerate(colours):
            elements[i].position = i / len(colours) if constant else i / (len(colours) - 1)
            elements[i].color = (*colour, 1)
        return node.outputs[0]

    def shared(self, name):
        group = self.new("ShaderNodeGroup")
        group.node_tree = globals_group()
        return group.outputs[name]

    def finish(self, colour, rough=0.9, height=None, bump=0.02, snow=0.0, **more):
        """Principled surface with bump; `snow` says how much settles on upward faces."""
        geometry = self.new("ShaderNodeNewGeometry")
        if snow:
            up = self.new("ShaderNodeSeparateXYZ", Vector=geometry.outputs["Normal"]).outputs[2]
            patch = self.noise(geometry.outputs["Position"], 0.5, 5.0, 0.65)
            cover = self.math("MULTIPLY", self.span(up, 0.35, 0.65), self.span(patch, 0.40, 0.52))
            cover = self.math("MULTIPLY", cover, self.shared("snow"))
            cover = self.math("MULTIPLY", cover, snow)
            colour = self.mix(cover, colour, (0.82, 0.85, 0.9))
        shader = self.new("ShaderNodeBsdfPrincipled", Base_Color=colour, Roughness=rough, **more)
        if height is not None:
            node = self.new("ShaderNodeBump", Strength=1.0, Distance=bump, Height=height)
            self.set(shader, "Normal", node.outputs[0])
        self.new("ShaderNodeOutputMaterial", Surface=shader.outputs[0])
        return shader


def globals_group():
    """The node group that hands the picture's shared numbers to every material."""
    group = bpy.data.node_groups.get("picture")
    if group is None:
        group = bpy.data.node_groups.new("picture", "ShaderNodeTree")
        out = group.nodes.new("NodeGroupOutput")
        for name in GLOBALS:
            group.interface.new_socket(name, in_out="OUTPUT", socket_type="NodeSocketFloat")
            value = group.nodes.new("ShaderNodeValue")
            value.name = name
            group.links.new(value.outputs[0], out.inputs[name])
    return group


def set_globals(**values):
    """Set snow, brown or lit for the next picture."""
    for name, value in values.items():
        globals_group().nodes[name].outputs[0].default_value = value


def _weathered(n, colour, dirt=0.5, moss=0.25):
    """Patches, rain streaks and a dark damp foot: what keeps stone from looking like plastic."""
    position = n.new("ShaderNodeTexCoord").outputs["Object"]
    patches = n.noise(position, 0.35, 3.0)
    colour = n.mix(
        n.span(patches, 0.3, 0.75, 0.0, 0.55),
        colour,
        n.mix(1.0, colour, (0.62, 0.57, 0.5), "MULTIPLY"),
    )
    streaks = n.noise(n.scaled(position, 2.2, 2.2, 0.13), 1.0, 3.0, 0.65)
    colour = n.mix(n.span(streaks, 0.48, 0.8, 0.0, dirt), colour, (0.055, 0.05, 0.042))
    z = n.new("ShaderNodeSeparateXYZ", Vector=position).outputs[2]
    foot = n.math("ADD", z, n.math("MULTIPLY", patches, 1.6))
    return n.mix(n.span(foot, 0.6, 3.0, moss * 2.0, 0.0), colour, (0.07, 0.075, 0.05))


def _bricks(n, vector, size, mortar, a, b, grout, bias=0.0):
    node = n.new(
        "ShaderNodeTexBrick",
        Vector=vector,
        Color1=a,
        Color2=b,
        Mortar=grout,
        Scale=1.0,
        Mortar_Size=mortar,
        Mortar_Smooth=0.15,
        Bias=bias,
        Brick_Width=size[0],
        Row_Height=size[1],
    )
    return node.outputs[0], node.outputs[1]


def _uv(n):
    return n.new("ShaderNodeTexCoord").outputs["UV"]


def _new(name):
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    return material, Nodes(material.node_tree)


def ashlar(name, light, dark, size=(0.85, 0.38), dirt=0.5, mortar=0.008, rough=0.9):
    """Squared stone in courses."""
    material, n = _new(name)
    uv = _uv(n)
    grout = tuple(c * 0.45 for c in dark)
    colour, joint = _bricks(n, uv, size, mortar, light, dark, grout)
    grain = n.noise(uv, 9.0, 3.0, 0.7)
    colour = n.mix(n.span(grain, 0.3, 0.7, 0.3, 0.0), colour, tuple(c * 0.55 for c in light))
    rnd = n.attribute("rnd")
    colour = n.mix(n.span(rnd, 0, 1, 0.0, 0.25), colour, dark)
    odd = n.noise(n.scaled(uv, 1.3, 2.9, 1.0), 1.0, 1.0)  # some blocks weathered quite differently
    colour = n.mix(n.span(odd, 0.58, 0.66, 0.0, 0.45), colour, tuple(c * 0.5 for c in dark))
    colour = _weathered(n, colour, dirt)
    height = n.math("SUBTRACT", n.math("MULTIPLY", grain, 0.35), joint)
    n.finish(colour, rough, height, 0.02, snow=0.8)
    return material


def brickwork(name, a, b, grout=(0.42, 0.39, 0.34), bands=None, diaper=None, dirt=0.3):
    """Brick; `bands` = [(period, from, to, colour)] by height, `diaper` = a lozenge colour."""
    material, n = _new(name)
    uv = _uv(n)
    size = (0.225, 0.078)
    colour, joint = _bricks(n, uv, size, 0.007, a, b, grout)
    parts = n.new("ShaderNodeSeparateXYZ", Vector=uv)
    u, v = parts.outputs[0], parts.outputs[1]
    if diaper is not None:
        uq = n.math("MULTIPLY", n.math("FLOOR", n.math("DIVIDE", u, 0.1125)), 0.1125)
        vq = n.math("MULTIPLY", n.math("FLOOR", n.math("DIVIDE", v, 0.078)), 0.078)
        du = n.math("PINGPONG", n.math("DIVIDE", uq, 1.8), 0.5)
        dv = n.math("PINGPONG", n.math("DIVIDE", vq, 2.3), 0.5)
        line = n.math("LESS_THAN", n.math("ABSOLUTE", n.math("SUBTRACT", du, dv)), 0.045)
        line = n.math("MULTIPLY", line, n.math("SUBTRACT", 1.0, joint))
        colour = n.mix(line, colour, diaper)
    for period, low, high, tint in bands or ():
        place = n.math("FLOORED_MODULO", v, period)
        inside = n.math(
            "MULTIPLY", n.math("GREATER_THAN", place, low), n.math("LESS_THAN", place, high)
        )
        inside = n.math("MULTIPLY", inside, n.math("SUBTRACT", 1.0, joint))
        grain = n.noise(uv, 5.0, 1.0)
        colour = n.mix(inside, colour, n.mix(grain, tuple(c * 0.7 for c in tint), tint))
    colour = _weathered(n, colour, dirt, 0.15)
    n.finish(colour, 0.85, n.math("SUBTRACT", 0.0, joint), 0.01, snow=0.8)
    return material


def plaster(name, colours, dirt=0.35):
    """Rendered walls; each house takes its own colour."""
    material, n = _new(name)
    pick = n.new("ShaderNodeObjectInfo").outputs["Random"]
    colour = n.ramp(pick, colours)
    grain = n.noise(n.new("ShaderNodeTexCoord").outputs["Object"], 14.0, 2.0)
    colour = _weathered(n, colour, dirt, 0.2)
    n.finish(colour, 0.9, grain, 0.008)
    return material


def tiles(name, a, b, size=(0.28, 0.22), moss=0.3, rough=0.75):
    """Roof slates or tiles: overlapping rows, lichen."""
    material, n = _new(name)
    uv = _uv(n)
    dark = tuple(c * 0.3 for c in a)
    colour, joint = _bricks(n, uv, size, 0.012, a, b, dark)
    position = n.new("ShaderNodeTexCoord").outputs["Object"]
    lichen = n.noise(position, 1.3, 4.0, 0.7)
    colour = n.mix(n.span(lichen, 0.5, 0.75, 0.0, moss), colour, (0.16, 0.16, 0.07))
    v = n.new("ShaderNodeSeparateXYZ", Vector=uv).outputs[1]
    step = n.math("FRACT", n.math("DIVIDE", v, size[1]))
    height = n.math("SUBTRACT", n.math("MULTIPLY", step, -0.8), joint)
    n.finish(colour, rough, height, 0.03, snow=1.0)
    return material


def metal_roof(name, colour, stain):
    """Lead or copper sheets with standing seams in the texture and stains."""
    material, n = _new(name)
    uv = _uv(n)
    base, joint = _bricks(
        n,
        uv,
        (0.7, 2.4),
        0.03,
        colour,
        tuple(c * 0.8 for c in colour),
        tuple(c * 0.5 for c in colour),
    )
    position = n.new("ShaderNodeTexCoord").outputs["Object"]
    marks = n.noise(n.scaled(position, 2.0, 2.0, 0.4), 1.2, 4.0, 0.65)
    base = n.mix(n.span(marks, 0.4, 0.72, 0.0, 0.75), base, stain)
    n.finish(base, 0.5, joint, 0.03, snow=0.7, Metallic=0.15)
    return material


def glass(name, leaded=False, stained=False):
    """Panes: mostly dark mirrors, some with curtains, some lit at dusk."""
    material, n = _new(name)
    rnd = n.attribute("rnd")
    uv = _uv(n)
    position = n.new("ShaderNodeNewGeometry").outputs["Position"]
    depth = n.noise(position, 0.9, 1.0)
    colour = n.mix(depth, (0.012, 0.016, 0.02), (0.05, 0.06, 0.07))
    curtain = n.math("GREATER_THAN", rnd, 0.72 if not leaded else 2.0)
    colour = n.mix(curtain, colour, (0.42, 0.4, 0.36))
    glow = n.mix(depth, (1.0, 0.5, 0.16), (1.0, 0.75, 0.42))
    if stained:
        cells = n.new("ShaderNodeTexVoronoi", Vector=uv, Scale=3.5).outputs["Color"]
        colour = n.mix(0.5, colour, n.mix(1.0, cells, (0.16, 0.16, 0.2), "MULTIPLY"))
        glow = n.mix(0.6, glow, cells, "MULTIPLY")
    rough = 0.06
    if leaded:
        lead, _ = _bricks(n, uv, (0.16, 0.22), 0.012, (1, 1, 1), (0.6, 0.6, 0.6), (0.1, 0.1, 0.1))
        colour = n.mix(0.8, colour, lead, "MULTIPLY")
        glow = n.mix(1.0, glow, lead, "MULTIPLY")
        rough = 0.2
    lights_on = n.math("LESS_THAN", n.math("FRACT", n.math("MULTIPLY", rnd, 7.31)), 0.5)
    strength = n.math(
        "MULTIPLY",
        n.math("MULTIPLY", lights_on, n.shared("lit")),
        n.span(depth, 0.25, 0.75, 0.3, 1.0),
    )
    wave = n.noise(position, 0.7, 1.0)
    n.finish(colour, rough, wave, 0.02, Emission_Color=glow, Emission_Strength=strength)
    material.cycles.emission_sampling = "NONE"
    return material


def lamp_glow(name):
    """Lamp glass: white by day, the light source by night."""
    material, n = _new(name)
    strength = n.math("MULTIPLY", n.shared("lit"), 9.0)
    n.finish((0.8, 0.8, 0.75), 0.3, Emission_Color=(1.0, 0.72, 0.4), Emission_Strength=strength)
    return material


def plain(name, colour, rough=0.6, metallic=0.0, grain=0.0, snow=0.0):
    """A simple surface with a little variation from face to face."""
    material, n = _new(name)
    rnd = n.attribute("rnd")
    out = n.mix(n.span(rnd, 0, 1, 0, 0.35), colour, tuple(c * 0.55 for c in colour))
    height = None
    if grain:
        position = n.new("ShaderNodeTexCoord").outputs["Object"]
        height = n.noise(n.scaled(position, 1, 1, 0.2), grain, 2.0)
        out = n.mix(n.span(height, 0.35, 0.7, 0, 0.5), out, tuple(c * 0.45 for c in colour))
    n.finish(out, rough, height, 0.01, snow=snow, Metallic=metallic)
    return material


def assorted(name, colours, rough=0.6, by_object=False):
    """One of several colours: for each face group, or for each object (cars)."""
    material, n = _new(name)
    pick = n.new("ShaderNodeObjectInfo").outputs["Random"] if by_object else n.attribute("rnd")
    n.finish(n.ramp(pick, colours), rough)
    return material


def stripes(name, a, b, width=0.4):
    """Awning cloth."""
    material, n = _new(name)
    u = n.new("ShaderNodeSeparateXYZ", Vector=_uv(n)).outputs[0]
    which = n.math("GREATER_THAN", n.math("FLOORED_MODULO", u, width), width / 2)
    n.finish(n.mix(which, a, b), 0.8)
    return material


def leaves(name, light, dark, evergreen=False):
    """Leaves with light shining through; each leaf its own shade."""
    material, n = _new(name)
    rnd = n.attribute("rnd")
    tree = n.new("ShaderNodeObjectInfo").outputs["Random"]
    colour = n.mix(rnd, dark, light)
    colour = n.mix(n.span(tree, 0, 1, 0, 0.4), colour, (light[0] * 1.6, light[1] * 0.95, 0.02))
    if evergreen:
        up = n.new("ShaderNodeSeparateXYZ", Vector=n.new("ShaderNodeNewGeometry").outputs["Normal"])
        cover = n.math("MULTIPLY", n.span(up.outputs[2], 0.3, 0.7), n.shared("snow"))
        colour = n.mix(n.math("MULTIPLY", cover, 0.8), colour, (0.8, 0.83, 0.88))
    diffuse = n.new("ShaderNodeBsdfDiffuse", Color=colour)
    through = n.new("ShaderNodeBsdfTranslucent", Color=n.mix(0.5, colour, (0.3, 0.4, 0.03)))
    both = n.new("ShaderNodeMixShader", i0=0.35, i1=diffuse.outputs[0], i2=through.outputs[0])
    n.new("ShaderNodeOutputMaterial", Surface=both.outputs[0])
    return material


def grass(name):
    """Lawn: several scales of green, brown in winter, snow."""
    material, n = _new(name)
    position = n.new("ShaderNodeNewGeometry").outputs["Position"]
    broad = n.noise(position, 0.16, 4.0, 0.6)
    middle = n.noise(position, 1.7, 4.0, 0.7)
    fine = n.noise(position, 9.0, 4.0, 0.8)
    colour = n.mix(n.span(broad, 0.35, 0.65), (0.04, 0.085, 0.014), (0.12, 0.145, 0.032))
    colour = n.mix(n.span(middle, 0.4, 0.66), colour, n.mix(0.45, colour, (0.012, 0.03, 0.005)))
    colour = n.mix(n.span(middle, 0.4, 0.28, 0.0, 0.6), colour, (0.2, 0.17, 0.07))
    colour = n.mix(n.span(fine, 0.4, 0.62), colour, n.mix(0.6, colour, (0.01, 0.025, 0.004)))
    daisies = n.new("ShaderNodeTexVoronoi", Vector=position, Scale=3.2).outputs["Distance"]
    colour = n.mix(n.math("LESS_THAN", daisies, 0.07), colour, (0.6, 0.6, 0.5))
    wintry = n.mix(fine, (0.07, 0.062, 0.03), (0.17, 0.15, 0.075))
    colour = n.mix(n.math("MULTIPLY", n.shared("brown"), 0.75), colour, wintry)
    n.finish(colour, 0.95, fine, 0.12, snow=1.0)
    return material


def ground(name, light, dark, size=None, grain=6.0, mortar=0.012, rough=0.85, bump=0.015, snow=0.9):
    """Paving, cobbles, gravel, asphalt: blocks if `size` is given, stains, wet patches."""
    material, n = _new(name)
    uv = _uv(n)
    fine = n.noise(uv, grain, 3.0, 0.7)
    if size:
        colour, joint = _bricks(n, uv, size, mortar, light, dark, tuple(c * 0.4 for c in dark))
        height = n.math("SUBTRACT", n.math("MULTIPLY", fine, 0.3), joint)
    else:
        colour, height = n.mix(fine, dark, light), fine
    stains = n.noise(uv, 0.22, 4.0, 0.6)
    colour = n.mix(n.span(stains, 0.42, 0.7, 0, 0.55), colour, tuple(c * 0.4 for c in dark))
    wet = n.span(stains, 0.35, 0.65, rough, rough - 0.3)
    n.finish(colour, wet, height, bump, snow=snow)
    return material


def make_all():
    """Every material of the town, by name."""
    set_globals(snow=0.0, brown=0.0, lit=0.0)
    honey, honey_dark = (0.60, 0.47, 0.29), (0.44, 0.33, 0.19)
    pale, pale_dark = (0.60, 0.57, 0.49), (0.45, 0.42, 0.36)
    grey, grey_dark = (0.36, 0.35, 0.33), (0.25, 0.245, 0.235)
    brown, brown_dark = (0.42, 0.31, 0.2), (0.29, 0.2, 0.125)
    red, red_dark = (0.40, 0.14, 0.075), (0.27, 0.085, 0.05)
    ashlar("honey", honey, honey_dark)
    ashlar("honey_trim", (0.66, 0.53, 0.34), (0.55, 0.42, 0.26), (1.3, 3.0), dirt=0.35)
    ashlar("pale", pale, pale_dark, (1.0, 0.45))
    ashlar("pale_trim", (0.68, 0.65, 0.57), (0.56, 0.53, 0.46), (1.5, 3.0), dirt=0.35)
    ashlar("grey", grey, grey_dark, (0.7, 0.33), dirt=0.7)
    ashlar("grey_trim", (0.44, 0.43, 0.4), (0.33, 0.325, 0.31), (1.2, 3.0), dirt=0.6)
    ashlar("brown", brown, brown_dark, (0.6, 0.28), dirt=0.6)
    ashlar("brown_trim", (0.52, 0.41, 0.28), (0.4, 0.3, 0.2), (1.2, 3.0), dirt=0.5)
    ashlar("rubble", (0.46, 0.4, 0.3), (0.27, 0.23, 0.17), (0.42, 0.19), mortar=0.018)
    ashlar("rusticated", pale, pale_dark, (1.2, 0.6), mortar=0.035)
    cream, blue = (0.62, 0.52, 0.34), (0.075, 0.07, 0.085)
    brickwork(
        "poly_a",
        red,
        red_dark,
        bands=[(1.55, 0.0, 0.234, cream), (1.55, 0.31, 0.39, blue)],
        diaper=blue,
    )
    brickwork(
        "poly_b",
        (0.37, 0.15, 0.085),
        red_dark,
        bands=[(2.1, 0.0, 0.16, blue), (2.1, 0.24, 0.4, cream), (2.1, 0.48, 0.64, blue)],
    )
    brickwork("red_brick", red, red_dark)
    brickwork("brown_brick", (0.32, 0.2, 0.13), (0.2, 0.12, 0.08))
    brickwork("yellow_brick", (0.5, 0.39, 0.22), (0.36, 0.27, 0.15), dirt=0.45)
    plaster(
        "plaster",
        [
            (0.72, 0.67, 0.56),
            (0.66, 0.5, 0.33),
            (0.6, 0.62, 0.62),
            (0.7, 0.6, 0.42),
            (0.55, 0.38, 0.3),
            (0.74, 0.72, 0.68),
            (0.45, 0.52, 0.52),
            (0.66, 0.56, 0.5),
        ],
    )
    plaster("plaster_white", [(0.74, 0.71, 0.64)], dirt=0.3)
    plaster("plaster_ochre", [(0.62, 0.42, 0.17)], dirt=0.3)
    plaster("plaster_rose", [(0.6, 0.33, 0.26)], dirt=0.3)
    plaster("plaster_sage", [(0.36, 0.42, 0.32)], dirt=0.3)
    plaster("plaster_blue", [(0.3, 0.4, 0.5)], dirt=0.3)
    tiles("slate", (0.13, 0.135, 0.15), (0.08, 0.085, 0.1))
    tiles("clay", (0.32, 0.13, 0.07), (0.2, 0.085, 0.05))
    tiles("stone_tile", (0.3, 0.26, 0.2), (0.2, 0.17, 0.13), (0.36, 0.28), moss=0.5)
    metal_roof("lead", (0.2, 0.21, 0.22), (0.32, 0.33, 0.33))
    metal_roof("copper", (0.16, 0.36, 0.29), (0.07, 0.12, 0.09))
    metal_roof("bronze", (0.13, 0.1, 0.06), (0.1, 0.2, 0.16))
    glass("glass")
    glass("leaded", leaded=True)
    glass("stained", leaded=True, stained=True)
    lamp_glow("lamp")
    plain("void", (0.012, 0.011, 0.01), 1.0)
    plain("white_wood", (0.72, 0.71, 0.67), 0.5)
    plain("oak", (0.14, 0.08, 0.04), 0.6, grain=6.0)
    plain("dark_wood", (0.055, 0.035, 0.025), 0.7, grain=5.0)
    plain("bark", (0.1, 0.08, 0.06), 0.95, grain=4.0)
    plain("green_paint", (0.03, 0.1, 0.06), 0.35)
    plain("red_paint", (0.42, 0.03, 0.025), 0.3)
    plain("blue_paint", (0.03, 0.07, 0.22), 0.3)
    plain("iron", (0.02, 0.02, 0.022), 0.45, 0.5)
    plain("steel", (0.42, 0.43, 0.44), 0.35, 0.9)
    plain("gilt", (0.75, 0.5, 0.14), 0.3, 0.9)
    plain("clock", (0.05, 0.07, 0.15), 0.4)
    plain("rubber", (0.02, 0.02, 0.02), 0.8)
    plain("plank", (0.4, 0.3, 0.17), 0.8, grain=5.0)
    plain("net", (0.12, 0.25, 0.18), 0.9)
    plain("skin", (0.45, 0.27, 0.19), 0.6)
    plain("white_sheet", (0.75, 0.75, 0.72), 0.7)
    assorted(
        "cloth",
        [
            (0.04, 0.05, 0.09),
            (0.25, 0.04, 0.04),
            (0.02, 0.02, 0.02),
            (0.3, 0.28, 0.24),
            (0.05, 0.12, 0.2),
            (0.5, 0.48, 0.44),
            (0.1, 0.14, 0.07),
            (0.55, 0.35, 0.08),
        ],
        0.85,
    )
    assorted(
        "car_paint",
        [
            (0.02, 0.02, 0.025),
            (0.5, 0.5, 0.52),
            (0.3, 0.02, 0.02),
            (0.03, 0.06, 0.16),
            (0.6, 0.6, 0.58),
            (0.12, 0.13, 0.14),
            (0.08, 0.14, 0.1),
        ],
        0.2,
        by_object=True,
    )
    assorted(
        "goods",
        [
            (0.5, 0.1, 0.03),
            (0.15, 0.3, 0.04),
            (0.6, 0.42, 0.05),
            (0.3, 0.05, 0.12),
            (0.55, 0.5, 0.4),
        ],
        0.7,
    )
    assorted(
        "bloom", [(0.5, 0.03, 0.05), (0.6, 0.35, 0.02), (0.55, 0.5, 0.55), (0.3, 0.05, 0.3)], 0.8
    )
    stripes("awning_red", (0.5, 0.06, 0.05), (0.75, 0.72, 0.65))
    stripes("awning_green", (0.05, 0.22, 0.1), (0.75, 0.72, 0.65))
    stripes("awning_blue", (0.06, 0.13, 0.35), (0.75, 0.72, 0.65))
    leaves("leaf", (0.09, 0.17, 0.025), (0.025, 0.06, 0.01))
    leaves("leaf_dark", (0.05, 0.1, 0.02), (0.015, 0.035, 0.01))
    leaves("leaf_rust", (0.3, 0.13, 0.02), (0.14, 0.05, 0.012))
    leaves("needle", (0.035, 0.075, 0.03), (0.012, 0.03, 0.014), evergreen=True)
    leaves("ivy", (0.06, 0.12, 0.025), (0.02, 0.045, 0.012), evergreen=True)
    grass("grass")
    ground("paving", (0.4, 0.37, 0.32), (0.29, 0.27, 0.24), (0.9, 0.6))
    ground("cobbles", (0.24, 0.225, 0.2), (0.14, 0.13, 0.12), (0.19, 0.13), mortar=0.02, bump=0.03)
    ground("gravel", (0.46, 0.4, 0.3), (0.26, 0.22, 0.16), grain=22.0, bump=0.03)
    ground("asphalt", (0.085, 0.085, 0.088), (0.05, 0.05, 0.052), grain=25.0, snow=0.6)
    ground("earth", (0.14, 0.1, 0.06), (0.07, 0.05, 0.03), grain=4.0, bump=0.06)
    ground("far_hill", (0.06, 0.075, 0.045), (0.03, 0.045, 0.025), grain=0.05, snow=0.4)
    plain("water", (0.02, 0.03, 0.025), 0.05)
