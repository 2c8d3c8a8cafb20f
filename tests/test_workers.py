"""A few threads that do everybody's work: fair, bounded, and left by who gives up."""

import gc
import threading
import time
import weakref
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace

import pytest

from retrieval import workers as module
from retrieval.errors import RetrievalError
from retrieval.workers import (
    Busy,
    TakesLong,
    Workers,
    do_parts,
    in_slow_workers,
    move_to_slow_workers,
)


class Door:
    """Work that lasts until the door is opened."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self):
        self.entered.set()
        assert self.open.wait(60)


@pytest.fixture
def door():
    door = Door()
    yield door
    door.open.set()


def occupied(door, most=100):
    """One thread, which is busy."""
    workers = Workers(1, most)
    workers.submit("somebody", door)
    assert door.entered.wait(60)
    return workers


def test_result_and_error_go_to_the_one_who_asked():
    workers = Workers(2, 10)
    assert workers.run("a", lambda: 42, lambda place: None) == 42

    def fails():
        raise RetrievalError("The box is empty.")

    with pytest.raises(RetrievalError, match="The box is empty"):
        workers.run("a", fails, lambda place: None)
    assert workers.run("a", lambda: 43, lambda place: None) == 43


class Picture:
    """Stands for what takes memory."""


@pytest.mark.parametrize("slow", [None, Workers(1, 10)])
def test_nothing_is_kept_of_work_that_is_done(slow):
    """What a search had read stayed until Python looked for circles: 75 MB, or 200."""
    workers, kept = Workers(1, 10, slow), []

    def work(fails):
        picture = Picture()
        kept.append(weakref.ref(picture))
        move_to_slow_workers()
        if fails:
            raise RetrievalError("The box is empty.")
        return picture

    gc.disable()
    try:
        workers.run("a", lambda: work(False), lambda place: None)
        with pytest.raises(RetrievalError):
            workers.run("a", lambda: work(True), lambda place: None)
        for one in filter(None, (workers, slow)):  # its thread has come back for more
            one.run("a", lambda: None, lambda place: None)
        assert [one() for one in kept] == [None] * (4 if slow else 2)
    finally:
        gc.enable()


def test_turns_go_round(door):
    workers, done = occupied(door), []
    asked = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("b", 2)]
    futures = [workers.submit(who, lambda one=(who, n): done.append(one)) for who, n in asked]
    places = [workers.place(who, future) for (who, _), future in zip(asked, futures, strict=True)]
    door.open.set()
    for future in futures:
        future.result(60)
    expected = [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("a", 3)]
    assert done == expected
    assert places == [1 + expected.index(one) for one in asked]


def test_one_leaves_places_to_others(door):
    """Fifty small requests of one client, each of seconds, kept all others out of the service."""
    workers = occupied(door, most=10)
    for _ in range(8):
        workers.submit("a", bool)
    with pytest.raises(Busy):
        workers.submit("a", bool)
    for _ in range(2):
        workers.submit("b", bool)
    with pytest.raises(Busy):
        workers.submit("a", bool)


def test_two_that_fill_the_queue_leave_places_to_a_third(door):
    """Two clients that tried again all the time: each of 53 searches of a third was refused."""
    workers = occupied(door, most=10)
    first = [workers.submit("a", bool) for _ in range(8)]
    second = [workers.submit("b", bool) for _ in range(2)]
    third = [workers.submit("c", bool) for _ in range(3)]
    for future in first[5:]:
        with pytest.raises(Busy):
            future.result(60)
    third += [workers.submit("c", bool)]  # as many as a has then
    with pytest.raises(Busy):
        workers.submit("c", bool)
    door.open.set()
    assert not any(future.result(60) for future in first[:4] + second + third)


def test_as_many_at_once_as_there_are_threads():
    workers, doors = Workers(2, 10), [Door() for _ in range(3)]
    futures = [workers.submit(str(n), door) for n, door in enumerate(doors)]
    assert all(door.entered.wait(60) for door in doors[:2])
    assert workers.place("2", futures[2]) == 1
    assert not doors[2].entered.is_set()
    doors[0].open.set()
    assert doors[2].entered.wait(60)
    doors[1].open.set()
    doors[2].open.set()


def test_too_many_are_refused_at_once(door):
    workers = occupied(door, most=2)
    waiting = [workers.submit("a", int), workers.submit("b", int)]
    with pytest.raises(Busy) as refused:
        workers.submit("c", int)
    assert refused.value.retry_after >= 1
    waiting[0].cancel()
    workers.submit("c", int)


def test_who_gives_up_leaves_the_queue(door):
    workers, seen = occupied(door), []

    def gives_up(place):
        seen.append(place)
        raise KeyboardInterrupt

    behind = workers.submit("b", int)
    with pytest.raises(KeyboardInterrupt):
        workers.run("a", pytest.fail, gives_up)
    assert seen == [2]
    assert list(workers._waiting) == ["b"]
    door.open.set()
    assert behind.result(60) == 0


@pytest.mark.parametrize(("place", "pause"), [(2 * module.NEAR, 1.0), (9 * module.NEAR, 2.0)])
def test_who_is_far_back_looks_seldom(door, monkeypatch, place, pause):
    """160 tabs that waited for drawings looked at the queue 320 times a second.

    But a click of a student at place 77 was noticed after five seconds.
    """
    workers = occupied(door)
    for _ in range(place - 1):
        workers.submit("a", int)
    pauses, places = [], []

    def wait(futures, seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            door.open.set()
        return SimpleNamespace(done=len(pauses) == 3)

    monkeypatch.setattr(module, "wait", wait)
    workers.run("a", int, places.append)
    assert places == [place] * 2
    assert pauses == [module.LOOK, pause, pause]


def test_nothing_of_finished_work_is_kept():
    workers = Workers(1, 10)
    future = workers.submit("a", lambda: 1)
    assert future.result(60) == 1
    assert workers.place("a", future) == 0
    assert not workers._waiting


def test_memory_is_given_back_in_every_pause(monkeypatch):
    given, often = [], threading.Event()

    def give_back():
        given.append(1)
        if len(given) == 4:
            often.set()

    monkeypatch.setattr("retrieval.workers.PAUSES", (0.05, 0.05))
    monkeypatch.setattr("retrieval.memory.give_back", give_back)
    workers = Workers(1, 10)
    assert workers.submit("a", int).result(60) == 0
    assert often.wait(60)
    assert workers.submit("a", int).result(60) == 0


def test_memory_is_not_given_back_while_others_work(door, monkeypatch):
    """That keeps them waiting for 0.2 s, and there are seven such workers in the app."""
    given = threading.Event()
    occupied(door)  # before: workers of other tests are in their pauses
    monkeypatch.setattr("retrieval.workers.PAUSES", (0.05, 0.05))
    monkeypatch.setattr("retrieval.memory.give_back", given.set)
    assert Workers(1, 10).submit("a", int).result(60) == 0
    assert not given.wait(0.5)
    door.open.set()
    assert given.wait(60)


def test_what_takes_long_keeps_one_worker_busy_and_others_free(door):
    """It is begun again by the slow worker, and its result arrives; too much of it is refused."""
    workers, done = Workers(1, 10, slow=Workers(1, 2)), []

    def slow(name):
        move_to_slow_workers()
        door()
        done.append(name)
        return name

    futures = [workers.submit("a", partial(slow, "first"))]
    assert door.entered.wait(60)
    futures += [workers.submit(who, partial(slow, who)) for who in "bcd"]
    assert workers.run("e", lambda: 42, lambda place: None) == 42
    with pytest.raises(Busy):  # b and c wait already
        futures[3].result(60)
    door.open.set()
    assert [future.result(60) for future in futures[:3]] == ["first", "b", "c"] == done


def test_who_has_long_work_leaves_a_quick_worker_to_others(door, monkeypatch):
    """Large photos, each of which takes a second or two, kept both quick workers busy."""
    monkeypatch.setattr(module, "LONG", 0)
    workers, second, third = Workers(2, 10, slow=Workers(1, 10)), Door(), Door()
    futures = [workers.submit("greedy", work) for work in (door, second, third)]
    assert door.entered.wait(60)
    assert second.entered.wait(60)
    door.open.set()
    futures[0].result(60)
    assert workers.submit("other", int).result(60) == 0
    assert not third.entered.wait(0.1)
    second.open.set()
    assert third.entered.wait(60)  # by the worker that is free again
    third.open.set()
    futures[2].result(60)
    end = time.monotonic() + 60
    while workers._long and time.monotonic() < end:
        time.sleep(0.01)
    assert not workers._long  # nothing is kept of clients that have no work


def test_all_who_have_long_work_leave_one_quick_worker_to_others(door, monkeypatch):
    """Pages of three clients with slow pictures kept another waiting for 80 s: now for 10."""
    monkeypatch.setattr(module, "LONG", 0)
    workers, second, third = Workers(2, 10, slow=Workers(1, 10)), Door(), Door()
    futures = [workers.submit(who, work) for who, work in (("a", door), ("b", second))]
    futures += [workers.submit(who, third) for who in "ab"]
    assert door.entered.wait(60)
    assert second.entered.wait(60)
    for first in (door, second):
        first.open.set()
    assert third.entered.wait(60)  # by a worker, for one of the two
    assert workers.submit("other", int).result(60) == 0
    third.open.set()
    for future in futures:
        future.result(60)


def test_who_leaves_a_worker_to_others_has_all_cores_while_nobody_takes_it(door, monkeypatch):
    """A class behind one address had one core of two, and the other one was idle."""
    shares = []
    monkeypatch.setattr(module, "LONG", 0)
    monkeypatch.setattr(module.threads, "share", shares.append)
    workers, second = Workers(2, 10, slow=Workers(1, 10)), Door()
    futures = [workers.submit("class", work) for work in (door, second, int, int)]
    assert door.entered.wait(60)
    assert second.entered.wait(60)
    door.open.set()
    futures[0].result(60)
    second.open.set()
    futures[3].result(60)
    assert shares[2:] == [1, 1]


def test_who_gives_up_leaves_those_who_wait_for_the_slow_worker_too(door):
    """The picture of a client who has left would be kept in memory, and be decoded for nobody."""
    workers, done = Workers(1, 10, slow=Workers(1, 10)), []

    def slow(name):
        move_to_slow_workers()
        door()
        done.append(name)

    futures = [workers.submit(who, partial(slow, who)) for who in "abc"]
    assert door.entered.wait(60)
    workers.submit("d", int).result(60)  # b and c are with the slow workers by then
    assert workers.place("c", futures[2]) == 2
    assert futures[1].cancel()
    assert workers.place("c", futures[2]) == 1
    assert "b" not in workers.slow._waiting
    assert futures[0].cancel()  # its result is for nobody
    door.open.set()
    futures[2].result(60)
    assert done == ["a", "c"]


def test_work_in_many_parts_lets_others_have_turns(door, monkeypatch):
    """A shortlist of a hundred pictures kept all others with slow pictures waiting to its end."""
    monkeypatch.setattr(module, "TURN", 0)
    workers, done = Workers(1, 10, slow=Workers(1, 10)), []
    workers.slow._seconds = 0
    known = set()

    def part(number):
        door()
        known.add(number)
        done.append(number)
        if number == 1:
            raise RetrievalError("It cannot be read.")

    def many():
        if len(known) < 3:
            try:
                move_to_slow_workers()
            except TakesLong as error:
                raise TakesLong([partial(part, number) for number in range(3)]) from error
        return "all"

    def slow():
        move_to_slow_workers()
        done.append("other")

    futures = [workers.submit("a", many)]
    assert door.entered.wait(60)
    futures += [workers.submit(who, slow) for who in "bc"]
    given_up = workers.submit("d", slow)
    while len(workers.slow._waiting) < 3:
        time.sleep(0.001)
    given_up.cancel()
    door.open.set()
    assert futures[0].result(60) == "all"
    assert done == [0, "other", "other", 1, 2]


def results_in_turn(workers, door, first, second):
    """Of two pieces of work: the second waits among those that take long while the first begins."""
    futures = [workers.submit("a", first)]
    assert door.entered.wait(60)
    futures.append(workers.submit("b", second))
    while not workers.slow._waiting:
        time.sleep(0.001)
    door.open.set()
    return [future.result(60) for future in futures]


def test_work_in_many_parts_has_longer_turns_beside_work_that_takes_long(door):
    """Three connections of one client that asked for LighterGlue, 11 s each, kept geometry of 100
    pictures without keypoints waiting for over 300 s, alone 33."""
    workers, done = Workers(1, 10, slow=Workers(1, 10)), []
    workers.slow._seconds = 60.0

    def part(number):
        door()
        time.sleep(0.11)
        done.append(number)

    def many():
        do_parts("x", [partial(part, number) for number in range(3) if number not in done])
        return "all"

    def slow():
        move_to_slow_workers()
        done.append("other")

    assert results_in_turn(workers, door, many, slow)[0] == "all"
    assert done == [0, 1, 2, "other"]


@pytest.mark.parametrize("catches", [False, True])
def test_what_was_put_apart_already_is_done_in_parts_too(door, monkeypatch, catches):
    """A search that had to load its method found the neighbours of 5000 pictures in one go: all who
    had to be apart waited, and behind a lock of its own everybody."""
    monkeypatch.setattr(module, "TURN", 0)
    workers, done, known = Workers(1, 10, slow=Workers(1, 10)), [], set()
    workers.slow._seconds = 0

    def part(number):
        door()
        known.add(number)
        done.append(number)

    def many():
        move_to_slow_workers()
        missing = [partial(part, number) for number in range(3) if number not in known]
        if not catches:
            do_parts("x", missing)
        elif missing:
            try:
                move_to_slow_workers("x")
            except TakesLong as error:
                raise TakesLong(missing, "x") from error
        return "all"

    def slow():
        move_to_slow_workers()
        done.append("other")

    assert results_in_turn(workers, door, many, slow)[0] == "all"
    assert done == [0, "other", 1, 2]


def test_parts_that_are_never_done_come_to_an_end():
    workers, done, apart = Workers(1, 10, slow=Workers(1, 10)), [], []

    def part(number):
        done.append(number)
        apart.append(in_slow_workers())

    def never():
        do_parts("x", [partial(part, number) for number in range(2)])
        return "all"

    assert workers.submit("a", never).result(60) == "all"
    assert done == [0, 1] * 2
    assert all(apart)  # or a slow picture of a part would be tried in a quick decoder
    assert Workers(1, 10).submit("a", never).result(60) == "all"
    assert done == [0, 1] * 3


def test_nobody_steps_aside_where_there_is_no_place_for_it():
    workers = Workers(1, 10)
    assert workers.run("a", lambda: move_to_slow_workers() or 42, lambda place: None) == 42
    move_to_slow_workers()


def test_the_context_of_a_piece_of_work_ends_with_it():
    """How long a search waited for a store is kept there; the next one begins anew."""
    waited = ContextVar("waited", default=0)
    some = Workers(1, 10)
    some.submit("a", lambda: waited.set(1)).result(60)
    assert some.submit("a", waited.get).result(60) == 0


def test_a_place_that_is_taken_away_keeps_nobody_waiting(door):
    """Who asked for a place in both queues and who lost one in the slow queue had a lock each, and
    waited for that of the other, with all searches of the app.
    """
    slow = Workers(1, 5)
    workers = Workers(2, 50, slow=slow)
    gate, begun = threading.Event(), threading.Event()

    def takes_long():
        move_to_slow_workers()
        door()

    futures = [workers.submit("a", takes_long)]
    assert door.entered.wait(60)  # or one of the others would find its share full
    futures += [workers.submit(who, takes_long) for who in "aaaac"]
    while sum(map(len, slow._waiting.values())) < 5:
        time.sleep(0.001)

    def waits_for_the_gate():
        begun.set()
        assert gate.wait(60)
        takes_long()

    late = workers.submit("b", waits_for_the_gate)
    assert begun.wait(60)
    place = slow.place

    def waits_between_the_locks(who, future):
        gate.set()
        while len(slow._waiting.get("a", ())) == 4:  # until a place of the first was taken
            time.sleep(0.001)
        time.sleep(0.2)
        return place(who, future)

    slow.place = waits_between_the_locks
    asking = threading.Thread(target=workers.place, args=("a", futures[1]), daemon=True)
    asking.start()
    asking.join(60)
    assert not asking.is_alive()
    door.open.set()
    assert late.result(60) is None
    errors = [future.exception(60) for future in futures]
    assert [type(error) for error in errors if error] == [Busy]
