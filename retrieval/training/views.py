"""What a network is shown in training: random square parts of pictures, and whole pictures.

Shapes are kept: a network trained on squashed pictures was worse on others (81.7 instead of 85.4
Medium on real photographs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from retrieval import images
from retrieval.images import Box
from retrieval.networks.checkpoints import Checkpoint
from retrieval.training.photographs import Photographs

LEAST_AREA = 0.5  # of a picture, in a view


def crop(picture: Image.Image, rng: np.random.Generator, size: int) -> np.ndarray:
    """A random part of a picture in another light: (size, size, 3) float32, 0 to 255."""
    return in_another_light(cut(picture, random_box(picture.size, rng), size), rng)


def random_box(size: tuple[int, int], rng: np.random.Generator) -> Box:
    """50 to 100 % of the area of a picture of (width, height), as near to a square as that goes.

    Up to a fifth wider or higher.
    """
    width, height = size
    area, aspect = rng.uniform(LEAST_AREA, 1) * width * height, np.exp(rng.uniform(-0.2, 0.2))
    w, h = min(width, (area * aspect) ** 0.5), min(height, (area / aspect) ** 0.5)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return x, y, x + w, y + h


def in_another_light(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Contrast and brightness of (H, W, 3) float32, 0 to 255, changed by 0.7 to 1.3."""
    mean = pixels.mean()
    contrast, brightness = rng.uniform(0.7, 1.3, 2).astype(np.float32)
    return ((pixels - mean) * contrast + mean * brightness).clip(0, 255)


def cut(picture: Image.Image, box: Box, size: int) -> np.ndarray:
    """A part of a picture as a square: (size, size, 3) float32, 0 to 255."""
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box), np.float32)


def stack(pictures: Sequence[np.ndarray], checkpoint: Checkpoint) -> torch.Tensor:
    """Normalised input (B, 3, H, W) of pictures (H, W, 3) float32 from 0 to 255."""
    pixels = np.stack(pictures) / np.float32(255)
    mean, std = np.array(checkpoint.mean, np.float32), np.array(checkpoint.std, np.float32)
    pixels = (pixels - mean) / std
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)  # channels-last in memory already


def whole(
    photos: Photographs, numbers: np.ndarray, size: int, checkpoint: Checkpoint
) -> Iterator[torch.Tensor]:
    """Inputs (1, 3, H, W) of whole pictures, ``size`` pixels on the longer side at most."""
    for number in numbers.tolist():
        picture = images.fit(photos.read(number), size)
        yield stack([np.asarray(picture, np.float32)], checkpoint)
