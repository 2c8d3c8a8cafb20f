"""Pictures of a collection are read and described, on this machine.

``index.cluster`` does the same on many. Both yield ``Described``, which the build keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image

from retrieval import images
from retrieval.index import store
from retrieval.methods.base import Features


class Described(NamedTuple):
    """What became of one picture.

    digest: SHA-256 of its file, "" where that cannot be read. size: width and height, of pictures
    with features.
    outcome: its features; the sentence that says why it cannot be read; None where it is known.
    """

    name: str
    digest: str
    size: tuple[int, int]
    outcome: Features | str | None


class Known(NamedTuple):
    """What need not be described again.

    names: picture → digest of what this build has finished. digests: of what other indexes have.
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
        wanted = [picture for *_, picture in batch if isinstance(picture, Image.Image)]
        features = iter(method.describe_batch(wanted))
        for name, digest, picture in batch:
            if isinstance(picture, Image.Image):
                yield Described(name, digest, picture.size, next(features))
            else:
                reason = None if picture is None else str(picture)
                yield Described(name, digest, (0, 0), reason)


def _pictures(
    collection, names: Sequence[str], known: Known, max_pixels: int
) -> Iterator[tuple[str, str, Image.Image | images.PictureError | None]]:
    """Name, digest and picture, None where it is known; reading runs ahead of describing."""

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
        waiting = []
        for name in names:
            waiting.append(reader.submit(read, name))
            if len(waiting) > 2:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _batches(pictures: Iterator[tuple], size: int) -> Iterator[list[tuple]]:
    """Lists with ``size`` pictures that are to be described, and what comes between them."""
    batch: list[tuple] = []
    waiting = 0
    for one in pictures:
        batch.append(one)
        waiting += isinstance(one[2], Image.Image)
        if waiting in (0, size):  # what is known has nothing to wait for
            yield batch
            batch, waiting = [], 0
    if batch:
        yield batch
