"""Bring a collection from Wikimedia Commons: list, choose, fetch, check, label.

The result is an ordinary folder: pictures, ``ground_truth.json``, ``credits.json`` and
``credits.csv``, and ``left_out.csv``, which says of every file that was seen and not taken why
not. The category is the landmark. That makes coarse labels: a category also holds details,
courtyards and views over the roofs. They are good for a demo and are no benchmark.
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
    """Bring the photographs of ``order`` into the folder ``out``, and open it.

    contact: an e-mail or https address of whoever runs this; Wikimedia wants one in every request.
    describe: picture → (D,) with length 1, of CNN-IRwNHA's embedded checkpoint. Of two pictures
    of a landmark that are the same photograph (``fetching.SAME``) the later is left out.

    May be stopped at any moment: the same call goes on, checks what is there against its SHA-256,
    and fetches what is damaged. Raises RetrievalError when Commons cannot be reached or refuses,
    when ``out`` holds something else, and when nothing was found.
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
        kept = fetch_all(Fetcher(site, out, ledger, describe), order, listings, progress)
        write_left_out(listings, ledger, out)
        write_labels(order, kept, out)
        for name in order.categories:
            say(f"{name}: {sum(landmarks[0] == name for _, landmarks in kept.values())} pictures")
    return open_collection(out)
