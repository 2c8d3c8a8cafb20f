"""Build an index, resume it after any stop, and bring it up to date with its collection.

One way for all three: every picture is looked up by the SHA-256 of its file, first in the journal
of an unfinished build, then in the index that is already there and in those of other collections
made with the same method (ROxford5k is nearly all of Oxford5k); only what is nowhere is described.
Work happens in ``<out>.building`` beside the target and is put in place by a rename, so that
whoever reads the index sees the old one or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from retrieval import images
from retrieval.errors import RetrievalError
from retrieval.index import store
from retrieval.methods.base import Features, LocalFeatures

Progress = Callable[[int, int, str], None]


def build(
    collection,
    method,
    out: str | Path,
    progress: Progress | None = None,
    codebook: np.ndarray | None = None,
    donors: Sequence[store.Index] = (),
    max_pixels: int = images.MAX_PIXELS,
) -> store.Index:
    """Index every picture of a collection with a method, into the folder ``out``.

    Creates the index, goes on with one that was interrupted, or updates one that exists: new and
    changed pictures are described, deleted ones dropped, the rest is kept. Pictures that cannot be
    read are left out and listed in ``manifest['skipped']``.
    progress(done, total, name) is called after each picture.
    codebook: (k, d) float32 of another index, for local features; by default one is trained here.
    donors: indexes of other collections to take features from, see ``store.find_same``.
    max_pixels: of a picture; larger ones are left out.
    Raises RetrievalError when no picture can be read, when ``out`` holds something else, when
    another build is running there, and when the disk is full (what is finished is kept).
    """
    out = Path(out).resolve()  # a link is followed: what it leads to is replaced, not the link
    try:
        _check_target(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            store.settle(_finished(out), out)
            return _build(collection, method, out, progress, codebook, donors, max_pixels)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RetrievalError(
                f"The disk is full. Finished pictures are kept in {out}.building: free some space "
                "and run the same command again."
            ) from error
        raise RetrievalError(
            f"The index cannot be written to {out}: {error.strerror or error}."
        ) from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the lock of a target, which lies beside it: all who can write there meet at it."""
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
        # Whoever has opened it meanwhile notices that it is gone, and makes another.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _work(out: Path) -> Path:
    return out.with_name(f"{out.name}.building")


def _finished(out: Path) -> Path:
    return _work(out) / "index"


def _check_target(out: Path) -> None:
    """Never replace a folder that is not an index, or one that is not an unfinished build."""
    if not out.name:
        raise RetrievalError(f"An index cannot take the place of {out}; name a folder below it.")
    work = _work(out)
    if work.is_dir() and any(work.iterdir()) and not (work / "identity.json").is_file():
        raise RetrievalError(f"{work} is in the way and not an unfinished build; move it.")
    if out.is_file() or (
        out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file()
    ):
        raise RetrievalError(f"{out} exists and is not an index; choose another place.")


def _build(
    collection, method, out: Path, progress: Progress | None, codebook, donors, max_pixels: int
) -> store.Index:
    started = time.perf_counter()
    known = _known([*_previous(out, method), *donors])
    work = _work(out)
    with _Journal(work, store.identity(method)) as journal:
        total = len(collection.names)
        digests: dict[str, str] = {}
        for batch in _batches(_pictures(collection, journal, known, max_pixels), method.batch):
            described = iter(method.describe_batch([picture for *_, picture in batch if picture]))
            for name, digest, picture in batch:
                digests[name] = digest
                if picture is not None:
                    journal.add(name, digest, picture.size, next(described))
                if progress:
                    progress(len(digests), total, name)
        records, arrays, skipped = _collect(digests, journal, known, method.kind)
    if method.kind == "local" and records:
        arrays |= _inverted_file(arrays, codebook)
    if not records:
        shutil.rmtree(work)
        reason = f" The first: {skipped[0]['reason']}" if skipped else ""
        raise RetrievalError(
            f"None of the {total} pictures of {collection.name} could be read.{reason}"
        )
    finished = _finished(out)
    shutil.rmtree(finished, ignore_errors=True)
    finished.mkdir()
    seconds = time.perf_counter() - started
    store.save(finished, out, method, collection, records, arrays, skipped, seconds)
    store.replace_folder(finished, out)
    shutil.rmtree(work)
    return store.load(out)


def _previous(out: Path, method) -> list[store.Index]:
    """The index already there, if its numbers can be used again."""
    if not out.exists() or not any(out.iterdir()):
        return []
    previous = store.load(out)
    previous.check_method(method)
    return [previous]


def _known(indexes: Sequence[store.Index]) -> dict[str, tuple[store.Index, int]]:
    """SHA-256 of a file → an index with its features, and the position there."""
    return {
        digest: (index, position)
        for index in indexes
        for position, digest in enumerate(index.digests)
        if digest  # published features come without
    }


def _batches(pictures: Iterator[tuple], size: int) -> Iterator[list[tuple]]:
    """Lists with ``size`` pictures that are to be described, and what comes between them."""
    batch: list[tuple] = []
    waiting = 0
    for one in pictures:
        batch.append(one)
        waiting += one[2] is not None
        if waiting in (0, size):  # what is known has nothing to wait for
            yield batch
            batch, waiting = [], 0
    if batch:
        yield batch


def _pictures(collection, journal: _Journal, known: Mapping, max_pixels: int) -> Iterator[tuple]:
    """(name, digest, picture) of each database picture; reading runs ahead of describing.

    picture is None where its features are known, and where it cannot be read, which the journal
    is told.
    """

    def read(name: str):
        try:
            data = images.read_bytes(collection.path(name), name)
        except images.PictureError as error:
            return name, "", error
        digest = hashlib.sha256(data).hexdigest()
        if digest in known or journal.has(name, digest):
            return name, digest, None
        try:
            return name, digest, images.read(data, name, max_pixels)
        except images.PictureError as error:
            return name, digest, error

    def settled(name: str, digest: str, picture):
        if isinstance(picture, images.PictureError):
            journal.skip(name, digest, str(picture))
            picture = None
        return name, digest, picture

    with ThreadPoolExecutor(1) as reader:
        waiting = []
        for name in collection.names:
            waiting.append(reader.submit(read, name))
            if len(waiting) > 2:
                yield settled(*waiting.pop(0).result())
        for future in waiting:
            yield settled(*future.result())


class _Journal:
    """Finished pictures of an unfinished build: one JSON line each, features in one file.

    The features are written before their line, which carries their checksum, so after a kill at any
    moment the journal ends with the last whole record.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self.folder = folder
        self.identity = identity
        self.entries: dict[str, dict] = {}

    def __enter__(self) -> _Journal:
        stamp = self.folder / "identity.json"
        if stamp.is_file() and stamp.read_bytes() == json.dumps(self.identity).encode():
            self._recover()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            stamp.write_text(json.dumps(self.identity))
        self.lines = open(self.folder / "journal.jsonl", "ab")
        self.data = open(self.folder / "features.bin", "ab")
        return self

    def __exit__(self, *error) -> None:
        self.lines.close()
        self.data.close()

    def _recover(self) -> None:
        """Read the whole records and cut off what a kill left behind them."""
        path, data = self.folder / "journal.jsonl", self.folder / "features.bin"
        path.touch()
        data.touch()
        lines_end = data_end = 0
        size = data.stat().st_size
        with open(path, "rb") as lines, open(data, "rb") as features:
            for line in lines:
                try:
                    entry = json.loads(line)
                    payload = features.read(min(entry["bytes"], size))
                    whole = (
                        line.endswith(b"\n")
                        and zlib.crc32(payload) == entry["crc32"]
                        and len(payload) == entry["bytes"]
                        and isinstance(entry["name"], str)
                        and ("reason" in entry or entry.keys() >= {"sha256", "width", "rows"})
                    )
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    break
                if not whole:
                    break
                self.entries[entry["name"]] = entry | {"offset": data_end}
                lines_end += len(line)
                data_end += len(payload)
        os.truncate(path, lines_end)
        os.truncate(data, data_end)

    def has(self, name: str, digest: str) -> bool:
        return self.entries.get(name, {}).get("sha256") == digest

    def add(self, name: str, digest: str, size: tuple[int, int], features: Features) -> None:
        # Before they are rounded to whole numbers, which are always finite, and after.
        packed = _pack(features) if _finite(features) else {}
        arrays = packed.values()
        if not arrays or not all(np.isfinite(array).all() for array in arrays):
            raise RetrievalError(f"The features of {name} are not numbers; try other settings.")
        payload = b"".join(array.tobytes() for array in arrays)
        self._append(
            {
                "name": name,
                "sha256": digest,
                "width": size[0],
                "height": size[1],
                "rows": len(features) if isinstance(features, LocalFeatures) else 1,
            },
            payload,
        )

    def skip(self, name: str, digest: str, reason: str) -> None:
        self._append({"name": name, "sha256": digest, "reason": reason}, b"")

    def _append(self, entry: dict, payload: bytes) -> None:
        entry |= {"bytes": len(payload), "crc32": zlib.crc32(payload)}
        offset = self.data.tell()
        self.data.write(payload)
        self.data.flush()
        self.lines.write(json.dumps(entry).encode() + b"\n")
        self.lines.flush()
        self.entries[entry["name"]] = entry | {"offset": offset}

    def features(self, entry: dict, kind: str) -> dict[str, np.ndarray]:
        """The packed arrays of a finished picture."""
        with open(self.folder / "features.bin", "rb") as file:
            file.seek(entry["offset"])
            payload = file.read(entry["bytes"])
        return _unpack(payload, entry["rows"], kind)


def _finite(features: Features) -> bool:
    if isinstance(features, LocalFeatures):
        features = features.descriptors
    return bool(np.isfinite(features).all())


def _pack(features: Features) -> dict[str, np.ndarray]:
    """Features in the types in which an index stores them."""
    if isinstance(features, LocalFeatures):
        return {
            "keypoints": features.keypoints.astype(np.float16),
            "scales": features.scales.astype(np.float16),
            "scores": features.scores.astype(np.float16),
            "descriptors": store.quantise(features.descriptors),
        }
    return {"descriptors": features.astype(np.float16)[None]}


def _unpack(payload: bytes, rows: int, kind: str) -> dict[str, np.ndarray]:
    if kind == "global":
        return {"descriptors": np.frombuffer(payload, np.float16)[None]}
    points = np.frombuffer(payload, np.float16, rows * 4)
    return {
        "keypoints": points[: rows * 2].reshape(rows, 2),
        "scales": points[rows * 2 : rows * 3],
        "scores": points[rows * 3 :],
        # With no row there is no width to infer.
        "descriptors": np.frombuffer(payload, np.int8, offset=rows * 8).reshape(
            rows, -1 if rows else 0
        ),
    }


def _collect(digests: dict[str, str], journal: _Journal, known: Mapping, kind: str):
    """Everything finished, in the order of the collection: records, arrays, skipped."""
    records, parts, skipped = [], [], []
    for name, digest in digests.items():
        if journal.has(name, digest):
            entry = journal.entries[name]
            if "reason" in entry:
                skipped.append({"name": name, "reason": entry["reason"]})
                continue
            part = journal.features(entry, kind)
        else:
            index, position = known[digest]
            width, height = index.sizes[position].tolist()
            entry = {"sha256": digest, "width": width, "height": height}
            part = _rows(index, position)
        records.append({key: entry[key] for key in ("sha256", "width", "height")} | {"name": name})
        parts.append(part)
    if not parts:
        return records, {}, skipped
    arrays = {}
    for key in parts[0]:
        # An empty picture (no keypoint) has no descriptor width of its own.
        arrays[key] = np.concatenate(
            [part[key] for part in parts if len(part[key])] or [parts[0][key]]
        )
    if kind != "global":
        lengths = [len(part["keypoints"]) for part in parts]
        arrays["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return records, arrays, skipped


def _inverted_file(arrays: dict[str, np.ndarray], codebook: np.ndarray | None):
    """The ASMK* arrays of local features, over their own codebook unless one is given."""
    from retrieval.index import asmk

    descriptors = store.dequantise(arrays["descriptors"])
    if codebook is None:
        codebook = asmk.train_codebook(descriptors, asmk.codebook_size(len(descriptors)))
    elif codebook.shape[1] != descriptors.shape[1] and len(descriptors):
        raise RetrievalError(
            f"The codebook is for descriptors of {codebook.shape[1]} dimensions, "
            f"not {descriptors.shape[1]}."
        )
    return asmk.InvertedFile.build(codebook, descriptors, arrays["offsets"]).arrays()


def _rows(index: store.Index, position: int) -> dict[str, np.ndarray]:
    """One picture's rows of an existing index, as stored."""
    if index.kind == "global":
        return {"descriptors": index.arrays["descriptors"][position][None]}
    rows = slice(*index.arrays["offsets"][position : position + 2])
    return {
        key: index.arrays[key][rows] for key in ("keypoints", "scales", "scores", "descriptors")
    }
