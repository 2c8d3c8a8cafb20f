"""The only reader of weight files. Nothing in one is executed: ``weights_only=True``.

A SavedModel of TensorFlow is a program that must be run to be used: ``methods/saved_model.py`` says
which part of it is.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy._core import multiarray

from retrieval import files
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
            return files.digest(path)
        total = hashlib.sha256()
        for inner in sorted(one for one in path.rglob("*") if one.is_file()):
            name = os.fsencode(inner.relative_to(path).as_posix())
            total.update(name + f" {digest(inner)}\n".encode())
        return total.hexdigest()
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read: {error.strerror}.") from error


def read_tensors(path: Path, sha256: str | None = None) -> Any:
    """Whatever tensors and plain containers a ``.pth`` file holds; nothing else is admitted."""
    import torch

    if sha256 is not None and digest(path) != sha256:
        raise RetrievalError(f"{path} does not have the SHA-256 it should have; install it again.")
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(_checked(path), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on hostile bytes
        raise RetrievalError(
            f"{path.name} is not a weights file that can be read safely: damaged, cut off, or it "
            "holds more than tensors and plain containers. Who has the network can save it again "
            "with torch.save({'meta': …, 'state_dict': network.state_dict()}, FILE)."
        ) from error


def _checked(path: Path) -> BinaryIO:
    """The file for torch, once its pickles are looked at. Raises ValueError, or what readers do."""
    file = io.BytesIO(files.read(path))
    size = len(file.getbuffer())
    if not zipfile.is_zipfile(file) and not file.getvalue().startswith(b"PK"):
        file.seek(0)
        for _ in range(OLD_FORM):
            _check_pickle(file, size)
    else:
        # Written anew: torch's own reader may find another list of files in the same bytes.
        found, file = file, io.BytesIO()
        listed = files.ShortReads(found)
        with zipfile.ZipFile(listed) as archive, zipfile.ZipFile(file, "w") as plain:
            listed.most = size
            entries = archive.infolist()
            # A bomb is small; torch writes tensors as they are, and each once.
            if any(e.compress_type for e in entries) or sum(e.file_size for e in entries) > size:
                raise ValueError("packed")
            if len({one.filename.lower() for one in entries}) != len(entries):
                raise ValueError("two files of one name")
            for one in entries:
                data = archive.read(one)
                plain.writestr(one.filename, data)
                if one.filename.lower().endswith(".pkl"):
                    _check_pickle(io.BytesIO(data), size)
    file.seek(0)
    return file


OLD_FORM = 5  # pickles at the beginning of a file from before torch 1.6
MAX_META = 1_000_000  # characters and values in what a network says of itself; ours say 3000
MAX_NESTED = 20  # containers in containers; ours have 4
MAX_CALLS = 1000  # of numpy: an array takes five, and files have a dozen at most
_TENSOR = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor(_v2)?|parameter)|torch \w+Storage"
)
_ARRAY = re.compile(
    r"numpy (ndarray|dtype)|numpy\._?core\.multiarray (_reconstruct|scalar)|_codecs encode"
)
_NUMBER = re.compile(r"[<>=|]?[bfiu][1248]")


class _Name(str):
    """A function or class that a pickle names."""


def _check_pickle(file: BinaryIO, size: int) -> None:
    """Refuse a pickle that asks for more work or memory than a file of ``size`` bytes is worth.

    Without running anything torch would make a bytearray of any length, encode texts in slow ways,
    and copy a long list or text again and again. Raises ValueError, or what readers do.
    """
    stack: list[Any] = []  # of what is built, numbers, text, tuples and names only; else None
    memo: dict[Any, Any] = {}
    mark = object()
    calls = encoded = filled = 0
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        result: Any = argument if isinstance(argument, str | int) else None
        if name == "GLOBAL":
            assert isinstance(argument, str)
            if not _TENSOR.fullmatch(argument) and not _ARRAY.fullmatch(argument):
                raise ValueError(argument)
            result = _Name(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            result = memo[argument]
        elif name == "NEWOBJ":
            raise ValueError(name)
        before = operation.stack_before
        taken: list[Any] = []
        if pickletools.stackslice in before:
            while (one := stack.pop()) is not mark:
                taken.append(one)
            before = before[:-2]
        taken = [*taken, *(stack.pop() for _ in before)][::-1]
        if name in ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            result = tuple(taken)
        elif name == "BUILD":
            calls += 1
        elif name == "REDUCE":
            function, arguments = taken
            if function == "_codecs encode":
                text, codec = arguments
                if codec not in ("latin1", "latin-1"):
                    raise ValueError(codec)
                encoded += len(text)
            elif function == "numpy dtype":
                if not _NUMBER.fullmatch(arguments[0]):
                    raise ValueError(arguments)
            elif str(function).endswith("_reconstruct"):
                if arguments[1] != (0,):
                    raise ValueError(arguments)
            elif function == "collections OrderedDict":
                filled += arguments != ()
            elif not isinstance(function, _Name):
                raise ValueError("a call of what is no function")
            calls += bool(isinstance(function, _Name) and _ARRAY.fullmatch(function))
        if calls > MAX_CALLS or encoded > 2 * size or filled > 10:
            raise ValueError("copies")
        stack += [mark if name == "MARK" else result for _ in operation.stack_after]


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
        # What is asked of it is yes or no, a number or a word; arrays are in the whitening.
        or any(isinstance(value, torch.Tensor | np.ndarray) for value in data["meta"].values())
        or not _is_short(data["meta"])
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
    if sum(value.numel() * value.element_size() for value in state.values()) > path.stat().st_size:
        raise RetrievalError(
            f"{path.name} holds the same weights under several names; save copies."
        )
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise RetrievalError(f"{path.name} holds weights that are not numbers.")
    head = {
        key: value.detach().float().numpy()
        for key, value in state.items()
        if not key.startswith("features.")
    }
    trunk = {key: value for key, value in state.items() if key.startswith("features.")}
    return Weights(trunk, head, meta)


def _is_short(meta: dict) -> bool:
    """Whether it can be written out: a list of the same list twice, thirty times, is a gigabyte."""
    waiting: list[tuple[Any, int]] = [(meta, 0)]
    size = 0
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, int) and not -(2**63) <= one < 2**63:
            return False
        if not isinstance(one, dict | list | tuple | set | str):
            continue
        size += 1 + len(one)
        if size > MAX_META or depth > MAX_NESTED:
            return False
        inside = [*one, *one.values()] if isinstance(one, dict) else one
        if not isinstance(one, str):
            waiting += ((value, depth + 1) for value in inside)
    return True


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
        and all(isinstance(number, int | float) and -1e18 < number < 1e18 for number in value)
    )
