"""Opens indexes, from a folder or a store.

``layout`` describes the files. ``load`` refuses an index that does not pass the ``checks`` or has
other checksums than its manifest, with a sentence that says what differs.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retrieval import files
from retrieval.errors import RetrievalError
from retrieval.index import checks, layout, saving
from retrieval.index.index import Index
from retrieval.index.layout import AGAIN, Part
from retrieval.index.milvus import STORES, Address, is_address

ATTEMPTS = 20  # to open an index while another one takes its place
MAX_MANIFEST = 100_000_000  # bytes; each picture that could not be read has about a hundred


def load(path: str | Path, part: bool = False) -> Index:
    """Open an index and check all of it: manifest, sizes, checksums, shapes, names.

    path: a folder, or the address of a store as text: ``milvus://host:port/collection``.
    part: whether to open a part, made with ``index --part``, and not a whole index.
    Raises RetrievalError with a sentence that says what is wrong and what to do.
    """
    address = store_at(path)
    if address is not None:
        from retrieval.index import stored

        return stored.opened(address)
    path = Path(path)
    for _ in range(ATTEMPTS):
        before = version_of(path)
        try:
            with _readable(path):
                index = _load(path, part)
            if version_of(path) == before:  # else its files may be of two indexes
                return index
        except RetrievalError:
            # Another process may be putting a new one in its place, which takes two renames.
            # The order counts: where the second came during the look, the version has changed.
            moved = saving.is_moved(path)
            if version_of(path) == before and (before or not moved):
                raise
            time.sleep(0.05)
    raise RetrievalError(
        f"The index {path} is replaced all the time; try again later. If its build was stopped, "
        "run that again."
    )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn an error of the system about a file of an index into a RetrievalError."""
    try:
        yield
    except OSError as error:
        raise RetrievalError(
            f"{error.filename or path} cannot be read: {error.strerror or error}."
        ) from error


def store_at(path: str | Path) -> Address | None:
    """The store that an address names or a folder stands for; None for any other folder."""
    if is_address(path):
        return Address.parse(str(path))
    if STORES not in os.environ:
        return None
    from retrieval.index import store_folders

    return store_folders.store_behind(Path(path))


def version_of(path: Path) -> tuple[int, int] | None:
    """A cache key for the index in a folder, which changes when another one takes its place.

    None where there is no index.
    """
    try:
        state = (path / "manifest.json").stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _load(path: Path, part: bool) -> Index:
    manifest = read_manifest(path)
    if ("part" in manifest) != part:
        raise RetrievalError(
            f"{path} is a whole index and not a part of one."
            if part
            else f"{path} is {Part(**manifest['part'])} of an index; merge all parts to use them."
        )
    for name, stated in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise RetrievalError(f"The index {path} lacks its file {name}{AGAIN}.")
        if file.stat().st_size != stated["bytes"]:
            raise RetrievalError(
                f"{name} in the index {path} has {file.stat().st_size} bytes instead of "
                f"{stated['bytes']}: it was cut off or edited{AGAIN}."
            )
    checks.check_sizes(manifest, path)
    for name, stated in manifest["files"].items():
        file = path / name
        if files.digest(file) != stated["sha256"]:
            raise RetrievalError(
                f"{name} in the index {path} does not have the checksum in its manifest: it was "
                f"edited or damaged{AGAIN}."
            )
    images = _read_json(path / "images.json", checks.MAX_IMAGES)
    types = layout.array_types(manifest["kind"], part, layout.search_of(manifest))
    arrays = {name: _open_array(path / f"{name}.npy") for name in types}
    checks.check_contents(manifest, images, arrays, path)
    return Index(path, manifest, images, arrays)


def _read_json(path: Path, max_bytes: int) -> Any:
    try:
        return files.read_json(path, max_bytes)
    except ValueError as error:
        raise RetrievalError(f"{path} cannot be read as JSON{AGAIN}.") from error


def _open_array(path: Path) -> np.ndarray:
    try:
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except ValueError:  # an empty array cannot be mapped
            with open(path, "rb") as file:
                return np.lib.format.read_array(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # numpy raises a dozen kinds on hostile bytes
        raise RetrievalError(f"{path} is not a plain numpy array{AGAIN}.") from error


def read_manifest(path: Path) -> dict[str, Any]:
    """The checked manifest of an index; its other files are not read.

    Raises RetrievalError where it is missing or not one.
    """
    with _readable(path):
        if not (path / "manifest.json").is_file():
            raise RetrievalError(
                f"There is no index in {path}: it has no manifest.json; `python -m retrieval "
                "index` makes one."
            )
        manifest = _read_json(path / "manifest.json", MAX_MANIFEST)
    checks.check_manifest(manifest, path)
    return manifest
