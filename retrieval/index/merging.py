"""Merge the parts of an index, which may come from machines that are not connected."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from retrieval.errors import RetrievalError
from retrieval.index import layout, loading
from retrieval.index.content import Content, check_search, joined
from retrieval.index.index import Index
from retrieval.index.journal import Journal
from retrieval.index.layout import EXACT
from retrieval.index.target import finish, previous_at, work_folder, writing

MAX_LISTED = 20  # missing parts in a message; a hostile part may say that it is one of a billion


def merge(
    parts: Sequence[str | Path],
    out: str | Path,
    codebook: np.ndarray | None = None,
    search: str = EXACT,
) -> Index:
    """Make the index of a whole collection from all of its parts; the pictures are not needed.

    The result equals the index of one build byte for byte, except for ``made`` and ``seconds`` in
    the manifest (here those of the merge) and the checksum over them. Graphs of ``hnsw`` are equal
    only where one thread makes them.
    parts: folders, in any order. codebook, search: as for ``build``.
    Raises RetrievalError unless these are all the parts of one collection, each once, made with the
    same checkpoint, settings and versions.
    """
    started = time.perf_counter()
    pieces = sorted((loading.load(path, part=True) for path in parts), key=lambda piece: piece.part)
    _check_parts(pieces)
    first = pieces[0].manifest
    check_search(search, first["kind"])
    stated = first["collection"]
    root = pieces[0].path / stated["folder"] if "folder" in stated else None
    collection = SimpleNamespace(name=stated["name"], fingerprint=stated["fingerprint"], root=root)
    method = SimpleNamespace(
        kind=first["kind"],
        name=first["method"],
        checkpoint=SimpleNamespace(**first["checkpoint"]),
        settings=first["settings"],
    )
    content = Content(
        [piece.image(position) for piece in pieces for position in range(len(piece))],
        joined([piece.arrays for piece in pieces], method.kind),
        [entry for piece in pieces for entry in piece.manifest["skipped"]],
    )
    with writing(out) as target:
        # Do not replace an index of another method or collection.
        names = [entry["name"] for entry in (*content.records, *content.skipped)]
        digests = {entry["name"]: entry["sha256"] for entry in content.records}
        previous = previous_at(target, method, names, digest_of=lambda name: digests.get(name, ""))
        # A merge uses the work folder of a build, in which an unfinished build may be.
        with Journal(work_folder(target), layout.identity(method), len(names)) as journal:
            if journal.entries:
                raise RetrievalError(
                    f"{journal.folder} keeps the pictures of an unfinished build: finish that with "
                    "its command, or choose another --out."
                )
        more = content.add_search(method.kind, codebook, search, previous)
        more["versions"] = first["versions"]
        return finish(target, method, collection, content, started, more)


def _check_parts(pieces: Sequence[Index]) -> None:
    """Raise RetrievalError unless these are all the parts of one collection, each once.

    pieces: in the order of their numbers.
    """
    first = pieces[0]
    count = first.part.parts
    for piece in pieces[1:]:
        for title, key in (
            ("method", "method"),
            ("checkpoint", "checkpoint"),
            ("settings", "settings"),
            ("library versions", "versions"),
        ):
            if piece.manifest[key] != first.manifest[key]:
                raise RetrievalError(
                    f"{piece.path} and {first.path} were made with different {title}; make one of "
                    "them again."
                )
        same = all(
            piece.manifest["collection"][key] == first.manifest["collection"][key]
            for key in ("name", "fingerprint")
        )
        if not same or piece.part.parts != count:
            raise RetrievalError(
                f"{piece.path} and {first.path} are not parts of the same list of pictures; make "
                "one of them again."
            )
    for piece, other in pairwise(pieces):
        if piece.part == other.part:
            raise RetrievalError(
                f"{piece.path} and {other.path} are both {piece.part}; leave one out."
            )
    if len(pieces) < count:
        numbers = {piece.part.number for piece in pieces}
        missing = (str(number) for number in range(1, count + 1) if number not in numbers)
        listed = ", ".join(islice(missing, MAX_LISTED))
        more = ", …" if count - len(numbers) > MAX_LISTED else ""
        raise RetrievalError(f"Of {count} parts these are missing: {listed}{more}; add them.")
    held = Counter(
        name
        for piece in pieces
        for name in (*piece.names, *(entry["name"] for entry in piece.manifest["skipped"]))
    )
    if twice := [name for name, times in held.items() if times > 1]:
        raise RetrievalError(f"{twice[0]} is in more than one part; make the parts again.")
