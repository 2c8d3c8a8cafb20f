"""Names of pictures: relative posix paths below the folder of a collection."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import PurePath, PurePosixPath

from retrieval import files
from retrieval.errors import RetrievalError

LONGEST = 4096  # characters: no system has longer paths


def check_name(name: str) -> str:
    """``name`` if it is a relative path that stays below its folder."""
    # First: a path takes half a microsecond and up to a hundred bytes for each folder in it.
    too_long = len(name) > LONGEST or name.count("/") > files.DEEPEST
    path = PurePath("" if too_long else name)
    wrong = not path.parts or path.is_absolute() or path.drive or ".." in path.parts
    # Half a character, as JSON can spell it, is in no file name.
    if wrong or re.search("[\0\ud800-\udc7f\udd00-\udfff]", name):
        raise RetrievalError(
            f"{name[:100]!r} is no picture name: it must be a path below the folder."
        )
    return name


def plain_name(name: str) -> str:
    """A picture's name as collections have it: ./a.jpg, as ``find .`` writes it, is a.jpg."""
    # Most names have no folder, and a path takes a microsecond to make.
    return PurePosixPath(name).as_posix() if "/" in name else name


def by_ending(names: Sequence[str], wanted: Container[str]) -> dict[str, str]:
    """Picture → the longest of the paths ``wanted`` that its own path ends with.

    A file name alone is such a path; a zip may add a folder around all pictures. A path that
    several pictures end with is for none of them, unless it is the whole path of one.
    """
    found: dict[str, str | None] = {}
    for name in names:
        start = 0
        for part in name.split("/"):
            # Cut off, not joined: a name of 200 folders has as many endings.
            if (ending := name[start:]) in wanted:
                found[ending] = None if ending in found else name
            start += len(part) + 1
    endings = {name: name for name in names if name in wanted}
    for ending, only in found.items():
        if only is not None:
            endings.setdefault(only, ending)
    return endings
