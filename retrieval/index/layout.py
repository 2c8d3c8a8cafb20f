"""What an index on disk is made of, and whether the files of one are what they should be.

    precomputed/<collection>/<checkpoint>/
        manifest.json     format, collection, checkpoint, settings, versions, sizes, checksums
        images.json       name, SHA-256, width and height of each picture, in order
        descriptors.npy   global: (N, D) float16, unit length
                          local: (M, d) int8, unit length × 127, all pictures one after another
        offsets.npy       local only: (N + 1,) int64, picture i has rows offsets[i]:offsets[i + 1]
        keypoints.npy     local only: (M, 2) float16, x and y in pixels of the original picture
        scales.npy, scores.npy   local only: (M,) float16
        codebook.npy, word_*.npy local only: the inverted file of ASMK*, see asmk.InvertedFile
        graph_*.npy, cell_*.npy  global, if asked for: see approximate.Graph and Cells

An index of the kind "keypoints" has the arrays of a local one but no inverted file: it holds
features to check a shortlist with, see ``ranking.verifiers``.

Nothing in it is executed. The checks here refuse a manifest that was edited, and files that do not
fit it or one another, with a sentence that says what differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from retrieval.collections.ground_truth import check_name
from retrieval.errors import RetrievalError
from retrieval.index import approximate
from retrieval.index.asmk import MOST_DIMENSIONS
from retrieval.methods import METHODS

if TYPE_CHECKING:
    from retrieval.index.milvus import Address

T = TypeVar("T")

FORMAT = 1

# name → dtype and number of dimensions
_KEYPOINTS = {
    "descriptors": ("int8", 2),
    "offsets": ("int64", 1),
    "keypoints": ("float16", 2),
    "scales": ("float16", 1),
    "scores": ("float16", 1),
}
# The arrays that an index of each kind must have.
ARRAYS = {
    "global": {"descriptors": ("float16", 2)},
    "local": {
        **_KEYPOINTS,
        "codebook": ("float32", 2),
        "word_starts": ("int64", 1),
        "word_pictures": ("int32", 1),
        "word_signs": ("uint64", 1),
        "word_counts": ("int32", 1),
    },
    # Local features to check a shortlist with: there is nothing to search them by.
    "keypoints": _KEYPOINTS,
}
MOST_TOLD = 100_000  # bytes of a manifest without its list of skipped pictures; ours have 2000
ROWS = 4096  # descriptors that are looked at at once
EXACT = "exact"
AGAIN = "; delete it and index the collection again"


def array_types(
    kind: str, part: bool = False, search: str = EXACT
) -> Mapping[str, tuple[str, int]]:
    """Name → dtype and dimensions of the arrays of an index; a part has nothing to search with."""
    types = ARRAYS["keypoints" if part and kind == "local" else kind]
    return types if search == EXACT else {**types, **approximate.KINDS[search].types}


class Part(NamedTuple):
    """One of so many parts of a list, all of about the same size; ``number`` counts from 1."""

    number: int = 1
    parts: int = 1

    def __str__(self) -> str:
        return f"part {self.number} of {self.parts}"

    def of(self, names: Sequence[T]) -> Sequence[T]:
        start, end = (len(names) * one // self.parts for one in (self.number - 1, self.number))
        return names[start:end]


def identity(method) -> dict[str, Any]:
    """Everything of a method that changes a number in an index of it, ready for JSON."""
    checkpoint = method.checkpoint
    settings = json.loads(json.dumps(method.settings))
    return {
        "kind": method.kind,
        "method": method.name,
        "checkpoint": {"id": checkpoint.id, "sha256": checkpoint.sha256},
        "settings": settings,
    }


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of everything else in a manifest, so that an edited one is noticed."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_manifest(manifest: Any, path: Path | Address) -> None:
    """Raises RetrievalError where this is not the manifest of an index that we can read."""
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise RetrievalError(f"{path} is not an index: its manifest.json is something else's.")
    if manifest["format"] != FORMAT:
        raise RetrievalError(
            f"The index {path} has format version {short(manifest['format'])}, this program "
            f"reads {FORMAT}{AGAIN}."
        )
    damaged = RetrievalError(f"The manifest of the index {path} was edited or damaged{AGAIN}.")
    try:
        kind = manifest["kind"]
        part = Part(**manifest.get("part", {}))
        types = array_types(kind, "part" in manifest, search_of(manifest))
        expected = {f"{name}.npy" for name in types} | {"images.json"}
        fine = (
            set(manifest["files"]) == expected
            and all(
                isinstance(stated["bytes"], int) and isinstance(stated["sha256"], str)
                for stated in manifest["files"].values()
            )
            and isinstance(manifest["method"], str)
            and (manifest["method"] not in METHODS or METHODS[manifest["method"]].kind == kind)
            and isinstance(manifest["settings"], dict)
            and isinstance(manifest["checkpoint"]["id"], str)
            and isinstance(manifest["checkpoint"]["sha256"], str)
            and isinstance(manifest["collection"]["name"], str)
            and isinstance(manifest["collection"]["fingerprint"], str)
            and isinstance(manifest["collection"].get("folder", ""), str)
            and isinstance(manifest["made"], str)
            and isinstance(manifest["seconds"], int | float)
            and all(isinstance(one, str) for one in manifest["versions"].values())
            and all(
                isinstance(entry["name"], str) and isinstance(entry["reason"], str)
                for entry in manifest["skipped"]
            )
            and isinstance(manifest["pictures"], int)
            and all(isinstance(one, int) for one in part)
            and 1 <= part.number <= part.parts
            and _is_search(manifest)
            and _can_be_told(manifest)
            and manifest["sha256"] == manifest_digest(manifest)
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged from error
    if not fine:
        raise damaged


def _can_be_told(manifest: Mapping[str, Any]) -> bool:
    """Whether others can be sent it as JSON: short, whole characters, settings that are not nested.

    What comes from names of files need not be text.
    """
    values: list[Any] = []
    for one in manifest["settings"].values():
        values += one if isinstance(one, list) else [one]
    told = {key: one for key, one in manifest.items() if key not in ("collection", "skipped")}
    try:
        size = len(json.dumps(told, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False
    return size < MOST_TOLD and not any(isinstance(one, dict | list) for one in values)


def search_of(manifest: Mapping[str, Any]) -> str:
    return manifest.get("search", {}).get("type", EXACT)


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
    """Shapes agree with one another even when somebody wrote matching checksums."""
    count = manifest["pictures"]
    wrong = RetrievalError(f"The files of the index {path} contradict its manifest{AGAIN}.")
    part = "part" in manifest
    if not isinstance(images, list) or len(images) != count or (count == 0 and not part):
        raise wrong
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
            raise wrong
    # Published descriptors come without pictures, and those have no size.
    if any(one["sha256"] for one in images) and not all(
        one["width"] and one["height"] for one in images
    ):
        raise wrong
    if len({image["name"] for image in images}) != count:
        raise wrong
    try:
        for image in images:
            check_name(image["name"])
    except RetrievalError as error:
        raise wrong from error
    search = search_of(manifest)
    for name, (dtype, dimensions) in array_types(manifest["kind"], part, search).items():
        if arrays[name].dtype != np.dtype(dtype) or arrays[name].ndim != dimensions:
            raise wrong
    descriptors = arrays["descriptors"]
    if manifest["kind"] == "global":
        # Every value, not a sample: one NaN would poison every ranking.
        fine = len(descriptors) == count and (descriptors.size or not count)
        if not fine or not all(_lengths(rows).max() < 1.01 for rows in _blocks(descriptors)):
            raise wrong
        if search != EXACT and not approximate.KINDS[search].fits(arrays, descriptors):
            raise wrong
        return
    offsets = arrays["offsets"]
    rows = len(descriptors)
    if (
        len(offsets) != count + 1
        or offsets[0] != 0
        or offsets[-1] != rows
        or (offsets[1:] < offsets[:-1]).any()  # a difference may overflow
        or any(len(arrays[name]) != rows for name in ("keypoints", "scales", "scores"))
        or (rows and arrays["keypoints"].shape[1] != 2)
        or not all(np.isfinite(arrays[name]).all() for name in ("keypoints", "scales", "scores"))
    ):
        raise wrong
    if manifest["kind"] == "keypoints" or part:
        return
    if not _is_inverted_file(arrays, count, descriptors.shape[1] if rows else None):
        raise wrong


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows a few at a time: what looks at all of a large array needs no copy of its size."""
    for start in range(0, len(rows), ROWS):
        yield rows[start : start + ROWS]


def _lengths(rows: np.ndarray) -> np.ndarray:
    """Lengths of vectors (n, D): (n,) float32, NaN or infinite where there is such a number."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.linalg.norm(rows.astype(np.float32), axis=1)


def _is_inverted_file(arrays: Mapping, count: int, width: int | None) -> bool:
    """Whether the word arrays fit ``count`` pictures and descriptors of ``width`` dimensions."""
    codebook, starts, pictures = (arrays[n] for n in ("codebook", "word_starts", "word_pictures"))
    words, dimensions = codebook.shape
    if (
        not words
        or (width is not None and (width != dimensions or not width))
        or dimensions > MOST_DIMENSIONS
        or not np.isfinite(codebook).all()
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


def short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 120 else text[:119] + "…"
