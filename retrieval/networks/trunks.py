"""Convolutional trunks: from a batch of pictures (B, 3, H, W) to feature maps (B, C, h, w).

A trunk ends at a *tap*: ``final`` (stride 32, the last activations: for global descriptors) or
``stride16`` (conv4 of a ResNet, block 11 of 16 of EfficientNet-Lite0: for DELF, Noh et al., ICCV
2017).

This module imports torch, which takes seconds: import it in the function that needs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from retrieval import memory
from retrieval.errors import RetrievalError

Tap = Literal["final", "stride16"]

STRIP_VALUES = 1 << 20  # values of an expanded feature map that are computed at once, 4 MB
GPU_BATCH = 8  # a picture of 1024 px through ResNet-152 takes about 1 GB in half precision

LITE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
VGGS = ("vgg11", "vgg13", "vgg16", "vgg19")
NAMES = (*LITE, *RESNETS, *VGGS)

memory.keep_feature_maps()  # here, as only processes with a trunk need it


class ReceptiveField(NamedTuple):
    """The receptive field of a unit of a feature map, along one axis, in pixels of the input.

    Unit ``i`` sees ``size`` pixels, with their centre at ``offset + i * stride``. Coordinates are
    continuous: pixel ``k`` covers ``[k, k + 1)``, so its centre is ``k + 0.5``.
    """

    size: int
    stride: int
    offset: float


class Layer(NamedTuple):
    """A convolution or pooling on the longest path: sizes along one axis, in units of its input."""

    kernel: int
    stride: int
    padding: int | Literal["same"]


def receptive_field(layers: list[Layer], length: int) -> ReceptiveField:
    """The receptive field of a unit of the output of ``layers``.

    length: pixels of the input along the axis; TensorFlow's "same" padding depends on it.
    Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill
    2019.
    """
    size, jump, offset = 1, 1, 0.5
    for kernel, stride, padding in layers:
        before = _same_padding(length, kernel, stride)[0] if padding == "same" else padding
        total = sum(_same_padding(length, kernel, stride)) if padding == "same" else 2 * padding
        size += (kernel - 1) * jump
        offset += ((kernel - 1) / 2 - before) * jump
        jump *= stride
        length = (length + total - kernel) // stride + 1
    return ReceptiveField(size, jump, offset)


def _same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same" padding, before and after: it gives ceil(length / stride) units."""
    total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


class Trunk(nn.Module):
    """A network from normalised pictures (B, 3, H, W) to feature maps (B, channels, h, w).

    layers: those of its longest path; empty for a user's network.
    """

    channels: int
    layers: list[Layer]


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding."""

    def forward(self, x, vertical: tuple[int, int] | None = None):
        """vertical: rows of padding above and below, where x is a strip of a feature map."""
        top, bottom = vertical or _same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = _same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        if top == bottom and left == right:
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class _MBConv(nn.Module):
    """Inverted bottleneck of EfficientNet-Lite: expand, depthwise, project; no squeeze-excite."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int):
        super().__init__()
        hidden = inputs * expand
        if expand != 1:
            self._expand_conv = _SameConv(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._depthwise_conv = _SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._project_conv = _SameConv(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.expands = expand != 1
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        strips = self.expands and x.is_cpu and torch.is_inference_mode_enabled()
        y = self._in_strips(x) if strips else self._block(x)
        return x + y if self.residual else y

    def _block(self, x, vertical: tuple[int, int] | None = None):
        y = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y, vertical)), inplace=True)
        return self._bn2(self._project_conv(y))

    def _in_strips(self, x):
        """``_block``, some rows of the output at a time, so that the expanded map fits the cache.

        A whole expanded map of a picture of 640 × 480 at DELF's scale 2 has 118 MB. The system
        fills such a block with zeros each time, which took a quarter of the processor time.
        """
        conv, height = self._depthwise_conv, x.shape[2]
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        above, _ = _same_padding(height, kernel, stride)
        rows = math.ceil(height / stride)
        step = max(1, STRIP_VALUES // (x.shape[0] * conv.in_channels * x.shape[3] * stride))
        strips = []
        for first in range(0, rows, step):
            start = first * stride - above
            end = (min(first + step, rows) - 1) * stride - above + kernel
            padding = max(-start, 0), max(end - height, 0)
            strips.append(self._block(x[:, :, max(start, 0) : end], padding))
        return torch.cat(strips, dim=2)


class EfficientNetLite(Trunk):
    """EfficientNet-Lite 0, 1 or 2 without its classifier (Tan and Le, ICML 2019; Lite: 2020).

    Module names are those of the weights files, so that a state dict loads by name.
    """

    # repeats, kernel, stride, expansion, outputs
    STAGES = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    SCALES = {  # width, depth
        "efficientnet-lite0": (1.0, 1.0),
        "efficientnet-lite1": (1.0, 1.1),
        "efficientnet-lite2": (1.1, 1.2),
    }

    def __init__(self, name: str, tap: Tap):
        super().__init__()
        width, depth = self.SCALES[name]
        stages = self.STAGES if tap == "final" else self.STAGES[:5]
        self._conv_stem = _SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self.layers = [Layer(3, 2, "same")]
        blocks, inputs = [], 32
        for number, (repeats, kernel, stride, expand, outputs) in enumerate(stages):
            outputs = _round_channels(outputs * width)
            if 0 < number < len(self.STAGES) - 1:  # Lite does not scale the first and last stage
                repeats = math.ceil(repeats * depth)
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                blocks.append(_MBConv(inputs, outputs, kernel, step, expand))
                self.layers.append(Layer(kernel, step, "same"))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self.channels = inputs
        self.has_head = tap == "final"
        if self.has_head:
            self.channels = 1280
            self._conv_head = _SameConv(inputs, 1280, 1, bias=False)
            self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)), inplace=True) if self.has_head else x

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load the weights from a state dict of the whole classifier, or from our training.

        Our training writes ``features.`` before each name, as cirtorch does. Raises RetrievalError
        where tensors are missing or have other shapes.
        """
        tensors = {name.removeprefix("features."): tensor for name, tensor in state.items()}
        _load(self, {name: tensors[name] for name in self.state_dict() if name in tensors})


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8 that is at least 90 % of ``channels``."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class TorchvisionTrunk(Trunk):
    """A ResNet or VGG of torchvision, cut before its pooling.

    ``features`` is the sequence of its children, as in cirtorch.
    """

    def __init__(self, name: str, tap: Tap):
        super().__init__()
        import torchvision  # takes seconds, and EfficientNet-Lite does not need it

        network = getattr(torchvision.models, name)(weights=None)
        if name in RESNETS:
            self.features = nn.Sequential(*list(network.children())[: -2 if tap == "final" else -3])
            self.child_names = [child for child, _ in network.named_children()]
            self.layers = _resnet_layers(self.features)
            block = list(self.features[-1].children())[-1]
            last = getattr(block, "conv3", None) or block.conv2
            assert isinstance(last, nn.Conv2d)
            self.channels = last.out_channels
        else:
            # Without the last pooling VGG ends at stride 16, which serves as both taps.
            self.features = network.features[:-1]
            self.child_names = []
            self.layers = [
                _layer_of(m) for m in self.features if isinstance(m, nn.Conv2d | nn.MaxPool2d)
            ]
            self.channels = 512

    def forward(self, x):
        return self.features(x)

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load the weights from a state dict of torchvision (``layer1.0…``) or of cirtorch.

        Raises RetrievalError where tensors are missing or have other shapes.
        """
        known_names = self.state_dict()
        tensors = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if first in self.child_names:
                name = f"features.{self.child_names.index(first)}.{rest}"
            if name in known_names:
                tensors[name] = tensor
        _load(self, tensors)


def _resnet_layers(features: nn.Sequential) -> list[Layer]:
    layers = [Layer(7, 2, 3), Layer(3, 2, 1)]
    for stage in features[4:]:
        for block in stage.children():
            for name in ("conv1", "conv2", "conv3"):
                conv = getattr(block, name, None)
                if conv is not None:
                    layers.append(_layer_of(conv))
    return layers


def _layer_of(module: nn.Conv2d | nn.MaxPool2d) -> Layer:
    """The sizes of a module along one axis; in these networks they are equal on both axes."""

    def vertical(value: int | str | tuple[int, ...]) -> int:
        first = value[0] if isinstance(value, tuple) else value
        assert isinstance(first, int)  # torchvision names no padding "same"
        return first

    return Layer(vertical(module.kernel_size), vertical(module.stride), vertical(module.padding))


def _load(trunk: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    # Files from before torch 0.4 lack the batch counters, which inference does not use.
    missing = [
        key
        for key in trunk.state_dict()
        if key not in state and not key.endswith("num_batches_tracked")
    ]
    if missing:
        raise RetrievalError(
            f"The weights do not fit this network: {len(missing)} tensors are missing, "
            f"the first is {missing[0]}. Use weights of the same architecture."
        )
    try:
        trunk.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise RetrievalError(
            f"The weights do not fit this network: {reason} Use weights of the same architecture."
        ) from error


class CustomTrunk(Trunk):
    """A user's network, without its pooling and classifier where these can be found.

    timm's networks are cut by ``forward_features``, torchvision's at ``avgpool`` or ``features``;
    any other network is used whole. It must give (1, C, h, w), or (1, D), which counts as a feature
    map of one unit. Raises RetrievalError where it gives anything else.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.features = _without_classifier(model)
        self.layers = []
        first = next(self.features.parameters(), torch.zeros(1))
        try:
            with torch.inference_mode():
                self.channels = self(torch.zeros(1, 3, 224, 224).to(first)).shape[1]
        except (RuntimeError, TypeError, ValueError) as error:
            raise RetrievalError(
                f"The network must take a tensor (1, 3, 224, 224) and fails on one: {error}"
            ) from error

    def forward(self, x):
        features = self.features(x)
        if not isinstance(features, torch.Tensor) or features.ndim not in (2, 4):
            output = tuple(getattr(features, "shape", ())) or type(features).__name__
            raise RetrievalError(
                f"The network gives {output}; it must give a feature map (1, C, H, W) or a vector "
                "(1, D)."
            )
        return features if features.ndim == 4 else features[:, :, None, None]


def _without_classifier(model: nn.Module) -> nn.Module:
    model = model.eval().requires_grad_(False)
    if hasattr(model, "forward_features"):
        return _ForwardFeatures(model)
    names = [name for name, _ in model.named_children()]
    if "avgpool" in names:
        return nn.Sequential(*list(model.children())[: names.index("avgpool")])
    features = getattr(model, "features", None)
    if isinstance(features, nn.Module) and hasattr(model, "classifier"):
        # The last ReLU of DenseNet is not a module, so it is added here.
        dense = type(model).__name__ == "DenseNet"
        return nn.Sequential(features, nn.ReLU()) if dense else features
    return model


class _ForwardFeatures(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.forward_features(x)  # type: ignore[operator]


def build(name: str, tap: Tap, state: Mapping[str, torch.Tensor] | nn.Module) -> Trunk:
    """A trunk with weights, for inference: batch norms are folded and memory is channels-last.

    Both make it faster and change features by rounding only. name: one of ``NAMES``. state: tensors
    by name, or a user's whole network, whose batch norms are not folded. Raises RetrievalError for
    an unknown name and weights that do not fit.
    """
    if isinstance(state, nn.Module):
        return _on_device(CustomTrunk(state))
    trunk = build_for_training(name, tap, state).requires_grad_(False)
    _fold_batch_norms(trunk)
    return _on_device(trunk)


def build_for_training(
    name: str, tap: Tap, state: Mapping[str, torch.Tensor]
) -> EfficientNetLite | TorchvisionTrunk:
    """``build`` for training: batch norms are not folded, and memory is contiguous."""
    if name in LITE:
        trunk: EfficientNetLite | TorchvisionTrunk = EfficientNetLite(name, tap)
    elif name in NAMES:
        trunk = TorchvisionTrunk(name, tap)
    else:
        raise RetrievalError(f"Unknown trunk {name!r}; there are: {', '.join(NAMES)}.")
    trunk.load(state)
    return trunk.eval()


def freeze(trunk: nn.Module, blocks: int) -> None:
    """Do not train the stem and the first ``blocks`` blocks (children of a ResNet).

    No gradient is computed for them, which halves the time of a training step.
    """
    if not blocks:
        return
    if isinstance(trunk, EfficientNetLite):
        frozen = [trunk._conv_stem, trunk._bn0, *trunk._blocks[:blocks]]
    else:
        frozen = list(next(trunk.children()).children())[:blocks]
    for module in frozen:
        module.requires_grad_(False)


def placement() -> tuple[torch.device, torch.dtype]:
    """Device and dtype of trunks: float16 on a GPU where there is one, else float32 on the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.float16
    return torch.device("cpu"), torch.float32


def batch_size() -> int:
    """How many pictures of the same size make the best batch.

    A GPU is faster with several. On a CPU eight pictures of 288 px take the same processor time at
    once as one by one, within 6 %; larger ones take more, as their feature maps leave the cache.
    """
    return GPU_BATCH if placement()[0].type == "cuda" else 1


def _on_device(trunk: Trunk) -> Trunk:
    """The trunk on its device. Features are float32: xᵖ of GeM would overflow in float16."""
    device, dtype = placement()
    if dtype != torch.float32:
        trunk.register_forward_pre_hook(lambda module, args: (args[0].to(device, dtype),))
        trunk.register_forward_hook(lambda module, args, features: features.float())
    return trunk.to(device, dtype).to(memory_format=torch.channels_last)


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution that is registered just before it.

    In all these networks that is the convolution whose output the norm takes.
    """
    conv: nn.Conv2d | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            conv = child
        elif isinstance(child, nn.BatchNorm2d) and conv is not None:
            assert child.running_mean is not None
            assert child.running_var is not None
            weight, bias = torch.nn.utils.fuse_conv_bn_weights(
                conv.weight, conv.bias,
                child.running_mean, child.running_var, child.eps, child.weight, child.bias,
            )  # fmt: skip
            conv.weight, conv.bias = weight, bias
            setattr(module, name, nn.Identity())
            conv = None
        else:
            _fold_batch_norms(child)
