"""Read the files that ``torch.save`` writes, without torch: nothing in them is executed.

In such a file a pickle describes the tensors, and storages beside it hold their numbers.
``reading`` gives both, and ``resolve`` puts tensors in place of their descriptions. What else the
pickle may hold is listed in ``collections/pickles.py``.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from retrieval import files
from retrieval.collections import pickles
from retrieval.collections.pickles import GLOBALS, Global, Refused, StandIn, of_kind
from retrieval.errors import RetrievalError

MAX_BYTES = 1_000_000_000  # of weights; the largest registered network has less than half
MAX_DIMENSIONS = 8  # of a tensor; the weights of a layer have up to five
NUMBER_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "int64": 8}


@dataclass(frozen=True, eq=False)
class Storage(StandIn):
    """A storage: an array of numbers that tensors share.

    kind: a key of NUMBER_BYTES. key: the storage's name in the file. count: of its numbers.
    """

    kind: str
    key: str
    count: int

    def __post_init__(self) -> None:
        if self.kind not in NUMBER_BYTES:
            raise Refused("tensors of another type")
        of_kind(self.key, str)
        of_kind(self.count, int)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * NUMBER_BYTES[self.kind]


@dataclass(frozen=True, eq=False)
class Tensor(StandIn):
    """A tensor of torch, as a pickle describes it.

    offset: position of its first number in the storage. size, stride: int, for each dimension;
    strides count numbers, not bytes.
    """

    storage: Storage
    offset: int
    size: list[int]
    stride: list[int]

    def __post_init__(self) -> None:
        of_kind(self.storage, Storage)
        for number in (self.offset, *of_kind(self.size, list), *of_kind(self.stride, list)):
            if not 0 <= of_kind(number, int) < 2**63:
                raise ValueError("no size, stride or offset")
        if len(self.size) != len(self.stride) or len(self.size) > MAX_DIMENSIONS:
            raise ValueError("no shape")
        # One without numbers may have a side of any length, at which NumPy fails.
        if math.prod(max(side, 1) for side in self.size) > MAX_BYTES:
            raise ValueError("more numbers than a file can hold")


class _OrderedDict(dict[str | int, Any], StandIn):
    """Stands for an OrderedDict, in which torch keeps the tensors of a network."""

    def build(self, state: Any) -> None:
        if of_kind(state, dict).keys() != {"_metadata"}:  # the versions of layers
            super().build(state)


def _ordered_dict(args: list) -> dict:
    pairs = [of_kind(pair, list) for pair in of_kind(args[0], list)] if args else []
    items = [item for key, value in pairs for item in (key, value)]
    return pickles.set_items(_OrderedDict(), items)


def _tensor(args: list) -> Tensor:
    # The rest: requires_grad, hooks, and perhaps metadata, as that the numbers are to be negated.
    storage, offset, size, stride, *rest = args
    if any(rest[2:]):
        raise Refused("a tensor that is not stored as it is")
    return Tensor(storage, offset, size, stride)


KNOWN = GLOBALS | {
    "collections OrderedDict": Global(_ordered_dict),
    "torch._utils _rebuild_tensor": Global(_tensor),
    "torch._utils _rebuild_tensor_v2": Global(_tensor),
    "torch._utils _rebuild_parameter": Global(lambda args: args[0]),
    "torch HalfStorage": Global("float16"),
    "torch BFloat16Storage": Global("bfloat16"),
    "torch FloatStorage": Global("float32"),
    "torch DoubleStorage": Global("float64"),
    "torch LongStorage": Global("int64"),
}


def check_size(path: Path, size: int) -> None:
    """Raise RetrievalError for weights that are too large, and for sparse files.

    path: a file, or a folder. size: bytes of the file, or of all files in the folder.
    """
    if size > MAX_BYTES:
        raise RetrievalError(
            f"{path.name} is refused: weights have at most {MAX_BYTES // 1_000_000_000} GB, and it "
            f"has {files.human_bytes(size)}."
        )
    if path.is_file() and files.has_holes(path):
        raise RetrievalError(
            f"{path.name} is refused: parts of it were never written. Copy or download it again."
        )


def _storage(args: list) -> Storage:
    tag, kind, key, _, count, *view = args
    if tag != "storage" or view not in ([], [None]):
        raise Refused("an object that is kept elsewhere")
    return Storage(of_kind(kind, Global).meaning, key, count)


@contextmanager
def reading(path: Path) -> Iterator[tuple[object, Iterator[tuple[Storage, bytearray]]]]:
    """The content of a weights file, as ``pickles.parse`` gives it, and the storages with bytes.

    Raises RetrievalError for any other file, and where the block of ``with`` raises anything.
    """
    if path.is_file():
        check_size(path, path.stat().st_size)
    try:
        if not path.is_file():
            raise OSError("it is no file")  # a pipe has no end
        size = path.stat().st_size
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            yield read_zip(file, size) if is_zip else _read_legacy(file, size)
    except Exception as error:  # hostile bytes and torch raise many kinds
        raise RetrievalError(
            f"{path.name} is not a weights file that can be read safely: damaged, cut off, or it "
            "holds more than tensors and plain containers. Who has the network can save it again "
            "with torch.save({'meta': …, 'state_dict': network.state_dict()}, FILE)."
        ) from error


def read_zip(file: BinaryIO, size: int) -> tuple[object, Iterator[tuple[Storage, bytearray]]]:
    """The format since torch 1.6: a zip with a pickle and a file for each storage.

    size: bytes of the file. What is given: as for ``reading``. Hostile bytes raise many kinds.
    """
    source = files.ShortReads(file)
    archive = zipfile.ZipFile(source)
    source.max_bytes = size

    def member(name: str) -> bytearray:
        entry = archive.getinfo(name)
        # torch does not compress, so a file that unpacks to more than its size is a bomb.
        if entry.compress_type or entry.file_size > size:
            raise ValueError("compressed")
        data = bytearray()
        with archive.open(entry) as source:
            while chunk := source.read(files.CHUNK):
                data += chunk
        return data

    [name] = [entry for entry in archive.namelist() if entry.endswith("/data.pkl")]
    folder = name.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and member(order) != b"little":
        raise ValueError("numbers in another order of bytes")
    value = _parse(io.BytesIO(member(name)), size)

    def numbers() -> Iterator[tuple[Storage, bytearray]]:
        for storage in _storages(value, size).values():
            data = member(f"{folder}data/{storage.key}")
            if len(data) != storage.size:
                raise ValueError("cut off")
            yield storage, data

    return value, numbers()


def _read_legacy(
    file: io.BufferedReader, size: int
) -> tuple[object, Iterator[tuple[Storage, bytearray]]]:
    """The format before torch 1.6: five pickles, and then the storages."""
    _magic, _version, system, value, keys = (_parse(file, size) for _ in range(5))
    if not pickles.resolve(system)["little_endian"]:
        raise ValueError("numbers in another order of bytes")
    storages = _storages(value, size)

    def numbers() -> Iterator[tuple[Storage, bytearray]]:
        for key in pickles.resolve(keys):
            storage = storages[key]
            if int.from_bytes(file.read(8), "little") != storage.count:
                raise ValueError("another number of numbers")
            data = bytearray(storage.size)
            if file.readinto(data) != storage.size:
                raise ValueError("cut off")
            yield storage, data

    return value, numbers()


def _parse(file: BinaryIO, size: int) -> object:
    # An array is copied up to three times on its way.
    return pickles.parse(file, KNOWN, _storage, max_copied=4 * size)


def _storages(value: object, size: int) -> dict[str, Storage]:
    """The storages of all tensors, by key. size: bytes of the file, which they must fit into."""
    storages: dict[str, Storage] = {}
    resolve(value, lambda tensor: storages.setdefault(tensor.storage.key, tensor.storage))
    if sum(storage.size for storage in storages.values()) > size:
        raise ValueError("larger than the file")
    return storages


def resolve(value: object, make_tensor: Callable[[Tensor], Any]) -> Any:
    """A value from ``reading``, with arrays and tensors in place of their descriptions.

    make_tensor: gives the tensor. Raises what ``pickles.resolve`` does.
    """
    return pickles.resolve(value, lambda stand_in: make_tensor(of_kind(stand_in, Tensor)))
