"""Which files Commons has of each landmark, and which of them may be taken."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from retrieval import files
from retrieval.collections.commons.choice import FROM, File, LeftOut, judge, unwanted
from retrieval.collections.commons.order import Order
from retrieval.collections.commons.site import Site, title_of
from retrieval.collections.downloads import Say

OF_ONE = 200  # files looked at in one category, so that subcategories have their turn
SPARE = 5  # times as many candidates as pictures are wanted
MAX_CATEGORIES = 60  # looked into for one landmark


@dataclass(frozen=True)
class Listing:
    """Files of one landmark: those that may be taken, in order; and title and why not."""

    files: list[File]
    left_out: list[tuple[str, str]]


def list_files(site: Site, order: Order, landmark: str, work: Path, say: Say) -> Listing:
    """What there is of one landmark; kept in ``work``, so that it is asked for once."""
    path = work / f"list-{hashlib.sha256(landmark.encode()).hexdigest()[:16]}.json"
    try:
        before = files.read_json(path)
        return Listing([File.from_json(row) for row in before["files"]], before["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    category = site.current(landmark)
    if category != landmark:
        say(f"{landmark} is called {category} on Commons.")
    listing = _look(site, order, landmark, category)
    say(f"{landmark}: {len(listing.files)} photographs to choose from")
    rows = [file.to_json() for file in listing.files]
    files.write_json(path, {"files": rows, "left_out": listing.left_out})
    site.forget()
    return listing


def _look(site: Site, order: Order, landmark: str, category: str) -> Listing:
    """Go through a category and those below it, nearest first, until there are enough files."""
    waiting, seen = [(category, 0)], {category}
    found: dict[int, File] = {}
    left_out: dict[str, str] = {}
    for name, depth in waiting:  # which grows
        if len(found) >= SPARE * order.per:
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
                if len(waiting) == MAX_CATEGORIES:
                    break
                if below and below not in seen and not elsewhere:
                    seen.add(below)
                    waiting.append((below, depth + 1))
    return Listing(sorted(found.values(), key=lambda file: file.order), list(left_out.items()))
