"""The place of an index that is being built: checked, locked, and filled by one rename.

Work happens in ``<out>.building`` beside it, so that a reader of the index sees the old one or the
new one.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from retrieval.errors import RetrievalError
from retrieval.files import inside
from retrieval.index import approximate, checks, layout, loading, saving
from retrieval.index.content import Content
from retrieval.index.index import Index
from retrieval.index.journal import IDENTITY, delete
from retrieval.index.layout import Part

SAMPLE = 100  # pictures whose files are compared where no name is that of a former one
# Files in the folder of an index: its own, what is computed from it, and those of the system.
FILES = (
    *("manifest.json", "images.json", "queries.npy", "neighbours.npz", "groups.npz"),
    *("ablation.npz", "evaluation*.json", "evaluation*.npz"),
    *("*.new", ".*", "Thumbs.db", "desktop.ini"),
    *(f"{name}.npy" for types in layout.ARRAYS.values() for name in types),
    *(f"{name}.npy" for kind in approximate.KINDS.values() for name in kind.types),
)


@contextmanager
def writing(out: str | Path) -> Iterator[Path]:
    """The target of a build, checked and locked; errors of the disk become RetrievalErrors."""
    # A link is followed: the folder that it leads to is replaced, not the link.
    target = Path(os.path.realpath(out))  # unlike resolve, it takes a link to itself
    try:
        _check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            saving.settle(_finished_folder(target), target)
            yield target
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RetrievalError(
                "The disk is full. Free some space and do the same again: finished pictures are "
                "kept."
            ) from error
        raise RetrievalError(
            f"The index cannot be written to {target}: {error.strerror or error}; choose another "
            "place."
        ) from error


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the lock of a target, a file beside it; RetrievalError while another build holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RetrievalError(
            f"Another build is writing to {out}; wait for it or choose another place."
        ) from error
    try:
        yield
    finally:
        # Another build that has opened this lock file meanwhile sees that it is gone and makes one.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def work_folder(out: Path) -> Path:
    """The folder beside an index in which its build keeps finished pictures."""
    return out.with_name(f"{out.name}.building")


def _finished_folder(out: Path) -> Path:
    return work_folder(out) / "index"


def _check_target(out: Path) -> None:
    """Never replace a folder that is not an index, or one that is not an unfinished build."""
    if not out.name:
        raise RetrievalError(f"An index cannot take the place of {out}; name a folder below it.")
    work = work_folder(out)
    # The folder may have come with a stranger's index, and a build writes and deletes files in it.
    if work.is_symlink():
        raise RetrievalError(f"{work} is a link, which no build makes; delete it.")
    if work.is_dir() and any(work.iterdir()) and not (work / IDENTITY).is_file():
        raise RetrievalError(f"{work} is in the way and not an unfinished build; move it.")
    if any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in inside(work)):
        raise RetrievalError(f"{work} holds links or devices, which no build makes; delete it.")
    if out.is_file() or (
        out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file()
    ):
        raise RetrievalError(f"{out} exists and is not an index; choose another place.")
    # Pictures, other indexes or a network in the folder would be deleted with the old index.
    for path in sorted(out.iterdir()) if out.is_dir() else ():
        if path.is_dir() or not any(fnmatch(path.name, pattern) for pattern in FILES):
            raise RetrievalError(
                f"{path} is in the folder of an index, which is replaced as a whole; move it."
            )


def previous_at(
    target: Path,
    method,
    names: Sequence[str],
    part: Part | None = None,
    digest_of: Callable[[str], str] = lambda name: "",
) -> Index | None:
    """The index that is at the target already; None where there is none.

    names: of the pictures that are to be in the new one. digest_of: the SHA-256 of such a picture;
    '' where it is not known. Raises RetrievalError where the old one is of another method, other
    settings, another part, or other pictures only.
    """
    if not target.exists() or not any(target.iterdir()):
        return None
    previous = loading.load(target, part is not None)
    previous.check_method(method)
    if previous.part != (part or Part()):
        raise RetrievalError(f"{target} is {previous.part}, not {part}; choose another place.")
    old_names = {*previous.names, *(entry["name"] for entry in previous.manifest["skipped"])}
    # A part may be without pictures.
    if old_names and old_names.isdisjoint(names) and not _are_renamed(previous, names, digest_of):
        raise RetrievalError(
            f"{target} is an index of other pictures: it has none of these. Choose another place, "
            "or delete it."
        )
    return previous


def _are_renamed(index: Index, names: Sequence[str], digest_of: Callable[[str], str]) -> bool:
    """Whether half of these pictures, or of a sample, are in the index under other names: all of
    them may have moved to another folder, and their features took hours.
    """
    known = {*index.digests} - {""}
    sample = names[:: len(names) // SAMPLE + 1]
    return 2 * sum(digest_of(name) in known for name in sample) >= len(sample) > 0


def finish(
    target: Path,
    method,
    collection,
    content: Content,
    started: float,
    more: Mapping[str, Any],
) -> Index:
    """Write an index and put it in its place, unless an equal one is there.

    started: when the build began, by ``time.perf_counter``. more: further entries of the manifest.
    """
    skipped, part = content.skipped, "part" in more
    work = work_folder(target)
    if not content.records and not part:
        delete(work)
        reason = f" The first: {skipped[0]['reason']}" if skipped else ""
        raise RetrievalError(
            f"No picture of {collection.name} could be read, of {len(skipped)}.{reason}"
        )
    finished = _finished_folder(target)
    shutil.rmtree(finished, ignore_errors=True)
    finished.mkdir()
    more = {"seconds": round(time.perf_counter() - started, 1), **more}
    saving.save(finished, target, method, collection, content, more)
    checks.check_sizes(loading.read_manifest(finished), finished)  # else nothing could open it
    # Evaluations that lie in the folder are lost when it is replaced, and may be the work of hours.
    defaults = getattr(method, "defaults", {})
    if _lasting_entries(finished, defaults) != _lasting_entries(target, defaults):
        _check_target(target)  # somebody may have put a file there since the build began
        saving.replace_folder(finished, target)
    delete(work)
    return loading.load(target, part)


def _lasting_entries(path: Path, defaults: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest without the entries that differ from build to build; None without an index.

    defaults: settings that a manifest without them had, as it is older than they are.
    """
    if not (path / "manifest.json").is_file():
        return None
    # If other versions of the libraries make equal files, the versions that made them first stay.
    ephemeral = ("made", "seconds", "versions", "sha256")
    entries = {
        key: value for key, value in loading.read_manifest(path).items() if key not in ephemeral
    }
    return {**entries, "settings": {**defaults, **entries["settings"]}}
