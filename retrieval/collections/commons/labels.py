"""Write the files beside the pictures: ground truth, credits, and reasons for files left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from retrieval import files
from retrieval.collections import credits
from retrieval.collections.commons.fetching import Fetched
from retrieval.collections.commons.listing import Listing
from retrieval.collections.commons.order import Order
from retrieval.collections.commons.work import Ledger
from retrieval.errors import RetrievalError
from retrieval.text import table

QUERIES = 10  # one picture in ten is a query


def write_labels(order: Order, fetched: Fetched, out: Path) -> None:
    """Write credits and ground truth. The latter comes last: it makes the collection complete.

    A picture of two landmarks is junk for both. Raises RetrievalError when no landmark has three
    pictures that show it alone.
    """
    alone = {
        landmark: [name for name, (_, landmarks) in fetched.items() if landmarks == (landmark,)]
        for landmark in order.categories
    }
    queries = {
        name: landmark
        for landmark, names in alone.items()
        if len(names) >= 3
        for name in names[::QUERIES]
    }
    if not queries:
        raise RetrievalError(
            "Too few photographs can be used: check how Commons spells the categories, and see in "
            f"{out / 'left_out.csv'} why files were left out."
        )
    database = [name for name in fetched if name not in queries]
    position = {name: number for number, name in enumerate(database)}
    gnd = []
    for landmark in queries.values():
        ok = [name for name in alone[landmark] if name in position]
        junk = [
            name
            for name, (_, landmarks) in fetched.items()
            if landmark in landmarks and len(landmarks) > 1
        ]
        gnd.append(
            {
                "bbx": None,
                "ok": [position[name] for name in ok],
                "junk": [position[name] for name in junk],
            }
        )
    credit_of = {name: file.credit for name, (file, _) in fetched.items()}
    pictures = {name: asdict(credit) for name, credit in credit_of.items()}
    files.write_json(out / credits.FILE, {"pictures": pictures})
    _write(out / "credits.csv", credits.as_csv(credit_of))
    files.write_json(
        out / "ground_truth.json",
        {
            "note": "Labels by category of Wikimedia Commons: coarse, for a demo, no benchmark.",
            "imlist": database,
            "qimlist": list(queries),
            "landmarks": list(queries.values()),
            "gnd": gnd,
        },
    )


def write_left_out(listings: Mapping[str, Listing], ledger: Ledger, out: Path) -> None:
    rows = []
    for landmark, listing in listings.items():
        rows += [[landmark, *row] for row in listing.left_out]
        for file in listing.files:
            if reason := ledger.reason(file):
                rows.append([landmark, file.credit.title, reason])
    _write(out / "left_out.csv", table(["landmark", "title", "why"], rows))


def _write(path: Path, data: bytes) -> None:
    with files.replacing(path) as file:
        file.write(data)
