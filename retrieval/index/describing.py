"""Reading and describing the pictures of a collection on this machine.

``index.cluster`` does the same on several machines. Both yield ``Described`` for the build.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import NamedTuple

from PIL import Image

from retrieval import images
from retrieval.index import layout
from retrieval.methods.base import Features, note_seconds


class Described(NamedTuple):
    """The result for one picture.

    digest: SHA-256 of its file, '' where that cannot be read. size: (width, height) in pixels;
    (0, 0) where there are no new features.
    outcome: its features; or the sentence that says why it cannot be read; or None where its
    features are known already.
    """

    name: str
    digest: str
    size: tuple[int, int]
    outcome: Features | str | None


class Known(NamedTuple):
    """Pictures that need not be described again.

    names: name → digest of the pictures that this build has finished. digests: of the pictures
    whose features other indexes have.
    """

    names: Mapping[str, str]
    digests: Collection[str]

    def has(self, name: str, digest: str) -> bool:
        return digest in self.digests or self.names.get(name) == digest


def describe(
    collection, method, names: Sequence[str], known: Known, max_pixels: int
) -> Iterator[Described]:
    """Describe these pictures of a collection one after another, in batches of the method."""
    for batch in _batches(_pictures(collection, names, known, max_pixels), method.batch):
        pictures = [picture for *_, picture in batch if isinstance(picture, Image.Image)]
        started = time.perf_counter()
        features = iter(method.describe_batch(pictures))
        if pictures:
            note_seconds(method, (time.perf_counter() - started) / len(pictures))
        for name, digest, picture in batch:
            if isinstance(picture, Image.Image):
                yield Described(name, digest, picture.size, next(features))
            else:
                yield Described(name, digest, (0, 0), picture)


def _pictures(
    collection, names: Sequence[str], known: Known, max_pixels: int
) -> Iterator[tuple[str, str, Image.Image | str | None]]:
    """Name, digest, and the picture, or why it cannot be read, or None where it is known.

    Pictures are read in a thread of their own, ahead of those that are described.
    """

    def read(name: str):
        # The sentence of an error is returned, not the error: that holds this frame and with it the
        # bytes of the picture, which would stay in memory until the garbage collector runs.
        try:
            data = collection.read_bytes(name)
        except images.PictureError as error:
            return name, "", str(error)
        digest = layout.digest(data)
        if known.has(name, digest):
            return name, digest, None
        try:
            return name, digest, images.read(data, name, max_pixels, collection.of_visitor)
        except images.PictureError as error:
            return name, digest, str(error)

    with ThreadPoolExecutor(1) as reader:
        waiting = []
        for name in names:
            # In a copy of this thread's context, which ``workers.move_to_slow_workers`` needs.
            waiting.append(reader.submit(copy_context().run, read, name))
            if len(waiting) > 2:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _batches(pictures: Iterator[tuple], size: int) -> Iterator[list[tuple]]:
    """Batches in the order of ``pictures``: up to ``size`` to be described, and those between them.

    pictures: as from ``_pictures``; what is no picture (a reason, or None) needs no describing.
    """
    batch: list[tuple] = []
    waiting = 0
    for entry in pictures:
        batch.append(entry)
        waiting += isinstance(entry[2], Image.Image)
        if waiting in (0, size):  # 0: there is nothing to describe, so nothing to wait for
            yield batch
            batch, waiting = [], 0
    if batch:
        yield batch
