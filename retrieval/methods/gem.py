"""CNN-IRwNHA: convolutional features, GeM pooling, whitening, several scales.

Radenović, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
TPAMI 2018. Reproduces the descriptors of the authors' cirtorch for networks in its format.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from retrieval import checkpoints, trunks
from retrieval.errors import RetrievalError
from retrieval.methods import pooling
from retrieval.methods.base import Method


class GeM(Method):
    """Feature map → pooling → L2 → whitening → L2 at each scale, then their mean → L2."""

    name = "cnn-irwnha"
    title = "CNN-IRwNHA"
    kind = "global"
    defaults = {"size": 1024, "scales": [1.0]}

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings):
        super().__init__(checkpoint, **settings)
        weights = checkpoints.load(checkpoint)
        kind = weights.meta.get("pooling", "gem")
        if kind not in pooling.POOLINGS or weights.meta.get("regional"):
            raise RetrievalError(f"Networks with {kind} pooling over regions are not supported.")
        self.trunk = trunks.build(checkpoint.trunk, "final", weights.trunk)
        self.pool = pooling.POOLINGS[kind]
        self.p = torch.from_numpy(weights.head.get("pool.p", np.float32([3.0])))
        self.whiten = None
        if "whiten.weight" in weights.head:
            self.whiten = tuple(
                torch.from_numpy(weights.head[key].astype(np.float32))
                for key in ("whiten.weight", "whiten.bias")
            )
        # Scales are averaged as xᵖ only for plain GeM; vectors out of a whitening layer have
        # signs and are averaged as they are (cirtorch's ``msp``).
        several = len(self.settings["scales"]) > 1
        self.msp = self.p.item() if several and kind == "gem" and self.whiten is None else 1.0

    @torch.inference_mode()
    def describe(self, picture, box=None):
        full = self._input(picture, box)
        total = sum(self._at(full, scale).pow(self.msp) for scale in self.settings["scales"])
        mean = (total / len(self.settings["scales"])).pow(1 / self.msp)
        return (mean / mean.norm())[0].numpy()

    def _at(self, full: torch.Tensor, scale: float) -> torch.Tensor:
        """Descriptor (1, D) at one scale."""
        if scale != 1:
            full = F.interpolate(full, scale_factor=scale, mode="bilinear", align_corners=False)
        features = self.trunk(full)
        pooled = self.pool(features, self.p) if self.pool is pooling.gem else self.pool(features)
        vector = pooling.l2(pooled)
        return vector if self.whiten is None else pooling.l2(F.linear(vector, *self.whiten))
