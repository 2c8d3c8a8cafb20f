"""The indexes and collections below ``precomputed/``, and searches in them.

What a client names is looked up here, never opened.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import HTTPException, Request

from retrieval import hosts, images, methods, threads
from retrieval import index as indexes
from retrieval.collections import Collection
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.images import Box, Source
from retrieval.index import Index, store
from retrieval.ranking import search as search_module
from retrieval.ranking.ranking import Ranking
from retrieval.workers import LOOK, Workers

T = TypeVar("T")

QUEUE = 50  # searches that may wait; at one a second the last has waited a minute
MOST_PICTURES = 200  # to be sent that may wait; a large one takes a tenth of a second
# One at a time where the picture takes long to read.
WORKERS = Workers(min(threads.usable_cores(), 2), QUEUE, slow=Workers(1, QUEUE))
PICTURES = Workers(min(threads.usable_cores(), 2), MOST_PICTURES)
log = logging.getLogger("uvicorn.error")


def paths() -> dict[str, Path]:
    """id → folder of every index of a collection that can be opened here."""
    return {
        f"{entry.name}/{path.name}": path
        for entry in collections.registered()
        if entry.available
        for _, path in indexes.find_all(entry.name)
    }


def defaults(collection: str = "") -> dict[str, str]:
    """Method → id of its index in a collection, by default in the first that has any."""
    names = [entry.name for entry in collections.registered() if entry.available]
    for name in [collection] if collection else names:
        found = indexes.find(name) if name in names else {}
        if found:
            return {method: f"{name}/{path.name}" for method, path in found.items()}
    raise RetrievalError(
        f"There is no index of {collection or 'any collection'} to search; make one with: "
        "python -m retrieval index"
    )


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Tell the owner why something cannot be opened, and the client only that."""
    try:
        yield
    except (RetrievalError, OSError) as error:
        log.error("%s cannot be opened: %s", what, error)
        raise HTTPException(
            503, f"{what} is damaged; its owner finds the reason in the log."
        ) from error


def opened(name: str) -> Index:
    """The index with an id. HTTPException where there is none, or where it is damaged."""
    path = paths().get(name)
    if path is None:
        raise HTTPException(404, f"There is no index {name}; see /indexes.")
    with _logged(f"The index {name}"):
        return _index(path, store.version_of(path))


def collection(name: str) -> Collection:
    """A collection that can be opened here; HTTPException where there is none."""
    known = {entry.name: entry for entry in collections.registered() if entry.available}
    if name not in known:
        raise HTTPException(404, f"There is no collection {name}.")
    with _logged(f"The collection {name}"):
        path = known[name].ground_truth_path
        # A file that comes, goes or is replaced beside it (credits, labels) changes its folder.
        return _collection(name, path.stat().st_mtime_ns, path.parent.stat().st_mtime_ns)


def as_text(name: str) -> str:
    """The name of a file as clients are told it: not every one is text that can be sent."""
    return name.encode("utf-8", "replace").decode()


def picture(collection: Collection, name: str) -> Path:
    """File of a picture that the collection lists; nothing else is ever opened."""
    queries = [query.name for query in collection.queries]
    if name in collection.positions or name in queries:
        return collection.path(name)
    if "?" in name:  # which stands for what is no text
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
    """The ranking for a picture: a path, or the open file or bytes that a client sent."""
    if not isinstance(source, str | Path | bytes):
        source.seek(0)  # it was read already where this is done again, apart
    # The picture first: a bad one is no reason to load a network.
    data = images.read_bytes(source, name)
    picture = images.read(data, name, images.visitors_limit())
    return search_module.rank_picture(
        index,
        _method(index.path, store.version_of(index.path)),
        picture,
        box,
        top,
        then=then,
        collection=collection(index.path.parent.name),
        own=index.name_of(data),
        where=where,
    )


async def in_turn(request: Request, work: Callable[[], T], workers: Workers | None = None) -> T:
    """What ``work()`` returns, once it was its turn among those of all clients.

    workers: WORKERS, who search, by default. Raises Busy where too many wait. When the client
    leaves, the work leaves the queue.
    """
    who = hosts.client_at(request.client)
    future = (workers or WORKERS).submit(who, work)
    waiting = asyncio.wrap_future(future)
    try:
        while not (await asyncio.wait([waiting], timeout=LOOK))[0]:
            if await request.is_disconnected():
                raise HTTPException(499, "The client has left.")
        return waiting.result()
    except asyncio.CancelledError as stop:  # some seconds after the service was told to end
        raise HTTPException(503, "The service is being stopped.") from stop
    finally:
        waiting.cancel()


def _once(load: Callable) -> Callable:
    """Cached, and loaded by one thread only where several ask at the same time.

    What changed takes the place of what was there before. Nothing else goes: where one too many
    is served, clients who ask for all of them in turn would have each loaded again every time.
    """
    cached: dict[Any, tuple[tuple, Any]] = {}
    lock = threading.Lock()

    def loader(path_or_name, *changed):
        with lock:
            kept = cached.get(path_or_name)
            if kept is None or kept[0] != changed:
                cached.pop(path_or_name, None)
                cached[path_or_name] = kept = changed, load(path_or_name, *changed)
            return kept[1]

    return loader


@_once
def _collection(name: str, changed: int, folder_changed: int) -> Collection:
    return collections.open_collection(name)


@_once
def _index(path: Path, version: tuple[int, int] | None) -> Index:
    return indexes.load(path)


@_once
def _method(path: Path, version: tuple[int, int] | None) -> methods.Method:
    return methods.for_index(_index(path, version))
