"""Reading and describing the pictures of a collection on this machine.

``index.cluster`` does the same on several machines. Both yield ``Described`` for the build.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image

from retrieval import images
from retrieval.index import store
from retrieval.methods.base import Features

AHEAD = 4_000_000  # pixels of a picture that is read before its turn


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
        yield from _described(method, batch)


def _described(method, batch: list[tuple]) -> Iterator[Described]:
    """The results for one batch. It ends, and with it its pictures, before the next is read."""
    pictures = [picture for *_, picture in batch if isinstance(picture, Image.Image)]
    features = iter(method.describe_batch(pictures))
    for name, digest, picture in batch:
        if isinstance(picture, Image.Image):
            yield Described(name, digest, picture.size, next(features))
        else:
            reason = None if picture is None else str(picture)
            yield Described(name, digest, (0, 0), reason)


def _pictures(
    collection, names: Sequence[str], known: Known, max_pixels: int
) -> Iterator[tuple[str, str, Image.Image | images.PictureError | None]]:
    """Name, digest, and the picture, or the error that reading it gave, or None where it is known.

    Pictures are read in a thread of their own, ahead of those that are described. Large ones are
    not: while many visitors wait for their turn, each would hold four of 75 MB.
    """

    def read(name: str):
        try:
            data = collection.read_bytes(name)
        except images.PictureError as error:
            return name, "", error
        digest = store.digest(data)
        if known.has(name, digest):
            return name, digest, None
        try:
            return name, digest, images.read(data, name, max_pixels)
        except images.PictureError as error:
            return name, digest, error

    with ThreadPoolExecutor(1) as reader:
        waiting: list[Future] = []
        for name in names:
            while len(waiting) > 2 or (waiting and _is_large(waiting[0].result()[2])):
                yield waiting.pop(0).result()
            waiting.append(reader.submit(read, name))
        for future in waiting:
            yield future.result()


def _is_large(picture: Image.Image | images.PictureError | None) -> bool:
    return isinstance(picture, Image.Image) and picture.width * picture.height > AHEAD


def _batches(pictures: Iterator[tuple], size: int) -> Iterator[list[tuple]]:
    """Batches in the order of ``pictures``: up to ``size`` to be described, and those between them.

    pictures: as from ``_pictures``; what is no picture (an error, or None) needs no describing.
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
