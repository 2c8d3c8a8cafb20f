"""The checks of an index that somebody else may have made: its sizes, manifest and contents.

Nothing in an index is executed. These checks refuse files that are too large, a manifest that was
edited, and files that do not fit it or one another, with a sentence that says what differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval import files
from retrieval.collections.names import check_name
from retrieval.errors import RetrievalError
from retrieval.index import approximate, layout
from retrieval.index.asmk import MAX_DIMENSIONS, MAX_WORDS
from retrieval.index.layout import AGAIN, EXACT, Part
from retrieval.methods import METHODS
from retrieval.methods.base import MAX_KEYPOINTS, MAX_OUTPUTS

if TYPE_CHECKING:
    from retrieval.index.milvus import Address

# Bytes that a picture takes in images.json: at least ENTRY; in a file that we write, at most
# OWN_ENTRY beside its name.
ENTRY, OWN_ENTRY = 40, 150
ROOM = 320_000  # bytes of a picture in any other file: 5000 keypoints of 64
BESIDE = 20_000_000  # bytes in a file beside what pictures take; the largest codebook has 17 MB
MAX_IMAGES = 250_000_000  # bytes of images.json: over a million pictures
MAX_SENT = 10_000  # bytes of a manifest without its list of skipped pictures; ours have 2000
VALUES = 8_000_000  # numbers of descriptors that are checked at a time


def check_count(names: Sequence[str]) -> None:
    """Refuse more pictures than an index can hold, before days of work."""
    size = len(names) * OWN_ENTRY + sum(len(name.encode("utf-8", "replace")) for name in names)
    if size > MAX_IMAGES:
        raise RetrievalError(
            f"{len(names):,} pictures are too many for one index; index their folders one by one."
        )


def check_sizes(manifest: dict[str, Any], path: Path) -> None:
    """Refuse files that are too large for so many pictures, before their checksums take an hour.

    A kilobyte of tar may become a terabyte of zeros. Raises RetrievalError, and OSError for a file
    that cannot be read.
    """
    sizes = {name: stated["bytes"] for name, stated in manifest["files"].items()}
    listed = min(manifest["pictures"], sizes["images.json"] // ENTRY)
    for name, size in sizes.items():
        if size > (MAX_IMAGES if name == "images.json" else BESIDE + listed * ROOM):
            raise RetrievalError(
                f"{name} in the index {path} is too large for {listed} pictures{AGAIN}."
            )
        if files.has_holes(path / name):
            raise RetrievalError(
                f"{name} in the index {path} was not written as a whole: parts of it are missing"
                f"{AGAIN}."
            )


def check_manifest(manifest: Any, path: Path | Address) -> None:
    """Raises RetrievalError where this is not the manifest of an index that we can read."""
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise RetrievalError(f"{path} is not an index: its manifest.json is not of this program.")
    if manifest["format"] != layout.FORMAT:
        raise RetrievalError(
            f"The index {path} has format version {layout.short(manifest['format'])}, this program "
            f"reads {layout.FORMAT}{AGAIN}."
        )
    damaged = RetrievalError(f"The manifest of the index {path} was edited or damaged{AGAIN}.")
    try:
        valid = (
            all(is_right(manifest[name]) for name, is_right in _FIELDS.items())
            and _is_part(manifest.get("part", {}))
            and _is_search(manifest)
            and _fits_kind(manifest)
            and _can_be_sent(manifest)
            and manifest["sha256"] == layout.manifest_digest(manifest)
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged from error
    if not valid:
        raise damaged


def _has_texts(entry: Mapping[str, Any], *names: str) -> bool:
    """Whether an entry has text under each of these names."""
    return all(isinstance(entry[name], str) for name in names)


# Field of a manifest → whether a value of it is right. A check may raise KeyError, TypeError or
# AttributeError instead of returning False.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "kind": lambda kind: kind in layout.ARRAYS,
    "method": lambda name: isinstance(name, str),
    "checkpoint": lambda entry: _has_texts(entry, "id", "sha256"),
    "settings": lambda settings: isinstance(settings, dict),
    "collection": lambda entry: (
        _has_texts(entry, "name", "fingerprint")
        and len(entry["name"]) < MAX_SENT
        and isinstance(entry.get("folder", ""), str)
    ),
    "made": lambda date: isinstance(date, str),
    "seconds": lambda seconds: isinstance(seconds, int | float) and 0 <= seconds < 1e12,
    "versions": lambda versions: all(isinstance(version, str) for version in versions.values()),
    "pictures": lambda count: isinstance(count, int) and 0 <= count < 2**31,
    "skipped": lambda entries: all(_has_texts(entry, "name", "reason") for entry in entries),
    "files": lambda entries: all(
        isinstance(file["bytes"], int) and 0 <= file["bytes"] < 2**63 and _has_texts(file, "sha256")
        for file in entries.values()
    ),
}


def _is_part(entry: Mapping[str, Any]) -> bool:
    """Whether the entry on the part of a list is one; an empty one stands for all of the list."""
    part = Part(**entry)
    return all(isinstance(number, int) for number in part) and 1 <= part.number <= part.parts


def _fits_kind(manifest: Mapping[str, Any]) -> bool:
    """Whether the method and the files are those of an index of the kind that is stated."""
    method, kind = manifest["method"], manifest["kind"]
    types = layout.array_types(kind, "part" in manifest, layout.search_of(manifest))
    expected = {f"{name}.npy" for name in types} | {"images.json"}
    return (method not in METHODS or METHODS[method].kind == kind) and manifest[
        "files"
    ].keys() == expected


def _can_be_sent(manifest: Mapping[str, Any]) -> bool:
    """Whether a client can be sent it as JSON: short, proper Unicode and numbers, no nesting.

    Text that comes from names of files need not be proper Unicode.
    """
    values: list[Any] = []
    for setting in manifest["settings"].values():
        values += setting if isinstance(setting, list) else [setting]
    sent = {
        name: value for name, value in manifest.items() if name not in ("collection", "skipped")
    }
    try:
        size = len(json.dumps(sent, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:  # no Unicode, or an infinite number
        return False
    return size < MAX_SENT and not any(isinstance(value, dict | list) for value in values)


def _is_search(manifest: Mapping[str, Any]) -> bool:
    """Whether the entry on an approximate search is one, where there is any."""
    if "search" not in manifest:
        return True
    recall = manifest["search"]["recall_at_10"]
    return (
        manifest["search"]["type"] in approximate.KINDS
        and manifest["kind"] == "global"
        and "part" not in manifest
        and isinstance(recall, int | float)
        and 0 <= recall <= 1
    )


def check_contents(manifest, images, arrays, path: Path) -> None:
    """Raises RetrievalError where lists, dtypes or shapes contradict the manifest or one another.

    Checksums do not show that: whoever edits a file can write the checksum that belongs to it.
    """
    count, part, search = manifest["pictures"], "part" in manifest, layout.search_of(manifest)
    valid = (
        _are_pictures(images, count)
        and (count > 0 or part)
        and all(
            arrays[name].dtype == np.dtype(dtype) and arrays[name].ndim == dimensions
            for name, (dtype, dimensions) in layout.array_types(
                manifest["kind"], part, search
            ).items()
        )
    )
    if valid and manifest["kind"] == "global":
        valid = _are_vectors(arrays["descriptors"], count) and (
            search == EXACT or approximate.KINDS[search].fits(arrays, arrays["descriptors"])
        )
    elif valid:
        width = arrays["descriptors"].shape[1] if len(arrays["descriptors"]) else None
        valid = _are_local(arrays, count) and (
            manifest["kind"] == "keypoints" or part or _is_inverted_file(arrays, count, width)
        )
    if not valid:
        raise RetrievalError(f"The files of the index {path} contradict its manifest{AGAIN}.")


def _are_pictures(images: Any, count: int) -> bool:
    """Whether this is the list of ``count`` pictures, each with a name of its own and a size."""
    if not isinstance(images, list) or len(images) != count:
        return False
    for image in images:
        if not (
            isinstance(image, dict)
            and isinstance(image.get("name"), str)
            and isinstance(image.get("sha256"), str)
            and all(
                isinstance(image.get(side), int) and 0 <= image[side] < 2**31
                for side in ("width", "height")
            )
        ):
            return False
        try:
            check_name(image["name"])
        except RetrievalError:
            return False
    if len({image["name"] for image in images}) != count:
        return False
    # Published descriptors come without pictures, so they state neither a digest nor a size.
    return not any(image["sha256"] for image in images) or all(
        image["width"] and image["height"] for image in images
    )


def _are_vectors(descriptors: np.ndarray, count: int) -> bool:
    """Whether these are ``count`` descriptors of unit length, no longer than a network gives.

    Every value is checked, not a sample: one NaN would change every ranking.
    """
    if len(descriptors) != count or (count and not 0 < descriptors.shape[1] <= MAX_OUTPUTS):
        return False
    return all(_lengths(rows).max() < 1.01 for rows in _blocks(descriptors))


def _are_local(arrays: Mapping, count: int) -> bool:
    """Whether the arrays of local features fit ``count`` pictures and one another."""
    offsets, descriptors = arrays["offsets"], arrays["descriptors"]
    rows = len(descriptors)
    return not (
        len(offsets) != count + 1
        or offsets[0] != 0
        or offsets[-1] != rows
        or (offsets[1:] < offsets[:-1]).any()  # a difference may overflow
        or np.diff(offsets).max(initial=0) > MAX_KEYPOINTS
        or any(len(arrays[name]) != rows for name in ("keypoints", "scales", "scores"))
        or (rows and arrays["keypoints"].shape[1] != 2)
        or (rows and not 0 < descriptors.shape[1] <= MAX_DIMENSIONS)
        or not all(np.isfinite(arrays[name]).all() for name in ("keypoints", "scales", "scores"))
    )


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """All rows, some at a time, so that a check needs no copy of a large array."""
    step = max(VALUES // max(rows.shape[1], 1), 1)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _lengths(rows: np.ndarray) -> np.ndarray:
    """Lengths of vectors (n, D): (n,) float32, NaN or infinite where there is such a number."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.linalg.norm(rows.astype(np.float32), axis=1)


def _is_inverted_file(arrays: Mapping, count: int, width: int | None) -> bool:
    """Whether the word arrays fit ``count`` pictures and descriptors of ``width`` dimensions."""
    codebook, starts, pictures = (arrays[n] for n in ("codebook", "word_starts", "word_pictures"))
    words, dimensions = codebook.shape
    if (
        not 0 < words <= MAX_WORDS  # a search compares its keypoints with all
        or (width is not None and (width != dimensions or not width))
        or dimensions > MAX_DIMENSIONS
        # Centres of vectors of unit length. FAISS finds no word nearest where distances overflow.
        or not np.abs(codebook).max(initial=0) <= 2
        or len(starts) != words + 1
        or starts[0] != 0
        or starts[-1] != len(pictures)
        or (starts[1:] < starts[:-1]).any()
        or len(arrays["word_signs"]) != len(pictures)
        or len(arrays["word_counts"]) != count
        or (len(pictures) and not 0 <= pictures.min() <= pictures.max() < count)
    ):
        return False
    # Within a word the pictures ascend, each once; a new word may begin anywhere.
    descends = np.flatnonzero(np.diff(pictures) <= 0) + 1
    unused = np.uint64(2**64 - 2**dimensions)
    return (
        bool(np.isin(descends, starts).all())
        and not (arrays["word_signs"] & unused).any()
        and np.array_equal(np.bincount(pictures, minlength=count), arrays["word_counts"])
    )
