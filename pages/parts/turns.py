"""Queues for work that keeps a core busy: a few workers do it, and clients take turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

import streamlit as st

from pages.parts.limits import runs
from retrieval import hosts, methods, threads
from retrieval.collections import Collection
from retrieval.index import describing
from retrieval.ranking import search
from retrieval.workers import Workers

T = TypeVar("T")

# The slow workers do one piece of work at a time.
WORKERS = Workers(min(threads.usable_cores(), 4), 200, slow=Workers(1, 200))
DRAWERS = Workers(1, 200)  # matplotlib draws one figure at a time
# They read rankings that visitors upload, each of which may take 0.3 GB: files of 0.2 MB of twelve
# clients took 3.5 GB at once. They are two: the slow one has what takes over a second to unpack.
SCORERS = Workers(1, 200, slow=Workers(1, 200))
# Turns to put large indexes of keypoints together, see ``within_turn``: the last steps of 2000
# pictures take 0.4 GB, for minutes.
BUILDERS = Workers(2, 200, tidy=False)
# Turns to read a large table that a visitor brings: 4 MB keep Python busy for 4 s; twelve clients
# that brought one each kept another visitor's page waiting for 54 s.
READERS = Workers(1, 200, tidy=False)
# They make pictures to be shown. Each page asks for one at a time, so none has to be refused. They
# are two even on one core: one waits for the decoder of slow pictures, the other for that of quick.
VIEWERS = Workers(2, 1_000_000, Workers(1, 1_000_000, tidy=False), False)
WAITING = "Others are waiting too: you are number {} in the queue."
LOOK_FOR_TURN = 2.0  # s after which a page that waits for another looks whether it is still open
# Locks of ``one_of_client``, by kind and client.
taken: WeakValueDictionary[tuple[str, str], threading.Lock] = WeakValueDictionary()


def in_turn(work: Callable[[], T], workers: Workers | None = None) -> T:
    """What ``work()`` returns, done by a worker when it is this client's turn.

    The page shows the place in the queue meanwhile. ``work`` must not show anything on the page.
    workers: whose queue; WORKERS by default.
    """
    slot = st.empty()
    runs.let_others_run()

    def waiting(place: int) -> None:
        if place:
            slot.caption(WAITING.format(place))
        else:
            slot.empty()

    try:
        return (workers or WORKERS).run(client(), work, waiting)
    finally:
        slot.empty()


def in_turn_unseen(work: Callable[[], T]) -> T:
    """As ``in_turn``, for a picture: a line about the queue would move those around it."""

    def waiting(place: int) -> None:
        runs.let_others_run()
        st.session_state.get("own")  # to ask anything ends the run of a page that was left

    return VIEWERS.run(client(), work, waiting)


@contextmanager
def one_of_client(kind: str) -> Iterator[None]:
    """Let only one session of a client at a time do what is inside, in its own thread.

    Twenty tabs that each put together the keypoints of 400 pictures took 1.4 GB and both cores.
    Other clients do not wait: the keypoints of 1000 pictures take over a minute, and so may zips of
    a stranger. kind: of the work; different kinds do not wait for each other.
    """
    slot = st.empty()
    runs.let_others_run()
    turn = taken.setdefault((kind, client()), threading.Lock())
    while not turn.acquire(timeout=LOOK_FOR_TURN):
        slot.caption("Another tab from your address comes first.")
    try:
        slot.empty()
        yield
    finally:
        turn.release()


@contextmanager
def within_turn(workers: Workers) -> Iterator[None]:
    """Do what is inside when it is this client's turn, in its own thread: a worker only waits.

    workers: whose queue; their number is how many pieces of such work are done at once.
    """
    slot, who = st.empty(), client()
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        ended.wait()

    turn = workers.submit(who, hold)
    try:
        while not begun.wait(LOOK_FOR_TURN):
            slot.caption(WAITING.format(max(1, workers.place(who, turn))))
        slot.empty()
        yield
    finally:
        ended.set()
        turn.cancel()


def describe_in_turns(
    collection: Collection,
    method: methods.Method,
    names: Sequence[str],
    known: describing.Known,
    max_pixels: int,
) -> Iterator[describing.Described]:
    """``describing.describe`` for a build: each batch waits for its turn among searches of others.

    It is read in its turn too, so that those who wait hold no pictures. Searches do not wait
    for a method that takes long.
    """
    who = client()

    def described(batch: Sequence[str]) -> list[describing.Described]:
        search.leave_to_slow_workers(method)
        # A whole list, as slow workers may have to begin the batch again.
        return list(describing.describe(collection, method, batch, known, max_pixels))

    for start in range(0, len(names), method.batch):
        batch = names[start : start + method.batch]
        yield from WORKERS.run(who, partial(described, batch))


def client() -> str:
    """The client that this session belongs to, see ``hosts.client_of_address``.

    Clients take turns, not sessions: else a client with sixty tabs would have sixty turns for each
    turn of another client.
    """
    return hosts.client_of_address(st.context.ip_address)
