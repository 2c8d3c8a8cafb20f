"""DELF: attentive deep local features.

Noh, Araujo, Sim, Weyand and Han, "Large-Scale Image Retrieval with Attentive Deep Local
Features", ICCV 2017. The picture is given to a network in several sizes, the levels of a pyramid.
On each level the network computes a feature at every 16th pixel (its stride), which depends on a
square around that place, the receptive field. Attention scores say which features tell landmarks
apart. The best are kept, and of those whose receptive fields overlap much only the best
(non-maximum suppression). Then their vectors are scaled to unit length, reduced to 40 numbers by
PCA and scaled again: L2 → PCA → L2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from retrieval import images
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.methods import pooling
from retrieval.methods.base import MIN_INPUT, LocalFeatures, Method, head_layer
from retrieval.networks import checkpoints, trunks

PYRAMID = [0.25, 2**-1.5, 0.5, 2**-0.5, 1.0, 2**0.5, 2.0]  # scales, as in the paper: in steps of √2
# Standard deviation of the pixels (0 to 1) around a place, below which it gives no feature. On
# plain paper or a clear sky features show the network's padding, which is alike in every picture.
MIN_CONTRAST = 0.01
BLOCK = 256  # candidates that are compared with each other at a time


class Attention(NamedTuple):
    """Attention at every place of one pyramid level. Coordinates: pixels of the original picture.

    scores: (h, w) float32. x: (w,) float32, centres of the columns. y: (h,) float32, centres of the
    rows.
    """

    scores: np.ndarray
    x: np.ndarray
    y: np.ndarray


class Dense(NamedTuple):
    """Features of all places of all pyramid levels with enough contrast, before selection.

    raw: (n, C) float32, before PCA. keypoints: (n, 2) float32, x and y in pixels of the original
    picture. scales: (n,) float32, of the pyramid level. fields: (n, 4) float32, receptive fields as
    x1, y1, x2, y2 in pixels of the network's input.
    """

    raw: torch.Tensor
    keypoints: torch.Tensor
    scales: torch.Tensor
    fields: torch.Tensor


class DELF(Method):
    """Stride-16 features on a seven-scale pyramid, the best of them by attention.

    The attention is trained where the weights have one (``training.delf``): two 1×1 convolutions
    with softplus, as in the paper. Else, and with ``trained_attention=False``, it is the norm of
    the feature.
    """

    name = "delf"
    title = "DELF"
    kind = "local"
    defaults = {
        "size": 1024,  # pixels of the longer side at scale 1
        "enlarge": False,  # whether smaller pictures are enlarged to it
        "scales": PYRAMID,
        "keypoints": 1000,  # at most
        "nms_iou": 0.8,  # see ``suppress``
        "min_score": 0.0,  # attention of a keypoint, at least
        "trained_attention": True,
    }

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings):
        super().__init__(checkpoint, **settings)
        weights = checkpoints.load(checkpoint)
        self.trunk = trunks.build(checkpoint.trunk, "stride16", weights.trunk)
        # A checkpoint without a PCA gives the features on which the PCA is fitted.
        self.pca = self.attention_layers = None
        head, channels = weights.head, self.trunk.channels
        if head:
            self.pca = head_layer(head, "pca.components", "pca.bias", channels)
        if head and self.settings["trained_attention"] and any("attention" in key for key in head):
            first = head_layer(head, "attention.conv1.weight", "attention.conv1.bias", channels)
            hidden = len(first[1])
            last = head_layer(head, "attention.conv2.weight", "attention.conv2.bias", hidden)
            if len(last[1]) != 1:
                raise RetrievalError(
                    "The layer attention.conv2.weight gives one number, not "
                    f"{len(last[1]):,}: train the weights again."
                )
            self.attention_layers = first, last

    @torch.inference_mode()
    def describe(self, picture: Image.Image, box: Box | None = None) -> LocalFeatures:
        dense = self.dense(picture, box)
        kept, scores = self.select(dense)
        return LocalFeatures(
            dense.keypoints[kept].numpy(),
            dense.scales[kept].numpy(),
            scores.numpy(),
            self.reduce(dense.raw[kept]).numpy(),
        )

    @torch.inference_mode()
    def dense(self, picture: Image.Image, box: Box | None = None) -> Dense:
        """Features of all places of a picture, or of the box in it."""
        full = self._input(picture, box)
        left, top, right, bottom = images.cut_out(box, picture.size)
        levels = [self._level(full, scale) for scale in self.settings["scales"]]
        raw, points, radii, scales, contrast = (
            torch.cat(parts)
            for parts in zip(*(level for level in levels if level is not None), strict=True)
        )
        mask = contrast >= MIN_CONTRAST
        raw, points, radii, scales = raw[mask], points[mask], radii[mask], scales[mask]
        # From pixels of the network's input to pixels of the original picture.
        height, width = full.shape[2:]
        factor = torch.tensor([(right - left) / width, (bottom - top) / height])
        keypoints = (points.double() * factor + torch.tensor([left, top])).float()
        return Dense(raw, keypoints, scales, torch.cat([points - radii, points + radii], dim=1))

    def select(self, dense: Dense) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows (k,) int64 of the best features by attention, best first, and scores (k,) float32.

        Of features whose receptive fields overlap, the best is kept (non-maximum suppression).
        """
        scores = self.attention_of(dense.raw)
        if not torch.isfinite(scores).all():  # comparisons would drop them silently
            raise RetrievalError(
                f"The attention that {self.checkpoint.id} gives is not a number: train it again, "
                "or use another checkpoint."
            )
        iou, max_boxes = self.settings["nms_iou"], self.settings["keypoints"]
        kept = torch.from_numpy(suppress(dense.fields.numpy(), scores.numpy(), iou, max_boxes))
        kept = kept[scores[kept] >= self.settings["min_score"]]
        return kept, scores[kept]

    def attention_of(self, raw: torch.Tensor) -> torch.Tensor:
        """Attention (n,) of features (n, C)."""
        if self.attention_layers is None:
            return raw.norm(dim=1)
        hidden, last = self.attention_layers
        # A 1×1 convolution is a linear layer on every place.
        return F.softplus(F.linear(F.linear(raw, *hidden).relu_(), *last))[:, 0]

    def reduce(self, raw: torch.Tensor) -> torch.Tensor:
        """Descriptors (n, d) of features (n, C): L2 → PCA → L2."""
        descriptors = pooling.l2(raw)
        return descriptors if self.pca is None else pooling.l2(F.linear(descriptors, *self.pca))

    @torch.inference_mode()
    def attention(self, picture: Image.Image, scale: float = 1.0) -> Attention | None:
        """Attention at all places of a picture at one pyramid level; None where it is too small."""
        full = self._input(picture, None)
        level = self._level(full, scale)
        if level is None:
            return None
        raw, points, *_ = level
        x, y = (np.unique(points[:, axis].numpy()) for axis in (0, 1))
        return Attention(
            self.attention_of(raw).numpy().reshape(len(y), len(x)),
            x * (picture.width / full.shape[3]),
            y * (picture.height / full.shape[2]),
        )

    def field_side(self, size: tuple[int, int], box: Box | None = None) -> float:
        """Side of the receptive field of a keypoint of scale 1, in pixels of the original picture.

        size: (width, height) of that picture, of which only ``box`` was described. At scale s the
        side is this divided by s.
        """
        longer = max(size)
        largest = longer * images.MAX_ENLARGED if self.settings["enlarge"] else longer
        input_side = min(self.settings["size"], largest)
        field = trunks.receptive_field(self.trunk.layers, int(input_side))
        left, top, right, bottom = images.cut_out(box, size)
        return field.size / max(input_side / longer, MIN_INPUT / min(right - left, bottom - top))

    def _level(self, full: torch.Tensor, scale: float) -> tuple[torch.Tensor, ...] | None:
        """Features of all places of one pyramid level; None where the level is too small.

        full: the network's input (1, 3, H, W). Returns raw (n, C); points (n, 2), x and y in pixels
        of ``full``; radii (n, 1), half sides of the receptive fields in the same pixels; scales
        (n,); contrast (n,) around each place. All float32.
        """
        height, width = (max(1, round(side * scale)) for side in full.shape[2:])
        # The largest level is always used; else one has at least the shorter side of an input.
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
        # From pixels of this level to pixels of ``full``.
        x = (fields[0].offset + fields[0].stride * torch.arange(columns)) * full.shape[3] / width
        y = (fields[1].offset + fields[1].stride * torch.arange(rows)) * full.shape[2] / height
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
        count = len(points)
        raw = features.permute(1, 2, 0).reshape(count, -1)
        radius = fields[0].size / 2 / scale
        contrast = _contrast(level, fields[0].stride)[:rows, :columns].reshape(count)
        # From normalised pixels back to pixels of 0 to 1.
        contrast = contrast * float(np.mean(self.checkpoint.std))
        return raw, points, torch.full((count, 1), radius), torch.full((count,), scale), contrast


def suppress(boxes: np.ndarray, scores: np.ndarray, iou: float, max_boxes: int) -> np.ndarray:
    """Non-maximum suppression: rows (k,) int64 of the best boxes, best first.

    boxes: (n, 4) float32, x1, y1, x2, y2. scores: (n,). iou: intersection over union above which
    the worse of two boxes is dropped. max_boxes: largest k. The rows are those of
    torchvision.ops.nms, whose import takes five seconds and 200 MB.
    """
    order = np.argsort(-scores, kind="stable")
    x1, y1, x2, y2 = boxes[order].T.copy()
    areas = (x2 - x1) * (y2 - y1)

    def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(len(a), len(b)) bool: whether boxes of these rows overlap by more than ``iou``."""
        width = np.minimum.outer(x2[a], x2[b]) - np.maximum.outer(x1[a], x1[b])
        height = np.minimum.outer(y2[a], y2[b]) - np.maximum.outer(y1[a], y1[b])
        shared = width.clip(min=0) * height.clip(min=0)
        # The limit in double precision, as torchvision compares: it decides exact ties.
        return shared / (np.add.outer(areas[a], areas[b]) - shared) > np.float64(iou)

    kept = np.zeros(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        block = block[~overlap(block, kept).any(axis=1)]
        overlapping = overlap(block, block)
        keep = np.ones(len(block), bool)
        for row in range(len(block)):
            if keep[row]:
                keep[row + 1 :] &= ~overlapping[row, row + 1 :]
        kept = np.concatenate([kept, block[keep]])
        if len(kept) >= max_boxes:
            break
    return order[kept[:max_boxes]]


def _contrast(level: torch.Tensor, stride: int) -> torch.Tensor:
    """Standard deviation of the pixels around each place of a feature map.

    level: pixels (1, 3, H, W). Returns (⌈H / stride⌉, ⌈W / stride⌉), over windows of three strides
    and over the three colours.
    """

    def mean(x: torch.Tensor) -> torch.Tensor:
        cells = F.avg_pool2d(x, stride, ceil_mode=True)
        return F.avg_pool2d(cells, 3, 1, padding=1, count_include_pad=False)

    centred = level - level.mean(dim=(2, 3), keepdim=True)  # keeps the squares below small
    variance = mean(centred.square()) - mean(centred).square()
    return variance.clamp(min=0).mean(dim=1)[0].sqrt()
