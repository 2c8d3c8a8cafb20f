"""Synthetic second views of a picture: matching pairs without any label."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter


def second_view(picture: Image.Image, rng: np.random.Generator, size: int) -> Image.Image:
    """``picture`` as another visitor might have taken it.

    A crop of 35 to 100 % of the area seen under a mild perspective, at 0.7 to 1.2 × ``size``
    pixels on its longer side, in another light, sometimes blurred or grey.
    """
    width, height = picture.size
    area, aspect = rng.uniform(0.35, 1), np.exp(rng.uniform(-0.3, 0.3))
    w = min(width, int((area * width * height * aspect) ** 0.5))
    h = min(height, int((area * width * height / aspect) ** 0.5))
    x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    corners = np.array([[x, y], [x, y + h], [x + w, y + h], [x + w, y]], float)
    corners = (corners + rng.uniform(-0.12, 0.12, (4, 2)) * [w, h]).clip(0, [width, height])
    factor = rng.uniform(0.7, 1.2) * size / max(w, h)
    view = picture.transform(
        (max(32, round(w * factor)), max(32, round(h * factor))),
        Image.Transform.QUAD,
        corners.ravel().tolist(),
        Image.Resampling.BILINEAR,
    )
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = enhance(view).enhance(rng.uniform(0.5, 1.5))
    if rng.random() < 0.3:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
    if rng.random() < 0.1:
        view = view.convert("L").convert("RGB")
    return view
