"""Finding the indexes of a collection, and the collection of an index.

Indexes are below ``precomputed/`` and in the stores that $RETRIEVAL_STORE names.
"""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from itertools import islice
from pathlib import Path

from retrieval import files
from retrieval.collections import PRECOMPUTED, Collection, open_collection, registered
from retrieval.errors import RetrievalError
from retrieval.index import layout, loading
from retrieval.index.index import Index
from retrieval.index.loading import MAX_MANIFEST, load
from retrieval.index.milvus import STORES
from retrieval.methods import METHODS
from retrieval.networks import checkpoints

ORDER = tuple(METHODS)  # of the methods, in which their indexes are listed
MAX_INDEXES = 200  # folders of a collection: the service looks at all with each request
PATIENCE = 2.0  # s that a page waits for a store that was never seen
MAX_OTHER_FILES = 10_000  # that are no pictures, in the folder that an index names


def find(collection_name: str, root: Path | None = None) -> dict[str, Path]:
    """One index folder of a collection for each method that has any, in the order of the methods.

    Where a method has several, one in a store wins, then its default checkpoint. root: as below.
    """
    paths: dict[str, Path] = {}
    for method, path in find_all(collection_name, root):
        paths.setdefault(method, path)
    return paths


def find_all(collection_name: str, root: Path | None = None) -> list[tuple[str, Path]]:
    """Method and folder of every index of a collection, in the order of the methods.

    The default checkpoint of a method comes before its others, in the order of the registry. Only
    manifests are read here, at most ``MAX_INDEXES``.
    Indexes in stores that $RETRIEVAL_STORE names take the place of folders of the same name; of two
    stores with the same one, the first does.
    root: the folder of the indexes; by default ``precomputed/``, and the stores.
    """
    entries = []  # rank of the method, rank within the method, method, path
    folder = (root or PRECOMPUTED) / collection_name
    manifests = sorted(islice(folder.glob("*/manifest.json"), MAX_INDEXES))
    stores: dict[str, Path] = {}  # by the name of the index
    for path in in_stores():
        if path.parent.name == collection_name:
            stores.setdefault(path.name, path)
    if stores and root in (None, PRECOMPUTED):
        manifests = [path for path in manifests if path.parent.name not in stores]
        manifests += [path / "manifest.json" for path in stores.values()]
    for path in (manifest.parent for manifest in manifests):
        try:
            made_with = _method_and_checkpoint(path, loading.version_of(path))
        except OSError:
            made_with = None
        if made_with:
            method, checkpoint = made_with
            # Only commands can search with one that is not registered: it comes last.
            known = [record.id for record in checkpoints.of_method(method)]
            place = known.index(checkpoint) if checkpoint in known else len(known)
            within_method = path not in stores.values(), place
            entries.append((ORDER.index(method), within_method, method, path))
    return [(method, path) for *_, method, path in sorted(entries)]


@lru_cache(maxsize=1000)
def _method_and_checkpoint(path: Path, version: tuple[int, int] | None) -> tuple[str, str] | None:
    """Method and checkpoint of an index; None where the manifest names no method or is damaged.

    version: key of the cache. A manifest may have 100 MB, and each request needs its method.
    Raises OSError where it cannot be read now: an error is not cached.
    """
    try:
        data = files.read_json(path / "manifest.json", MAX_MANIFEST)
        method, checkpoint = data["method"], data["checkpoint"]["id"]
        return (method, checkpoint) if method in ORDER else None
    except (ValueError, KeyError, TypeError):
        return None  # load() says what is wrong with it to whoever asks for it


def in_stores(errors: list[RetrievalError] | None = None, patience: float = PATIENCE) -> list[Path]:
    """A folder for each store that $RETRIEVAL_STORE names; ``load`` opens the store behind it.

    errors, patience: see ``store_folders.all_folders``.
    """
    if STORES not in os.environ:
        return []
    from retrieval.index import store_folders

    return store_folders.all_folders(errors, patience)


def find_same(method) -> list[Index]:
    """Indexes of all collections whose method, checkpoint and settings are those of ``method``.

    ``build`` takes from them the features of pictures that it meets again. Damaged ones are left
    out.
    """
    identity = layout.identity(method)
    indexes = []
    for manifest in sorted(PRECOMPUTED.glob("*/*/manifest.json")):
        with contextlib.suppress(OSError, ValueError, AttributeError, RetrievalError):
            data = files.read_json(manifest, MAX_MANIFEST)
            if {key: data.get(key) for key in identity} == identity:
                indexes.append(load(manifest.parent))
    return indexes


def collection_of(index: Index, where: str | Path | None = None) -> Collection:
    """The collection that an index was made of.

    where: its name or folder; by default what the manifest of the index states.
    Raises RetrievalError when its list of pictures is not the one that was indexed.
    """
    stated = index.manifest["collection"]
    try:
        if where:
            collection = open_collection(where)
        elif "folder" in stated:
            # An index may be a stranger's, and name all of the disk.
            max_files = MAX_OTHER_FILES + 10 * (len(index) + len(index.manifest["skipped"]))
            folder = index.local / stated["folder"]
            collection = _labelled(index, folder) or open_collection(folder, max_files)
        elif stated["name"] in {entry.name for entry in registered()}:
            collection = open_collection(stated["name"])
        else:
            raise RetrievalError("It does not say where its pictures are.")
    except RetrievalError as error:
        if where:
            raise
        raise RetrievalError(
            f"The collection of {index} cannot be opened; evaluate and plot take it with "
            f"--collection. ({error})"
        ) from error
    index.check_collection(collection)
    return collection


def _labelled(index: Index, folder: Path) -> Collection | None:
    """The collection whose ground truth lies beside the folder of its pictures, ``images``.

    folder: of the pictures. None where that is another folder, or the index has other pictures.
    """
    if folder.name == "images" and (folder.parent / "ground_truth.json").is_file():
        with contextlib.suppress(RetrievalError):
            collection = open_collection(folder.parent)
            index.check_collection(collection)
            return collection
    return None
