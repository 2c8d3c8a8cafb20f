"""Why two pictures are alike for a method with one descriptor a picture: place by place.

The cosine of two descriptors is a sum over channels, and each descriptor is a sum over the places
of its picture (``GlobalMethod.places``). So the cosine is a sum over pairs of places, one of each
picture: the map of one picture is what each of its places adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.images import Box

MOST = 16  # places along the longer side: fine enough to see, and few enough to compare in pairs


@dataclass(frozen=True)
class Places:
    """What each place of a picture adds to its descriptor.

    vectors: (h, w, D) float32, which sum to the descriptor. box: x1, y1, x2, y2 of what they cover
    as equal cells, in pixels of the original picture.
    """

    vectors: np.ndarray
    box: Box

    @property
    def shape(self) -> tuple[int, int]:
        return self.vectors.shape[0], self.vectors.shape[1]


def pairs(a: Places, b: Places) -> np.ndarray:
    """What each pair of places adds to the cosine: (h_a, w_a, h_b, w_b) float32.

    All of it sums to the cosine; the sum over b's places is the map of a, and the other way round.
    """
    return np.einsum("ijd,kld->ijkl", a.vectors, b.vectors)


def one_grid(levels: Sequence[np.ndarray]) -> np.ndarray:
    """Several grids of vectors (h, w, D) over the same picture as one, with the same sum.

    The result is as fine as the first, and has at most ``MOST`` cells along its longer side.
    """
    height, width, _ = levels[0].shape
    factor = min(1.0, MOST / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    whole = np.zeros((*size, levels[0].shape[2]))
    for level in levels:
        rows, columns = (_spread(old, new) for old, new in zip(level.shape, size, strict=False))
        whole += np.einsum("yi,xj,ijd->yxd", rows, columns, level, optimize=True)
    return whole.astype(np.float32)


def _spread(old: int, new: int) -> np.ndarray:
    """(new, old) float64: the share of each old cell that lies in each new one."""
    left = np.maximum.outer(np.arange(new) / new, np.arange(old) / old)
    right = np.minimum.outer(np.arange(1, new + 1) / new, np.arange(1, old + 1) / old)
    return np.maximum(right - left, 0) * old
