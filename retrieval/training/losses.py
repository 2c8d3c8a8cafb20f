"""Losses of metric learning on tuples of descriptors. Pure functions of torch.

A batch is (N, D), rows of unit length, in tuples of equal length: a query (label −1), its
positive (1), then its negatives (0). Both losses are sums, not means, as in cirtorch.
"""

from __future__ import annotations

import torch


def contrastive(
    x: torch.Tensor, labels: torch.Tensor, margin: float = 0.85, eps: float = 1e-6
) -> torch.Tensor:
    """The contrastive loss of a batch, a scalar: it pulls positives near and pushes negatives to
    a distance of at least ``margin``.

    x: (N, D). labels: (N,). ½ Σ y d² + (1 − y) max(0, margin − d)² over all pairs with the query,
    d = ‖q − x + eps‖, where eps keeps the gradient finite at d = 0. Hadsell, Chopra and LeCun,
    CVPR 2006; used by Radenović, Tolias and Chum, TPAMI 2018; cirtorch trains ResNet-101 with
    margin 0.85. Raises ValueError where the batch is no whole number of tuples.
    """
    query, others, y = _pairs(x, labels)
    distance = (query - others + eps).pow(2).sum(dim=-1).sqrt()
    attraction = y * distance.pow(2)
    repulsion = (1 - y) * (margin - distance).clamp(min=0).pow(2)
    return 0.5 * (attraction + repulsion).sum()


def triplet(x: torch.Tensor, labels: torch.Tensor, margin: float = 0.5) -> torch.Tensor:
    """The triplet loss of a batch, a scalar: it is 0 where each negative is farther from the query
    than the positive by ``margin``, in squared distances.

    x: (N, D). labels: (N,). Σ max(0, ‖q − p‖² − ‖q − n‖² + margin) over all negatives. Schroff,
    Kalenichenko and Philbin, CVPR 2015. Raises ValueError where the batch is no whole number of
    tuples.
    """
    query, others, y = _pairs(x, labels)
    squared = (query - others).pow(2).sum(dim=-1)  # (tuples, length − 1)
    positive = squared[y == 1].unsqueeze(1)
    negatives = squared[y == 0].reshape(len(squared), -1)
    return (positive - negatives + margin).clamp(min=0).sum()


def _pairs(x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries (T, 1, D), the other rows of their tuples (T, L − 1, D), and whether these match the
    query, 0 or 1, (T, L − 1).
    """
    count = int((labels == -1).sum())
    length = len(labels) // max(count, 1)
    wanted = torch.tensor([-1.0, 1.0, *[0.0] * (length - 2)], device=labels.device)
    if not count or length < 3 or len(x) != count * length or len(labels) != count * length:
        raise ValueError("A batch must consist of whole tuples: query, positive, negatives.")
    if not torch.equal(labels.float().reshape(count, length), wanted.expand(count, length)):
        raise ValueError("Each tuple is labelled -1 (query), 1 (positive), 0 … (negatives).")
    tuples = x.reshape(count, length, -1)
    return tuples[:, :1], tuples[:, 1:], wanted[1:].expand(count, length - 1).to(x.dtype)
