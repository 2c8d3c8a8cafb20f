"""Fetch the pictures that were chosen, and check them."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval import files, images
from retrieval.collections.commons import work
from retrieval.collections.commons.choice import File, LeftOut
from retrieval.collections.commons.listing import Listing
from retrieval.collections.commons.order import Order
from retrieval.collections.commons.site import Site
from retrieval.collections.transfer import Unavailable

# Cosine from which two pictures are one photograph, for CNN-IRwNHA's embedded gem-lite0. Measured
# on small photographs of Oxford and Paris: 60 saved again from 70 % of their size have a median of
# 0.85 with the original and 9 in 10 more than 0.8; of 19 900 other pairs 66 have more than 0.8.
SAME = 0.8

Progress = Callable[[int, int, str], None]  # pictures here, pictures in all, landmark
Describe = Callable[[Image.Image], Any]  # an array (D,) float32
Kept = dict[str, tuple[File, tuple[str, ...]]]  # picture name → file, and its landmarks


@dataclass(frozen=True)
class Fetcher:
    """Brings pictures into the folder ``out``, one by one. describe: see ``download``."""

    site: Site
    out: Path
    ledger: work.Ledger
    describe: Describe

    def has(self, file: File, name: str) -> bool:
        """Whether a picture was fetched before, and is whole."""
        path = self.out / name
        return path.is_file() and files.digest(path) == self.ledger.get(str(file.pageid))

    def fetch(self, file: File, name: str, others: Sequence[np.ndarray]) -> np.ndarray | None:
        """Fetch a picture: what ``describe`` makes of it, (D,) float32.

        others: the same of the pictures of this landmark that are here. None where this one is
        left out; the ledger says why. Raises RetrievalError where the server cannot be reached.
        """
        arrived = self.out / work.FOLDER / f"{file.pageid}.jpg"
        try:
            self.site.fetch(file.address, arrived)
            vector = self._checked(file, arrived, others)
        except (Unavailable, images.PictureError, LeftOut) as why:
            arrived.unlink(missing_ok=True)
            self.ledger.note(file, f"!{why}")
            return None
        self.ledger.note(file, files.digest(arrived))
        os.replace(arrived, self.out / name)
        return vector

    def _checked(self, file: File, path: Path, others: Sequence[np.ndarray]) -> np.ndarray:
        """What ``describe`` makes of a picture that arrived. PictureError, or LeftOut and why."""
        data = path.read_bytes()
        if file.sha1 and hashlib.sha1(data, usedforsecurity=False).hexdigest() != file.sha1:
            raise LeftOut("its check sum is not the one that Commons states")
        picture = images.read(data, path.name)
        wide, high = picture.width / file.size[0], picture.height / file.size[1]
        if min(wide, high) < 0.5 or abs(wide / high - 1) > 0.02:
            raise LeftOut("it is smaller or of another shape than Commons states")
        vector = self.describe(picture)
        if others and max(float(vector @ other) for other in others) >= SAME:
            raise LeftOut("the same photograph as another one")
        return vector


def fetch_all(
    fetcher: Fetcher, order: Order, listings: Mapping[str, Listing], progress: Progress
) -> Kept:
    """Fetch until each landmark has enough pictures, or no more can be taken.

    Of one author a landmark has a tenth of its pictures at most, or two.
    """
    landmarks_of: dict[int, set[str]] = {}
    for landmark, listing in listings.items():
        for file in listing.files:
            landmarks_of.setdefault(file.pageid, set()).update((landmark, *file.landmarks))
    of_one_author = max(2, order.per // 10)
    kept: Kept = {}
    taken: set[int] = set()
    total = order.per * len(listings)
    for number, (landmark, listing) in enumerate(listings.items(), 1):
        authors: Counter[str] = Counter()
        names: list[str] = []
        vectors: list[np.ndarray] = []
        for file in listing.files:
            if len(names) == order.per:
                break
            too_many = file.artist and authors[file.artist] >= of_one_author
            if file.pageid in taken or too_many or fetcher.ledger.refused(file):
                continue
            name = f"{_slug(landmark, number)}_{file.pageid}.jpg"
            if not fetcher.has(file, name):
                # Those from before a stop are described when something is compared with them.
                for earlier in names[len(vectors) :]:
                    vectors.append(fetcher.describe(images.read(fetcher.out / earlier)))
                vector = fetcher.fetch(file, name, vectors)
                if vector is None:
                    continue
                vectors.append(vector)
            kept[name] = file, (landmark, *sorted(landmarks_of[file.pageid] - {landmark}))
            names.append(name)
            taken.add(file.pageid)
            authors[file.artist] += 1
            progress(len(kept), total, landmark)
        total -= order.per - len(names)
    return kept


def _slug(landmark: str, number: int) -> str:
    plain = unicodedata.normalize("NFKD", landmark).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:40] or f"landmark_{number}"
