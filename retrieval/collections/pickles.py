"""Read a stranger's pickle without running it.

``pickle.load`` imports and calls every function that the file names. This reader imports nothing:
it goes through the opcodes and takes None, numbers, text, bytes, lists, dictionaries whose keys are
text or numbers, and numpy arrays and scalars of plain numbers or text; in weights files, also what
``networks/torch_files.py`` adds. Everything else is refused. Tuples and sets become lists: the hash
of a deeply nested tuple overflows the C stack.

There are two steps: ``parse`` gives lists and dictionaries with a ``StandIn`` in place of each
array, and ``resolve`` puts the arrays there.
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
MAX_STEPS = 4_000_000  # instructions; each makes an object of up to a hundred bytes

_PLAIN_DTYPE = re.compile(r"[<>|=]?[biufSU]\d{1,4}")
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}  # opcode → value for the stack
# Opcodes whose argument is the value.
_LITERALS = frozenset(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    """.split()  # noqa: SIM905
)


class Refused(Exception):
    """The pickle holds something that this reader does not take; the text says what."""


@dataclass(frozen=True, eq=False)
class Global:
    """Our replacement for a function or class that a pickle names.

    meaning: a function of the list of arguments, or a word where it may be named but not called.
    """

    meaning: Callable[[list], Any] | str


class StandIn:
    """A placeholder for an object that a pickle describes, until ``resolve``."""

    def build(self, state: Any) -> None:
        """Take the state that the pickle gives the object. Raises Refused where it has none."""
        raise Refused("an object with state of its own")


class _Dtype(StandIn):
    """Stands for a numpy.dtype: a checked type string."""

    def __init__(self, code: Any) -> None:
        # Other values could be lists that hold a list twice, and so on: gigabytes as text.
        if not _PLAIN_DTYPE.fullmatch(of_kind(code, str)):
            raise Refused(f"an array of type {code[:40]!r}")
        self.code = code.lstrip("<>|=")
        self.order = "<"

    def build(self, state: Any) -> None:
        # (version, byte order, subtype, names, fields, size, alignment, flags)
        of_kind(state, list)
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise Refused("an array of records")
        if not {*state[7:8]} <= {0, 8}:  # 8: text
            raise Refused("an array of objects")
        self.order = "<" if state[1] == "=" else state[1]

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array(StandIn):
    """Stands for a numpy array."""

    state: Sequence[Any]  # (version, shape, dtype, column-major, bytes)

    def build(self, state: Any) -> None:
        self.state = of_kind(state, list)

    @cached_property
    def value(self) -> np.ndarray:
        _, shape, dtype, fortran, raw = self.state
        return _array(raw, dtype, shape, "F" if fortran else "C")


def _list_of_set(args: list) -> list:
    return list(of_kind(args[0], list)) if args else []


def _bytes(args: list) -> bytes:
    if args:
        raise Refused("a call of bytes")
    return b""


def _encoded(args: list) -> bytes:
    if args[1] not in ("latin1", "latin-1"):
        raise Refused("a text in another encoding")
    return args[0].encode("latin1")


def _array_of_buffer(args: list) -> _Array:
    array = _Array()
    array.value = _array(args[0], args[1], args[2], args[3])
    return array


_OF_NUMPY: dict[str, Callable[[list], Any] | str] = {
    "ndarray": "numpy.ndarray",
    "dtype": lambda args: _Dtype(args[0]),
    "_reconstruct": lambda args: _Array(),
    "scalar": lambda args: _array(args[1], args[0], [], "C").item(),
    "_frombuffer": _array_of_buffer,
}
GLOBALS = {
    f"{module} {name}": Global(meaning)
    for module in (
        "numpy",
        "numpy.core.multiarray",
        "numpy._core.multiarray",
        "numpy.core.numeric",
        "numpy._core.numeric",
    )
    for name, meaning in _OF_NUMPY.items()
} | {
    "builtins set": Global(_list_of_set),
    "builtins frozenset": Global(_list_of_set),
    "__builtin__ set": Global(_list_of_set),
    "__builtin__ frozenset": Global(_list_of_set),
    "_codecs encode": Global(_encoded),
    "builtins bytes": Global(_bytes),
    "__builtin__ bytes": Global(_bytes),
}


def no_object_elsewhere(args: list) -> StandIn:
    """Refuse objects that are stored beside the pickle."""
    raise Refused("an object that is kept elsewhere")


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
    except Refused as error:
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
    """The value pickled in ``data``. Raises Refused, or the ordinary errors of broken input."""
    return resolve(parse(io.BytesIO(data)))


def parse(
    file: BinaryIO,
    known: Mapping[str, Global] = GLOBALS,
    elsewhere: Callable[[list], StandIn] = no_object_elsewhere,
    max_copied: int = MAX_BYTES,
) -> object:
    """The value of the pickle that begins here in a file, with stand-ins, for ``resolve``.

    known: "module name" of what it may name → its replacement. elsewhere: gives the placeholder of
    an object that is stored beside the pickle, from the list that says where. max_copied: bytes
    that the copies of bytes and text may have together.
    Raises Refused, or the ordinary errors of broken input.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    copied = 0
    for step, (opcode, arg, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if step >= MAX_STEPS or copied > max_copied:
            raise Refused("more than ground truth can hold")
        match name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                break
            case _ if name in _LITERALS:
                stack.append(arg)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
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
                of_kind(stack[-1], list).append(item)
            case "APPENDS" | "ADDITEMS":
                items = _above_mark(stack)
                of_kind(stack[-1], list).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(set_items({}, _above_mark(stack)))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = _above_mark(stack)
                set_items(stack[-1], items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                place = of_kind(arg, int)
                if place >= 2**32:  # larger numbers can be chosen to have the same hash
                    raise Refused("a place in the memo that no pickle needs")
                memo[place] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[of_kind(arg, int)])
            case "GLOBAL":
                stack.append(_global(of_kind(arg, str), known))
            case "STACK_GLOBAL":
                attribute, module = of_kind(stack.pop(), str), of_kind(stack.pop(), str)
                stack.append(_global(f"{module} {attribute}", known))
            case "REDUCE":
                copied += _call(stack)
            case "BUILD":
                copied += _build(stack)
            case "BINPERSID":
                stack.append(elsewhere(of_kind(stack.pop(), list)))
            case _:
                raise Refused(f"the instruction {name}")
    else:
        raise ValueError("no STOP")
    return stack.pop()


def _call(stack: list) -> int:
    """Call the function on the stack with its arguments, and put its result in place of both.

    Returns the bytes of the arguments.
    """
    args, function = of_kind(stack.pop(), list), of_kind(stack.pop(), Global)
    size = _size(args)
    if isinstance(function.meaning, str):
        raise Refused(f"a call of {function.meaning}")
    stack.append(function.meaning(args))
    return size


def _build(stack: list) -> int:
    """Give the state, last on the stack, to the object before it. Returns the state's bytes."""
    state = stack.pop()
    size = _size(state) if isinstance(state, list) else 0
    if not isinstance(stack[-1], StandIn):
        raise Refused("an object with state of its own")
    stack[-1].build(state)
    return size


def _no_stand_in(value: StandIn) -> Any:
    raise Refused("an object without a value")


def resolve(value: object, make: Callable[[Any], Any] = _no_stand_in) -> Any:
    """A value from ``parse``, with arrays in place of placeholders; shared parts stay shared.

    make: gives the object of any other placeholder.
    Raises Refused, or the ordinary errors of broken input.
    """
    return _resolve(value, MAX_DEPTH, {}, make)


def _resolve(
    value: Any, depth: int, done: dict[int, tuple[Any, int]], make: Callable[[Any], Any]
) -> Any:
    """done: ``id`` of each part → what it became, and how deep containers are nested in it."""
    result, height = done.get(id(value), (None, 0))
    # A shared part may be met first at the top, and then far below.
    if height > depth or (isinstance(value, list | dict) and depth == 0):
        raise Refused(f"containers nested more than {MAX_DEPTH} deep")
    if id(value) in done:
        return result
    if isinstance(value, list | dict):
        if isinstance(value, list):
            result = [_resolve(item, depth - 1, done, make) for item in value]
        else:
            result = {key: _resolve(item, depth - 1, done, make) for key, item in value.items()}
        parts = value if isinstance(value, list) else value.values()
        height = 1 + max((done[id(part)][1] for part in parts if id(part) in done), default=0)
    elif isinstance(value, _Array):
        result = value.value
    elif isinstance(value, _Dtype | Global) or value is _MARK:
        raise Refused("a function or class")
    elif isinstance(value, StandIn):
        result = make(value)
    else:
        return value
    done[id(value)] = result, height
    return result


def _global(name: str, known: Mapping[str, Global]) -> Global:
    if name not in known:
        raise Refused(f"the name {name.replace(' ', '.')[:80]!r}")
    return known[name]


def _array(raw: Any, dtype: Any, shape: Sequence[int], order: Literal["C", "F"]) -> np.ndarray:
    """A copy of ``raw`` as an array. Raises ValueError where the bytes are too few or too many."""
    numpy_dtype = of_kind(dtype, _Dtype).numpy
    if isinstance(raw, str):  # protocol 2 written by Python 2
        raw = raw.encode("latin1")
    # numpy refuses a shape that does not fit the bytes. To multiply the shape here would take
    # minutes for a million numbers, and gigabytes for a text and a number.
    array = np.frombuffer(of_kind(raw, bytes | bytearray), numpy_dtype).reshape(shape, order=order)
    if numpy_dtype.kind == "U":
        characters = np.frombuffer(raw, f"{numpy_dtype.byteorder}u4")
        if characters.max(initial=0) > sys.maxunicode:  # Python would raise a SystemError later
            raise ValueError("no text")
    return array.copy()


def _size(args: Any) -> int:
    """Bytes in the arguments of a function, with eight for each item of a list."""
    size = 8 * len(of_kind(args, list))
    for arg in args:
        if hasattr(arg, "__len__"):
            size += len(arg) * (1 if isinstance(arg, str | bytes | bytearray) else 8)
    return size


def _above_mark(stack: list) -> list:
    """Remove the items above the last mark, and the mark, from the stack. Returns the items."""
    for position in range(len(stack) - 1, -1, -1):
        if stack[position] is _MARK:
            items = stack[position + 1 :]
            del stack[position:]
            return items
    raise IndexError("no mark")


def set_items(target: Any, items: list) -> dict:
    """Set keys to values. items: key, value, key, value, … Raises Refused for other keys."""
    of_kind(target, dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Optimizers of old torch have memory addresses as keys, up to 2⁴⁷. From 2⁶¹ - 1 on,
        # different numbers have the same hash.
        is_number = isinstance(key, int) and 0 <= key < 2**60
        if not (is_number or isinstance(key, str)):
            raise Refused("a dictionary whose keys are not text or plain numbers")
        target[key] = value
    return target


def of_kind(value: Any, kind: Any) -> Any:
    """The value, which must have this type. Raises TypeError for another."""
    if not isinstance(value, kind):
        raise TypeError(f"unexpected {type(value).__name__}")
    return value
