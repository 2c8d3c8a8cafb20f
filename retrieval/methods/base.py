"""The base classes of the methods, and the features that they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from retrieval import images
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.methods.places import Places, one_grid
from retrieval.networks import checkpoints

if TYPE_CHECKING:
    import torch

    from retrieval.networks.trunks import Trunk


MAX_SCALES = 16  # the papers have up to seven
MAX_PIXELS = 4096**2  # of a picture at all scales; DELF's seven scales at 1024 pixels have half
# Less for these networks, whose first layers take the most memory: VGG gives 64 numbers for each
# pixel, ResNet a quarter of that. Three scales at 1024 pixels have 3.7 million.
MAX_PIXELS_OF = {"vgg": 2048**2, "resnet": 2 * 2048**2}
MAX_OUTPUTS = 4096  # numbers of a descriptor of a picture; the papers' have up to 2048
MIN_INPUT = 32  # pixels of the shorter side of a network's input: networks of stride 32 need some
MAX_KEYPOINTS = 5000  # of a picture; the time of a match grows with its square; DELF has 1000


@dataclass(frozen=True)
class LocalFeatures:
    """Local features of one picture: N keypoints, best score first.

    keypoints: (N, 2) float32, x and y in pixels of the original picture.
    scales: (N,) float32, the scale of the pyramid level on which each was found (2: twice
    as wide as at first).
    scores: (N,) float32, the attention of DELF, or how sure XFeat is of a keypoint.
    descriptors: (N, d) float32, unit length.
    """

    keypoints: np.ndarray
    scales: np.ndarray
    scores: np.ndarray
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, rows: slice | np.ndarray) -> LocalFeatures:
        """The features of some rows: a slice, positions (n,) or a mask (N,)."""
        return LocalFeatures(
            self.keypoints[rows], self.scales[rows], self.scores[rows], self.descriptors[rows]
        )


Features = np.ndarray | LocalFeatures


def as_local(features: Features) -> LocalFeatures:
    """The features, known to be local: a cast for the type checker."""
    assert isinstance(features, LocalFeatures)
    return features


def as_vector(features: Features) -> np.ndarray:
    """The features, known to be one descriptor (D,): a cast for the type checker."""
    assert isinstance(features, np.ndarray)
    return features


def note_seconds(method: Method, seconds: float) -> None:
    """Keep the least time that a picture took: on a busy machine each method takes long from time
    to time. ``ranking.search`` leaves methods that always take long to slow workers.
    """
    method.seconds = min(method.seconds or seconds, seconds)


class Method(ABC):
    """A method that describes pictures by features. Subclasses write ``__init__`` and ``describe``.

    settings: those of the caller, then those of the checkpoint, then ``defaults``: the first that
    has a value wins. Raises RetrievalError for values of another type and for sizes and scales out
    of bounds.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[str]  # 'global', 'local' or 'keypoints', see index.layout
    defaults: ClassVar[dict[str, Any]]
    pixels: float = 0  # of a square picture at all scales
    seconds: float = 0  # that the quickest picture took so far, see ``note_seconds``
    batch: int = 1  # pictures that ``describe_batch`` is best given together

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings: Any):
        self.checkpoint = checkpoint
        self.settings = {**self.defaults, **checkpoint.settings, **settings}
        for key, default in self.defaults.items():
            if not _is_like(self.settings[key], default):
                raise RetrievalError(
                    f"The setting {key} of {self.title} cannot be {self.settings[key]!r:.100}; "
                    f"give it a value like its default, {default!r}."
                )
        if not 32 <= self.settings["size"] <= 4096:
            raise RetrievalError(
                "The size is a whole number of pixels from 32 to 4096: choose one."
            )
        scales = self.settings.get("scales", [1.0])
        if not 1 <= len(scales) <= MAX_SCALES or not all(0.1 <= scale <= 4 for scale in scales):
            raise RetrievalError(
                f"Scales are one to {MAX_SCALES} numbers from 0.1 to 4: choose such ones."
            )
        self.pixels = self.settings["size"] ** 2 * sum(scale**2 for scale in scales)
        max_pixels = MAX_PIXELS_OF.get(checkpoint.trunk.rstrip("0123456789"), MAX_PIXELS)
        if self.pixels > max_pixels:
            raise RetrievalError(
                f"A square picture of {self.settings['size']} pixels has more than "
                f"{max_pixels // 1_000_000} megapixels at all scales together: choose a smaller "
                "size or fewer scales."
            )
        if "keypoints" in self.defaults and not 1 <= self.settings["keypoints"] <= MAX_KEYPOINTS:
            raise RetrievalError(
                f"A picture may have 1 to {MAX_KEYPOINTS:,} keypoints: choose such a number."
            )

    @abstractmethod
    def describe(self, picture: Image.Image, box: Box | None = None) -> Features:
        """Features of an upright RGB picture, or of the box in it.

        Returns a unit-length descriptor (D,) float32, or LocalFeatures with keypoints in pixels
        of the whole picture. Raises RetrievalError for a box that is not in the picture.
        """

    def describe_batch(self, pictures: Sequence[Image.Image]) -> Sequence[Features]:
        """Features of several whole pictures, as ``describe`` gives them one by one."""
        return [self.describe(picture) for picture in pictures]

    def _input(self, picture: Image.Image, box: Box | None) -> torch.Tensor:
        """The network's input (1, 3, H, W) float32: cropped, resized, normalised."""
        import torch

        if self.checkpoint.transform is not None:
            return self.checkpoint.transform(images.crop(picture, box) if box else picture)[None]
        small = images.fit(picture, self.settings["size"], box, self.settings.get("enlarge", False))
        if min(small.size) < MIN_INPUT:  # a tiny crop, or a long panorama
            factor = MIN_INPUT / min(small.size)
            small = small.resize([max(MIN_INPUT, round(side * factor)) for side in small.size])
        pixels = np.asarray(small, dtype=np.float32) / 255
        mean, std = np.array([self.checkpoint.mean, self.checkpoint.std], np.float32)
        pixels = (pixels - mean) / std
        # (H, W, 3) in memory is channels-last already: no copy.
        return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)


class GlobalMethod(Method):
    """A method with one descriptor a picture. Subclasses write ``__init__`` and ``_vectors``."""

    kind = "global"
    trunk: Trunk
    # Weight (D, C) and bias (D,) of the layer after pooling and normalisation; None: there is none.
    final_layer: tuple[torch.Tensor, torch.Tensor] | None
    # Of the generalised mean that pools the feature map. None where pooling is another one, or
    # where more follows than the final layer and the mean over scales.
    exponent: float | None = None

    def __init__(self, checkpoint: checkpoints.Checkpoint, **settings: Any):
        super().__init__(checkpoint, **settings)
        from retrieval.networks import trunks

        # A network of the user's own may take one picture at a time only.
        self.batch = 1 if checkpoint.network is not None else trunks.batch_size()

    @abstractmethod
    def _vectors(self, inputs: torch.Tensor) -> torch.Tensor:
        """Unit-length descriptors (B, D) of inputs (B, 3, H, W), both float32."""

    def _features(self, inputs: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """The feature map (B, C, h, w) of inputs (B, 3, H, W) resized by ``scale``."""
        if scale != 1:
            import torch.nn.functional as F

            inputs = F.interpolate(inputs, scale_factor=scale, mode="bilinear", align_corners=False)
        return self.trunk(inputs)

    def feature_map(
        self, picture: Image.Image, box: Box | None = None, scale: float = 1.0
    ) -> np.ndarray:
        """The feature map (C, h, w) float32 of a picture, or of the box in it, at one scale."""
        import torch

        with torch.inference_mode():
            return self._features(self._input(picture, box), scale)[0].cpu().numpy()

    def place_vectors(self, inputs: torch.Tensor) -> list[torch.Tensor] | None:
        """The contribution of each place of an input (1, 3, H, W) to its descriptor.

        Returns one array (h, w, D) float32 on the CPU for each scale. The sum over all places and
        scales is the descriptor. A place contributes its share of the pooled value of each channel,
        and an equal share of the bias of a layer. None where the pooling has no such shares.
        """
        return None

    def places(self, picture: Image.Image, box: Box | None = None) -> Places | None:
        """The contribution of each place of a picture, or of the box in it, to its descriptor.

        None where the pooling has no such shares, see ``place_vectors``.
        """
        import torch

        with torch.inference_mode():
            levels = self.place_vectors(self._input(picture, box))
        if levels is None:
            return None
        grid = one_grid([level.numpy() for level in levels])
        return Places(grid, images.cut_out(box, picture.size))

    def describe(self, picture: Image.Image, box: Box | None = None) -> np.ndarray:
        return self._numpy(self._input(picture, box))[0]

    def describe_batch(self, pictures: Sequence[Image.Image]) -> Sequence[np.ndarray]:
        import torch

        inputs = [self._input(picture, None) for picture in pictures]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, tensor in enumerate(inputs):
            by_shape.setdefault(tuple(tensor.shape), []).append(number)
        descriptors: dict[int, np.ndarray] = {}
        for numbers in by_shape.values():
            batch = self._numpy(torch.cat([inputs[number] for number in numbers]))
            descriptors |= zip(numbers, batch, strict=True)
        return [descriptors[number] for number in range(len(inputs))]

    def _numpy(self, inputs: torch.Tensor) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self._vectors(inputs).cpu().numpy()


def check_outputs(layer: str, count: int) -> None:
    """Refuse a layer behind the trunk that gives more than MAX_OUTPUTS numbers.

    It may do so for each of 65,536 places of a picture.
    """
    if count > MAX_OUTPUTS:
        raise RetrievalError(
            f"The layer {layer} of the weights gives {count:,} numbers, and at most "
            f"{MAX_OUTPUTS:,} are allowed: train one with fewer."
        )


def head_layer(
    head: Mapping[str, np.ndarray], weight: str, bias: str, inputs: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (d, inputs) and bias (d,) float32 of a linear layer of a head.

    head: name → array. weight, bias: names in it. inputs: numbers that the layer takes.
    Raises RetrievalError where the head has no such layer.
    """
    import torch

    w, b = head.get(weight), head.get(bias)
    if (
        w is None
        or b is None
        or not all(np.issubdtype(array.dtype, np.floating) for array in (w, b))
        or w.shape != (len(np.atleast_1d(b)), inputs)
        or b.ndim != 1
        or not b.size
        or not (np.isfinite(w).all() and np.isfinite(b).all())
    ):
        raise RetrievalError(
            f"The weights lack a {weight} that fits their network: train them again."
        )
    check_outputs(weight, len(b))
    return torch.from_numpy(w.astype(np.float32)), torch.from_numpy(b.astype(np.float32))


def _is_like(value: Any, default: bool | int | float | list[float]) -> bool:
    """Whether a setting, perhaps out of a file, has the type of its default."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, list):
        return isinstance(value, list | tuple) and all(_is_like(number, 1.0) for number in value)
    kinds = int if isinstance(default, int) else int | float
    # Not math.isfinite: a whole number of a file may have more digits than it takes.
    return isinstance(value, kinds) and not isinstance(value, bool) and -1e18 < value < 1e18
