"""XFeat: local features that check what another method detected.

They find the same corner in two pictures well, but they do not recognise landmarks: a search with
them alone would be poor. Potje et al., "XFeat: Accelerated Features for Lightweight Image
Matching", CVPR 2024.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import nn

from retrieval import images
from retrieval.images import Box
from retrieval.methods.base import LocalFeatures, Method
from retrieval.networks import checkpoints
from retrieval.networks.xfeat import XFeatNetwork


class XFeat(Method):
    """Keypoints on one scale, with descriptors (N, 64); a blank picture has none."""

    name = "xfeat"
    title = "XFeat"
    kind = "keypoints"
    defaults = {
        "size": 640,  # pixels of the longer side, at most
        "enlarge": False,  # whether smaller pictures are enlarged to it
        "keypoints": 1024,
    }

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings):
        super().__init__(checkpoint, **settings)
        tensors = checkpoints.load(checkpoint).trunk
        assert not isinstance(tensors, nn.Module)  # networks of the user's own are for SIR and GeM
        self.network = XFeatNetwork(tensors)

    def describe(self, picture: Image.Image, box: Box | None = None) -> LocalFeatures:
        pixels = self._input(picture, box)
        detected = self.network.detect(pixels, self.settings["keypoints"])
        left, top, right, bottom = images.cut_out(box, picture.size)
        sides = [(right - left) / pixels.shape[3], (bottom - top) / pixels.shape[2]]
        factor, corner = np.array([sides, [left, top]], np.float32)
        keypoints = detected.points.numpy() * factor + corner
        scales = np.ones(len(keypoints), np.float32)
        return LocalFeatures(
            keypoints, scales, detected.scores.numpy(), detected.descriptors.numpy()
        )
