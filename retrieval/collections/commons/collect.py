"""Download a collection from Wikimedia Commons: list, choose, fetch, check, label.

The result is an ordinary folder: pictures, ``ground_truth.json``, ``credits.json``,
``credits.csv``, and ``left_out.csv`` with the reason for each file that was left out. Each category
is a landmark. Such labels are coarse, as a category also holds details, courtyards and views over
the roofs: they are for a demo, not for a benchmark.
"""

from __future__ import annotations

from pathlib import Path

from retrieval.collections.collection import Collection, open_collection
from retrieval.collections.commons import work
from retrieval.collections.commons.choice import LICENCES
from retrieval.collections.commons.fetching import Describe, Fetcher, Progress, fetch_all
from retrieval.collections.commons.labels import write_labels, write_left_out
from retrieval.collections.commons.listing import list_files
from retrieval.collections.commons.order import BYTES_EACH, Order
from retrieval.collections.commons.site import Site
from retrieval.collections.downloads import Say
from retrieval.collections.transfer import check_room
from retrieval.errors import RetrievalError


def download(
    order: Order,
    out: Path,
    contact: str,
    describe: Describe,
    progress: Progress = lambda done, total, name: None,
    say: Say = lambda text: None,
) -> Collection:
    """Download the photographs of ``order`` into the folder ``out``, and open it.

    contact: e-mail or https address of the user; Wikimedia wants one in every request.
    describe: picture → (D,) float32 with length 1, of CNN-IRwNHA's embedded checkpoint. Where two
    pictures of a landmark are the same photograph (``fetching.SAME``), the later is left out.

    It may be stopped at any moment: the same call continues, checks the pictures that are there
    against their SHA-256, and fetches damaged ones again. Raises RetrievalError when Commons cannot
    be reached or refuses, when ``out`` holds something else, and when nothing was found.
    """
    if not order.categories or order.per < 2 or not set(order.licences) <= set(LICENCES):
        raise RetrievalError(
            "Name at least one category, 2 pictures or more of each, and licences out of "
            f"{', '.join(LICENCES)}."
        )
    site = Site(contact, out / work.FOLDER)
    with work.locked_folder(order, out) as folder:
        say(f"{order.plan[0].upper()}{order.plan[1:]}, one request at a time.")
        check_room(out, order.pictures * BYTES_EACH, "The collection")
        listings = {name: list_files(site, order, name, folder, say) for name in order.categories}
        ledger = work.Ledger(folder / "decided.json")
        fetched = fetch_all(Fetcher(site, out, ledger, describe), order, listings, progress)
        write_left_out(listings, ledger, out)
        write_labels(order, fetched, out)
        for name in order.categories:
            count = sum(landmarks[0] == name for _, landmarks in fetched.values())
            say(f"{name}: {count} pictures")
    return open_collection(out)
