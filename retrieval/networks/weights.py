"""The only reader of weights files. Nothing in them is executed: ``weights_only=True``.

A SavedModel of TensorFlow is a program and has to be run: see ``methods/saved_model.py``.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickletools
import re
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from retrieval import files
from retrieval.collections import pickles
from retrieval.errors import RetrievalError
from retrieval.networks.records import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint.

    trunk: tensors by name, or a whole network that was brought in memory. head: arrays by name, the
    layers after the trunk. meta: what the file says of itself.
    """

    trunk: Mapping[str, torch.Tensor] | torch.nn.Module
    head: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The trunk of a file, tensors by name. Raises RetrievalError for a whole network."""
        if not isinstance(self.trunk, Mapping):
            raise RetrievalError("A network that was brought in memory cannot be trained here.")
        return self.trunk


_loading = threading.Lock()


def digest(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file or of the names and contents of all files in a folder.

    Raises RetrievalError where something cannot be read.
    """
    try:
        if path.is_file():
            return files.digest(path)
        total = hashlib.sha256()
        for file in sorted(inner for inner in path.rglob("*") if inner.is_file()):
            name = os.fsencode(file.relative_to(path).as_posix())
            total.update(name + f" {digest(file)}\n".encode())
        return total.hexdigest()
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read: {error.strerror}.") from error


def read_tensors(path: Path, sha256: str | None = None) -> Any:
    """What a ``.pth`` file holds: tensors in plain containers.

    sha256: what the file must have, in hexadecimal. Raises RetrievalError for another SHA-256, for
    a file that holds anything else, and for one that is damaged.
    """
    import torch

    if sha256 is not None and digest(path) != sha256:
        raise RetrievalError(f"{path} does not have the SHA-256 it should have; install it again.")
    try:
        # cirtorch keeps its learned whitening as numpy arrays. Torch's list of names is that of the
        # whole process: who is ready would take them from another thread.
        with _loading, torch.serialization.safe_globals(pickles.STAND_INS):
            content = torch.load(_checked_file(path), map_location="cpu", weights_only=True)
        return pickles.with_arrays(content, path.stat().st_size)
    except Exception as error:  # torch raises many kinds on hostile bytes
        raise RetrievalError(
            f"{path.name} is not a weights file that can be read safely: damaged, cut off, or it "
            "holds more than tensors and plain containers. Who has the network can save it again "
            "with torch.save({'meta': …, 'state_dict': network.state_dict()}, FILE)."
        ) from error


def _checked_file(path: Path) -> BinaryIO:
    """A file in memory whose pickles were checked, for torch to read.

    Raises ValueError for what is refused, or whatever zipfile and pickletools raise.
    """
    file = io.BytesIO(files.read(path))
    size = len(file.getbuffer())
    if not zipfile.is_zipfile(file) and not file.getvalue().startswith(b"PK"):
        file.seek(0)
        for _ in range(LEGACY_PICKLES):
            _check_pickle(file, size)
        file.seek(0)
        return file
    # Written again: torch's own reader may find another list of files in the same bytes.
    rewritten = io.BytesIO()
    source = files.ShortReads(file)
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(rewritten, "w") as copy:
        source.most = size
        entries = archive.infolist()
        # torch does not compress, so a file that unpacks to more than its size is a bomb.
        if any(entry.compress_type for entry in entries):
            raise ValueError("compressed")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("larger than the file")
        if len({entry.filename.lower() for entry in entries}) != len(entries):
            raise ValueError("two files of one name")
        for entry in entries:
            data = archive.read(entry)
            copy.writestr(entry.filename, data)
            if entry.filename.lower().endswith(".pkl"):
                _check_pickle(io.BytesIO(data), size)
    rewritten.seek(0)
    return rewritten


LEGACY_PICKLES = 5  # at the beginning of a file from before torch 1.6
MAX_META = 1_000_000  # characters and values in what a network says of itself; ours say 3000
MAX_NESTED = 20  # containers in containers; ours have 4
MAX_TUPLE = 1000  # values, with those of tuples in it; torch's have a dozen
MAX_CALLS = 1000  # of numpy, and huge numbers: an array takes five, files have a dozen at most
_TENSOR = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor(_v2)?|parameter)|torch \w+Storage"
)
_ARRAY = re.compile(
    r"numpy (ndarray|dtype)|numpy\._?core\.multiarray (_reconstruct|scalar)|_codecs encode"
)
_STATEFUL = re.compile(r"collections OrderedDict|numpy dtype|.* _reconstruct")


_FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS")
_OTHER = object()


class _Global(str):
    """A function or class that a pickle names."""


class _Made(str):
    """An object, by the name of the function that made it."""


class _Tuple(tuple[Any, ...]):
    """A tuple. size: its values and those of tuples in it, which may be the same ones again."""

    size: int


class _Keys(set[Any]):
    """A dictionary, by its keys; None for those that are no text."""


def _check_pickle(file: BinaryIO, size: int) -> None:
    """Refuse a pickle that takes more time or memory than a file of ``size`` bytes should.

    It runs nothing of the pickle. torch, which runs no code either, would make a bytearray of any
    length, encode texts in slow ways, and copy a long list or text again and again.
    Raises ValueError, or whatever pickletools raises.
    """
    # What the pickle builds, as far as it matters: numbers, text, tuples, None, keys of
    # dictionaries, names and the objects that they made; else _OTHER.
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    mark = object()
    calls = encoded = filled_dictionaries = 0
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        result: Any = argument if isinstance(argument, str | int) else _OTHER
        if name == "GLOBAL":
            assert isinstance(argument, str)
            if not _TENSOR.fullmatch(argument) and not _ARRAY.fullmatch(argument):
                raise ValueError(argument)
            result = _Global(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            result = memo[argument]
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            result = {"NEWTRUE": True, "NEWFALSE": False}.get(name)
        elif isinstance(argument, int) and abs(argument) >= 2**31:
            calls += 1  # a dictionary of numbers that were made to have one hash takes hours
        elif name in ("NEWOBJ", "DUP"):
            raise ValueError(name)
        before = operation.stack_before
        operands: list[Any] = []
        if pickletools.stackslice in before:
            while (item := stack.pop()) is not mark:
                operands.append(item)
            before = before[:-2]
        operands = [*operands, *(stack.pop() for _ in before)][::-1]
        if name in ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            result = _Tuple(operands)
            result.size = len(result) + sum(one.size for one in result if isinstance(one, _Tuple))
            if result.size > MAX_TUPLE:  # it takes the time of all of them to look for a key
                raise ValueError("tuples in tuples")
        elif name == "EMPTY_DICT":
            result = _Keys()
        elif name in _FILLING:
            result = operands[0]
            if isinstance(result, _Keys):
                result.update(key if isinstance(key, str) else None for key in operands[1::2])
        elif name == "BUILD":
            result, state = operands
            if not isinstance(result, _Made) or not _STATEFUL.fullmatch(result):
                raise ValueError(result)
            if result == "collections OrderedDict" and (
                # Other attributes take the place of its methods: its values would be others.
                not isinstance(state, _Keys) or state - {"_metadata"}
            ):
                raise ValueError(state)
            calls += 1
        elif name == "REDUCE":
            function, arguments = operands
            result = _Made(function) if isinstance(function, _Global) else _OTHER
            if function == "_codecs encode":
                text, codec = arguments
                if codec not in ("latin1", "latin-1"):
                    raise ValueError(codec)
                encoded += len(text)
            elif function == "collections OrderedDict":
                filled_dictionaries += arguments != ()
            elif not isinstance(function, _Global):
                raise ValueError("a call of what is no function")
            calls += bool(isinstance(function, _Global) and _ARRAY.fullmatch(function))
        if calls > MAX_CALLS or encoded > 2 * size or filled_dictionaries > 10:
            raise ValueError("too much work")
        stack += [mark if name == "MARK" else result for _ in operation.stack_after]


def read_cirtorch(path: Path, sha256: str | None = None) -> Weights:
    """The weights in a file of cirtorch (Radenović et al., TPAMI 2018), or of our training.

    sha256: what the file must have, in hexadecimal. Raises RetrievalError for another SHA-256 and
    for a file whose ``meta`` or tensors cannot be used.
    """
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
        or not _is_small(data["meta"])
        or not all(isinstance(key, str) for key in state)
        or not all(_is_plain_tensor(value) for value in state.values())
    ):
        raise RetrievalError(f"{path.name} is not a cirtorch network: wrong meta or state_dict.")
    # Fields that old files leave out, with cirtorch's own defaults.
    meta = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} | data["meta"]
    if not isinstance(meta.get("architecture"), str) or not isinstance(meta.get("pooling"), str):
        raise RetrievalError(f"{path.name} does not say its architecture and pooling.")
    if not isinstance(meta.get("settings", {}), dict):
        raise RetrievalError(f"The settings of {path.name} are no settings.")
    if (
        not _is_three_numbers(meta["mean"])
        or not _is_three_numbers(meta["std"])
        or min(meta["std"]) <= 0
    ):
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


def _is_small(meta: dict) -> bool:
    """Whether it can be written out: at most ``MAX_META`` characters and values, no huge number.

    A list that holds another one twice, thirty times over, takes a gigabyte as text.
    """
    to_count: list[tuple[Any, int]] = [(meta, 0)]
    size = 0
    while to_count:
        value, depth = to_count.pop()
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return False
        if not isinstance(value, dict | list | tuple | set | str):
            continue
        size += 1 + len(value)
        if size > MAX_META or depth > MAX_NESTED:
            return False
        contents = [*value, *value.values()] if isinstance(value, dict) else value
        if not isinstance(value, str):
            to_count += ((content, depth + 1) for content in contents)
    return True


def _is_plain_tensor(value: Any) -> bool:
    """Whether it is a dense tensor on the CPU, of a usual type, with as much memory as it needs.

    Not plain are sparse and quantised ones, 8-bit floats, those without data (meta), those whose
    numbers are to be negated, and views that show one number a million times.
    """
    import torch

    types = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in types
        and not value.is_neg()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _is_three_numbers(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(number, int | float) and -1e18 < number < 1e18 for number in value)
    )
