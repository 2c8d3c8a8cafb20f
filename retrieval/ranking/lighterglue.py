"""LighterGlue: a network that matches the keypoints of two pictures, seeing both at once.

The small LightGlue of XFeat's authors (Lindenberger, Sarlin and Pollefeys, "LightGlue: Local
Feature Matching at Light Speed", ICCV 2023), with kornia's implementation of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import RetrievalError
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints

if TYPE_CHECKING:
    from torch import nn

MIN_PROBABILITY = 0.1  # probability from which two keypoints are a match
NETWORK = dict(
    input_dim=64,
    descriptor_dim=96,
    n_layers=6,
    num_heads=1,
    depth_confidence=-1,  # all layers, always
    width_confidence=0.95,  # keypoints that surely have no match are dropped on the way
    filter_threshold=MIN_PROBABILITY,
    weights=None,  # or kornia would fetch its own
)


def match(
    a: LocalFeatures, b: LocalFeatures, size_a: tuple[int, int], size_b: tuple[int, int]
) -> np.ndarray:
    """Matches (K, 2) int64 between XFeat's features of two pictures: index in a, index in b.

    size_a, size_b: (width, height) in pixels of the pictures that the keypoints are in.
    Returns (0, 2) where either picture has no keypoint.
    """
    import torch

    if len(a) == 0 or len(b) == 0:
        return np.empty((0, 2), np.int64)
    data = {}
    for side, (features, size) in enumerate(((a, size_a), (b, size_b))):
        # An index stores rounded coordinates, which may lie just outside the picture.
        keypoints = np.clip(features.keypoints, 0, size).astype(np.float32)
        data[f"image{side}"] = {
            "keypoints": torch.from_numpy(keypoints)[None],
            "descriptors": torch.from_numpy(features.descriptors)[None],
            "image_size": torch.tensor([size]),
        }
    with torch.inference_mode():
        return _network()(data)["matches"][0].numpy()


@lru_cache(maxsize=1)
def _network() -> nn.Module:
    from kornia.feature.lightglue import LightGlue

    state = checkpoints.load(checkpoints.REGISTRY["xfeat-lighterglue"]).trunk
    assert isinstance(state, Mapping)
    network = LightGlue(None, **NETWORK)  # type: ignore[arg-type]  # kornia's own "no features"
    weights = {
        key.removeprefix("matcher."): value
        for key, value in state.items()
        if key.startswith("matcher.")
    }
    missing, unknown = network.load_state_dict(weights, strict=False)
    if unknown or set(missing) - {"confidence_thresholds"}:
        raise RetrievalError("The weights are not those of LighterGlue: install them again.")
    return network.eval().requires_grad_(False)
