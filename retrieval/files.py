"""Files that are there as a whole or not at all, and the digest that one is known by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` when all of it is written.

    Who reads ``path`` meanwhile reads the file before. Where the block raises, nothing has changed.
    Raises OSError.
    """
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(new, "wb") as file:
            yield file
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
