"""CNN-IRwNHA: convolutional features, GeM pooling, whitening, several scales.

GeM, the generalised mean, pools each channel x of the feature map into (mean of xᵖ)^(1/p): p = 1
gives the mean, a large p nearly the maximum. Whitening is a linear layer that weakens what differs
between pictures of the same thing (``training.whitening`` learns one).

Radenović, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
TPAMI 2018. Reproduces the descriptors of the authors' cirtorch for networks in its format: every
pooling, over the whole map or over regions, with local, regional and final whitening layers, and
with learned whitening (``Lw``) where the file brings one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from retrieval.errors import RetrievalError
from retrieval.methods import pooling
from retrieval.methods.base import GlobalMethod, check_outputs
from retrieval.networks import checkpoints, trunks
from retrieval.networks.weights import Weights

Layer = tuple[torch.Tensor, torch.Tensor]  # weight (d, D) and bias (d,)

LW = "retrieval-SfM-120k"  # of several whitenings in a file, the one of the authors' tables


class GeM(GlobalMethod):
    """Feature map → pooling → L2 → whitening → L2 at each scale, then their mean → L2 → Lw → L2."""

    name = "cnn-irwnha"
    title = "CNN-IRwNHA"
    defaults = {
        "size": 1024,  # pixels of the longer side at scale 1
        "enlarge": False,  # whether smaller pictures are enlarged to it
        "scales": [1.0],
    }

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings):
        super().__init__(checkpoint, **settings)
        weights = checkpoints.load(checkpoint)
        self.trunk = trunks.build(checkpoint.trunk, "final", weights.trunk)
        meta, width = weights.meta, self.trunk.channels
        # Each layer takes as many numbers as the one before it gives.
        self.local_layer = _layer(weights, width, "lwhiten", meta.get("local_whitening"))
        width = len(self.local_layer[1]) if self.local_layer else width
        self.pool, p, width = _pooling(weights, width)
        self.final_layer = _layer(weights, width, "whiten", meta.get("whitening"))
        width = len(self.final_layer[1]) if self.final_layer else width
        # What each place contributes to the pooled value; maxima and regions have no such parts.
        gem = partial(pooling.gem_parts, p=p)
        parts: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "gem": gem, "gemmp": gem, "spoc": pooling.spoc_parts,
        }  # fmt: skip
        self.pooling_parts = None if meta.get("regional") else parts.get(meta.get("pooling", "gem"))
        # The vectors x of the scales are averaged as GeM averages places, (mean of xᵖ)^(1/p), only
        # for plain GeM; those out of a whitening layer have negative numbers and are averaged as
        # they are: p = 1 (cirtorch's ``msp``).
        several = len(self.settings["scales"]) > 1
        plain = meta.get("pooling", "gem") == "gem" and not meta.get("regional")
        self.msp = p.item() if several and plain and self.final_layer is None else 1.0
        self.learned_whitening = _learned_whitening(meta, several, width)
        if plain and len(p) == 1 and self.msp == 1 and self.learned_whitening is None:
            self.exponent = p.item()

    def _vectors(self, inputs: torch.Tensor) -> torch.Tensor:
        first, *rest = (self._at(inputs, scale).pow(self.msp) for scale in self.settings["scales"])
        mean = (sum(rest, first) / len(self.settings["scales"])).pow(1 / self.msp)
        vectors = mean / mean.norm(dim=1, keepdim=True)
        if self.learned_whitening is not None:
            vectors = pooling.l2(F.linear(vectors, *self.learned_whitening))
        return vectors

    def _features(self, inputs: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        features = super()._features(inputs, scale)
        if self.local_layer is not None:
            weight, bias = self.local_layer
            features = F.conv2d(features, weight[:, :, None, None], bias)
        return features

    def _at(self, inputs: torch.Tensor, scale: float) -> torch.Tensor:
        """Descriptors (B, D) at one scale."""
        features = self._features(inputs, scale)
        vectors = pooling.l2(self.pool(features))
        return (
            vectors
            if self.final_layer is None
            else pooling.l2(F.linear(vectors, *self.final_layer))
        )

    def place_vectors(self, inputs: torch.Tensor) -> list[torch.Tensor] | None:
        if self.pooling_parts is None:
            return None
        scales = self.settings["scales"]
        levels = [self._parts_at(inputs, scale) for scale in scales]
        if self.msp == 1:
            levels = [level / len(levels) for level in levels]
        else:  # of the mean of powers, each scale has the share of its own power
            values = torch.stack([level.sum(dim=(0, 1)) for level in levels])
            powers = values.pow(self.msp)
            mean = powers.mean(dim=0).pow(1 / self.msp)
            factors = mean * powers / powers.sum(dim=0) / values
            levels = [level * factor for level, factor in zip(levels, factors, strict=True)]
        length = torch.stack([level.sum(dim=(0, 1)) for level in levels]).sum(dim=0).norm()
        levels = [level / length for level in levels]
        if self.learned_whitening is not None:
            weight, bias = (tensor.cpu() for tensor in self.learned_whitening)
            levels = [
                F.linear(level, weight, bias / (len(levels) * level.shape[0] * level.shape[1]))
                for level in levels
            ]
            total = torch.stack([level.sum(dim=(0, 1)) for level in levels]).sum(dim=0)
            levels = [level / (total.norm() + pooling.EPS) for level in levels]
        return levels

    def _parts_at(self, inputs: torch.Tensor, scale: float) -> torch.Tensor:
        """What each place contributes to the descriptor of one scale: (h, w, D)."""
        features = self._features(inputs, scale)
        assert self.pooling_parts is not None
        parts = pooling.l2_parts(self.pooling_parts(features)[0].permute(1, 2, 0).float().cpu())
        if self.final_layer is not None:
            weight, bias = (tensor.cpu() for tensor in self.final_layer)
            count = parts.shape[0] * parts.shape[1]
            parts = pooling.l2_parts(F.linear(parts, weight, bias / count))
        return parts


def _layer(weights: Weights, channels: int, name: str, required: Any) -> Layer | None:
    """Weight (d, channels) and bias (d,) of a whitening layer of the head; None without one.

    Raises RetrievalError where it does not fit, or where it is required and missing.
    """
    weight, bias = (weights.head.get(f"{name}.{key}") for key in ("weight", "bias"))
    if weight is None and bias is None and not required:
        return None
    if (
        weight is None
        or bias is None
        or bias.ndim != 1
        or not bias.size
        or weight.shape != (len(bias), channels)
    ):
        raise RetrievalError(
            f"The whitening layer {name} of the weights does not fit their network: give it a "
            f"weight (d, {channels}) and a bias (d)."
        )
    check_outputs(name, len(bias))
    return _tensor(weight), _tensor(bias)


def _pooling(
    weights: Weights, channels: int
) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor, int]:
    """The network's pooling of (B, C, H, W) into (B, D), its exponents p (1,) or (C,), and D."""
    kind, regional = weights.meta.get("pooling", "gem"), weights.meta.get("regional")
    if kind not in pooling.POOLINGS:
        raise RetrievalError(f"Unknown pooling {kind!r}; there are: {', '.join(pooling.POOLINGS)}.")
    pool = pooling.POOLINGS[kind]
    name = "pool.rpool.p" if regional else "pool.p"
    exponents = weights.head.get(name, np.array([3.0], np.float32))
    if exponents.ndim != 1 or len(exponents) not in (1, channels) or not (exponents > 0).all():
        raise RetrievalError(
            "The exponents of GeM pooling must be positive numbers: give one, or one for each "
            f"of the {channels} channels."
        )
    p = _tensor(exponents)
    if pool is pooling.gem:
        pool = partial(pool, p=p)
    if regional:
        whiten = _layer(weights, channels, "pool.whiten", required=True)
        assert whiten is not None
        pool = partial(pooling.regional, pool=pool, whiten=whiten)
        channels = len(whiten[1])
    return pool, p, channels


def _learned_whitening(meta: Mapping[str, Any], several: bool, channels: int) -> Layer | None:
    """cirtorch's ``Lw``, P (x − m), as a layer with weight P and bias −P m; None without one.

    meta: of the file of weights. several: whether pictures are described at several scales, for
    which the file has a whitening of its own. channels: numbers of the vector x.
    """
    learned = meta.get("Lw")
    if not learned:
        return None
    try:
        whitening = learned.get(LW) or next(iter(learned.values()))
        whitening = whitening["ms" if several else "ss"]
        check_outputs("Lw", len(whitening["P"]))  # of bytes, it would take twelve times as much
        m, p = (np.asarray(whitening[key], np.float64) for key in ("m", "P"))
        fits = p.shape == (len(p), channels) and len(p) > 0 and m.size == channels
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RetrievalError(
            "The network's learned whitening (Lw) is damaged; download the file again."
        ) from error
    if not fits:
        raise RetrievalError(
            f"The learned whitening (Lw) does not fit {channels} channels: use that of the same "
            "network."
        )
    return _tensor(p), _tensor(-p @ m.reshape(channels))


def _tensor(array: np.ndarray) -> torch.Tensor:
    """The array as float32 on the device where the trunk computes."""
    device, _ = trunks.placement()
    return torch.from_numpy(array.astype(np.float32)).to(device)
