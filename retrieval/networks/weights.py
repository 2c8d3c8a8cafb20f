"""The only reader of weights files. Nothing in them is executed: see ``torch_files``.

A SavedModel of TensorFlow is a program and has to be run: see ``methods/saved_model.py``.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval import files, rehearsal
from retrieval.errors import RetrievalError
from retrieval.networks import torch_files
from retrieval.networks.records import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import torch

MAX_HEAD = 50_000_000  # numbers in the layers after the trunk; a layer 2048 → 2048 has 4 million
MAX_META = 1_000_000  # characters and values in the ``meta`` of a network; ours have 3000


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint.

    trunk: tensors by name, or a network in memory (``methods.custom``). head:
    arrays by name, the layers after the trunk. meta: architecture, settings and other entries.
    """

    trunk: Mapping[str, torch.Tensor] | torch.nn.Module
    head: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The trunk's tensors by name. Raises RetrievalError where it is a network in memory."""
        if not isinstance(self.trunk, Mapping):
            raise RetrievalError(
                "Training starts from a weights file, not from a network in memory: save the "
                "network to a file and name that."
            )
        return self.trunk


def digest(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file or of the names and contents of all files in a folder.

    Raises RetrievalError where a file cannot be read, where the sizes exceed the limit of
    ``torch_files.check_size``, for a folder with a link to a folder, and as ``files.walk`` does.
    """
    try:
        size = path.stat().st_size  # raises where it is missing
        if path.is_file():
            torch_files.check_size(path, size)
            return files.digest(path)
        inside = files.inside(path)
        for folder in inside:
            if folder.is_symlink() and folder.is_dir():  # it is not walked into, but loaded from
                raise RetrievalError(
                    f"{folder} is a link to a folder, whose files would not be in the checksum; "
                    "put the folder itself there."
                )
        inside = sorted(inner for inner in inside if inner.is_file())
        torch_files.check_size(path, sum(file.stat().st_size for file in inside))
        total = hashlib.sha256()
        for file in inside:
            name = os.fsencode(file.relative_to(path).as_posix())
            total.update(name + f" {digest(file)}\n".encode())
        return total.hexdigest()
    except OSError as error:
        raise RetrievalError(
            f"{path} cannot be read: {error.strerror}; name a file or folder that can."
        ) from error


def read_tensors(path: Path, sha256: str | None = None) -> Any:
    """The content of a ``.pth`` file: tensors and numpy arrays in lists and dictionaries.

    sha256: the SHA-256 that the file must have, in hexadecimal. Raises RetrievalError for another
    one, for a file with other objects, and for one that is damaged. Imports torch.
    """
    if sha256 is None:
        rehearsal.rehearse(_read_descriptions, path)
    elif digest(path) != sha256:
        raise RetrievalError(f"{path} does not have the SHA-256 it should have; install it again.")
    with torch_files.reading(path) as (value, numbers):
        return with_tensors(value, numbers)


def with_tensors(value: object, numbers: Iterable[tuple[torch_files.Storage, bytearray]]) -> Any:
    """What ``torch_files`` gives of a file, with tensors in place of their descriptions."""
    import torch

    storages = {}
    for storage, data in numbers:
        kind = getattr(torch, storage.kind)
        flat = torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)
        storages[storage.key] = flat
    return torch_files.resolve(
        value,
        lambda tensor: storages[tensor.storage.key].as_strided(
            tensor.size, tensor.stride, tensor.offset
        ),
    )


def _read_descriptions(path: Path) -> None:
    with torch_files.reading(path):
        pass


def read_cirtorch(path: Path, sha256: str | None = None) -> Weights:
    """The weights in a file of cirtorch (Radenović et al., TPAMI 2018), or of our training.

    sha256: the SHA-256 that the file must have, in hexadecimal. Raises RetrievalError for another
    one and for a file whose ``meta`` or tensors cannot be used.
    """
    import torch

    data = read_tensors(path, sha256)
    if not isinstance(data, dict) or not {"meta", "state_dict"} <= data.keys():
        raise RetrievalError(
            f"{path.name} is not a cirtorch network: it lacks meta or state_dict. Save both with "
            "torch.save."
        )
    state = data["state_dict"]
    if (
        not isinstance(data["meta"], dict)
        or not isinstance(state, dict)
        # The entries that are used are booleans, numbers or words; arrays are in the whitening.
        or any(isinstance(value, torch.Tensor | np.ndarray) for value in data["meta"].values())
        or not _is_small(data["meta"])
        or not all(isinstance(key, str) for key in state)
        or not all(is_plain_tensor(value) for value in state.values())
    ):
        raise RetrievalError(
            f"{path.name} is not a cirtorch network: wrong meta or state_dict. Save plain "
            "values in meta and tensors by name in state_dict."
        )
    # Fields that old files leave out, with cirtorch's own defaults.
    meta = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} | data["meta"]
    _check_meta(meta, path.name)
    if sum(value.numel() * value.element_size() for value in state.values()) > path.stat().st_size:
        raise RetrievalError(
            f"{path.name} holds the same weights under several names; save copies."
        )
    if not all(_is_finite(value) for value in state.values()):
        raise RetrievalError(f"{path.name} holds weights that are not numbers: train it again.")
    trunk = {key: value for key, value in state.items() if key.startswith("features.")}
    rest = {key: value for key, value in state.items() if key not in trunk}
    if sum(value.numel() for value in rest.values()) > MAX_HEAD:
        raise RetrievalError(
            f"The layers after the trunk in {path.name} are too large: together they may have "
            f"{MAX_HEAD:,} numbers."
        )
    head = {key: value.detach().float().numpy() for key, value in rest.items()}
    return Weights(trunk, head, meta)


def _check_meta(meta: dict, file_name: str) -> None:
    if not isinstance(meta.get("architecture"), str) or not isinstance(meta.get("pooling"), str):
        raise RetrievalError(
            f"{file_name} does not say its architecture and pooling: put both into its meta."
        )
    if not isinstance(meta.get("settings", {}), dict):
        raise RetrievalError(
            f"The settings of {file_name} must be a dictionary: save the file again with one."
        )
    if (
        not _is_three_numbers(meta["mean"])
        or not _is_three_numbers(meta["std"])
        or min(meta["std"]) <= 0
    ):
        raise RetrievalError(
            f"The mean and std of {file_name} are not three numbers each: save one for each of "
            "red, green and blue, std above 0."
        )


def _is_small(meta: dict) -> bool:
    """Whether ``meta`` fits into a manifest: up to MAX_META characters and values, no huge number.

    A list that holds another one twice, thirty times over, takes a gigabyte as text.
    """
    to_count: list[Any] = [meta]
    size = 0
    while to_count:
        value = to_count.pop()
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return False
        if not isinstance(value, dict | list | str):
            continue
        size += 1 + len(value)
        if size > MAX_META:
            return False
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            return False  # JSON would make text of them
        if not isinstance(value, str):
            to_count += [*value, *value.values()] if isinstance(value, dict) else value
    return True


def is_plain_tensor(value: Any) -> bool:
    """Whether a value is a tensor that holds each of its numbers in memory, without repeats."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _is_finite(value: torch.Tensor) -> bool:
    """Whether all numbers of a tensor are finite; ``torch.isfinite`` would copy it twice."""
    return not value.numel() or all(math.isfinite(end.item()) for end in value.aminmax())


def _is_three_numbers(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(number, int | float) and -1e18 < number < 1e18 for number in value)
    )
