"""The content of an index, collected from a build or from parts, and the arrays of its search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from retrieval.errors import RetrievalError
from retrieval.index import approximate, layout
from retrieval.index.index import Index
from retrieval.index.journal import Journal
from retrieval.index.layout import EXACT


def check_search(search: str, kind: str) -> None:
    """Refuse an unknown search, and an approximate one for local features (``kind``)."""
    if search != EXACT and search not in approximate.KINDS:
        raise RetrievalError(
            f"Unknown search {search!r}; there are: {EXACT}, {', '.join(approximate.KINDS)}."
        )
    if search != EXACT and kind != "global":
        raise RetrievalError(
            f"{search} searches one vector a picture; DELF is searched by its words, exactly."
        )


class Content(NamedTuple):
    """The content of an index.

    records: of each picture its entry in images.json: name, sha256, width, height. arrays: name →
    array, see ``layout``. skipped: name and reason of each picture that is left out.
    """

    records: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]
    skipped: list[dict[str, str]]

    def add_search(
        self,
        kind: str,
        codebook: np.ndarray | None,
        search: str,
        previous: Index | None,
    ) -> dict[str, Any]:
        """Add the arrays for the search; returns the entries of the manifest about them.

        codebook, search: as for ``builder.build``. previous: the index that this one replaces; its
        arrays of the same search are used again.
        """
        if kind == "local" and self.records:
            self.arrays.update(_inverted_file(self.arrays, codebook))
        if search == EXACT or not self.records:
            return {}
        kind_of_search, descriptors = approximate.KINDS[search], self.arrays["descriptors"]
        if previous is not None and previous.search == search:
            positions = _positions_in(previous, self.records)
            searcher = kind_of_search.make(descriptors, previous.arrays, positions)
        else:
            searcher = kind_of_search.make(descriptors)
        self.arrays.update(searcher.arrays())
        return {"search": {"type": search, "recall_at_10": round(searcher.recall(), 4)}}


def _positions_in(index: Index, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The position (N,) int64 that each picture has in an index, by its digest; -1 for new ones.

    Equal pictures keep their order: an index of the same pictures is then the same.
    """
    positions: dict[str, list[int]] = {}
    # From the last to the first, as ``pop`` takes the last of a list.
    for position, digest in reversed([*enumerate(index.digests)]):
        positions.setdefault(digest, []).append(position)
    return np.array(
        [
            positions[record["sha256"]].pop() if positions.get(record["sha256"]) else -1
            for record in records
        ],
        np.int64,
    )


def _inverted_file(arrays: dict[str, np.ndarray], codebook: np.ndarray | None):
    """The ASMK* arrays of local features, over their own codebook unless one is given."""
    from retrieval.index import asmk

    descriptors = arrays["descriptors"]
    if codebook is None:
        words = asmk.codebook_size(len(descriptors))
        codebook = asmk.train_codebook(descriptors, words, layout.QUANTUM)
    elif codebook.shape[1] != descriptors.shape[1] and len(descriptors):
        raise RetrievalError(
            f"The codebook is for descriptors of {codebook.shape[1]} dimensions, not "
            f"{descriptors.shape[1]}: use that of an index made with the same checkpoint."
        )
    offsets = arrays["offsets"]
    return asmk.InvertedFile.build(codebook, descriptors, offsets, layout.QUANTUM).arrays()


def collect(
    names: Sequence[str], digests: Mapping[str, str], journal: Journal, known: Mapping, kind: str
) -> Content:
    """The content of an index: all finished pictures, in the order of the names.

    digests: name → SHA-256 of the file. known: digest → an index with its features and the position
    there, for pictures that are not in the journal.
    """
    records, pieces, skipped = [], [], []
    for name in names:
        digest = digests[name]
        entry = journal.entries.get(name)
        if entry is not None and entry["sha256"] == digest:
            if "reason" in entry:
                skipped.append({"name": name, "reason": entry["reason"]})
                continue
            piece = journal.features(entry, kind)
        else:
            index, position = known[digest]
            width, height = index.size(position)
            entry = {"sha256": digest, "width": width, "height": height}
            piece = _rows(index, position)
        records.append({key: entry[key] for key in ("sha256", "width", "height")} | {"name": name})
        pieces.append(piece)
    return Content(records, joined(pieces, kind), skipped)


def _rows(index: Index, position: int) -> dict[str, np.ndarray]:
    """One picture's rows of an existing index, as stored."""
    if index.kind == "global":
        return {"descriptors": index.arrays["descriptors"][position][None]}
    rows = slice(*index.arrays["offsets"][position : position + 2])
    return {
        key: index.arrays[key][rows] for key in ("keypoints", "scales", "scores", "descriptors")
    }


def joined(pieces: Sequence[Mapping[str, np.ndarray]], kind: str) -> dict[str, np.ndarray]:
    """Concatenate the arrays of several pictures or parts.

    pieces: name → array; parts of local features have ``offsets`` too. Raises RetrievalError where
    they cannot be of one index.
    """
    filled = [piece["descriptors"] for piece in pieces if len(piece["descriptors"])]
    if len({descriptors.shape[1] for descriptors in filled}) > 1:
        raise RetrievalError(
            "The descriptors have different lengths: make all parts, or the index that is there, "
            "again with the same checkpoint."
        )
    types = layout.array_types(kind, part=True)
    arrays = {}
    for key in types.keys() - {"offsets"}:
        # An empty picture (no keypoint) has no descriptor width of its own.
        rows = [piece[key] for piece in pieces if len(piece[key])] or [p[key] for p in pieces[:1]]
        dtype, dimensions = types[key]
        arrays[key] = np.concatenate(rows) if rows else np.zeros((0,) * dimensions, dtype)
    if "offsets" in types:
        lengths = [
            np.diff(piece["offsets"]) if "offsets" in piece else [len(piece["scores"])]
            for piece in pieces
        ]
        arrays["offsets"] = np.concatenate([[0], np.cumsum(np.concatenate([[], *lengths]))]).astype(
            np.int64
        )
    return arrays
