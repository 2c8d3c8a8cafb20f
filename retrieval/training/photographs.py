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
from retrieval.collections.ground_truth_files import MAX_BYTES
from retrieval.errors import RetrievalError

NO_LANDMARK = -1  # for a picture that shows no landmark
HELD_OUT_ONE_IN = 7  # one landmark in seven is held out for validation
MIN_HELD_OUT_PICTURES = 8  # of a landmark; one with fewer is not used for validation
MIN_PICTURES = 20  # of a collection


@dataclass(frozen=True, eq=False)
class Photographs:
    """Pictures by number, in the order of the collection.

    landmarks: (n,) int64, positions in ``titles``, or NO_LANDMARK. titles: names of the landmarks.
    source: what says which landmark a picture shows: 'labels', 'geometry' or 'none'.
    """

    collection: Collection
    landmarks: np.ndarray
    titles: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.collection.names)

    def read(self, number: int) -> Image.Image:
        """One picture, upright RGB. Raises RetrievalError where it cannot be read.

        Pictures are not cached, so memory does not grow with the collection.
        """
        name = self.collection.names[number]
        return images.read(self.collection.path(name), name)

    def digest(self) -> str:
        """SHA-256 over the bytes and landmarks of all pictures.

        A training goes on only with pictures of the same digest.
        """
        digest = hashlib.sha256(json.dumps([self.titles, self.landmarks.tolist()]).encode())
        for name in self.collection.names:
            digest.update(images.read_bytes(self.collection.path(name), name))
        return digest.hexdigest()

    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the pictures to train on, and of those to validate on: int64 each.

        Whole landmarks are held out to validate on. The hash of a landmark's name decides, so a
        landmark stays on its side when pictures or other landmarks are added. Pictures of no
        landmark are trained on. Raises RetrievalError for too few landmarks.
        """
        sizes = Counter(self.landmarks.tolist())
        eligible = [n for n in range(len(self.titles)) if sizes[n] >= MIN_HELD_OUT_PICTURES]
        names = {n: self.titles[n].encode("utf-8", "surrogatepass") for n in eligible}
        draw = {n: hashlib.sha256(name).digest()[0] / 256 for n, name in names.items()}
        held_out = [n for n in eligible if draw[n] < 1 / HELD_OUT_ONE_IN]
        if len(held_out) < 2:  # validation needs two landmarks
            held_out = sorted(eligible, key=draw.__getitem__)[:2]
        if len(held_out) < 2 or len(self.titles) - len(held_out) < 2:
            raise RetrievalError(
                f"{self.collection.title} has too few landmarks to hold some out for validation: "
                f"add some, until four have pictures and two of them {MIN_HELD_OUT_PICTURES} each."
            )
        is_held_out = np.isin(self.landmarks, held_out)
        return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def labelled(collection: Collection) -> Photographs | None:
    """A collection with its labels; None where it has none.

    Raises RetrievalError for too few pictures or landmarks, labels that cannot be read, a picture
    without an entry, or a landmark with one picture.
    """
    _check_size(collection)
    names = _landmarks_from_file(collection) or _landmarks_from_folders(collection)
    if names is None:
        return None
    counts = Counter(name for name in names if name is not None)
    single = sorted(name for name, count in counts.items() if count == 1)
    if single:
        raise RetrievalError(
            f"{len(single)} landmarks have only one picture, for example {single[0]}. Add a second "
            "picture of each, or label it null."
        )
    titles = tuple(sorted(counts))
    position = {title: number for number, title in enumerate(titles)} | {None: NO_LANDMARK}
    photos = Photographs(collection, np.array([position[name] for name in names]), titles, "labels")
    photos.split()  # too few landmarks: fail here, not after minutes of work
    return photos


def _check_size(collection: Collection) -> None:
    if len(collection) < MIN_PICTURES:
        raise RetrievalError(
            f"Training needs at least {MIN_PICTURES} pictures, and {collection.title} has "
            f"{len(collection)}: add more."
        )


def require_labels(collection: Collection) -> Photographs:
    """``labelled``, but a collection without labels is a RetrievalError that says how to label."""
    photos = labelled(collection)
    if photos is None:
        raise RetrievalError(
            f"{collection.title} has no labels. Put the pictures of each landmark into a folder of "
            'its own, or write labels.json: {"images": {FILE: {"landmark": NAME or null}}}.'
        )
    return photos


def _landmarks_from_file(collection: Collection) -> list[str | None] | None:
    if collection.root is None or not (collection.root / "labels.json").is_file():
        return None
    path = collection.root / "labels.json"
    try:
        entries = files.read_json(path, MAX_BYTES)["images"]
        landmarks = []
        for name in collection.names:
            key = name if entries.get(name) else PurePosixPath(name).name
            if key not in entries:
                raise RetrievalError(f"{path} has no entry for {name!r}; add one.")
            landmark = entries[key]["landmark"]
            if not isinstance(landmark, str | None):
                raise TypeError
            landmarks.append(landmark)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RetrievalError(
            f'{path} cannot be used: write it as {{"images": {{FILE: {{"landmark": NAME or null'
            "}}}."
        ) from error
    return landmarks


def _landmarks_from_folders(collection: Collection) -> list[str | None] | None:
    """The folder of each picture is its landmark; pictures beside the folders show none."""
    folders = [PurePosixPath(name).parent.as_posix() for name in collection.names]
    if len({folder for folder in folders if folder != "."}) < 2:
        return None
    return [None if folder == "." else folder for folder in folders]


def unlabelled(collection: Collection) -> Photographs:
    """A collection without labels; labels that it may have are not read.

    Raises RetrievalError for too few pictures.
    """
    _check_size(collection)
    return Photographs(collection, np.full(len(collection), NO_LANDMARK), (), "none")


def grouped(photos: Photographs, groups: np.ndarray) -> Photographs:
    """The same pictures with groups that geometry found as their landmarks.

    groups: (n,) int64, the number of each picture's group. Each landmark is named by the first
    picture of its group; a picture alone in its group shows none.
    """
    numbers, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    order = [n for n in np.argsort(first) if sizes[n] > 1]
    position = {int(numbers[n]): landmark for landmark, n in enumerate(order)}
    return Photographs(
        photos.collection,
        np.array([position.get(group, NO_LANDMARK) for group in groups.tolist()]),
        tuple(photos.collection.names[first[n]] for n in order),
        "geometry",
    )
