"""Readers of arguments, and the arguments that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from retrieval import methods
from retrieval.errors import RetrievalError
from retrieval.images import read_box
from retrieval.index.layout import Part
from retrieval.index.loading import store_at
from retrieval.index.milvus import Address, is_address
from retrieval.ranking.chain import BEST, RERANKERS, parse_chain

T = TypeVar("T")
MAX_NUMBER = 10**9  # some libraries take no larger numbers


def command(
    commands, name: str, run: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    """Add a command to subparsers. run: what it does; its return value is the exit code.

    text: for the list of commands, and with a capital letter and a full stop for its own help.
    """
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def method_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that ``load_method`` reads."""
    parser.add_argument("--method", required=True, choices=methods.METHODS)
    parser.add_argument("--checkpoint", metavar="ID or FILE", help="default: the embedded one")
    own = "default: that of the checkpoint"
    parser.add_argument(
        "--size", type=positive, metavar="PX", help=f"pixels of the longer side; {own}"
    )
    parser.add_argument(
        "--scales",
        type=numbers,
        metavar="1,1.4142,0.7071",
        help="factors of that size at which a picture is described; default: those of the "
        "checkpoint",
    )
    parser.add_argument(
        "--keypoints", type=positive, metavar="N", help=f"of a picture, at most, for DELF; {own}"
    )


def load_method(args: argparse.Namespace) -> methods.Method:
    """The method that the arguments name; settings without an argument are the checkpoint's."""
    settings = {key: getattr(args, key) for key in ("size", "scales", "keypoints")}
    stated = {key: value for key, value in settings.items() if value is not None}
    return methods.load(args.method, args.checkpoint, **stated)


def join_boxes(argv: Sequence[str]) -> list[str]:
    """The words with ``--box -5,0,9,9`` as ``--box=-5,0,9,9``.

    argparse would take the negative number for an option.
    """
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--box":
            joined[-1] = f"--box={word}"
        else:
            joined.append(word)
    return joined


def _reader(read: Callable[[str], T]) -> Callable[[str], T]:
    """``read``, with its RetrievalError as the error that argparse shows."""

    def reader(text: str) -> T:
        try:
            return read(text)
        except RetrievalError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return reader


def _in_folder(text: str) -> Path:
    """Where an index is or will be, for commands that need its files.

    Raises RetrievalError for a store, also for the folder on this machine that stands for one.
    """
    if store_at(place(text)):
        raise RetrievalError(f"{text} is a store, and this needs the folder of an index")
    return Path(text)


box, chain, store = _reader(read_box), _reader(parse_chain), _reader(Address.parse)
folder = _reader(_in_folder)


def numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None


def then_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--then``, a chain of re-rankers."""
    parser.add_argument(
        "--then",
        type=chain,
        default=(),
        metavar="NAMES",
        help=f"re-rank: {', '.join(RERANKERS)}, in the order given with commas between, or best "
        f"for {','.join(BEST)}",
    )


def place(text: str) -> Path | str:
    """Where an index is: a folder, or the address of a store, which is no path."""
    return text if is_address(text) else Path(text)


def positive(text: str) -> int:
    return whole_number(text, lowest=1)


def whole_number(text: str, lowest: int = 0) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not lowest <= value <= MAX_NUMBER:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from {lowest} to a billion"
        )
    return value


def part(text: str) -> Part:
    number, _, parts = text.partition("/")
    try:
        value = Part(int(number), int(parts))
    except ValueError:
        value = Part(0, 0)
    if not 1 <= value.number <= value.parts:
        raise argparse.ArgumentTypeError(f"{text!r} is not a part of a whole, such as 3/8")
    return value


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 1")
    return value
