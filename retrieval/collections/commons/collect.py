"""Bring a collection from Wikimedia Commons: list, choose, fetch, check, label.

The result is an ordinary folder: pictures, ``ground_truth.json``, ``credits.json`` and
``credits.csv``, and ``left_out.csv``, which says of every file that was seen and not taken why
not. The category is the landmark. That makes coarse labels: a category also holds details,
courtyards and views over the roofs. They are good for a demo and are no benchmark.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval import files, images
from retrieval.collections import credits
from retrieval.collections.collection import Collection, open_collection
from retrieval.collections.commons.choice import FROM, LICENCES, File, LeftOut, judge, unwanted
from retrieval.collections.commons.site import Site, title_of
from retrieval.collections.downloads import Say
from retrieval.collections.transfer import Unavailable, check_room
from retrieval.errors import RetrievalError

WORK = ".commons"  # the hidden folder of a collection where the work is kept
OF_ONE = 200  # files looked at in one category, so that subcategories have their turn
SPARE = 5  # times as many candidates as pictures are wanted
MAX_CATEGORIES = 60  # looked into for one landmark
QUERIES = 10  # one picture in so many asks
# Cosine from which two pictures are one photograph, for CNN-IRwNHA's embedded gem-lite0. Measured
# on small photographs of Oxford and Paris: 60 saved again from 70 % of their size have a median of
# 0.85 with the original and 9 in 10 more than 0.8; of 19 900 other pairs 66 have more than 0.8.
SAME = 0.8

# Guesses, not measurements: for a plan before anything is known.
BYTES_EACH, SECONDS_EACH = 300_000, 1.5

Progress = Callable[[int, int, str], None]  # pictures here, pictures in all, landmark
Describe = Callable[[Image.Image], Any]  # an array (D,) float32
Kept = dict[str, tuple[File, tuple[str, ...]]]  # picture name → file, and its landmarks


@dataclass(frozen=True)
class Order:
    """What is asked for.

    categories: of Commons, without ``Category:``; each is a landmark. per: pictures of each.
    depth: how far down subcategories are looked into; 0 is the category alone.
    licences: some of ``LICENCES``.
    """

    categories: tuple[str, ...]
    per: int = 60
    depth: int = 1
    licences: tuple[str, ...] = LICENCES

    @property
    def pictures(self) -> int:
        """As many as there may be."""
        return len(self.categories) * self.per

    @property
    def plan(self) -> str:
        """What it will take, as words."""
        megabytes = round(self.pictures * BYTES_EACH / 1e7) * 10
        minutes = max(1, round(self.pictures * SECONDS_EACH / 60))
        return f"up to {self.pictures:,} photographs: roughly {megabytes} MB and {minutes} minutes"


@dataclass(frozen=True)
class Listing:
    """Files of one landmark: those that may be taken, in order; and title and why not."""

    files: list[File]
    left_out: list[tuple[str, str]]


def download(
    order: Order,
    out: Path,
    contact: str,
    describe: Describe,
    progress: Progress = lambda done, total, name: None,
    say: Say = lambda text: None,
) -> Collection:
    """Bring the photographs of ``order`` into the folder ``out``, and open it.

    contact: an e-mail or https address of whoever runs this; Wikimedia wants one in every request.
    describe: picture → (D,) with length 1, of CNN-IRwNHA's embedded checkpoint. Two pictures of one
    landmark with a cosine of ``SAME`` or more are the same photograph: the later is left out.

    May be stopped at any moment: the same call goes on, checks what is there against its SHA-256,
    and fetches what is damaged. Raises RetrievalError when Commons cannot be reached or refuses,
    when ``out`` holds something else, and when nothing was found.
    """
    if not order.categories or order.per < 2 or not set(order.licences) <= set(LICENCES):
        raise RetrievalError(
            "Name at least one category, 2 pictures or more of each, and licences out of "
            f"{', '.join(LICENCES)}."
        )
    site = Site(contact, out / WORK)
    with _workshop(order, out) as work:
        say(f"{order.plan[0].upper()}{order.plan[1:]}, one request at a time.")
        check_room(out, order.pictures * BYTES_EACH, "The collection")
        listings = {name: _list(site, order, name, work, say) for name in order.categories}
        ledger = Ledger(work / "decided.json")
        kept = _bring(site, order, listings, out, work, describe, ledger, progress)
        _write_left_out(listings, ledger, out)
        _write_collection(order, kept, out)
        for name in order.categories:
            say(f"{name}: {sum(landmarks[0] == name for _, landmarks in kept.values())} pictures")
    return open_collection(out)


@contextmanager
def _workshop(order: Order, out: Path) -> Iterator[Path]:
    """The work folder of ``out``, for one process and one order."""
    from filelock import FileLock, Timeout

    work = out / WORK
    if out.is_dir() and any(out.iterdir()) and not work.is_dir():
        raise RetrievalError(f"{out} is not empty; choose a new folder.")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / ".lock", timeout=0):
            asked = json.loads(json.dumps(asdict(order)))
            before = _read_json(work / "order.json")
            if before not in (None, asked) and any(out.glob("*.jpg")):
                raise RetrievalError(
                    f"{out} holds a download with other settings; choose a new folder, or ask for "
                    "the same again."
                )
            if before != asked:
                for listed in work.glob("list-*.json"):
                    listed.unlink()
                _write_json(work / "order.json", asked)
            yield work
    except Timeout as error:
        raise RetrievalError(f"Another download into {out} is running; wait for it.") from error
    except OSError as error:
        raise RetrievalError(f"{out} cannot be written: {error.strerror or error}.") from error


# --- list -----------------------------------------------------------------------------------------


def _list(site: Site, order: Order, landmark: str, work: Path, say: Say) -> Listing:
    """What there is of one landmark; kept in ``work``, so that it is asked for once."""
    path = work / f"list-{hashlib.sha256(landmark.encode()).hexdigest()[:16]}.json"
    try:
        before = json.loads(path.read_bytes())
        return Listing([File.from_json(row) for row in before["files"]], before["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    category = site.current(landmark)
    if category != landmark:
        say(f"{landmark} is called {category} on Commons.")
    listing = _look(site, order, landmark, category)
    say(f"{landmark}: {len(listing.files)} photographs to choose from")
    rows = [file.to_json() for file in listing.files]
    _write_json(path, {"files": rows, "left_out": listing.left_out})
    site.forget()
    return listing


def _look(site: Site, order: Order, landmark: str, category: str) -> Listing:
    """Go through a category and those below it, nearest first, until there are enough files."""
    waiting, seen = [(category, 0)], {category}
    found: dict[int, File] = {}
    left_out: dict[str, str] = {}
    for number, (name, depth) in enumerate(waiting):  # which grows
        if number >= MAX_CATEGORIES or len(found) >= SPARE * order.per:
            break
        for count, page in enumerate(site.files(name), 1):
            try:
                file = judge(page, landmark, order.categories, order.licences)
                found[file.pageid] = file
            except LeftOut as why:
                left_out[title_of(page)] = str(why)
            if count >= OF_ONE:
                break
        if depth < order.depth:
            for below in site.subcategories(name):
                elsewhere = unwanted(below, landmark) or FROM.search(below)
                if below and below not in seen and not elsewhere:
                    seen.add(below)
                    waiting.append((below, depth + 1))
    return Listing(sorted(found.values(), key=lambda file: file.order), list(left_out.items()))


# --- fetch and check ------------------------------------------------------------------------------


class Ledger(dict[str, str]):
    """pageid → the SHA-256 of a picture that was taken, or '!' and why it was not. On disk."""

    def __init__(self, path: Path) -> None:
        before = _read_json(path)
        super().__init__(before if isinstance(before, dict) else {})
        self.path = path

    def note(self, file: File, outcome: str) -> None:
        self[str(file.pageid)] = outcome
        _write_json(self.path, self)

    def refused(self, file: File) -> str:
        """Why a picture was not taken; '' if it was, or was not looked at."""
        outcome = self.get(str(file.pageid), "")
        return outcome[1:] if outcome.startswith("!") else ""


def _bring(
    site: Site,
    order: Order,
    listings: dict[str, Listing],
    out: Path,
    work: Path,
    describe: Describe,
    ledger: Ledger,
    progress: Progress,
) -> Kept:
    """Fetch until each landmark has enough."""
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
            if file.pageid in taken or too_many or ledger.refused(file):
                continue
            name = f"{_slug(landmark, number)}_{file.pageid}.jpg"
            if not (out / name).is_file() or files.digest(out / name) != ledger.get(
                str(file.pageid)
            ):
                while len(vectors) < len(names):  # after a stop
                    vectors.append(describe(images.read(out / names[len(vectors)])))
                arrived = work / f"{file.pageid}.jpg"
                try:
                    vectors.append(_fetch(site, file, arrived, vectors, describe))
                except (Unavailable, images.PictureError, LeftOut) as why:
                    arrived.unlink(missing_ok=True)
                    ledger.note(file, f"!{why}")
                    continue
                ledger.note(file, files.digest(arrived))
                os.replace(arrived, out / name)
            kept[name] = file, (landmark, *sorted(landmarks_of[file.pageid] - {landmark}))
            names.append(name)
            taken.add(file.pageid)
            authors[file.artist] += 1
            progress(len(kept), total, landmark)
        total -= order.per - len(names)
    return kept


def _fetch(
    site: Site, file: File, path: Path, others: list[np.ndarray], describe: Describe
) -> np.ndarray:
    """Download one picture to ``path`` and check it; what ``describe`` makes of it.

    Unavailable, PictureError or LeftOut when something is wrong with this picture; any other
    RetrievalError when the server cannot be reached.
    """
    site.fetch(file.address, path)
    data = path.read_bytes()
    if file.sha1 and hashlib.sha1(data, usedforsecurity=False).hexdigest() != file.sha1:
        raise LeftOut("its check sum is not the one that Commons states")
    picture = images.read(data, path.name)
    wide, high = picture.width / file.size[0], picture.height / file.size[1]
    if min(wide, high) < 0.5 or abs(wide / high - 1) > 0.02:
        raise LeftOut("it is smaller or of another shape than Commons states")
    vector = describe(picture)
    if others and max(float(vector @ other) for other in others) >= SAME:
        raise LeftOut("the same photograph as another one")
    return vector


def _slug(landmark: str, number: int) -> str:
    plain = unicodedata.normalize("NFKD", landmark).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:40] or f"landmark_{number}"


# --- label ----------------------------------------------------------------------------------------


def _write_collection(order: Order, kept: Kept, out: Path) -> None:
    """Credits and labels. The ground truth comes last: with it the collection is complete.

    A picture of two landmarks is junk for both. RetrievalError when no landmark has 3 of its own.
    """
    own = {
        landmark: [name for name, (_, landmarks) in kept.items() if landmarks == (landmark,)]
        for landmark in order.categories
    }
    queries = {
        name: landmark
        for landmark, names in own.items()
        if len(names) >= 3
        for name in names[::QUERIES]
    }
    if not queries:
        raise RetrievalError(
            "Too few photographs can be used: check how Commons spells the categories, and see in "
            f"{out / 'left_out.csv'} why files were left out."
        )
    database = [name for name in kept if name not in queries]
    position = {name: number for number, name in enumerate(database)}
    gnd = []
    for landmark in queries.values():
        shared = [name for name, (_, all_) in kept.items() if landmark in all_ and len(all_) > 1]
        right = [name for name in own[landmark] if name in position]
        gnd.append(
            {
                "bbx": None,
                "ok": [position[name] for name in right],
                "junk": [position[name] for name in shared],
            }
        )
    listed = {name: file.credit for name, (file, _) in kept.items()}
    pictures = {name: asdict(credit) for name, credit in listed.items()}
    _write_json(out / credits.FILE, {"pictures": pictures})
    _write(out / "credits.csv", credits.as_csv(listed))
    _write_json(
        out / "ground_truth.json",
        {
            "note": "Labels by category of Wikimedia Commons: coarse, for a demo, no benchmark.",
            "imlist": database,
            "qimlist": list(queries),
            "landmarks": list(queries.values()),
            "gnd": gnd,
        },
    )


def _write_left_out(listings: dict[str, Listing], ledger: Ledger, out: Path) -> None:
    rows = []
    for landmark, listing in listings.items():
        rows += [[landmark, *row] for row in listing.left_out]
        for file in listing.files:
            if why := ledger.refused(file):
                rows.append([landmark, file.credit.title, why])
    _write(out / "left_out.csv", credits.table(["landmark", "title", "why"], rows))


def _read_json(path: Path) -> Any:
    """What a file of ours holds; None where there is none, or it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _write_json(path: Path, content: Any) -> None:
    _write(path, json.dumps(content, ensure_ascii=False, indent=1).encode())


def _write(path: Path, data: bytes) -> None:
    with files.replacing(path) as file:
        file.write(data)
