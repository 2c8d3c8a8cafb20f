"""The only reader of weight files. Nothing is executed from one: tensors are read with
``weights_only=True``. (A SavedModel of TensorFlow is a program
that must be run to be used: see ``methods/tfhub.py`` for which part of it is.)
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy._core import multiarray

from retrieval.errors import RetrievalError
from retrieval.networks.records import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Weights:
    """trunk: tensors by name, or a whole network; head: arrays by name; meta: of the file."""

    trunk: Mapping[str, torch.Tensor] | torch.nn.Module
    head: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The trunk, where it came out of a file. Raises RetrievalError for a whole network."""
        if not isinstance(self.trunk, Mapping):
            raise RetrievalError("A network that was brought in memory cannot be trained here.")
        return self.trunk


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder."""
    try:
        if path.is_file():
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256()
        for inner in sorted(one for one in path.rglob("*") if one.is_file()):
            total.update(f"{inner.relative_to(path).as_posix()} {digest(inner)}\n".encode())
        return total.hexdigest()
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read: {error.strerror}.") from error


def read_tensors(path: Path, sha256: str | None = None) -> Any:
    """Whatever tensors and plain containers a ``.pth`` file holds; nothing else is admitted."""
    import torch

    if sha256 is not None and digest(path) != sha256:
        raise RetrievalError(f"{path} does not have the SHA-256 it should have; install it again.")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(one.compress_type for one in archive.infolist()):
                    raise ValueError("packed: torch writes tensors as they are, a bomb is small")
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on hostile bytes
        raise RetrievalError(
            f"{path.name} is not a weights file that can be read safely: damaged, cut off, or it "
            "holds more than tensors and plain containers."
        ) from error


# cirtorch keeps its learned whitening as numpy arrays, which numpy rebuilds with these.
_NUMPY_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.ndarray,
    np.dtype,
    (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
    (multiarray.scalar, "numpy.core.multiarray.scalar"),
    (multiarray.scalar, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
]


def read_cirtorch(path: Path, sha256: str | None = None) -> Weights:
    """A file of cirtorch: ``meta`` and ``state_dict`` (Radenović et al., TPAMI 2018)."""
    import torch

    data = read_tensors(path, sha256)
    if not isinstance(data, dict) or not {"meta", "state_dict"} <= data.keys():
        raise RetrievalError(f"{path.name} is not a cirtorch network: it lacks meta or state_dict.")
    state = data["state_dict"]
    if (
        not isinstance(data["meta"], dict)
        or not isinstance(state, dict)
        or not all(isinstance(key, str) for key in state)
        or not all(_is_plain(value) for value in state.values())
    ):
        raise RetrievalError(f"{path.name} is not a cirtorch network: wrong meta or state_dict.")
    # Fields that old files leave out, with cirtorch's own defaults.
    meta = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} | data["meta"]
    if not isinstance(meta.get("architecture"), str) or not isinstance(meta.get("pooling"), str):
        raise RetrievalError(f"{path.name} does not say its architecture and pooling.")
    if not isinstance(meta.get("settings", {}), dict):
        raise RetrievalError(f"The settings of {path.name} are no settings.")
    if not _is_colour(meta["mean"]) or not _is_colour(meta["std"]) or min(meta["std"]) <= 0:
        raise RetrievalError(f"The mean and std of {path.name} are not three numbers each.")
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise RetrievalError(f"{path.name} holds weights that are not numbers.")
    head = {
        key: value.detach().float().numpy()
        for key, value in state.items()
        if not key.startswith("features.")
    }
    trunk = {key: value for key, value in state.items() if key.startswith("features.")}
    return Weights(trunk, head, meta)


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor of numbers that all lie in the file, in a type that torch computes in.

    Not plain: sparse, quantised, 8-bit floats, without data (meta), one number as a million.
    """
    import torch

    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in kinds
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(number, int | float) and np.isfinite(number) for number in value)
    )
