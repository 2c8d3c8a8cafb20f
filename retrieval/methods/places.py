"""Which places of two pictures make their descriptors similar, for methods with one descriptor.

The cosine of two descriptors is a sum over channels, and each descriptor is a sum over the places
of its picture (``GlobalMethod.places``). So the cosine is a sum over pairs of places, one of each
picture. The map of one picture shows the contribution of each of its places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.images import Box

MAX_CELLS = 16  # along the longer side: fine enough to see, and few enough to compare in pairs


@dataclass(frozen=True)
class Places:
    """The contribution of each place of a picture to its descriptor.

    vectors: (h, w, D) float32; their sum is the descriptor. box: (x1, y1, x2, y2) in pixels of the
    original picture, which h × w equal cells cover.
    """

    vectors: np.ndarray
    box: Box

    @property
    def shape(self) -> tuple[int, int]:
        return self.vectors.shape[0], self.vectors.shape[1]


def pairs(a: Places, b: Places) -> np.ndarray:
    """The contribution of each pair of places to the cosine: (h_a, w_a, h_b, w_b) float32.

    The sum of all is the cosine. The sum over the places of b is the map of a, and the other way
    round.
    """
    return np.einsum("ijd,kld->ijkl", a.vectors, b.vectors)


def one_grid(levels: Sequence[np.ndarray]) -> np.ndarray:
    """One grid (h, w, D) float32 with the same sum as several grids over the same picture.

    levels: grids of vectors, each with its own h and w. The result has the shape of the first, or
    a smaller one with MAX_CELLS cells along its longer side.
    """
    height, width, _ = levels[0].shape
    factor = min(1.0, MAX_CELLS / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    total = np.zeros((*size, levels[0].shape[2]))
    for level in levels:
        rows, columns = (_spread(old, new) for old, new in zip(level.shape, size, strict=False))
        total += np.einsum("yi,xj,ijd->yxd", rows, columns, level, optimize=True)
    return total.astype(np.float32)


def _spread(old: int, new: int) -> np.ndarray:
    """(new, old) float64: the share of each old cell that lies in each new one."""
    left = np.maximum.outer(np.arange(new) / new, np.arange(old) / old)
    right = np.minimum.outer(np.arange(1, new + 1) / new, np.arange(1, old + 1) / old)
    return np.maximum(right - left, 0) * old
