"""The journal of a build: finished pictures are saved at once, so that a kill loses none."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from retrieval import files
from retrieval.collections.names import check_name
from retrieval.errors import RetrievalError
from retrieval.index import layout
from retrieval.index.asmk import MAX_DIMENSIONS
from retrieval.methods.base import Features, LocalFeatures

LONGEST = 1_000_000  # bytes of a line, and of the features of a picture; ours have up to 0.4 MB
LINE = 3000  # bytes of a line on average, at most; ours have 250 and the name
BESIDE = 20_000_000  # further bytes of lines, for pictures that have since been deleted
# The keys that are kept of a line, for a picture that was left out and for one that was described.
SKIPPED = ("name", "sha256", "bytes", "reason")
FINISHED = ("name", "sha256", "bytes", "width", "height", "rows")
IDENTITY = "identity.json"  # in the folder of an unfinished build: its method, settings and part


class Journal:
    """Finished pictures of an unfinished build: one JSON line each, features in one file.

    The features are written first and then their line with their checksum, so after a kill at any
    moment the journal ends with the last whole record. Entering raises RetrievalError where the
    folder keeps pictures of another method, settings or part, as their work may have taken hours,
    and where the files are far too large for ``pictures``, as a stranger may have made them.

    identity: method, settings and part, as JSON values. pictures: number of pictures of the build.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], pictures: int):
        self.folder = folder
        self.max_bytes = LINE * pictures + BESIDE
        self.identity = identity
        self.entries: dict[str, dict] = {}
        self.length = 0  # of a descriptor

    def __enter__(self) -> Journal:
        stamp = self.folder / IDENTITY
        lines = self.folder / "journal.jsonl"
        try:
            same = json.loads(files.read(stamp, LONGEST)) == self.identity
        except (OSError, ValueError, RecursionError):  # damaged: no command can use it
            same = None
        if same:
            self._recover()
        elif same is False and lines.is_file() and lines.stat().st_size:
            raise RetrievalError(
                f"{self.folder} keeps the pictures of an unfinished build with another method or "
                "other settings, or of another part. Repeat its command to go on with it, or "
                "delete the folder to begin again."
            )
        else:
            delete(self.folder)
            self.folder.mkdir()
            stamp.write_text(json.dumps(self.identity))
        self.lines = open(lines, "ab")
        self.data = open(self.folder / "features.bin", "ab")
        return self

    def __exit__(self, *error) -> None:
        self.lines.close()
        self.data.close()

    def _recover(self) -> None:
        """Read the whole records and cut off an unfinished one, which a kill leaves at the end."""
        path, data = self.folder / "journal.jsonl", self.folder / "features.bin"
        path.touch()
        data.touch()
        lines_end = data_end = 0
        if files.has_holes(data):  # a stranger's: the checksum of a terabyte of zeros takes an hour
            with open(data, "rb") as features:
                os.truncate(data, os.lseek(features.fileno(), 0, os.SEEK_HOLE))
        with open(path, "rb") as lines, open(data, "rb") as features:
            # A stranger's journal may be a sparse file of a terabyte: lines are limited.
            while line := lines.readline(LONGEST):
                if lines_end > self.max_bytes:
                    raise RetrievalError(
                        f"{path} is too long for so few pictures; delete {self.folder} to begin "
                        "again, or choose another place."
                    )
                try:
                    entry = json.loads(line)
                    payload = features.read(max(0, min(entry["bytes"], LONGEST)))
                    whole = (
                        line.endswith(b"\n")
                        and zlib.crc32(payload) == entry["crc32"]
                        and len(payload) == entry["bytes"]
                        and check_name(entry["name"])
                        and isinstance(entry["sha256"], str)
                        and (
                            isinstance(entry["reason"], str)
                            if "reason" in entry
                            else self._are_features(entry, payload)
                        )
                    )
                except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                    break
                except RetrievalError:  # not a valid picture name
                    break
                if not whole:
                    break
                # What a stranger's line says besides may take 34 times its size.
                keys = SKIPPED if "reason" in entry else FINISHED
                kept = {key: entry[key] for key in keys}
                self.entries[entry["name"]] = kept | {"offset": data_end}
                lines_end += len(line)
                data_end += len(payload)
        os.truncate(path, lines_end)
        os.truncate(data, data_end)

    def _are_features(self, entry: dict, payload: bytes) -> bool:
        """Whether these are features of the same length as those before; a stranger may have made
        the journal.
        """
        numbers = [entry[key] for key in ("rows", "width", "height")]
        if not all(isinstance(number, int) and 0 <= number < 2**31 for number in numbers):
            return False
        arrays = _unpack(payload, entry["rows"], self.identity["kind"])
        rows, length = arrays["descriptors"].shape
        self.length = self.length or length
        return (
            0 not in numbers[1:]
            and (not rows or 0 < length == self.length)
            and all(np.isfinite(array).all() for array in arrays.values())
        )

    @property
    def digests(self) -> dict[str, str]:
        """Name of each finished picture → digest of its file."""
        return {name: entry["sha256"] for name, entry in self.entries.items()}

    @property
    def described(self) -> set[str]:
        """Names of the pictures with features; skipped pictures have none."""
        return {name for name, entry in self.entries.items() if "reason" not in entry}

    def add(self, name: str, digest: str, size: tuple[int, int], features: Features) -> None:
        # Checked before they are rounded to integers, which are always finite, and after.
        packed = _pack(features) if _finite(features) else {}
        arrays = packed.values()
        if not arrays or not all(np.isfinite(array).all() for array in arrays):
            raise RetrievalError(f"The features of {name} are infinite or NaN; try other settings.")
        self._check_length(name, packed["descriptors"])
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

    def _check_length(self, name: str, descriptors: np.ndarray) -> None:
        """Raise RetrievalError now for descriptors that the finished index could not hold: a user
        may bring any network.
        """
        rows, length = descriptors.shape
        if not rows:
            return
        if self.identity["kind"] != "global" and length > MAX_DIMENSIONS:
            raise RetrievalError(
                f"Local descriptors may have at most {MAX_DIMENSIONS} dimensions, and these have "
                f"{length}; use another network."
            )
        self.length = self.length or length
        if length != self.length:
            raise RetrievalError(
                f"The descriptors of {name} have {length} numbers, those of other pictures "
                f"{self.length}: this network cannot be used."
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


def delete(folder: Path) -> None:
    """Delete an unfinished build, if there is one.

    The file IDENTITY is deleted last: after a kill in between, the next build still sees that the
    folder is an unfinished build.
    """
    for path in folder.glob("*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != IDENTITY:
            path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _finite(features: Features) -> bool:
    if isinstance(features, LocalFeatures):
        features = features.descriptors
    return bool(np.isfinite(features).all())


def _pack(features: Features) -> dict[str, np.ndarray]:
    """Features as arrays with the dtypes of an index, by name."""
    if isinstance(features, LocalFeatures):
        return {
            "keypoints": features.keypoints.astype(np.float16),
            "scales": features.scales.astype(np.float16),
            "scores": features.scores.astype(np.float16),
            "descriptors": layout.quantise(features.descriptors),
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
        # Without rows reshape cannot infer the width.
        "descriptors": np.frombuffer(payload, np.int8, offset=rows * 8).reshape(
            rows, -1 if rows else 0
        ),
    }
