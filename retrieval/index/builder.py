"""Build an index, resume it after any stop, and bring it up to date with its collection.

All three are one procedure. Every picture is looked up by the SHA-256 of its file: first in the
journal of an unfinished build, then in the index that is already there and in those of other
collections made with the same method (ROxford5k is nearly all of Oxford5k). Only a picture that is
in none of them is described. Work happens in ``<out>.building`` beside the target and is put in
place by a rename, so that a reader of the index sees the old one or the new one.

A collection may be described in parts, on machines that do not communicate: ``merge`` makes of them
the index that one build would have made.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from retrieval import images
from retrieval.errors import RetrievalError
from retrieval.index import approximate, describing, layout, saving, store
from retrieval.index.describing import Described, Known
from retrieval.index.journal import IDENTITY, Journal, delete
from retrieval.index.layout import EXACT, Part

MAX_LISTED = 20  # missing parts; a stranger's part may say that it is one of a billion
Progress = Callable[[int, int, str], None]
# (collection, method, names, known, max_pixels) → the result for each picture, in any order
Describe = Callable[[Any, Any, Sequence[str], Known, int], Iterator[Described]]


def build(
    collection,
    method,
    out: str | Path,
    progress: Progress | None = None,
    codebook: np.ndarray | None = None,
    donors: Sequence[store.Index] = (),
    max_pixels: int = images.MAX_PIXELS,
    part: Part | None = None,
    search: str = EXACT,
    describe: Describe = describing.describe,
) -> store.Index:
    """Index every picture of a collection with a method, into the folder ``out``.

    Creates the index, goes on with one that was interrupted, or updates one that exists: new and
    changed pictures are described, deleted ones dropped, the rest is kept. Pictures that cannot be
    read are left out and listed in ``manifest['skipped']``.
    progress(done, total, name) is called after each picture.
    codebook: (k, d) float32 of another index, for local features; by default one is trained here.
    donors: indexes of other collections to take features from, see ``finding.find_same``.
    max_pixels: of a picture; larger ones are left out.
    part: describe only these pictures, for ``merge``.
    search: how a global method's vectors are searched, 'exact' or a key of ``approximate.KINDS``.
    describe: who describes them; by default this machine, one after another.
    Raises RetrievalError when no picture can be read, when ``out`` holds something else, when
    another build is running there, and when the disk is full (what is finished is kept).
    """
    _check_search(search, method.kind)
    with _writing(out) as target:
        started = time.perf_counter()
        previous = _previous(target, method, part)
        known = _known([*previous, *donors])
        names = part.of(collection.names) if part else collection.names
        if previous and set(names).isdisjoint(
            [*previous[0].names, *(entry["name"] for entry in previous[0].manifest["skipped"])]
        ):
            raise RetrievalError(
                f"{out} is an index of other pictures: none of them is in {collection.name}. "
                "Choose another place, or delete it."
            )
        with Journal(_work(target), layout.identity(method)) as journal:
            digests: dict[str, str] = {}
            finished = Known(journal.digests, frozenset(known))
            for result in describe(collection, method, names, finished, max_pixels):
                digests[result.name] = result.digest
                if isinstance(result.outcome, str):
                    journal.skip(result.name, result.digest, result.outcome)
                elif result.outcome is not None:
                    journal.add(result.name, result.digest, result.size, result.outcome)
                if progress:
                    progress(len(digests), len(names), result.name)
            content = _collect(names, digests, journal, known, method.kind)
        if part:
            more = {"part": part._asdict()}
        else:
            more = content.add_search(method.kind, codebook, search, previous)
        return _finish(target, method, collection, content, started, more)


def merge(
    parts: Sequence[str | Path],
    out: str | Path,
    codebook: np.ndarray | None = None,
    search: str = EXACT,
) -> store.Index:
    """The index of a whole collection from all of its parts, without its pictures.

    It is byte for byte what one build makes, but for the two times in the manifest (``made`` and
    ``seconds``, here those of the merging) and the checksum over them. Graphs of ``hnsw`` are equal
    only where one thread makes them.
    parts: folders, in any order. codebook, search: as for ``build``.
    Raises RetrievalError when they are not all the parts of one collection, each once, described
    with the same checkpoint, settings and versions.
    """
    started = time.perf_counter()
    pieces = sorted((store.load(path, part=True) for path in parts), key=lambda piece: piece.part)
    _check_parts(pieces)
    first = pieces[0].manifest
    _check_search(search, first["kind"])
    stated = first["collection"]
    root = pieces[0].path / stated["folder"] if "folder" in stated else None
    collection = SimpleNamespace(name=stated["name"], fingerprint=stated["fingerprint"], root=root)
    method = SimpleNamespace(
        kind=first["kind"],
        name=first["method"],
        checkpoint=SimpleNamespace(**first["checkpoint"]),
        settings=first["settings"],
    )
    content = _Content(
        [piece.image(position) for piece in pieces for position in range(len(piece))],
        _joined([piece.arrays for piece in pieces], method.kind),
        [entry for piece in pieces for entry in piece.manifest["skipped"]],
    )
    with _writing(out) as target:
        previous = _previous(target, method, None)  # another method's index is not replaced
        # The folder to work in is that of a build.
        with Journal(_work(target), layout.identity(method)) as journal:
            if journal.entries:
                raise RetrievalError(
                    f"{journal.folder} keeps what an unfinished build has described: finish that "
                    "with its command, or choose another --out."
                )
        more = content.add_search(method.kind, codebook, search, previous)
        more["versions"] = first["versions"]
        return _finish(target, method, collection, content, started, more)


def _check_parts(pieces: Sequence[store.Index]) -> None:
    """Raise RetrievalError where these are not all the parts of one collection, each once.

    pieces: in the order of their numbers.
    """
    first = pieces[0]
    count = first.part.parts
    for piece in pieces[1:]:
        for what, key in (
            ("method", "method"),
            ("checkpoint", "checkpoint"),
            ("settings", "settings"),
            ("library versions", "versions"),
        ):
            if piece.manifest[key] != first.manifest[key]:
                raise RetrievalError(
                    f"{piece.path} and {first.path} were made with different {what}; make one of "
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
        here = {piece.part.number for piece in pieces}
        missing = (str(number) for number in range(1, count + 1) if number not in here)
        listed = ", ".join(islice(missing, MAX_LISTED))
        more = ", …" if count - len(here) > MAX_LISTED else ""
        raise RetrievalError(f"Of {count} parts these are missing: {listed}{more}.")
    held = Counter(
        name
        for piece in pieces
        for name in (*piece.names, *(entry["name"] for entry in piece.manifest["skipped"]))
    )
    if twice := [name for name, times in held.items() if times > 1]:
        raise RetrievalError(f"{twice[0]} is in more than one part; make the parts again.")


@contextmanager
def _writing(out: str | Path) -> Iterator[Path]:
    """The target of a build, checked and locked; errors of the disk become RetrievalErrors."""
    target = Path(out).resolve()  # a link is followed: what it leads to is replaced, not the link
    try:
        _check_target(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            saving.settle(_finished(target), target)
            yield target
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise RetrievalError(
                f"The disk is full. Finished pictures are kept in {target}.building: free some "
                "space and run the same command again."
            ) from error
        raise RetrievalError(
            f"The index cannot be written to {target}: {error.strerror or error}."
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
        # Another build that has opened it meanwhile finds it gone, and makes a new one.
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
    if work.is_dir() and any(work.iterdir()) and not (work / IDENTITY).is_file():
        raise RetrievalError(f"{work} is in the way and not an unfinished build; move it.")
    # It may have come with a stranger's index, and a build writes to the files that it finds there.
    if work.is_dir() and any(
        path.is_symlink() or not (path.is_file() or path.is_dir()) for path in work.iterdir()
    ):
        raise RetrievalError(f"{work} holds links or devices, which no build makes; delete it.")
    if out.is_file() or (
        out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file()
    ):
        raise RetrievalError(f"{out} exists and is not an index; choose another place.")


def _finish(
    target: Path,
    method,
    collection,
    content: _Content,
    started: float,
    more: Mapping[str, Any],
) -> store.Index:
    """Write an index and put it in its place, unless an equal one is there.

    started: when the build began, by ``time.perf_counter``. more: further entries of the manifest.
    """
    records, arrays, skipped = content
    part = "part" in more
    work = _work(target)
    if not records and not part:
        delete(work)
        reason = f" The first: {skipped[0]['reason']}" if skipped else ""
        raise RetrievalError(
            f"None of the {len(skipped)} pictures of {collection.name} could be read.{reason}"
        )
    finished = _finished(target)
    shutil.rmtree(finished, ignore_errors=True)
    finished.mkdir()
    seconds = time.perf_counter() - started
    saving.save(finished, target, method, collection, records, arrays, skipped, seconds, more)
    # Evaluations that lie in the folder are lost when it is replaced, and may be the work of hours.
    if _lasting_entries(finished) != _lasting_entries(target):
        saving.replace_folder(finished, target)
    delete(work)
    return store.load(target, part)


def _lasting_entries(path: Path) -> dict[str, Any] | None:
    """The manifest without the entries that differ each time; None where there is no index."""
    if not (path / "manifest.json").is_file():
        return None
    ephemeral = ("made", "seconds", "sha256")
    return {key: value for key, value in store.read_manifest(path).items() if key not in ephemeral}


def _previous(target: Path, method, part: Part | None) -> list[store.Index]:
    """A list with the index that is at the target, or an empty one.

    Raises RetrievalError where that is of another method, other settings or another part.
    """
    if not target.exists() or not any(target.iterdir()):
        return []
    previous = store.load(target, part is not None)
    previous.check_method(method)
    if previous.part != (part or Part()):
        raise RetrievalError(f"{target} is {previous.part}, not {part}; choose another place.")
    return [previous]


def _known(indexes: Sequence[store.Index]) -> dict[str, tuple[store.Index, int]]:
    """SHA-256 of a file → an index with its features, and the position there."""
    return {
        digest: (index, position)
        for index in indexes
        for position, digest in enumerate(index.digests)
        if digest  # published features come without
    }


class _Content(NamedTuple):
    """The content of an index.

    records: entry of each picture in images.json. arrays: name → array. skipped: name and reason of
    each picture that is left out.
    """

    records: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]
    skipped: list[dict[str, str]]

    def add_search(
        self,
        kind: str,
        codebook: np.ndarray | None,
        search: str,
        previous: Sequence[store.Index],
    ) -> dict[str, Any]:
        """Add the arrays for the search; returns the entries of the manifest about them."""
        if kind == "local" and self.records:
            self.arrays.update(_inverted_file(self.arrays, codebook))
        if search == EXACT or not self.records:
            return {}
        made = approximate.KINDS[search].make(
            self.arrays["descriptors"],
            *_kept(self.records, [index for index in previous if index.search == search]),
        )
        self.arrays.update(made.arrays())
        return {"search": {"type": search, "recall_at_10": round(made.recall(), 4)}}


def _collect(
    names: Sequence[str], digests: Mapping[str, str], journal: Journal, known: Mapping, kind: str
) -> _Content:
    """The content of the index: all finished pictures, in the order of the names."""
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
    return _Content(records, _joined(pieces, kind), skipped)


def _kept(
    records: Sequence[Mapping[str, Any]], previous: Sequence[store.Index]
) -> tuple[Mapping[str, np.ndarray] | None, np.ndarray | None]:
    """Arrays of the previous index, and the position (N,) int64 of each picture in it, or -1."""
    if not previous:
        return None, None
    positions: dict[str, list[int]] = {}
    for position, digest in enumerate(previous[0].digests):
        positions.setdefault(digest, []).append(position)
    before = [
        positions[record["sha256"]].pop() if positions.get(record["sha256"]) else -1
        for record in records
    ]
    return previous[0].arrays, np.array(before, np.int64)


def _check_search(search: str, kind: str) -> None:
    if search != EXACT and search not in approximate.KINDS:
        raise RetrievalError(
            f"Unknown search {search!r}; there are: {EXACT}, {', '.join(approximate.KINDS)}."
        )
    if search != EXACT and kind != "global":
        raise RetrievalError(
            f"{search} searches one vector a picture; DELF is searched by its words, exactly."
        )


def _joined(pieces: Sequence[Mapping[str, np.ndarray]], kind: str) -> dict[str, np.ndarray]:
    """Concatenate the arrays of several pictures or parts.

    pieces: name → array; parts of local features have ``offsets`` too. Raises RetrievalError where
    they cannot be of one index.
    """
    filled = [piece["descriptors"] for piece in pieces if len(piece["descriptors"])]
    if len({descriptors.shape[1] for descriptors in filled}) > 1:
        raise RetrievalError(
            "There are descriptors of different lengths; make the parts, or the index that is "
            "there already, again."
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


def _inverted_file(arrays: dict[str, np.ndarray], codebook: np.ndarray | None):
    """The ASMK* arrays of local features, over their own codebook unless one is given."""
    from retrieval.index import asmk

    descriptors = arrays["descriptors"]
    if codebook is None:
        words = asmk.codebook_size(len(descriptors))
        codebook = asmk.train_codebook(descriptors, words, store.QUANTUM)
    elif codebook.shape[1] != descriptors.shape[1] and len(descriptors):
        raise RetrievalError(
            f"The codebook is for descriptors of {codebook.shape[1]} dimensions, "
            f"not {descriptors.shape[1]}."
        )
    offsets = arrays["offsets"]
    return asmk.InvertedFile.build(codebook, descriptors, offsets, store.QUANTUM).arrays()


def _rows(index: store.Index, position: int) -> dict[str, np.ndarray]:
    """One picture's rows of an existing index, as stored."""
    if index.kind == "global":
        return {"descriptors": index.arrays["descriptors"][position][None]}
    rows = slice(*index.arrays["offsets"][position : position + 2])
    return {
        key: index.arrays[key][rows] for key in ("keypoints", "scales", "scores", "descriptors")
    }
