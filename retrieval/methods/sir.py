"""SIR: simple image retrieval. Frozen features, one fully connected layer, cosine similarity."""

from __future__ import annotations

import torch

from retrieval.methods import pooling
from retrieval.methods.base import GlobalMethod, head_layer
from retrieval.networks import checkpoints, trunks


class SIR(GlobalMethod):
    """Average-pooled features of a frozen classification network → 1024-d layer → L2."""

    name = "sir"
    title = "SIR"
    defaults = {"size": 320}

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings):
        super().__init__(checkpoint, **settings)
        weights = checkpoints.load(checkpoint)
        self.trunk = trunks.build(checkpoint.trunk, "final", weights.trunk)
        # Without its layer it is the plain features: what the layer is fitted on.
        self.layer = None
        if weights.head:
            self.layer = head_layer(weights.head, "weight", "bias", self.trunk.channels)

    def _vectors(self, inputs: torch.Tensor) -> torch.Tensor:
        vectors = pooling.l2(pooling.spoc(self.trunk(inputs)).cpu())
        if self.layer is not None:
            vectors = pooling.l2(torch.nn.functional.linear(vectors, *self.layer))
        return vectors
