"""Figures of local features, for the page and the command line: images, keypoints, matches.

Functions are named as in Hierarchical-Localization (utils/viz.py). Coordinates are (x, y) in pixels
of the original picture, whatever resolution it is drawn at. pyplot is not used: see
``figures.evaluation``.

Arguments of several functions: note: the small print, of one line or more. size: (width, height) of
the original picture, where the picture given is a smaller copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retrieval.figures.style import small_print, style_axes
from retrieval.methods.base import LocalFeatures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import Collection, EllipseCollection
    from matplotlib.figure import Figure

    from retrieval.methods.delf import Attention

INLIER, OUTLIER, BOX = "#0072B2", "#E69F00", "#F0E442"  # Okabe and Ito
COLOUR_MAP = "viridis"  # lightness rises evenly, and colour-blind people can read it
DOT_RADIUS = 0.018  # of a keypoint of scale 1, as a share of the picture's longer side
MAX_WIDTH, MAX_HEIGHT = 10.0, 7.5  # inches of the pictures together
FOOT_HEIGHT = 0.3  # inches of a small print of one line
LINE_HEIGHT = 0.15  # inches of each further line
GAP = 0.02  # between pictures, as a share of the height of the highest
MAX_SIDE = 1400  # pixels of the longer side at which a picture is drawn


@dataclass(frozen=True)
class Sheet:
    """A figure with pictures of equal area side by side. The highest is 1 unit of ``axes`` high.

    For each picture, in units of ``axes``: left, the x of its left edge; widths; heights; factors,
    units per pixel of the original.
    """

    figure: Figure
    axes: Axes
    left: tuple[float, ...]
    widths: tuple[float, ...]
    heights: tuple[float, ...]
    factors: tuple[float, ...]

    def place(self, number: int, points: np.ndarray) -> np.ndarray:
        """Convert points (M, 2), x and y in pixels of picture ``number``, to units of ``axes``."""
        return np.asarray(points) * self.factors[number] + [self.left[number], 0]


def images(
    pictures: Sequence[Image.Image],
    note: str,
    room: float = 0.0,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Sheet:
    """Pictures side by side. room: inches to leave free between them and the small print."""
    from matplotlib.figure import Figure

    sizes = sizes or [picture.size for picture in pictures]
    # With equal heights instead of areas, a narrow picture beside a wide one would be tiny.
    heights = np.array([(height / width) ** 0.5 for width, height in sizes])
    heights /= heights.max()
    widths = [high * width / height for high, (width, height) in zip(heights, sizes, strict=True)]
    left = tuple(sum(widths[:n]) + GAP * n for n in range(len(widths)))
    whole = left[-1] + widths[-1]
    height = min(MAX_WIDTH / whole, MAX_HEIGHT)
    below = room + FOOT_HEIGHT + LINE_HEIGHT * note.count("\n")
    width = max(height * whole, 4.5)
    figure = Figure((width, height + below), facecolor="white")
    share = height * whole / width
    axes = figure.add_axes(
        ((1 - share) / 2, below / (height + below), share, height / (height + below))
    )
    for picture, start, wide, high in zip(pictures, left, widths, heights, strict=True):
        small = picture.copy()
        small.thumbnail((MAX_SIDE, MAX_SIDE))
        axes.imshow(small, extent=(start, start + wide, high, 0), aspect="auto")
    axes.set_xlim(0, whole)
    axes.set_ylim(1, 0)
    axes.set_axis_off()
    small_print(figure, note)
    factors = [high / height for high, (_, height) in zip(heights, sizes, strict=True)]
    return Sheet(figure, axes, left, tuple(widths), tuple(heights), tuple(factors))


def keypoints(
    picture: Image.Image,
    features: LocalFeatures,
    note: str,
    size: tuple[int, int] | None = None,
    score_label: str = "Attention score",
) -> Figure:
    """Keypoints as circles, coloured by score. A smaller pyramid scale gives a larger circle.

    score_label: the label of the colour bar.
    """
    size = size or picture.size
    sheet = images([picture], note, 0.75, [size])
    if len(features):
        longer = max(size)
        radii = DOT_RADIUS * longer * features.scales.astype(float) ** -0.7
        circles = _circles(sheet, features.keypoints, radii, 1.4, features.scores)
        _colour_bar(sheet, circles, score_label)
    return sheet.figure


def receptive_fields(
    picture: Image.Image,
    features: LocalFeatures,
    sides: np.ndarray,
    note: str,
    size: tuple[int, int] | None = None,
) -> Figure:
    """The square that each keypoint sees, coloured by score. sides: (N,) pixels."""
    from matplotlib.collections import PolyCollection

    size = size or picture.size
    sheet = images([picture], note, 0.75, [size])
    if len(features):
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
        squares = features.keypoints[:, None] + sides[:, None, None] * corners
        squares = sheet.place(0, squares)
        for width, colour in ((4, "white"), (2, None)):
            drawn = PolyCollection(list(squares), facecolors="none", linewidths=width)
            _set_colours(drawn, features.scores, colour)
            sheet.axes.add_collection(drawn, autolim=False)
        dots = np.full(len(features), 0.008 * max(size))
        _circles(sheet, features.keypoints, dots, 2, features.scores)
        _colour_bar(sheet, drawn, "Attention score")
    return sheet.figure


def attention_map(
    picture: Image.Image,
    attention: Attention,
    note: str,
    size: tuple[int, int] | None = None,
) -> Figure:
    """The attention of one pyramid level, laid over the picture in grey."""
    size = size or picture.size
    sheet = images([picture.convert("L").convert("RGB")], note, 0.75, [size])

    def edges(centres: np.ndarray, end: int) -> tuple[float, float]:
        step = (centres[-1] - centres[0]) / (len(centres) - 1) if len(centres) > 1 else end
        return centres[0] - step / 2, centres[-1] + step / 2

    x, y = edges(attention.x, size[0]), edges(attention.y, size[1])
    (x0, y0), (x1, y1) = sheet.place(0, np.array([[x[0], y[0]], [x[1], y[1]]]))
    drawn = sheet.axes.imshow(
        attention.scores, cmap=COLOUR_MAP, alpha=0.62, extent=(x0, x1, y1, y0), aspect="auto",
        interpolation="bilinear",
    )  # fmt: skip
    sheet.axes.set_xlim(0, sheet.widths[0])
    sheet.axes.set_ylim(1, 0)
    _colour_bar(sheet, drawn, "Attention score")
    return sheet.figure


def histograms(features: LocalFeatures, note: str) -> Figure:
    """Two histograms: attention scores and pyramid scales of the keypoints."""
    from matplotlib.figure import Figure

    figure = Figure((10, 3.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, sharey=False)
    if len(features):
        left.hist(features.scores, bins=30, color=INLIER)
    left.set_xlabel("Attention score")
    levels, counts = np.unique(features.scales, return_counts=True)
    right.bar([f"{level:.2g}" for level in levels], counts, color=INLIER)
    right.set_xlabel("Pyramid scale (2: twice as wide as at 1)")
    for axes in (left, right):
        axes.set_ylabel("Keypoints")
        style_axes(axes)
        axes.grid(axis="x", visible=False)
    small_print(figure, note)
    return figure


def matches(
    pictures: tuple[Image.Image, Image.Image],
    points: tuple[np.ndarray, np.ndarray],
    inliers: np.ndarray,
    note: str,
    outlines: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    outliers: bool = True,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Figure:
    """Lines between matched keypoints: inliers blue and solid, outliers orange and dashed.

    points: (M, 2) in each picture, x and y; row i of both is match i. inliers: (M,) bool. outlines:
    corners (4, 2) of the query box in the first picture, and their images in the second under the
    estimated transformation. outliers: whether to draw the outliers.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    sheet = images(pictures, note, 0.4, sizes)
    lines = np.stack([sheet.place(n, side) for n, side in enumerate(points)], axis=1)
    if outliers:
        drawn = LineCollection(
            lines[~inliers], colors=OUTLIER, linewidths=0.9, linestyles=(0, (4, 2)), alpha=0.8
        )
        sheet.axes.add_collection(drawn, autolim=False)
    for width, colour in ((2.4, "white"), (1.2, INLIER)):  # white shows on dark pictures
        alpha = 1 if colour == INLIER else 0.5
        drawn = LineCollection(lines[inliers], colors=colour, linewidths=width, alpha=alpha)
        sheet.axes.add_collection(drawn, autolim=False)
    for number in (0, 1):
        sheet.axes.plot(
            *lines[inliers, number].T, "o", color=INLIER, markersize=4, markeredgecolor="white",
            markeredgewidth=0.7,
        )  # fmt: skip
    for number, outline in enumerate(outlines):
        if outline is not None and np.isfinite(outline).all():
            _draw_outline(sheet, number, outline)
    handles = [Line2D([], [], color=INLIER, lw=2.5, label=f"{inliers.sum()} inliers")]
    if outliers:
        label = f"{(~inliers).sum()} outliers"
        handles.append(Line2D([], [], color=OUTLIER, lw=1.5, ls="--", label=label))
    if outlines[0] is not None:
        handles.append(Line2D([], [], color="#b5a800", lw=3, label="Query, carried over"))
    sheet.axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, fontsize=12,
        frameon=False, borderaxespad=0,
    )  # fmt: skip
    return sheet.figure


def _draw_outline(sheet: Sheet, number: int, outline: np.ndarray) -> None:
    """Draw a frame with these corners (4, 2) in one picture; what lies outside of it is cut off."""
    from matplotlib.patches import Polygon, Rectangle

    corner = sheet.left[number], 0
    frame = Rectangle(
        corner, sheet.widths[number], sheet.heights[number], transform=sheet.axes.transData
    )
    for width, colour in ((5, "black"), (2.8, BOX)):
        polygon = Polygon(
            sheet.place(number, outline), closed=True, fill=False, color=colour, linewidth=width,
            joinstyle="round",
        )  # fmt: skip
        sheet.axes.add_patch(polygon)
        polygon.set_clip_path(frame)


def aligned(
    picture_a: Image.Image,
    size_a: tuple[int, int],
    picture_b: Image.Image,
    size_b: tuple[int, int],
    matrix: np.ndarray,
) -> Image.Image:
    """Picture a, transformed to lie over b: RGBA of the size of b, transparent outside of a.

    size_a, size_b: (width, height) of the originals; picture_a and picture_b may be smaller copies.
    matrix: (2, 3) or (3, 3), from (x, y) in pixels of the original a to those of the original b.
    """
    import cv2

    homography = np.vstack([matrix, [0, 0, 1]]) if len(matrix) == 2 else matrix
    to_original_a = np.diag([size_a[0] / picture_a.width, size_a[1] / picture_a.height, 1])
    from_original_b = np.diag([picture_b.width / size_b[0], picture_b.height / size_b[1], 1])
    pixels = np.dstack([np.asarray(picture_a), np.full(picture_a.size[::-1], 255, np.uint8)])
    copy_to_copy = from_original_b @ homography @ to_original_a
    return Image.fromarray(cv2.warpPerspective(pixels, copy_to_copy, picture_b.size))


def _circles(
    sheet: Sheet, points: np.ndarray, radii: np.ndarray, width: float, scores: np.ndarray
) -> EllipseCollection:
    """Draw circles with white edges, coloured by score, with the highest score on top.

    points: (N, 2), x and y, and radii: (N,), in pixels. width: of the line, in points. scores:
    (N,), highest first.
    """
    from matplotlib.collections import EllipseCollection

    # The circle that is drawn last lies on top.
    points, radii, scores = points[::-1], radii[::-1], scores[::-1]
    diameters = 2 * radii * sheet.factors[0]
    for extra, colour in ((1.4, "white"), (0, None)):
        drawn = EllipseCollection(
            diameters, diameters, np.zeros(len(points)), units="xy",
            offsets=sheet.place(0, points), offset_transform=sheet.axes.transData,
            facecolors="none", linewidths=width + extra,
        )  # fmt: skip
        _set_colours(drawn, scores, colour)
        sheet.axes.add_collection(drawn, autolim=False)
    return drawn


def _set_colours(drawn: Collection, scores: np.ndarray, colour: str | None) -> None:
    """Draw lines in ``colour``, or, where that is None, in the colours of their scores (N,)."""
    if colour:
        drawn.set_edgecolor(colour)
        drawn.set_alpha(0.6)
        return
    drawn.set_array(np.asarray(scores, float))
    drawn.set_cmap(COLOUR_MAP)


def _colour_bar(sheet: Sheet, drawn: ScalarMappable, label: str) -> None:
    height = sheet.figure.get_figheight()
    axes = sheet.figure.add_axes((0.2, (FOOT_HEIGHT + 0.46) / height, 0.6, 0.14 / height))
    bar = sheet.figure.colorbar(drawn, cax=axes, orientation="horizontal")
    assert bar.solids is not None
    bar.solids.set_alpha(1)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=12, labelpad=2)
    axes.tick_params(labelsize=11)
