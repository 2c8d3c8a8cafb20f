"""Folders on this machine for stores, one a store, which pages list like the folder of an index.

Each has a copy of the store's manifest, and keeps the evaluations of the store.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from retrieval import files
from retrieval.collections.collection import data_folder
from retrieval.errors import RetrievalError
from retrieval.index.milvus import STORES, Address
from retrieval.index.store_description import describe


def configured() -> list[Address]:
    """The stores that are named in $RETRIEVAL_STORE, with blanks between them."""
    return [Address.parse(text) for text in os.environ.get(STORES, "").split()]


def all_folders() -> list[Path]:
    """A folder for each configured store, with its manifest and its evaluations.

    Pages list these folders; the store is asked when its index is opened. Raises RetrievalError
    where a store that has no folder yet cannot be reached.
    """
    paths = []
    for address in configured():
        manifests = sorted(_root(address).glob("*/*/manifest.json"))
        paths.append(
            manifests[0].parent if manifests else folder_of(address, describe(address).manifest)
        )
    return paths


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
        if not path.is_file() or json.loads(path.read_text("utf-8")) != manifest:
            shutil.rmtree(root, ignore_errors=True)
            folder.mkdir(parents=True)
            files.write_json(path, manifest)
    except (OSError, ValueError) as error:
        raise RetrievalError(
            f"{folder} cannot be written; set RETRIEVAL_DATA to a folder that can."
        ) from error
    return folder
