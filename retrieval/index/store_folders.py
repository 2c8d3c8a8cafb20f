"""Folders on this machine for stores, one a store, which pages list like the folder of an index.

Each has a copy of the store's manifest, and keeps the evaluations of the store.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from pathlib import Path
from typing import Any

from retrieval import files
from retrieval.collections.collection import data_folder
from retrieval.errors import RetrievalError
from retrieval.index.milvus import STORES, Address, AwayError
from retrieval.index.store_description import Description, describe

PAUSE = 60.0  # s after which a store is asked again

# For each store: when it was last asked (on the clock of ``time.monotonic``), and its answer.
_asked: dict[Address, tuple[float, Future[Path] | None]] = {}
_asking = threading.Lock()
_writing = threading.Lock()
_threads = ThreadPoolExecutor(8, "store")


def configured() -> list[Address]:
    """The stores that are named in $RETRIEVAL_STORE, with blanks between them."""
    return [Address.parse(text) for text in os.environ.get(STORES, "").split()]


def all_folders(errors: list[RetrievalError] | None, patience: float) -> list[Path]:
    """A folder for each configured store, with its manifest and its evaluations.

    Pages list these folders; the store is asked when its index is opened.
    A store that has no folder yet and cannot be opened is left out, and the reason added to
    ``errors``: one of several stores must not stop the pages of all collections.
    patience: seconds that each such store has to answer, from when it was asked.
    """
    kept: dict[Address, Path | None] = {}
    for address in configured():  # all are asked before one is waited for
        kept[address] = _kept_folder(address)
        _ask(address, kept[address] is not None)
    paths = []
    for address, folder in kept.items():
        try:
            paths.append(folder or _new_folder(address, patience))
        except RetrievalError as error:
            if errors is not None:
                errors.append(error)
    return paths


def _kept_folder(address: Address) -> Path | None:
    """The folder of a store on this machine; None where there is none, or it is made anew now."""
    with suppress(FileNotFoundError):  # it was deleted during the look
        for manifest in _root(address).glob("*/*/manifest.json"):
            return manifest.parent
    return None


def _ask(address: Address, known: bool) -> None:
    """Ask a store for its index in another thread, and not again at once.

    known: whether it has a folder already, which then comes to be that of another index if there is
    one now. Nobody waits for that.
    """
    now = time.monotonic()
    with _asking:
        since, folder = _asked.setdefault(address, (now, None))
        answered = folder is None or folder.done()
        failed = folder is not None and answered and folder.exception()
        if answered and (now > since + PAUSE or not (known or failed)):
            asked = _threads.submit(lambda: folder_of(address, describe(address)))
            _asked[address] = now, asked


def _new_folder(address: Address, patience: float) -> Path:
    """The folder of a store that has none yet, once it has answered."""
    since, folder = _asked[address]
    assert folder is not None
    try:
        failed = folder.exception(max(since + patience - time.monotonic(), 0))
    except NotYet as error:
        raise AwayError(f"The store {address} does not answer; try again later.") from error
    if failed:
        raise RetrievalError(str(failed)) from failed  # itself, it would gather all tracebacks
    return folder.result()


def store_behind(path: Path) -> Address | None:
    """The configured store that a folder belongs to; None where it belongs to none."""
    for address in configured():
        if _root(address) in path.parents:
            return address
    return None


def _root(address: Address) -> Path:
    tls = "tls_" if address.tls else ""
    host = address.host.strip("[]").replace(":", "-")
    return data_folder() / "stores" / f"{tls}{host}_{address.port}_{address.collection}"


def folder_of(address: Address, described: Description) -> Path:
    """The folder of a store, <collection>/<checkpoint> like that of any index.

    It is made anew when the store holds another index than before. After an export of the same
    index with other metadata only its manifest is written once more: evaluations stay, and whoever
    has the index open sees that it has to be opened again.
    """
    root, manifest = _root(address), described.manifest
    names = [manifest["collection"]["name"], manifest["checkpoint"]["id"]]
    folder = root.joinpath(*(name.replace("/", "_").strip(".") or "_" for name in names))
    path, exported = folder / "manifest.json", root / "exported.json"
    try:
        with _writing:  # searches that meet a new index at once deleted the folders of one another
            same = _read(path) == manifest
            if not same:
                shutil.rmtree(root, ignore_errors=True)
                folder.mkdir(parents=True)
            if not same or _read(exported) != described.collection:
                files.write_json(path, manifest)
                files.write_json(exported, described.collection)
    except (OSError, ValueError) as error:
        raise RetrievalError(
            f"{folder} cannot be written; set RETRIEVAL_DATA to a folder that can."
        ) from error
    return folder


def _read(path: Path) -> Any:
    """The content of a JSON file; None where there is no file."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
