"""CNN-IRwNHA's own training: a siamese network, contrastive loss, no human annotation.

Radenović, Tolias and Chum, TPAMI 2018: tuples of a query, a picture that matches it and five that
do not; the non-matching ones are the hardest of the moment, each of another group of pictures. The
pairs come from geometry (``training.pairs``). Batch norms stay as they are; the trunk and GeM's
exponent are trained. Afterwards a whitening layer is learned for the new features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from retrieval import checkpoints, trunks
from retrieval.methods import pooling
from retrieval.training import views
from retrieval.training.losses import contrastive

MARGIN = 0.85
NEGATIVES = 5  # of a tuple
BATCH = 5  # tuples whose gradients are added up
RATE, DECAY = 1e-5, 1e-4
SEED = 0


@dataclass(frozen=True)
class Epoch:
    """loss: mean of a tuple. p: GeM's exponent. hard: mean cosine of the negatives when mined."""

    loss: float
    p: float
    hard: float


class Network(nn.Module):
    """Trunk → GeM → L2, all of which can be trained."""

    def __init__(self, checkpoint: checkpoints.Checkpoint):
        super().__init__()
        weights = checkpoints.load(checkpoint)
        self.features = trunks.unfolded(checkpoint.trunk, "final", weights.trunk)
        p = weights.head.get("pool.p", np.array([3.0], np.float32))
        self.p = nn.Parameter(torch.tensor(p))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, C) of unit length."""
        x = self.features(x).clamp(min=1e-6).pow(self.p).mean(dim=(-2, -1)).pow(1 / self.p)
        return pooling.l2(x)


def train(
    network: Network,
    pictures: Sequence[Image.Image],
    prepare: Callable[[Image.Image], torch.Tensor],
    positives: Sequence[tuple[int, int]],
    groups: np.ndarray,
    size: int,
    epochs: int,
) -> Iterator[Epoch]:
    """Train in place, an epoch at a time.

    prepare: picture → input (1, 3, H, W). positives: numbers of pictures that match. groups (n,):
    pictures of one group are never negatives of each other. size: pixels of the longer side.
    """
    rng = np.random.default_rng(SEED)
    device = next(network.parameters()).device
    optimiser = torch.optim.Adam(
        [
            {"params": network.features.parameters(), "weight_decay": DECAY},
            {"params": [network.p], "lr": 10 * RATE, "weight_decay": 0.0},
        ],
        lr=RATE,
    )
    labels = torch.tensor([-1.0, 1.0] + [0.0] * NEGATIVES)
    for epoch in range(epochs):
        for group in optimiser.param_groups:
            group["lr"] *= np.exp(-0.05) if epoch else 1.0
        with torch.inference_mode():
            known = torch.cat([network(prepare(picture).to(device)) for picture in pictures]).cpu()
        losses, hard = [], []
        order = rng.permutation(len(positives))
        for step, chosen in enumerate(order, 1):
            query, positive = positives[chosen]
            negatives = hardest(known, query, groups)
            hard.append(float((known[negatives] @ known[query]).mean()))
            seen = [
                views.second_view(pictures[number], rng, size)
                for number in (query, positive, *negatives)
            ]
            vectors = torch.cat([network(prepare(view).to(device)) for view in seen])
            loss = contrastive(vectors, labels.to(device), MARGIN)
            loss.backward()
            losses.append(float(loss.detach()))
            if step % BATCH == 0 or step == len(order):
                optimiser.step()
                optimiser.zero_grad()
        yield Epoch(float(np.mean(losses)), float(network.p.detach().mean()), float(np.mean(hard)))


def hardest(known: torch.Tensor, query: int, groups: np.ndarray) -> list[int]:
    """The pictures most like the query of other groups than its own, one of each group."""
    found, used = [], {groups[query]}
    for number in (-(known @ known[query])).argsort().tolist():
        if groups[number] not in used:
            found.append(number)
            used.add(groups[number])
            if len(found) == NEGATIVES:
                break
    return found
