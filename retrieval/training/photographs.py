"""The photographs that a training learns from: their landmarks, and the split for validation.

Landmarks are read from ``labels.json`` in the collection's folder, ``{"images": {file name:
{"landmark": name or null}}}``, or are the names of the subfolders that hold the pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from retrieval import files, images
from retrieval.collections import Collection
from retrieval.collections.ground_truth import MAX_BYTES
from retrieval.errors import RetrievalError

NONE = -1  # the landmark of a picture that shows none of them
SHARE = 7  # one in so many landmarks is held out
HELD_OUT_PICTURES = 8  # a landmark with fewer says too little to validate on
LEAST = 20  # pictures


@dataclass(frozen=True, eq=False)
class Photographs:
    """Pictures by number, in the order of the collection.

    landmarks: (n,) int64, positions in ``titles``, or NONE. source: what they come from, for the
    record: 'labels', 'geometry' or 'none'.
    """

    collection: Collection
    landmarks: np.ndarray
    titles: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.collection.names)

    def read(self, number: int) -> Image.Image:
        """One picture, upright RGB. Nothing is kept: memory does not grow with the collection."""
        return images.read(self.collection.path(self.collection.names[number]))

    def digest(self) -> str:
        """SHA-256 over all pictures' bytes and landmarks: what a training may go on with."""
        digest = hashlib.sha256(json.dumps([self.titles, self.landmarks.tolist()]).encode())
        for name in self.collection.names:
            digest.update(images.read_bytes(self.collection.path(name), name))
        return digest.hexdigest()

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the pictures to train on and of those of the landmarks that are held out.

        A landmark's name alone decides, so that more pictures or landmarks move no other across.
        Pictures of no landmark are trained on.
        """
        sizes = Counter(self.landmarks.tolist())
        enough = [n for n in range(len(self.titles)) if sizes[n] >= HELD_OUT_PICTURES]
        names = {n: self.titles[n].encode("utf-8", "surrogatepass") for n in enough}
        chance = {n: hashlib.sha256(name).digest()[0] / 256 for n, name in names.items()}
        out = [n for n in enough if chance[n] < 1 / SHARE]
        if len(out) < 2:  # of few landmarks, the two that come first
            out = sorted(enough, key=chance.__getitem__)[:2]
        if len(out) < 2 or len(self.titles) - len(out) < 2:
            raise RetrievalError(
                f"{self.collection.title} has too few landmarks to hold some out: at least four "
                f"are needed, two of them with {HELD_OUT_PICTURES} pictures."
            )
        held = np.isin(self.landmarks, out)
        return np.flatnonzero(~held), np.flatnonzero(held)


def labelled(collection: Collection) -> Photographs | None:
    """A collection with its labels; None where it has none.

    Raises RetrievalError for too few pictures, labels that cannot be read, a picture without an
    entry, or a landmark with one picture.
    """
    _check_size(collection)
    names = _from_file(collection) or _from_folders(collection)
    if names is None:
        return None
    counts = Counter(name for name in names if name is not None)
    alone = sorted(name for name, count in counts.items() if count == 1)
    if alone:
        raise RetrievalError(
            f"{len(alone)} landmarks have one picture, which teaches nothing, {alone[0]} for one. "
            "Add a second picture of each, or label it null."
        )
    titles = tuple(sorted(counts))
    position = {title: number for number, title in enumerate(titles)} | {None: NONE}
    return Photographs(collection, np.array([position[name] for name in names]), titles, "labels")


def _check_size(collection: Collection) -> None:
    if len(collection) < LEAST:
        raise RetrievalError(f"Training needs at least {LEAST} pictures.")


def require_labels(collection: Collection) -> Photographs:
    """``labelled``, or RetrievalError that says how to label."""
    found = labelled(collection)
    if found is None:
        raise RetrievalError(
            f"{collection.title} has no labels. Put the pictures of each landmark into a folder of "
            'its own, or write labels.json: {"images": {FILE: {"landmark": NAME or null}}}.'
        )
    return found


def _from_file(collection: Collection) -> list[str | None] | None:
    if collection.root is None or not (collection.root / "labels.json").is_file():
        return None
    path = collection.root / "labels.json"
    try:
        entries = files.read_json(path, MAX_BYTES)["images"]
        found = []
        for name in collection.names:
            entry = entries.get(name) or entries[PurePosixPath(name).name]
            if not isinstance(entry["landmark"], str | None):
                raise TypeError
            found.append(entry["landmark"])
    except KeyError as error:
        raise RetrievalError(f"{path} has no entry for {error}.") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RetrievalError(f'{path} is not {{"images": {{file: {{"landmark": …}}}}}}.') from error
    return found


def _from_folders(collection: Collection) -> list[str | None] | None:
    """The folder of each picture is its landmark; pictures beside the folders show none."""
    folders = [PurePosixPath(name).parent.as_posix() for name in collection.names]
    if len({folder for folder in folders if folder != "."}) < 2:
        return None
    return [None if folder == "." else folder for folder in folders]


def unlabelled(collection: Collection) -> Photographs:
    """A collection whose labels, if it has any, are left alone."""
    _check_size(collection)
    return Photographs(collection, np.full(len(collection), NONE), (), "none")


def grouped(photos: Photographs, groups: np.ndarray) -> Photographs:
    """The same with groups (n,) that geometry found as landmarks, named by a picture of each."""
    numbers, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    order = [n for n in np.argsort(first) if sizes[n] > 1]
    position = {int(numbers[n]): place for place, n in enumerate(order)}
    return Photographs(
        photos.collection,
        np.array([position.get(group, NONE) for group in groups.tolist()]),
        tuple(photos.collection.names[first[n]] for n in order),
        "geometry",
    )
