"""List the files that Commons has of each landmark, and those that may be used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from retrieval import files
from retrieval.collections.commons.choice import FROM, File, LeftOut, judge, unwanted
from retrieval.collections.commons.order import Order
from retrieval.collections.commons.site import MAX_BYTES, Site, title_of
from retrieval.collections.downloads import Say

MAX_FILES = 200  # of one category, so that its subcategories are listed too
SPARE = 5  # candidates for each picture of the order, as many are left out later
MAX_CATEGORIES = 60  # of one landmark


@dataclass(frozen=True)
class Listing:
    """Files of one landmark that may be used, sorted; and (title, reason) of those left out."""

    files: list[File]
    left_out: list[tuple[str, str]]


def list_files(site: Site, order: Order, landmark: str, work: Path, say: Say) -> Listing:
    """The files of one landmark. The list is saved in ``work``, and read from there next time."""
    path = work / f"list-{hashlib.sha256(landmark.encode()).hexdigest()[:16]}.json"
    try:
        saved = files.read_json(path, MAX_BYTES)
        left_out = [(str(title), str(reason)) for title, reason in saved["left_out"]]
        return Listing([File.from_json(row) for row in saved["files"]], left_out)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
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
    """Search a category and its subcategories, breadth first, until there are enough files."""
    depth_of = {category: 0}
    usable: dict[int, File] = {}
    left_out: dict[str, str] = {}
    queue = [category]
    for name in queue:  # it grows below
        if len(usable) >= SPARE * order.per:
            break
        for count, page in enumerate(site.files(name), 1):
            try:
                file = judge(page, landmark, order.categories, order.licences)
                usable[file.pageid] = file
            except LeftOut as reason:
                left_out[title_of(page)] = str(reason)
            if count >= MAX_FILES:
                break
        if depth_of[name] < order.depth:
            for below in site.subcategories(name):
                if len(queue) == MAX_CATEGORIES:
                    break
                shows_other = unwanted(below, landmark) or FROM.search(below)
                if below and below not in depth_of and not shows_other:
                    depth_of[below] = depth_of[name] + 1
                    queue.append(below)
    return Listing(sorted(usable.values(), key=lambda file: file.order), list(left_out.items()))
