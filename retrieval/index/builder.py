"""Build an index, resume it after any stop, and bring it up to date with its collection.

All three are one procedure. It looks up every picture by the SHA-256 of its file: first in the
journal of an unfinished build, then in the index at the target, then in indexes of other
collections made with the same method (ROxford5k has nearly all pictures of Oxford5k). Only a
picture that is in none of them is described.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from retrieval import images
from retrieval.errors import RetrievalError
from retrieval.index import checks, describing, layout
from retrieval.index.content import check_search, collect
from retrieval.index.describing import Described, Known
from retrieval.index.index import Index
from retrieval.index.journal import Journal
from retrieval.index.layout import EXACT, Part
from retrieval.index.target import finish, previous_at, work_folder, writing

MAX_FAILED = 100_000  # pictures that cannot be read, where most of the others cannot, either

Progress = Callable[[int, int, str], None]
# (collection, method, names, known, max_pixels) → the result for each picture, in any order
Describe = Callable[[Any, Any, Sequence[str], Known, int], Iterator[Described]]


def build(
    collection,
    method,
    out: str | Path,
    progress: Progress | None = None,
    codebook: np.ndarray | None = None,
    donors: Sequence[Index] = (),
    max_pixels: int = images.MAX_PIXELS,
    part: Part | None = None,
    search: str = EXACT,
    describe: Describe = describing.describe,
    turn: Callable[[], AbstractContextManager] = nullcontext,
) -> Index:
    """Index every picture of a collection with a method, into the folder ``out``.

    Creates an index, goes on with an interrupted build, or updates an index: new and changed
    pictures are described, deleted ones dropped, all others kept. Pictures that cannot be read are
    left out and listed in ``manifest['skipped']``.
    progress(done, total, name) is called after each picture.
    codebook: (k, d) float32 of another index, for local features; by default one is trained here.
    donors: indexes of other collections to take features from, see ``finding.find_same``.
    max_pixels: of a picture; larger ones are left out.
    part: describe only these pictures, for ``merge``.
    search: how a global method's vectors are searched, 'exact' or a key of ``approximate.KINDS``.
    describe: function that describes the pictures; by default on this machine, one after another.
    turn: context that is entered when all pictures are described: the last steps take both cores
    and much memory for minutes.
    Raises RetrievalError when no picture can be read, when more than MAX_FAILED and more than half
    of those tried cannot, when ``out`` holds something else, when another build is running there,
    and when the disk is full (finished pictures are kept).
    """
    check_search(search, method.kind)
    checks.check_count(collection.names)
    with writing(out) as target, ExitStack() as stack:
        started = time.perf_counter()
        names = part.of(collection.names) if part else collection.names
        previous = previous_at(target, method, names, part, partial(_digest, collection))
        known = _known(donors if previous is None else [previous, *donors])
        of_part: dict[str, Any] = {"part": part._asdict()} if part else {}
        identity = layout.identity(method) | of_part
        with Journal(work_folder(target), identity, len(names)) as journal:
            if previous is None:
                _check_journal(journal, names)
            described = {*journal.described, *(previous.names if previous else ())}
            _check_folders_can_be_read(collection, described.difference(names))
            digests: dict[str, str] = {}
            failed: dict[str, str] = {}  # name → reason
            finished = Known(journal.digests, frozenset(known))
            for result in describe(collection, method, names, finished, max_pixels):
                digests[result.name] = result.digest
                if isinstance(result.outcome, str):
                    failed[result.name] = result.outcome
                    _check_most_can_be_read(collection, len(digests), failed)
                    if result.digest and result.name not in described:
                        journal.skip(result.name, result.digest, result.outcome)
                elif result.outcome is not None:
                    journal.add(result.name, result.digest, result.size, result.outcome)
                if progress:
                    progress(len(digests), len(names), result.name)
            if described or len(failed) < len(names):
                _check_pictures_are_there(collection, names, digests, failed)
            for name, reason in failed.items():
                # A disk or a server may refuse for a while, or send a log-in page.
                again = _digest(collection, name) if name in described else ""
                if finished.has(name, again):
                    digests[name] = again
                elif name in described or not digests[name]:
                    journal.skip(name, digests[name], reason)
            stack.enter_context(turn())
            content = collect(names, digests, journal, known, method.kind)
        more = of_part or content.add_search(method.kind, codebook, search, previous)
        return finish(target, method, collection, content, started, more)


def _check_journal(journal: Journal, names: Iterable[str]) -> None:
    """Raise RetrievalError for an unfinished build of other pictures only: it would be deleted."""
    if journal.described and journal.described.isdisjoint(names):
        raise RetrievalError(
            f"{journal.folder} keeps an unfinished build of other pictures: it has none of these. "
            "Repeat its command to go on with it, or delete the folder to begin again."
        )


def _check_folders_can_be_read(collection, gone: Iterable[str]) -> None:
    """Raise RetrievalError where pictures may be gone only because their folder cannot be read.

    gone: names of pictures that have been described and are not in the list of the folder.
    """
    there: dict[PurePosixPath, bool] = {}
    for name in gone:
        # From the top down to the first missing folder: a stranger's names lie 2000 folders deep.
        for folder in reversed(PurePosixPath(name).parents):
            if folder not in there:
                there[folder] = collection.check_folder(folder, name)
            if not there[folder]:
                break


def _check_most_can_be_read(collection, tried: int, failed: Mapping[str, str]) -> None:
    """Raise RetrievalError where hardly any of the pictures tried can be read.

    failed: name → reason, for each that cannot.
    """
    if len(failed) > max(MAX_FAILED, tried // 2):
        raise _unreadable(
            f"More than {MAX_FAILED:,} pictures of {collection.name} cannot be read.", failed
        )


def _check_pictures_are_there(
    collection, names: Sequence[str], digests: Mapping[str, str], failed: Mapping[str, str]
) -> None:
    """Raise RetrievalError where the folder of the pictures went away during a build.

    A disk or a network may be gone, and a server may refuse all pictures or send another page in
    place of each. The features of such pictures must not be dropped.
    digests: name → digest of the file, as it was read. failed: name → reason, for each file that
    could not be read or is no picture.
    """
    read = (name for name in names if name not in failed)
    if failed and not any(_digest(collection, name) == digests[name] for name in islice(read, 10)):
        raise _unreadable(f"The pictures of {collection.name} cannot be read any more.", failed)


def _unreadable(sentence: str, failed: Mapping[str, str]) -> RetrievalError:
    """The error where a build stops at pictures that cannot be read. failed: name → reason."""
    return RetrievalError(
        f"{sentence} The first: {next(iter(failed.values()))} What is finished is kept: run the "
        "same command again when they can be read."
    )


def _digest(collection, name: str) -> str:
    """SHA-256 of the file of a picture; '' where it cannot be read."""
    try:
        return layout.digest(collection.read_bytes(name))
    except images.PictureError:
        return ""


def _known(indexes: Sequence[Index]) -> dict[str, tuple[Index, int]]:
    """SHA-256 of a file → the first of the indexes with its features, and the position there."""
    return {
        digest: (index, position)
        for index in reversed(indexes)  # of equal keys the last one stays
        for position, digest in enumerate(index.digests)
        if digest  # published features come without
    }
