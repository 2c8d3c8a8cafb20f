"""SIR: simple image retrieval. Frozen features, one fully connected layer, cosine similarity."""

from __future__ import annotations

import torch

from retrieval.errors import RetrievalError
from retrieval.methods import pooling
from retrieval.methods.base import GlobalMethod, head_layer
from retrieval.networks import checkpoints, trunks


class SIR(GlobalMethod):
    """Average-pooled features of a frozen classification network → 1024-d layer → L2.

    power: 0.5 takes the square root of the features first, so that a few strong ones do not decide
    alone (Perronnin, Sánchez and Mensink, ECCV 2010); 1 leaves them. enlarge: whether pictures that
    are smaller than ``size`` are enlarged to it.
    """

    name = "sir"
    title = "SIR"
    defaults = {"size": 320, "enlarge": False, "power": 1.0}
    exponent = 1.0  # the average

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings):
        super().__init__(checkpoint, **settings)
        if not 0 < self.settings["power"] <= 1:
            raise RetrievalError("The power of SIR is a number above 0, at most 1: choose one.")
        weights = checkpoints.load(checkpoint)
        self.trunk = trunks.build(checkpoint.trunk, "final", weights.trunk)
        # A checkpoint without the layer gives the features on which the layer is trained.
        self.final_layer = None
        if weights.head:
            self.final_layer = head_layer(weights.head, "weight", "bias", self.trunk.channels)

    def _vectors(self, inputs: torch.Tensor) -> torch.Tensor:
        vectors = pooling.spoc(self._features(inputs)).cpu()
        if self.settings["power"] != 1:
            vectors = vectors.clamp(min=0).pow(self.settings["power"])
        vectors = pooling.l2(vectors)
        if self.final_layer is not None:
            vectors = pooling.l2(torch.nn.functional.linear(vectors, *self.final_layer))
        return vectors

    def place_vectors(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        features = self._features(inputs)[0].cpu().permute(1, 2, 0)  # (h, w, C)
        count = features.shape[0] * features.shape[1]
        parts = features / count
        if self.settings["power"] != 1:
            # The power is taken of the sum over all places; each place keeps its share of that. A
            # sum below zero, as networks without a last ReLU have, counts as zero.
            total = parts.sum(dim=(0, 1))
            factors = total.clamp(min=1e-12).pow(self.settings["power"] - 1)
            parts = parts * factors * (total > 0)
        parts = pooling.l2_parts(parts)
        if self.final_layer is not None:
            weight, bias = self.final_layer
            parts = pooling.l2_parts(torch.nn.functional.linear(parts, weight, bias / count))
        return [parts]
