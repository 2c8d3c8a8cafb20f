"""Writing an index into a folder, and putting that folder in the place of an older one."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from retrieval import files
from retrieval.collections import registered
from retrieval.index import layout
from retrieval.index.content import Content


def save(
    folder: Path,
    out: Path,
    method,
    collection,
    content: Content,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write an index into an existing empty folder, the manifest last.

    out: the place where the folder will be put.
    method: anything with kind, name, checkpoint (id, sha256) and settings.
    collection: anything with name, fingerprint and root.
    more: further entries of the manifest; they replace those below of the same name, as
    ``seconds``, which the build took.
    """
    for name, array in content.arrays.items():
        try:
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        except OSError as error:
            # A short write: numpy's error has the number of bytes written, but not the reason.
            if error.errno is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
    (folder / "images.json").write_bytes(files.as_json(content.records))
    written = [*(folder / f"{name}.npy" for name in content.arrays), folder / "images.json"]
    sizes = {
        path.name: {"bytes": path.stat().st_size, "sha256": files.digest(path)}
        for path in sorted(written)
    }
    manifest = {
        "format": layout.FORMAT,
        **layout.identity(method),
        "collection": {
            "name": collection.name,
            "fingerprint": collection.fingerprint,
            **_folder_entry(collection, out),
        },
        "pictures": len(content.records),
        "skipped": content.skipped,
        "files": sizes,
        "versions": {name: version(name) for name in ("numpy", "torch", "pillow")},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        **(more or {}),
    }
    manifest["sha256"] = layout.manifest_digest(manifest)
    (folder / "manifest.json").write_bytes(files.as_json(manifest))


def _folder_entry(collection, out: Path) -> dict[str, str]:
    """The entry "folder": path of the pictures, relative to the index. {} for registered names."""
    if collection.root is None or collection.name in {entry.name for entry in registered()}:
        return {}
    root = os.path.abspath(collection.root)
    try:
        return {"folder": Path(os.path.relpath(root, out)).as_posix()}
    except ValueError:  # another drive of Windows
        return {"folder": Path(root).as_posix()}


def replace_folder(new: Path, target: Path) -> None:
    """Put ``new`` in the place of ``target``; ``settle`` repairs a stop between the two renames.

    Until then the old folder lies beside ``new``, in a folder where no other build writes.
    """
    old = new.with_name(f"{new.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def settle(new: Path, target: Path) -> None:
    """Undo a replacement that was killed halfway: bring the old folder back."""
    old = new.with_name(f"{new.name}.old")
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)


def is_moved(path: Path) -> bool:
    """Whether ``replace_folder`` has moved the index at ``path``: between its two renames."""
    # ``glob`` passes over folders that vanish while it looks, which ``Path.glob`` does not.
    pattern = f"{glob.escape(path.name)}.*/*.old"
    return bool(glob.glob(pattern, root_dir=path.parent, include_hidden=True))
