"""The indexes and collections that the service offers, and searches in them.

A name that a client sends is looked up among those of the collections; no path is made of it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from fastapi import HTTPException, Request

from retrieval import hosts, images, methods, threads
from retrieval import index as indexes
from retrieval.collections import Collection
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.images import Box, Source
from retrieval.index import Index, loading
from retrieval.ranking import search as search_module
from retrieval.ranking.ranking import Ranking
from retrieval.text import one_line
from retrieval.workers import LOOK, Workers, move_to_slow_workers

T = TypeVar("T")

SEARCH_QUEUE = 50  # searches that may wait; at one a second the last waits a minute
PICTURE_QUEUE = 200  # pictures to send that may wait; a large one takes a tenth of a second
LOOKUP_QUEUE = 200  # lists, and searches whose index and picture are looked up
# The slow workers do one piece of work at a time.
SEARCH_WORKERS = Workers(
    min(threads.usable_cores(), 2), SEARCH_QUEUE, slow=Workers(1, SEARCH_QUEUE)
)
PICTURE_WORKERS = Workers(
    min(threads.usable_cores(), 2), PICTURE_QUEUE, slow=Workers(1, PICTURE_QUEUE)
)
# A look-up takes some milliseconds, unless a store has to be asked.
LOOKUP_WORKERS = Workers(1, LOOKUP_QUEUE, slow=Workers(1, LOOKUP_QUEUE, tidy=False), tidy=False)
log = logging.getLogger("uvicorn.error")


def index_folders() -> dict[str, Path]:
    """Id ('town/gem-lite0') → folder, of every index of a collection on this machine."""
    return {
        f"{entry.name}/{as_text(path.name)}": path
        for entry in collections.registered()
        if entry.available
        for _, path in indexes.find_all(entry.name)
    }


def index_of_each_method(collection: str) -> dict[str, str]:
    """Method → id of its index in a collection; '' is the first one that has an index.

    Raises RetrievalError where there is none.
    """
    names = [entry.name for entry in collections.registered() if entry.available]
    for name in [collection] if collection else names:
        folders = indexes.find(name) if name in names else {}
        if folders:
            return {method: f"{name}/{path.name}" for method, path in folders.items()}
    raise RetrievalError(
        f"There is no index of {collection or 'any collection'} to search; make one with: "
        "python -m retrieval index"
    )


@contextmanager
def _reported(subject: str) -> Iterator[None]:
    """Write errors to the service's log and answer 503. The client does not get the reason, as it
    may hold paths.

    subject: of the message, with a capital letter.
    """
    try:
        yield
    except (RetrievalError, OSError) as error:
        log.error("%s cannot be used: %s", subject, one_line(str(error), 500))
        raise HTTPException(
            503, f"{subject} cannot be used; its owner finds the reason in the log."
        ) from error


def open_index(name: str, folders: Mapping[str, Path] | None = None) -> Index:
    """The index with an id. folders: what ``index_folders`` gives, where that is known already.

    Raises HTTPException where there is none (404) or it is damaged (503).
    """
    path = (index_folders() if folders is None else folders).get(name)
    if path is None:
        raise HTTPException(404, f"There is no index {name}; see /indexes.")
    with _reported(f"The index {name}"):
        return opened(path)


def ready_index(name: str) -> Index:
    """``open_index``, with the method and the collection that a search in it needs loaded.

    A search that had to load them itself would be moved to the slow workers.
    """
    index = open_index(name)
    with _reported(f"The index {name}"):  # perhaps of an earlier version, or of an owner's network
        _method(index.path, loading.version_of(index.path))
    collection(index.path.parent.name)
    return index


def opened(path: Path) -> Index:
    """The index in a folder, or in the store that the folder stands for; it stays open.

    Raises RetrievalError where it is damaged.
    """
    return _index(path, loading.version_of(path))


def collection(name: str) -> Collection:
    """The collection with a name. Raises HTTPException where there is none (404) or it is damaged
    (503).
    """
    known = {entry.name: entry for entry in collections.registered() if entry.available}
    if name not in known:
        raise HTTPException(404, f"There is no collection {name}.")
    with _reported(f"The collection {name}"):
        path = known[name].ground_truth_path
        # Credits and labels beside it count too: a file that is added, replaced or deleted changes
        # the time of the folder.
        return _collection(name, path.stat().st_mtime_ns, path.parent.stat().st_mtime_ns)


def as_text(name: str) -> str:
    """The name of a file as it is sent to clients: '?' for what is no valid Unicode."""
    return name.encode("utf-8", "replace").decode()


def picture_path(collection: Collection, name: str) -> Path:
    """The file of a database picture or query of the collection, by its name or ``as_text`` of it.

    Raises HTTPException (404) for any other name.
    """
    queries = [query.name for query in collection.queries]
    if name in collection.positions or name in queries:
        return collection.path(name)
    if "?" in name:  # perhaps from as_text
        for listed in (*collection.names, *queries):
            if as_text(listed) == name:
                return collection.path(listed)
    raise HTTPException(404, f"There is no picture {name} in {collection.name}.")


def search(
    index: Index,
    source: Source,
    name: str,
    box: Box | None,
    top: int,
    then: Sequence[str] = (),
    where: str = "",
) -> Ranking:
    """The ranking of an index for a picture.

    source: the path of a picture of the collection, or the open file or bytes that a client sent.
    name: of the picture, for messages. box: (x1, y1, x2, y2) in pixels. top: results. then:
    re-rankers. where: a filter on metadata. Raises RetrievalError for a picture, box, chain or
    filter that cannot be used.
    """
    if not isinstance(source, str | Path | bytes):
        source.seek(0)  # slow workers do this again, after it was read
    data = images.read_bytes(source, name)
    sent = not isinstance(source, str | Path)
    picture = images.read(data, name, images.visitors_limit(), of_visitor=sent)
    return search_module.rank_picture(
        index,
        _method(index.path, loading.version_of(index.path)),
        picture,
        box,
        top,
        then=then,
        collection=collection(index.path.parent.name),
        own=index.name_of(data),
        where=where,
    )


async def in_turn(request: Request, work: Callable[[], T], workers: Workers | None = None) -> T:
    """What ``work()`` returns, run by ``workers`` (default: SEARCH_WORKERS) in its turn.

    Clients take turns. When the client of ``request`` leaves, the work leaves the queue. Raises
    Busy where too many wait, and HTTPException where the client left (499), where it took longer
    than a request may, and where the service is being stopped (503).
    """
    client = hosts.client_of_peer(request.client)
    future = (workers or SEARCH_WORKERS).submit(client, work)
    waiting = asyncio.wrap_future(future)
    try:
        while not (await asyncio.wait([waiting], timeout=LOOK))[0]:
            if await request.is_disconnected():
                raise HTTPException(499, "The client has left.")
        return waiting.result()
    except asyncio.CancelledError as stop:  # also some seconds after the service was told to end
        text = "It took too long, or the service is being stopped; try again later."
        raise HTTPException(503, text) from stop
    finally:
        waiting.cancel()


def _cached_per_version(load: Callable) -> Callable:
    """``load(path_or_name, *version)``, cached for the last version of each path or name.

    Slow workers load it: an index of gigabytes takes many seconds, a damaged one each time that it
    is asked for, and a store may answer slowly. A new version replaces the former one. Nothing else
    leaves the cache: with a limit below the number of indexes, clients that ask for all of them in
    turn would have each index loaded every time.
    """
    cache: dict[Any, tuple[tuple, Any]] = {}
    locks: defaultdict[Any, threading.Lock] = defaultdict(threading.Lock)

    @wraps(load)
    def cached_load(path_or_name, *version):
        entry = cache.get(path_or_name)
        if entry is None or entry[0] != version:
            move_to_slow_workers()
            with locks[path_or_name]:
                entry = cache.get(path_or_name)
                if entry is None or entry[0] != version:
                    cache.pop(path_or_name, None)
                    cache[path_or_name] = entry = version, load(path_or_name, *version)
        return entry[1]

    return cached_load


@_cached_per_version
def _collection(name: str, changed: int, folder_changed: int) -> Collection:
    return collections.open_collection(name)


@_cached_per_version
def _index(path: Path, version: tuple[int, int] | None) -> Index:
    return indexes.load(path)


@_cached_per_version
def _method(path: Path, version: tuple[int, int] | None) -> methods.Method:
    return methods.for_index(_index(path, version))
