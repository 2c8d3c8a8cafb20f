"""DELF: attentive deep local features.

Noh, Araujo, Sim, Weyand and Han, "Large-Scale Image Retrieval with Attentive Deep Local
Features", ICCV 2017: dense features of stride 16 on an image pyramid, attention scores,
non-maximum suppression, then L2 → PCA to 40-d → L2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from retrieval import checkpoints, images, trunks
from retrieval.errors import RetrievalError
from retrieval.methods import pooling
from retrieval.methods.base import LocalFeatures, Method

PYRAMID = [0.25, 2**-1.5, 0.5, 2**-0.5, 1.0, 2**0.5, 2.0]
MIN_INPUT = 32  # pixels of the shorter side below which a pyramid level is left out


class Attention(NamedTuple):
    """Scores of every place of one pyramid level.

    scores: (h, w) float32. x: (w,), y: (h,) float32, where each is centred, in pixels of the
    original picture. side: of the square that each sees, in the same pixels.
    """

    scores: np.ndarray
    x: np.ndarray
    y: np.ndarray
    side: float


class DELF(Method):
    """Stride-16 features on a seven-scale pyramid, the best of them by attention."""

    name = "delf"
    title = "DELF"
    kind = "local"
    defaults = {
        "size": 1024,
        "enlarge": False,
        "scales": PYRAMID,
        "keypoints": 1000,
        "nms_iou": 0.8,
        "min_score": 0.0,
    }

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings):
        super().__init__(checkpoint, **settings)
        if self.settings["keypoints"] < 1:
            raise RetrievalError("DELF needs at least one keypoint a picture.")
        weights = checkpoints.load(checkpoint)
        self.trunk = trunks.build(checkpoint.trunk, "stride16", weights.trunk)
        # Without a PCA it gives the features before reduction: what the PCA is fitted on.
        self.pca = None
        if weights.head:
            self.pca = tuple(
                torch.from_numpy(weights.head[key].astype(np.float32))
                for key in ("pca.components", "pca.bias")
            )

    @torch.inference_mode()
    def describe(self, picture, box=None):
        from torchvision.ops import nms

        full = self._input(picture, box)
        left, top, right, bottom = (0, 0, *picture.size)
        if box is not None:
            left, top, right, bottom = map(round, images.check_box(box, picture.size))
        levels = [self._level(full, scale) for scale in self.settings["scales"]]
        levels = [level for level in levels if level is not None]
        raw = torch.cat([level[0] for level in levels])
        points = torch.cat([level[1] for level in levels])
        radii = torch.cat([level[2] for level in levels])
        scales = torch.cat([level[3] for level in levels])

        scores = raw.norm(dim=1)
        # Suppress by overlap of the receptive fields, as DELF does (IoU of boxes).
        boxes = torch.cat([points - radii, points + radii], dim=1)
        kept = nms(boxes, scores, self.settings["nms_iou"])
        kept = kept[scores[kept] >= self.settings["min_score"]][: self.settings["keypoints"]]

        # From pixels of the network's input to pixels of the original picture.
        height, width = full.shape[2:]
        points = points[kept].numpy() * [(right - left) / width, (bottom - top) / height]
        points = (points + np.array([left, top])).astype(np.float32)

        descriptors = pooling.l2(raw[kept])
        if self.pca is not None:
            descriptors = pooling.l2(F.linear(descriptors, *self.pca))
        return LocalFeatures(
            points, scales[kept].numpy(), scores[kept].numpy(), descriptors.numpy()
        )

    @torch.inference_mode()
    def attention(self, picture, scale: float = 1.0) -> Attention | None:
        """Attention all over a picture at one pyramid level; None where it is too small for it."""
        full = self._input(picture, None)
        level = self._level(full, scale)
        if level is None:
            return None
        raw, points, radii, _ = level
        points = points.numpy()
        x, y = np.unique(points[:, 0]), np.unique(points[:, 1])
        factor = picture.width / full.shape[3]
        return Attention(
            raw.norm(dim=1).numpy().reshape(len(y), len(x)),
            x * factor,
            y * (picture.height / full.shape[2]),
            2 * float(radii[0]) * factor,
        )

    def _level(self, full: torch.Tensor, scale: float):
        """Features of one pyramid level, with positions in pixels of the network's input.

        Returns raw (n, C), points (n, 2), radii (n, 1) of receptive fields, scales (n,).
        """
        height, width = (max(1, round(side * scale)) for side in full.shape[2:])
        if min(height, width) < MIN_INPUT and scale < max(self.settings["scales"]):
            return None
        level = full
        if scale != 1:
            level = F.interpolate(full, (height, width), mode="bilinear", antialias=scale < 1)
        features = self.trunk(level)[0].cpu()
        rows, columns = features.shape[1:]
        fields = [
            trunks.receptive_field(self.trunk.layers, width),
            trunks.receptive_field(self.trunk.layers, height),
        ]
        x = (fields[0].offset + fields[0].stride * torch.arange(columns)) * full.shape[3] / width
        y = (fields[1].offset + fields[1].stride * torch.arange(rows)) * full.shape[2] / height
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
        count = len(points)
        raw = features.permute(1, 2, 0).reshape(count, -1)
        radius = fields[0].size / 2 / scale
        return raw, points, torch.full((count, 1), radius), torch.full((count,), scale)
