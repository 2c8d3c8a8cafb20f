"""A few threads that do the heavy work of everybody who asks, in fair order.

The app and the REST service both put their searches here. Thirty searches at once would need thirty
times the memory of one and get in each other's way; a few at a time are as quick in all.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, TypeVar

from retrieval import memory, threads
from retrieval.errors import RetrievalError

T = TypeVar("T")

SHARE = 0.8  # of the places in the queue that one may fill, so that others find some
TURN = 0.1  # s after which work in many parts lets others have a turn, at least
LOOK, SELDOM = 0.5, 2.0  # s between two looks at the queue of one who waits; far back in it
NEAR = 8  # places in the queue from which on looks are more seldom
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
    """A piece of work has to be done again among those that take long.

    before: what is done there first, in several turns: each ends after ``TURN``, or later where
    whole pieces of work took longer of late. Its results have to be cached, and its errors are
    dropped, as the work itself will meet them again.
    what: a name for what is done in turns, which happens once for a piece of work.
    """

    def __init__(self, before: Iterable[Callable[[], Any]] = (), what: str = ""):
        super().__init__()
        self.before, self.what = before, what


class _Work(NamedTuple):
    """in_turns: what was done in turns; None before it was put among those that take long."""

    who: str
    future: Future
    do: Callable[[], Any]
    before: deque[Callable[[], Any]]
    in_turns: frozenset[str] | None = None


# Whether ``step_aside`` raises: in a thread of workers, and in contexts copied from it.
_steps_aside: ContextVar[bool] = ContextVar("steps aside", default=False)
# ``in_turns`` of the piece of work.
_in_turns: ContextVar[frozenset[str] | None] = ContextVar("in turns", default=None)


def step_aside(what: str = "") -> None:
    """Called by a piece of work that takes long: it is done again where it keeps few waiting.

    Returns where it is there already, or where the work was not given to workers who have such a
    place; otherwise an exception leads out of the work.
    what: given where the caller catches it and raises ``TakesLong`` with parts and this name.
    """
    if keeps_others_waiting() or (what and _may_take_turns(what)):
        raise TakesLong


def keeps_others_waiting() -> bool:
    """Whether ``step_aside`` would lead out of this piece of work."""
    return _steps_aside.get()


def _may_take_turns(what: str) -> bool:
    """Whether the work was put apart, for another reason than to do this in turns.

    A method had to be loaded, or a picture took long: what comes then may take minutes.
    """
    done = _in_turns.get()
    return done is not None and what not in done


def do_parts(what: str, parts: Sequence[Callable[[], Any]]) -> None:
    """Do what a piece of work needs, in several turns where others wait: see ``TakesLong``."""
    if len(parts) > 1 and (keeps_others_waiting() or _may_take_turns(what)):
        raise TakesLong(parts, what)
    for part in parts:
        part()


class Workers:
    """Threads that take turns among those who wait: one piece of work of each, then the next.

    count: pieces of work done at once. most: pieces that may wait before others are refused.
    slow: who does again, from its beginning, a piece of work that calls ``step_aside``.
    tidy: whether freed memory goes back to the system in pauses.
    The threads start with the first piece of work.
    """

    def __init__(self, count: int, most: int, slow: Workers | None = None, tidy: bool = True):
        self.count, self.most, self.slow, self.tidy = count, most, slow, tidy
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[_Work]] = OrderedDict()  # by who asks, next one first
        self._threads: list[threading.Thread] = []
        self._seconds = 1.0  # that a piece of work took of late, without its parts
        self._busy = 0  # threads at work

    def submit(self, who: str, do: Callable[[], T]) -> Future[T]:
        """The future of what ``do()`` returns or raises; cancelled, it leaves the queue.

        who: stands for the one who asks. Raises Busy where ``most`` pieces of work wait, or where
        those of one fill their share.
        """
        work = _Work(who, Future(), do, deque())
        self._add(work)
        return work.future

    def _add(self, work: _Work) -> None:
        with self._changed:
            waiting = sum(map(len, self._waiting.values()))
            mine = len(self._waiting.get(work.who, ()))
            if waiting >= self.most or mine >= SHARE * self.most:
                raise Busy(max(1, round(waiting * self._seconds / self.count)))
            self._put(work)
        work.future.add_done_callback(partial(self._forget, work.who))

    def _put(self, work: _Work) -> None:
        with self._changed:
            self._waiting.setdefault(work.who, deque()).append(work)
            while len(self._threads) < self.count:
                self._threads.append(threading.Thread(target=self._run, daemon=True))
                self._threads[-1].start()
            self._changed.notify()

    def run(self, who: str, do: Callable[[], T], waiting: Callable[[int], None]) -> T:
        """What ``do()`` returns or raises, once it was its turn.

        waiting: called about twice a second with the place in the queue, 1 for the next and 0 while
        the work is done; more seldom further back, where hundreds would ask all the time. Where it
        raises, the work is given up unless it has begun.
        """
        future = self.submit(who, do)
        try:
            # Called for the first time after LOOK: work that a free worker takes does not wait.
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
            mine = [work.future for work in self._waiting.get(who, ())]
            if future not in mine:
                return self.slow.place(who, future) if self.slow else 0
            turns, order = mine.index(future), list(self._waiting)
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
            mine = self._waiting.get(who, deque())
            for work in [work for work in mine if work.future is future]:
                mine.remove(work)
                if not mine:
                    del self._waiting[who]

    def _run(self) -> None:
        _steps_aside.set(self.slow is not None)
        while True:
            self._do(self._next())
            with self._changed:
                self._busy -= 1

    def _next(self) -> _Work:
        """Wait for the next piece of work and take it out of the queue."""
        with self._changed:
            # One thread is enough to give back memory for all.
            first = self.tidy and threading.current_thread() is self._threads[0]
            pause = 0
            while not self._waiting:
                seconds = PAUSES[min(pause, len(PAUSES) - 1)] if first else None
                if not self._changed.wait(seconds) and not self._busy:
                    memory.give_back()
                pause += 1
            who, works = self._waiting.popitem(last=False)
            work = works.popleft()
            if works:
                self._waiting[who] = works  # at the end of the round
            self._busy += 1
            # What waits begins in a moment, beside this piece of work.
            threads.share(min(self._busy + len(self._waiting), self.count))
            return work

    def _do(self, work: _Work) -> None:
        if work.future.done():  # cancelled
            return
        started = time.monotonic()
        turn = max(TURN, self._seconds)  # others have as long for theirs
        _in_turns.set(None)  # a part is done in one go
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
        _in_turns.set(work.in_turns)
        started, put_back = time.monotonic(), False
        # The future is never set running: it could not be cancelled while it waits elsewhere.
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            try:
                result = work.do()
            except TakesLong as long:
                put_back = True
                in_turns = (work.in_turns or frozenset()) | {long.what}
                again = work._replace(before=deque(long.before), in_turns=in_turns)
                try:
                    if self.slow is None:  # here it has a place already
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
