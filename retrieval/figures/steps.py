"""Pictures of the steps of a method, for the page "How it works"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from retrieval.figures.local_features import DOT_RADIUS, INLIER
from retrieval.methods.base import LocalFeatures

# Of twelve hues, yellow differs most from grey pictures of buildings for red- and green-blind
# people, and blue differs most from yellow.
OVERLAY_COLOUR, BELOW_ZERO = (255, 225, 0), (0, 60, 255)
POSITIVE, NEGATIVE = (199, 127, 0), (0, 114, 178)  # after Okabe and Ito
GAP = 6  # pixels between the pictures of a mosaic
MIN_OPACITY = 40  # of 255, for a zero: a strip of zeros stays visible


def overlay(picture: Image.Image, strength: np.ndarray) -> Image.Image:
    """A picture in grey, covered with yellow: the higher ``strength``, the more opaque.

    strength: (h, w), resized to the picture; 0 is transparent.
    """
    grey = picture.convert("L").convert("RGB")
    maximum = float(strength.max()) or 1.0
    mask = Image.fromarray(np.uint8(180 * (strength / maximum).clip(0, 1)))
    mask = mask.resize(grey.size, Image.Resampling.BICUBIC)
    grey.paste(Image.new("RGB", grey.size, OVERLAY_COLOUR), mask=mask)
    return grey


def mosaic(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of the same size, row by row, with transparent gaps: one RGBA picture."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGBA", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP))
    for n, picture in enumerate(pictures):
        sheet.paste(picture, (n % columns * (width + GAP), n // columns * (height + GAP)))
    return sheet


def strip(vector: np.ndarray, width: int = 1280, height: int = 36) -> Image.Image:
    """The numbers of a vector (D,) as columns from left to right: RGBA of width × height pixels.

    Positive numbers are orange, negative ones blue; a larger absolute value is more opaque. Where D
    is larger than ``width``, neighbours share a pixel.
    """
    # The square root makes small numbers visible.
    level = np.sqrt(np.abs(vector) / (np.abs(vector).max() or 1.0))
    colours = np.where(vector[:, None] < 0, NEGATIVE, POSITIVE)
    opacity = MIN_OPACITY + (255 - MIN_OPACITY) * level[:, None]
    row = np.concatenate([colours, opacity], axis=1).astype(np.uint8)[None]
    method = Image.Resampling.BOX if len(vector) > width else Image.Resampling.NEAREST
    return Image.fromarray(row).resize((width, height), method)


def dots(picture: Image.Image, size: tuple[int, int], features: LocalFeatures) -> Image.Image:
    """A picture with its keypoints as circles; a smaller pyramid scale gives a larger circle.

    size: (width, height) of the original picture; the keypoints are in its pixels.
    """
    drawn = picture.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    factor = picture.width / size[0]
    radii = DOT_RADIUS * max(picture.size) * features.scales.astype(float) ** -0.7 / 1.6
    for (x, y), radius in zip(features.keypoints * factor, radii, strict=True):
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, outline="white", width=4)
        pen.ellipse(box, outline=INLIER, width=2)
    return drawn
