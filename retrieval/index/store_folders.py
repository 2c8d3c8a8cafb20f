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
from pathlib import Path

from retrieval import files
from retrieval.collections.collection import data_folder
from retrieval.errors import RetrievalError
from retrieval.index.milvus import STORES, Address, AwayError
from retrieval.index.store_description import describe

PAUSE = 60.0  # s after which a store that could not be opened is asked again

_asked: dict[Address, tuple[float, Future[Path]]] = {}  # when, and the folder
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
    paths = []
    for address in configured():
        manifests = sorted(_root(address).glob("*/*/manifest.json"))
        try:
            paths.append(manifests[0].parent if manifests else _new_folder(address, patience))
        except RetrievalError as error:
            if errors is not None:
                errors.append(error)
    return paths


def _new_folder(address: Address, patience: float) -> Path:
    """The folder of a store that has none yet, asked in another thread, and not again at once."""
    now = time.monotonic()
    with _asking:
        since, folder = _asked.get(address, (now, None))
        if folder is None or (folder.done() and now > since + PAUSE):
            since = now
            folder = _threads.submit(lambda: folder_of(address, describe(address).manifest))
            _asked[address] = since, folder
    try:
        failed = folder.exception(max(since + patience - now, 0))
    except NotYet as error:
        raise AwayError(f"The store {address} does not answer; try again later.") from error
    if failed:
        raise RetrievalError(str(failed)) from failed  # itself, it would gather all tracebacks
    _asked.pop(address, None)
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


def folder_of(address: Address, manifest: dict) -> Path:
    """The folder of a store, <collection>/<checkpoint> like that of any index.

    The folder is written again when the store holds another index than before.
    """
    root = _root(address)
    names = [manifest["collection"]["name"], manifest["checkpoint"]["id"]]
    folder = root.joinpath(*(name.replace("/", "_").strip(".") or "_" for name in names))
    path = folder / "manifest.json"
    try:
        with _writing:  # searches that meet a new index at once deleted the folders of one another
            if not path.is_file() or json.loads(path.read_text("utf-8")) != manifest:
                shutil.rmtree(root, ignore_errors=True)
                folder.mkdir(parents=True)
                files.write_json(path, manifest)
    except (OSError, ValueError) as error:
        raise RetrievalError(
            f"{folder} cannot be written; set RETRIEVAL_DATA to a folder that can."
        ) from error
    return folder
