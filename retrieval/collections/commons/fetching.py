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

# Two pictures with at least this cosine are the same photograph, for CNN-IRwNHA's embedded
# gem-lite0. Measured on small photographs of Oxford and Paris: 60 that were saved again at 70 % of
# their size have a median of 0.91 with the original, 59 of them more than 0.8; of 71 253 pairs of
# different ones 318 have more than 0.8.
SAME = 0.8

Progress = Callable[[int, int, str], None]  # pictures fetched, pictures in all, landmark
Describe = Callable[[Image.Image], Any]  # an array (D,) float32
Fetched = dict[str, tuple[File, tuple[str, ...]]]  # picture name → file, and its landmarks


@dataclass(frozen=True)
class Fetcher:
    """Download pictures into the folder ``out``, one by one. describe: see ``download``."""

    site: Site
    out: Path
    ledger: work.Ledger
    describe: Describe

    def has(self, file: File, name: str) -> bool:
        """Whether a picture was fetched before and has its SHA-256."""
        path = self.out / name
        return path.is_file() and files.digest(path) == self.ledger.get(str(file.pageid))

    def fetch(self, file: File, name: str, others: Sequence[np.ndarray]) -> np.ndarray | None:
        """Fetch a picture. Returns its descriptor (D,), or None where the picture is left out.

        others: descriptors of the pictures of this landmark so far. The ledger gets the reason for
        which a picture is left out. Raises RetrievalError where the server cannot be reached.
        """
        arrived = self.out / work.FOLDER / f"{file.pageid}.jpg"
        try:
            self.site.fetch(file.address, arrived)
            vector = self._checked(file, arrived, others)
        except (Unavailable, images.PictureError, LeftOut) as reason:
            arrived.unlink(missing_ok=True)
            self.ledger.note(file, f"!{reason}")
            return None
        self.ledger.note(file, files.digest(arrived))
        os.replace(arrived, self.out / name)
        return vector

    def _checked(self, file: File, path: Path, others: Sequence[np.ndarray]) -> np.ndarray:
        """The descriptor of a picture that has arrived. Raises PictureError or LeftOut."""
        data = images.read_bytes(path, path.name)  # a stranger may have put it there
        if file.sha1 and hashlib.sha1(data, usedforsecurity=False).hexdigest() != file.sha1:
            raise LeftOut("its SHA-1 differs from that on Commons")
        picture = images.read(data, path.name)
        width, height = picture.width / file.size[0], picture.height / file.size[1]
        if min(width, height) < 0.5 or abs(width / height - 1) > 0.02:
            raise LeftOut("its width or height differs from that on Commons")
        vector = self.describe(picture)
        if others and max(float(vector @ other) for other in others) >= SAME:
            raise LeftOut("another file of this landmark is the same photograph")
        return vector


def fetch_all(
    fetcher: Fetcher, order: Order, listings: Mapping[str, Listing], progress: Progress
) -> Fetched:
    """Fetch until each landmark has ``order.per`` pictures or its listing ends.

    At most a tenth of the pictures of a landmark, or two of them, are of the same author.
    """
    landmarks_of: dict[int, set[str]] = {}
    for landmark, listing in listings.items():
        for file in listing.files:
            landmarks_of.setdefault(file.pageid, set()).update((landmark, *file.landmarks))
    of_one_author = max(2, order.per // 10)
    fetched: Fetched = {}
    pageids: set[int] = set()
    total = order.per * len(listings)
    for number, (landmark, listing) in enumerate(listings.items(), 1):
        authors: Counter[str] = Counter()
        names: list[str] = []
        vectors: list[np.ndarray] = []
        for file in listing.files:
            if len(names) == order.per:
                break
            too_many = file.artist and authors[file.artist] >= of_one_author
            if file.pageid in pageids or too_many or fetcher.ledger.reason(file):
                continue
            name = f"{_slug(landmark, number)}_{file.pageid}.jpg"
            if not fetcher.has(file, name):
                # Pictures of an earlier, stopped run are described only when one is fetched.
                for earlier in names[len(vectors) :]:
                    vectors.append(fetcher.describe(images.read(fetcher.out / earlier)))
                vector = fetcher.fetch(file, name, vectors)
                if vector is None:
                    continue
                vectors.append(vector)
            fetched[name] = file, (landmark, *sorted(landmarks_of[file.pageid] - {landmark}))
            names.append(name)
            pageids.add(file.pageid)
            authors[file.artist] += 1
            progress(len(fetched), total, landmark)
        total -= order.per - len(names)
    return fetched


def _slug(landmark: str, number: int) -> str:
    plain = unicodedata.normalize("NFKD", landmark).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:40] or f"landmark_{number}"
