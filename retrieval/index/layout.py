"""The files of an index on disk.

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
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from retrieval.index import approximate

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
EXACT = "exact"
AGAIN = "; delete it and index the collection again"
QUANTUM = 127  # int8 value that stands for 1 in local descriptors


def array_types(kind: str, part: bool, search: str = EXACT) -> Mapping[str, tuple[str, int]]:
    """Name → dtype and number of dimensions of the arrays that an index has.

    kind: "global", "local" or "keypoints". part: whether it is one part of a local index, which
    has no inverted file. search: "exact" or the name of an approximate search.
    """
    types = ARRAYS["keypoints" if part and kind == "local" else kind]
    return types if search == EXACT else {**types, **approximate.KINDS[search].types}


class Part(NamedTuple):
    """Part ``number`` (from 1) of a list that is cut into ``parts`` of about the same size."""

    number: int = 1
    parts: int = 1

    def __str__(self) -> str:
        return f"part {self.number} of {self.parts}"

    def of(self, names: Sequence[T]) -> Sequence[T]:
        start = len(names) * (self.number - 1) // self.parts
        end = len(names) * self.number // self.parts
        return names[start:end]


def identity(method) -> dict[str, Any]:
    """Kind, name, checkpoint and settings of a method: what its features depend on, for JSON."""
    checkpoint = method.checkpoint
    settings = json.loads(json.dumps(method.settings))
    return {
        "kind": method.kind,
        "method": method.name,
        "checkpoint": {"id": checkpoint.id, "sha256": checkpoint.sha256},
        "settings": settings,
    }


def digest(data: bytes) -> str:
    """The SHA-256 of a file, by which pictures are recognised: 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of all fields of a manifest but "sha256", where it is kept to show edits."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def search_of(manifest: Mapping[str, Any]) -> str:
    return manifest.get("search", {}).get("type", EXACT)


def quantise(descriptors: np.ndarray) -> np.ndarray:
    """Unit-length float descriptors (N, d) as int8 with a fixed step, so no scale is stored."""
    return np.clip(np.rint(descriptors * QUANTUM), -QUANTUM, QUANTUM).astype(np.int8)


def dequantise(descriptors: np.ndarray) -> np.ndarray:
    """int8 descriptors (N, d) back as float32 of nearly unit length."""
    return descriptors.astype(np.float32) / QUANTUM


def short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 120 else text[:119] + "…"
