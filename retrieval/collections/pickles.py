"""Read a pickle that somebody else made without running it.

``pickle.load`` calls whatever the file names. This reader knows no calls at all: it walks the
opcodes and admits None, numbers, text, bytes, lists, dictionaries by text or number, and numpy
arrays and scalars of plain numbers or text; in weights files, also descriptions of tensors.
Everything else is refused. Tuples and sets come out as lists: the hash of a deeply nested tuple
overflows the C stack.
"""

from __future__ import annotations

import io
import pickletools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from retrieval import files
from retrieval.errors import RetrievalError

MAX_BYTES = 128_000_000  # ROxford5k's ground truth is 0.15 MB, one with a million names 30 MB
MAX_DEPTH = 20  # containers in containers: ground truth has 4, networks 6
MAX_DIMENSIONS = 8  # of a tensor; the weights of a layer have up to five
MAX_STEPS = 4_000_000  # instructions; each makes an object of up to a hundred bytes

_PLAIN_DTYPE = re.compile(r"[<>|=]?[biufSU]\d{1,4}")
_MARK = object()
_NUMPY = {
    f"{package} {name}": f"numpy {name}"
    for package in (
        "numpy",
        "numpy.core.multiarray",
        "numpy._core.multiarray",
        "numpy.core.numeric",
        "numpy._core.numeric",
    )
    for name in ("ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer")
}
NAMES = _NUMPY | {
    "builtins set": "set",
    "builtins frozenset": "set",
    "__builtin__ set": "set",
    "__builtin__ frozenset": "set",
    "_codecs encode": "encode",
    "builtins bytes": "bytes",
    "__builtin__ bytes": "bytes",
}
NUMBERS = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "int64": 8}  # bytes of each
NAMES_IN_WEIGHTS = NAMES | {
    "collections OrderedDict": "dict",
    "torch._utils _rebuild_tensor": "tensor",
    "torch._utils _rebuild_tensor_v2": "tensor",
    "torch._utils _rebuild_parameter": "parameter",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch FloatStorage": "float32",
    "torch DoubleStorage": "float64",
    "torch LongStorage": "int64",
}


class _Refused(Exception):
    """The pickle holds something that ground truth has no use for; the text says what."""


class _Name(str):
    """A function or class that the pickle names. It is never looked up."""


class _OrderedDict(dict[str | int, Any]):
    """A dictionary that may have a state."""


class _Dtype:
    """What stands for a numpy.dtype while reading: a checked type string."""

    def __init__(self, code: Any, *_: Any) -> None:
        # Anything else may hold a list twice, which holds another twice: gigabytes as text.
        if not _PLAIN_DTYPE.fullmatch(_of_kind(code, str)):
            raise _Refused(f"an array of type {code[:40]!r}")
        self.code = code.lstrip("<>|=")
        self.order = "<"

    def build(self, state: Any) -> None:
        # (version, byte order, subtype, names, fields, size, alignment, flags)
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise _Refused("an array of records")
        if not {*state[7:8]} <= {0, 8}:  # 8: text
            raise _Refused("an array of objects")
        self.order = "<" if state[1] == "=" else state[1]

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array:
    """What stands for a numpy array while reading."""

    state: Sequence[Any]  # (version, shape, dtype, column-major, bytes)

    def build(self, state: Sequence[Any]) -> None:
        self.state = state

    @cached_property
    def value(self) -> np.ndarray:
        _, shape, dtype, fortran, raw = self.state
        return _array(raw, dtype, shape, "F" if fortran else "C")


@dataclass(frozen=True, eq=False)
class Storage:
    """Where torch keeps the numbers of tensors.

    kind: of NUMBERS. key: its name in the file. count: how many numbers it has.
    """

    kind: str
    key: str
    count: int

    def __post_init__(self) -> None:
        if self.kind not in NUMBERS:
            raise _Refused(f"tensors of type {self.kind[:40]!r}")
        _of_kind(self.key, str)
        _of_kind(self.count, int)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of torch, as a pickle describes it.

    offset: the first of its numbers in the storage. size, stride: of each dimension, int.
    """

    storage: Storage
    offset: int
    size: list[int]
    stride: list[int]

    def __post_init__(self) -> None:
        _of_kind(self.storage, Storage)
        for number in (self.offset, *_of_kind(self.size, list), *_of_kind(self.stride, list)):
            if not 0 <= _of_kind(number, int) < 2**63:
                raise ValueError("no size, stride or offset")
        if len(self.size) != len(self.stride) or len(self.size) > MAX_DIMENSIONS:
            raise ValueError("no shape")


def read_pickle(path: Path) -> Any:
    """Contents of the pickle at ``path``: plain values, lists, dicts and numpy arrays.

    Raises RetrievalError when the file is missing, damaged, larger than MAX_BYTES, or holds
    anything else.
    """
    try:
        data = files.read(path, MAX_BYTES)
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return loads(data)
    except _Refused as error:
        raise RetrievalError(
            f"{path} is refused: it contains {error}, and ground truth is made of lists, "
            "dictionaries and numpy arrays only."
        ) from error
    except (
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        OverflowError,
    ) as error:
        raise RetrievalError(f"{path} is not a readable pickle; download it again.") from error


def loads(data: bytes) -> Any:
    """The value pickled in ``data``. Raises _Refused, or the ordinary errors of broken input."""
    return finished(built(io.BytesIO(data)))


def built(file: BinaryIO, names: Mapping[str, str] = NAMES, max_copied: int = MAX_BYTES) -> object:
    """The value of the pickle that begins here in a file, to be ``finished``.

    names: what it may name, and what that means here. max_copied: bytes that may be in several
    places, because the pickle asks for copies.
    Raises _Refused, or the ordinary errors of broken input.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    copied = 0
    for step, (opcode, arg, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if step >= MAX_STEPS or copied > max_copied:
            raise _Refused("more than ground truth can hold")
        match name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                break
            case (
                "INT"
                | "BININT"
                | "BININT1"
                | "BININT2"
                | "LONG"
                | "LONG1"
                | "LONG4"
                | "FLOAT"
                | "BINFLOAT"
                | "STRING"
                | "BINSTRING"
                | "SHORT_BINSTRING"
                | "UNICODE"
                | "BINUNICODE"
                | "SHORT_BINUNICODE"
                | "BINUNICODE8"
                | "BINBYTES"
                | "SHORT_BINBYTES"
                | "BINBYTES8"
                | "BYTEARRAY8"
            ):
                stack.append(arg)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "MARK":
                stack.append(_MARK)
            case "POP":
                stack.pop()
            case "POP_MARK":
                _above_mark(stack)
            case "DUP":
                stack.append(stack[-1])
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_SET":
                stack.append([])
            case "LIST" | "TUPLE" | "FROZENSET":
                stack.append(_above_mark(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack[-count:] = [stack[-count:]]
            case "APPEND":
                item = stack.pop()
                _of_kind(stack[-1], list).append(item)
            case "APPENDS" | "ADDITEMS":
                items = _above_mark(stack)
                _of_kind(stack[-1], list).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = _above_mark(stack)
                stack.append(_set_items({}, items))
            case "SETITEM":
                items = [stack[-2], stack[-1]]
                del stack[-2:]
                _set_items(stack[-1], items)
            case "SETITEMS":
                items = _above_mark(stack)
                _set_items(stack[-1], items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                place = _of_kind(arg, int)
                if place >= 2**32:  # such numbers may be made to have one hash
                    raise _Refused("a place in the memo that no pickle needs")
                memo[place] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[_of_kind(arg, int)])
            case "GLOBAL":
                stack.append(_known(_of_kind(arg, str), names))
            case "STACK_GLOBAL":
                attribute, module = _of_kind(stack.pop(), str), _of_kind(stack.pop(), str)
                stack.append(_known(f"{module} {attribute}", names))
            case "REDUCE":
                args, function = stack.pop(), stack.pop()
                copied += _size(args)
                stack.append(_made(_of_kind(function, _Name), _of_kind(args, list)))
            case "BUILD":
                state = stack.pop()
                target = stack[-1]
                if isinstance(target, _Array | _Dtype):
                    copied += _size(state)
                    target.build(_of_kind(state, list))
                # Torch gives dictionaries of tensors the versions of their layers.
                elif not isinstance(target, _OrderedDict) or _of_kind(state, dict).keys() != {
                    "_metadata"
                }:
                    raise _Refused("an object with state of its own")
            case "BINPERSID":
                what, kind, key, _, count, *view = _of_kind(stack.pop(), list)
                if what != "storage" or view not in ([], [None]):
                    raise _Refused("an object that is kept elsewhere")
                stack.append(Storage(_of_kind(kind, _Name), key, count))
            case _:
                raise _Refused(f"the instruction {name}")
    else:
        raise ValueError("no STOP")
    return stack.pop()


def finished(value: object, made: Callable[[Tensor], Any] | None = None) -> Any:
    """What was ``built``, with arrays in place of what stood for them; shared parts stay shared.

    made: what takes the place of a tensor. Raises _Refused, or the ordinary errors of broken input.
    """
    return _plain(value, MAX_DEPTH, {}, made)


def _plain(
    value: Any, depth: int, done: dict[int, Any], made: Callable[[Tensor], Any] | None
) -> Any:
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _Array):
        result: Any = value.value
    elif isinstance(value, Tensor) and made:
        result = made(value)
    elif isinstance(value, _Name | _Dtype | Storage | Tensor) or value is _MARK:
        raise _Refused("a function or class")
    elif not isinstance(value, list | dict):
        return value
    elif depth == 0:
        raise _Refused(f"containers nested more than {MAX_DEPTH} deep")
    elif isinstance(value, list):
        result = [_plain(item, depth - 1, done, made) for item in value]
    else:
        result = {key: _plain(item, depth - 1, done, made) for key, item in value.items()}
    done[id(value)] = result
    return result


def _known(name: str, names: Mapping[str, str]) -> _Name:
    if name not in names:
        raise _Refused(f"the name {name.replace(' ', '.')[:80]!r}")
    return _Name(names[name])


def _made(function: str, args: list) -> Any:
    match function:
        case "set":
            return list(_of_kind(args[0], list)) if args else []
        case "bytes" if not args:
            return b""
        case "encode" if args[1] in ("latin1", "latin-1"):
            return args[0].encode("latin1")
        case "numpy dtype":
            return _Dtype(args[0])
        case "numpy _reconstruct":
            return _Array()
        case "numpy scalar":
            return _array(args[1], args[0], [], "C").item()
        case "numpy _frombuffer":
            array = _Array()
            array.value = _array(args[0], args[1], args[2], args[3])
            return array
        case "dict":
            pairs = [_of_kind(pair, list) for pair in _of_kind(args[0], list)] if args else []
            return _set_items(_OrderedDict(), [one for key, value in pairs for one in (key, value)])
        case "tensor":
            # More is: gradient, hooks, and perhaps whether the numbers are to be negated.
            storage, offset, size, stride, *more = args
            if any(more[2:]):
                raise _Refused("a tensor that is not stored as it is")
            return Tensor(storage, offset, size, stride)
        case "parameter":
            return args[0]
    raise _Refused(f"a call of {function}")


def _array(raw: Any, dtype: Any, shape: Sequence[int], order: Literal["C", "F"]) -> np.ndarray:
    """A private copy of ``raw`` as an array; the bytes must be exactly as many as it needs."""
    numpy_dtype = _of_kind(dtype, _Dtype).numpy
    if isinstance(raw, str):  # protocol 2 written by Python 2
        raw = raw.encode("latin1")
    # numpy refuses a shape that does not fit the bytes. Multiplied here, a million numbers would
    # take minutes, and a text and a number gigabytes.
    array = np.frombuffer(_of_kind(raw, bytes | bytearray), numpy_dtype).reshape(shape, order=order)
    if numpy_dtype.kind == "U":
        characters = np.frombuffer(raw, f"{numpy_dtype.byteorder}u4")
        if characters.max(initial=0) > sys.maxunicode:  # Python would raise a SystemError later
            raise ValueError("no text")
    return array.copy()


def _size(args: Any) -> int:
    """Bytes in what a function is given, eight for each item of a list."""
    size = 8 * len(_of_kind(args, list))
    for one in args:
        if hasattr(one, "__len__"):
            size += len(one) * (1 if isinstance(one, str | bytes | bytearray) else 8)
    return size


def _above_mark(stack: list) -> list:
    """Take everything above the last mark, and the mark, from the stack."""
    for position in range(len(stack) - 1, -1, -1):
        if stack[position] is _MARK:
            items = stack[position + 1 :]
            del stack[position:]
            return items
    raise IndexError("no mark")


def _set_items(target: Any, items: list) -> dict:
    _of_kind(target, dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        # The state of torch's optimizers has numbers: up to 2⁴⁷, addresses in memory.
        is_number = isinstance(key, int) and 0 <= key < 2**60  # of larger ones, many have one hash
        if not (is_number or isinstance(key, str)) or isinstance(key, _Name):
            raise _Refused("a dictionary whose keys are not text or plain numbers")
        target[key] = value
    return target


def _of_kind(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"unexpected {type(value).__name__}")
    return value
