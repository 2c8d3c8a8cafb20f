"""A few threads that do the heavy work of all clients, who take turns.

The app and the REST service both put their searches here. Thirty searches at once would need thirty
times the memory of one and would not be done sooner.

Workers may be *quick*: then they have *slow* workers beside them. A piece of work that turns out to
take long leaves the quick workers (``move_to_slow_workers``) and is done again, from its beginning,
by the slow ones. So work that takes long waits for other such work, and short work does not wait
for it. One quick worker is left to others by the clients whose last piece of work took over
``LONG`` seconds: their next one may take as long.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar
from weakref import WeakSet

from retrieval import memory, threads
from retrieval.errors import RetrievalError

T = TypeVar("T")

SHARE = 0.8  # of the places in the queue that one client may fill, so that others find some
LONG = 0.5  # s; a search takes 0.1 to 0.3, with a photo of 24 megapixels 1 to 2
TURN = 0.1  # s, at least, after which work in many parts goes to the end of the queue
# Seconds after which a client in the queue looks for its place again: LOOK for one of the first
# NEAR, longer further back, SELDOM at most.
LOOK, SELDOM, NEAR = 0.5, 2.0, 8
# Seconds without work after which freed memory goes back to the system: soon after the searches,
# and then from time to time, as sessions that needed no search leave some too.
PAUSES = (2.0, 60.0, 240.0)


class Busy(RetrievalError):
    """More wait already than may; ``retry_after`` is a number of seconds to try again in."""

    def __init__(self, retry_after: int):
        super().__init__(
            f"Too many requests are waiting; try again in about {retry_after} seconds."
        )
        self.retry_after = retry_after


class TakesLong(Exception):
    """Raised by a piece of work that takes long: slow workers do it again, from its beginning.

    before: parts that slow workers do first, in several turns. A turn ends after ``TURN`` seconds,
    or after the mean time of a piece of work where that is longer. The work must find the results
    of its parts in a cache. Errors in parts are dropped: the work itself will meet them again.
    parts_name: a name for the parts. Parts of one name are done once for a piece of work.
    """

    def __init__(self, before: Iterable[Callable[[], Any]] = (), parts_name: str = ""):
        super().__init__()
        self.before, self.parts_name = before, parts_name


class _Work(NamedTuple):
    """A piece of work in a queue.

    who: the client. do: the work. before: parts to do first. parts_done: names of the parts that
    were done, see ``TakesLong``; None as long as the work was not moved to slow workers.
    """

    who: str
    future: Future
    do: Callable[[], Any]
    before: deque[Callable[[], Any]]
    parts_done: frozenset[str] | None = None


# Whether a quick worker does this work; known in its thread, and in contexts copied from that.
_in_quick_workers: ContextVar[bool] = ContextVar("in quick workers", default=False)
_in_slow_workers: ContextVar[bool] = ContextVar("in slow workers", default=False)
# ``parts_done`` of the piece of work that this thread does; None while it does a part, in one go.
_parts_done: ContextVar[frozenset[str] | None] = ContextVar("parts done", default=None)


def move_to_slow_workers(parts_name: str = "") -> None:
    """Called by a piece of work that will take long: raises TakesLong in a quick worker.

    Elsewhere (in a slow worker, or in no worker at all) it returns, and the work goes on.
    parts_name: where the caller catches TakesLong and raises it again with parts of this name. Then
    it is also raised in a slow worker that has not done these parts.
    """
    if in_quick_workers() or (parts_name and _may_take_turns(parts_name)):
        raise TakesLong


def in_quick_workers() -> bool:
    """Whether a quick worker does this, so that work of others waits for it."""
    return _in_quick_workers.get()


def in_slow_workers() -> bool:
    """Whether a slow worker does this, so that only slow work of others waits for it."""
    return _in_slow_workers.get()


def _may_take_turns(parts_name: str) -> bool:
    """Whether a slow worker does this and has not done the parts of this name.

    So it is where the work was moved for another reason: a method had to be loaded, or a picture
    took long. The parts may then take minutes.
    """
    done = _parts_done.get()
    return done is not None and parts_name not in done


def do_parts(parts_name: str, parts: Sequence[Callable[[], Any]]) -> None:
    """Do the parts of a piece of work, in several turns where it has workers: see ``TakesLong``."""
    if len(parts) > 1 and (in_quick_workers() or _may_take_turns(parts_name)):
        raise TakesLong(parts, parts_name)
    for part in parts:
        part()


class Workers:
    """Threads that do one piece of work of each client in turn.

    count: pieces of work done at once. most: pieces that may wait before others are refused.
    slow: the workers for pieces that take long; with them these workers are quick ones.
    tidy: whether these workers give freed memory back; they do so when no such workers work.
    The threads start with the first piece of work.
    """

    _tidy: ClassVar[WeakSet[Workers]] = WeakSet()

    def __init__(self, count: int, most: int, slow: Workers | None = None, tidy: bool = True):
        self.count, self.most, self.slow, self.tidy = count, most, slow, tidy
        if tidy:
            self._tidy.add(self)
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[_Work]] = OrderedDict()  # by client, next one first
        self._threads: list[threading.Thread] = []
        self._seconds = 1.0  # that a piece of work took of late, without its parts
        self._at_work: Counter[str] = Counter()  # threads at work, by client
        self._long: set[str] = set()  # clients with work, whose last piece took over LONG

    def submit(self, who: str, do: Callable[[], T]) -> Future[T]:
        """The future of what ``do()`` returns or raises; cancelled, it leaves the queue.

        who: the client. Where ``most`` pieces of work wait, the last one of the client that has
        most of them ends with Busy. Raises Busy where that is this client, or its share is full.
        """
        work = _Work(who, Future(), do, deque())
        self._add(work)
        return work.future

    def _add(self, work: _Work) -> None:
        last = None
        with self._changed:
            waiting = sum(map(len, self._waiting.values()))
            of_client = len(self._waiting.get(work.who, ()))
            busy = Busy(max(1, round(waiting * self._seconds / self.count)))
            if of_client >= SHARE * self.most:
                raise busy
            if waiting >= self.most:
                # Else two clients that try again all the time leave no place to a third.
                most = max(self._waiting.values(), key=len)
                if len(most) <= of_client + 1:
                    raise busy
                last = most.pop()
            self._put(work)
        if last:  # without the lock: who moved it here has one of its own
            with contextlib.suppress(InvalidStateError):  # cancelled in this moment
                last.future.set_exception(busy)
        work.future.add_done_callback(partial(self._forget, work.who))

    def _put(self, work: _Work) -> None:
        with self._changed:
            self._waiting.setdefault(work.who, deque()).append(work)
            while len(self._threads) < self.count:
                self._threads.append(threading.Thread(target=self._run, daemon=True))
                self._threads[-1].start()
            self._changed.notify()

    def run(
        self, who: str, do: Callable[[], T], waiting: Callable[[int], None] = lambda place: None
    ) -> T:
        """What ``do()`` returns or raises, once it was its turn.

        waiting: called about twice a second with the place in the queue, 1 for the next and 0 while
        the work is done; more seldom further back, where hundreds would ask all the time. Where it
        raises, the work is given up unless it has begun.
        """
        future = self.submit(who, do)
        try:
            # ``waiting`` is first called after LOOK: work that a worker does at once does not wait.
            place = 0
            while not wait([future], min(LOOK * max(1, place / NEAR), SELDOM)).done:
                place = self.place(who, future)
                waiting(place)
            return future.result()
        finally:
            future.cancel()
            del future  # see ``_finish``

    def place(self, who: str, future: Future) -> int:
        """How many turns there are until that of a piece of work, 0 once it has begun."""
        with self._changed:
            of_client = [work.future for work in self._waiting.get(who, ())]
            if future not in of_client:
                return self.slow.place(who, future) if self.slow else 0
            turns, order = of_client.index(future), list(self._waiting)
            # Clients before this one in the order get one turn more than those behind it.
            others = (
                min(len(self._waiting[other]), turns + (number < order.index(who)))
                for number, other in enumerate(order)
                if other != who
            )
            return 1 + turns + sum(others)

    def _forget(self, who: str, future: Future) -> None:
        """Cancelled work makes room; other work has left the queue by then."""
        with self._changed:
            of_client = self._waiting.get(who, deque())
            for work in [work for work in of_client if work.future is future]:
                of_client.remove(work)
                if not of_client:
                    del self._waiting[who]
                    self._long.discard(who)

    def _run(self) -> None:
        _in_quick_workers.set(self.slow is not None)
        while True:
            work = self._next()
            who, started = work.who, time.monotonic()
            self._do(work)
            del work  # see ``_finish``
            with self._changed:
                self._at_work -= Counter([who])  # drops clients with none
                self._long.discard(who)
                long = time.monotonic() - started > LONG
                if long and (self._at_work[who] or who in self._waiting):
                    self._long.add(who)
                self._changed.notify()  # other work of this client may begin now

    def _next(self) -> _Work:
        """Wait for the next piece of work and take it out of the queue."""
        with self._changed:
            # One thread is enough to give back memory for the others.
            first = self.tidy and threading.current_thread() is self._threads[0]
            pause = 0
            while (who := next(filter(self._may_begin, self._waiting), None)) is None:
                seconds = PAUSES[min(pause, len(PAUSES) - 1)] if first else None
                found_work = self._changed.wait(seconds)
                if not found_work and not any(workers._at_work for workers in self._tidy):
                    memory.give_back()  # others would wait for it
                pause += 1
            works = self._waiting.pop(who)
            work = works.popleft()
            if works:
                self._waiting[who] = works  # at the end of the round
            self._at_work[who] += 1
            # What waits and may begin does so in a moment, beside this piece of work.
            beside = sum(map(self._may_begin, self._waiting))
            threads.share(min(self._at_work.total() + beside, self.count))
            return work

    def _may_begin(self, who: str) -> bool:
        """Whether a worker may take the next piece of work of this client."""
        if self.slow is None or who not in self._long:
            return True
        # Of all such clients together: two with slow pictures had both of two workers all the time.
        return sum(self._at_work[one] for one in self._long) < max(1, self.count - 1)

    def _do(self, work: _Work) -> None:
        if work.future.done():  # cancelled
            return
        started = time.monotonic()
        turn = max(TURN, self._seconds)  # others have as long for theirs
        _in_slow_workers.set(work.parts_done is not None)
        _parts_done.set(None)
        while work.before:
            with contextlib.suppress(Exception):
                work.before.popleft()()
            if time.monotonic() - started >= turn:
                self._put(work)
                break
        else:
            self._finish(work)
        del work  # see ``_finish``

    def _finish(self, work: _Work) -> None:
        _parts_done.set(work.parts_done)
        started, put_back = time.monotonic(), False
        # The future is never set running: it could not be cancelled while it waits elsewhere.
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            try:
                result = copy_context().run(work.do)  # what it sets there ends with it
            except TakesLong as long:
                put_back = True
                parts_done = (work.parts_done or frozenset()) | {long.parts_name}
                again = work._replace(before=deque(long.before), parts_done=parts_done)
                try:
                    if self.slow is None:  # these are the slow workers
                        self._put(again)
                    else:
                        self.slow._add(again)
                except Busy as busy:
                    work.future.set_exception(busy)
            except BaseException as error:  # belongs to the one who asked, whatever it is
                work.future.set_exception(error)
            else:
                work.future.set_result(result)
        if not put_back:
            self._seconds += (time.monotonic() - started - self._seconds) / 8
        # An error holds the frames that it went through, and with them perhaps pictures. If one of
        # them held the future too, only the garbage collector could free this cycle.
        del work
