"""Pooling of a feature map ``x`` (B, C, H, W), float32, into (B, C). Pure functions of torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

EPS = 1e-6  # as in cirtorch: activations are at least this, and it is added to norms


def mac(x: torch.Tensor) -> torch.Tensor:
    """Maximum activation (Tolias, Sicre and Jégou, ICLR 2016)."""
    return x.amax(dim=(-2, -1))


def spoc(x: torch.Tensor) -> torch.Tensor:
    """Average, without SPoC's centre prior (Babenko and Lempitsky, ICCV 2015)."""
    return x.mean(dim=(-2, -1))


def gem(x: torch.Tensor, p: float | torch.Tensor = 3.0) -> torch.Tensor:
    """Generalised mean, (mean xᵖ)^(1/p) (Radenović, Tolias and Chum, TPAMI 2018, eq. 3).

    p: one exponent, or one a channel as (C,). p = 1 is the average, p → ∞ the maximum.
    """
    p = _exponent(p)
    return x.clamp(min=EPS).pow(p).mean(dim=(-2, -1), keepdim=True).pow(1 / p)[..., 0, 0]


def _exponent(p: float | torch.Tensor) -> float | torch.Tensor:
    """An exponent in a shape that fits feature maps (B, C, H, W): a number, or (C, 1, 1)."""
    if not isinstance(p, torch.Tensor):
        return p
    return p.reshape(-1, 1, 1) if p.numel() > 1 else p.item()


def regions(height: int, width: int, levels: int = 3) -> list[tuple[int, int, int]]:
    """Square regions (top, left, side) of R-MAC on a feature map, coarse to fine.

    At level l the side is 2·min(H, W)/(l + 1); along the longer side there are as many more
    regions as bring their overlap nearest to 40 % (Tolias, Sicre and Jégou, ICLR 2016). The
    rounding is that of cirtorch, whose networks were trained with it.
    """
    short = min(height, width)
    steps = torch.arange(2, 8, dtype=torch.float32)
    shift = (max(height, width) - short) / (steps - 1)
    overlap = ((short**2 - short * shift) / short**2 - 0.4).abs()
    extra = int(overlap.argmin()) + 1
    more_w, more_h = (extra if height < width else 0), (extra if height > width else 0)

    squares = []
    for level in range(1, levels + 1):
        side = math.floor(2 * short / (level + 1))
        if side == 0:
            continue
        half = math.floor(side / 2 - 1)

        def starts(length: int, count: int, side: int = side, half: int = half) -> list[int]:
            step = (length - side) / (count - 1) if count > 1 else 0
            return (torch.floor(half + torch.arange(count) * step) - half).int().tolist()

        squares += [
            (top, left, side)
            for top in starts(height, level + more_h)
            for left in starts(width, level + more_w)
        ]
    return squares


def rmac(x: torch.Tensor) -> torch.Tensor:
    """Sum of the L2-normalised maxima of the whole map and of its regions (ICLR 2016)."""
    total = l2(mac(x))
    for top, left, side in regions(x.shape[2], x.shape[3]):
        total = total + l2(mac(x[:, :, top : top + side, left : left + side]))
    return total


def regional(
    x: torch.Tensor,
    pool: Callable[[torch.Tensor], torch.Tensor],
    whiten: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Any pooling over the whole map and the regions of R-MAC, summed: (B, C) of unit length.

    whiten: weight (C, C) and bias (C,) put on each region's unit vector before the sum, as in
    R-MAC with PCA whitening (Tolias, Sicre and Jégou, ICLR 2016).
    """
    squares = regions(x.shape[2], x.shape[3])
    parts = [x, *(x[:, :, top : top + side, left : left + side] for top, left, side in squares)]
    vectors = l2(torch.stack([pool(part) for part in parts], dim=1))  # (B, regions, C)
    vectors = l2(torch.nn.functional.linear(vectors, *whiten))
    return l2(vectors.sum(dim=1))


def l2(x: torch.Tensor) -> torch.Tensor:
    """Unit length along the last axis; as cirtorch does, with ``EPS`` added to the norm."""
    return x / (x.norm(dim=-1, keepdim=True) + EPS)


def gem_parts(x: torch.Tensor, p: float | torch.Tensor) -> torch.Tensor:
    """The contribution of each place to ``gem(x, p)``, which is their sum: (B, C, H, W).

    A place contributes in proportion to its power xᵖ; for p = 1 that is value / count.
    """
    p = _exponent(p)
    powers = x.clamp(min=EPS).pow(p)
    mean = powers.mean(dim=(-2, -1), keepdim=True)
    return mean.pow(1 / p) * powers / powers.sum(dim=(-2, -1), keepdim=True)


def spoc_parts(x: torch.Tensor) -> torch.Tensor:
    """The contribution of each place to ``spoc(x)``: (B, C, H, W)."""
    return x / (x.shape[-2] * x.shape[-1])


def l2_parts(parts: torch.Tensor) -> torch.Tensor:
    """Contributions (h, w, D) to a vector, divided by what ``l2`` divides the vector by."""
    return parts / (parts.sum(dim=(0, 1)).norm() + EPS)


# By cirtorch's names; "gemmp" is GeM with an exponent a channel.
POOLINGS = {"mac": mac, "spoc": spoc, "gem": gem, "gemmp": gem, "rmac": rmac}
