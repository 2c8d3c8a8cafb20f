"""What the steps of a method make of a picture, as small pictures that lie on any background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from retrieval.figures.local_features import DOT, INLIER
from retrieval.methods.base import LocalFeatures

HOT = (230, 20, 60)
POSITIVE, NEGATIVE = (0, 114, 178), (230, 159, 0)  # Okabe and Ito
GAP = 6  # pixels between the pictures of a mosaic
FAINT = 40  # opacity, of 255, of a number that is nothing: the strip is seen where it is empty


def overlay(picture: Image.Image, strength: np.ndarray) -> Image.Image:
    """A picture in grey, red where ``strength`` (h, w) is high: 0 nothing, its maximum most."""
    grey = picture.convert("L").convert("RGB")
    most = float(strength.max()) or 1.0
    mask = Image.fromarray(np.uint8(180 * (strength / most).clip(0, 1)))
    mask = mask.resize(grey.size, Image.Resampling.BICUBIC)
    grey.paste(Image.new("RGB", grey.size, HOT), mask=mask)
    return grey


def mosaic(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size in rows, with transparent gaps."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    whole = (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP)
    sheet = Image.new("RGBA", whole)
    for n, picture in enumerate(pictures):
        sheet.paste(picture, (n % columns * (width + GAP), n // columns * (height + GAP)))
    return sheet


def strip(vector: np.ndarray, width: int = 1280, height: int = 36) -> Image.Image:
    """Numbers (D,) as columns from left to right: the larger, the stronger.

    Blue above zero, orange below. Neighbours share a pixel where there are more than ``width``.
    """
    level = np.sqrt(np.abs(vector) / (np.abs(vector).max() or 1.0))  # small ones are seen too
    colours = np.where(vector[:, None] < 0, NEGATIVE, POSITIVE)
    opacity = FAINT + (255 - FAINT) * level[:, None]
    row = np.concatenate([colours, opacity], axis=1).astype(np.uint8)[None]
    method = Image.Resampling.BOX if len(vector) > width else Image.Resampling.NEAREST
    return Image.fromarray(row).resize((width, height), method)


def dots(picture: Image.Image, size: tuple[int, int], features: LocalFeatures) -> Image.Image:
    """Keypoints as circles: the smaller the pyramid scale, the larger. size: of the original."""
    drawn = picture.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    factor = picture.width / size[0]
    radii = DOT * max(picture.size) * features.scales.astype(float) ** -0.7 / 1.6
    for (x, y), radius in zip(features.keypoints * factor, radii, strict=True):
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, outline="white", width=4)
        pen.ellipse(box, outline=INLIER, width=2)
    return drawn
