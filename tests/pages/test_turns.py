"""What waits for its turn among the work of other visitors."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from stubs import Grid, Thumbnail

from pages.parts import indexing, loaders, turns
from retrieval.collections import collection as collections
from retrieval.index import builder
from retrieval.workers import Workers


def test_figures_are_drawn_in_turn():
    """Twenty visitors who drew kept another waiting for 19 seconds, without a word."""
    drew = []

    def draw():
        drew.append(threading.current_thread())
        return Figure(figsize=(1, 1))

    key = loaders.CACHE, ("in turn",)
    png = loaders.figure_on_page(*key, draw)
    assert png == loaders.figure_on_page(*key, draw) == loaders.figure_file("png", *key, draw)
    assert drew == turns.DRAWERS._threads


@pytest.fixture
def in_queue(monkeypatch):
    """A function that runs another in a thread, as a page of an address, until it is in a queue."""

    def begin(workers, address, run):
        begun, submit = threading.Event(), workers.submit

        def submitted(*work):
            future = submit(*work)
            begun.set()
            return future

        monkeypatch.setattr(turns.st, "context", SimpleNamespace(ip_address=address))
        monkeypatch.setattr(workers, "submit", submitted)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert begun.wait(60)
        monkeypatch.setattr(workers, "submit", submit)
        return thread

    return begin


def test_sessions_of_one_client_take_its_turns(in_queue):
    """Sixty tabs that searched kept another visitor waiting for seven seconds."""
    workers, done, door = Workers(1, 100), [], threading.Event()
    workers.submit("nobody", door.wait)

    def ask(address, session):
        return in_queue(
            workers, address, lambda: turns.in_turn(lambda: done.append(session), workers)
        )

    waiting = [ask("192.0.2.1", session) for session in ("a", "b", "c")]
    waiting.append(ask("192.0.2.2", "other"))
    door.set()
    for thread in waiting:
        thread.join(60)
    assert done == ["a", "other", "b", "c"]


def test_pictures_of_one_client_keep_no_others_waiting(monkeypatch, tmp_path, in_queue):
    """Sixty tabs that showed a PNG of 25 megapixels each kept another visitor waiting for 114 s."""
    workers, done, door = Workers(1, 100), [], threading.Event()
    monkeypatch.setattr(turns, "VIEWERS", workers)
    monkeypatch.setattr(
        loaders.images, "as_jpeg", lambda path, *_: (done.append(path.name), (8, 8))
    )
    workers.submit("nobody", door.wait)

    def ask(address, name):
        (tmp_path / name).touch()
        return in_queue(workers, address, lambda: loaders.view(tmp_path / name, 8))

    waiting = [ask("192.0.2.1", name) for name in ("a", "b", "c")]
    waiting.append(ask("192.0.2.2", "other"))
    door.set()
    for thread in waiting:
        thread.join(60)
    assert done == ["a", "other", "b", "c"]


def test_a_page_that_was_left_waits_for_no_picture(monkeypatch):
    class Left(Exception):
        pass

    def get(key):
        raise Left

    workers, door = Workers(1, 100), threading.Event()
    monkeypatch.setattr(turns, "VIEWERS", workers)
    monkeypatch.setattr(turns.st, "session_state", SimpleNamespace(get=get))
    workers.submit("nobody", door.wait)
    with pytest.raises(Left):
        turns.in_turn_unseen(lambda: pytest.fail("nobody looks at it"))
    door.set()


def test_nobody_waits_for_the_turn_of_another_who_asked_for_the_same(monkeypatch, in_queue):
    """One client kept all others for a minute from what it had put behind a hundred searches."""
    workers, done, door = Workers(1, 100), [], threading.Event()
    monkeypatch.setattr(turns, "WORKERS", workers)
    workers.submit("nobody", door.wait)
    for _ in range(10):
        workers.submit("192.0.2.1", lambda: done.append("another"))

    def ask():
        loaders.cached(Path("a picture"), "the same", lambda: done.append("the same"), "Searching")

    waiting = [in_queue(workers, address, ask) for address in ("192.0.2.1", "192.0.2.2")]
    door.set()
    for thread in waiting:
        thread.join(60)
    assert done == ["another", "the same", *["another"] * 9]


def test_large_indexes_are_put_together_in_turn(colours_folder, tmp_path, monkeypatch):
    """Twenty tabs took 1.4 GB and both cores: others waited for seven seconds for each click."""
    holding, at_work, collect = [], [], builder.collect

    def collected(*arguments):
        holding.append([kind for kind, _ in turns.taken])
        at_work.append(turns.BUILDERS._at_work.total())
        return collect(*arguments)

    monkeypatch.setattr(builder, "collect", collected)
    stubs = {"sir": Thumbnail(), "delf": Grid()}
    monkeypatch.setattr(loaders, "load_method", stubs.get)
    collection = collections.open_collection(colours_folder)
    for large in (len(collection), len(collection) - 1):
        monkeypatch.setattr(indexing, "LARGE", large)
        for method in stubs:
            indexing.build(collection, method, tmp_path / f"{method}-{large}")
    assert holding == [[], [], [], ["index"]]
    assert at_work == [0, 0, 0, 1]
    assert turns.BUILDERS.count == 2


def test_few_clients_do_large_work_at_a_time(monkeypatch, in_queue):
    """The indexes of three clients, of 2000 pictures each, took 1.1 GB when they were ready."""
    monkeypatch.setattr(turns, "LOOK_FOR_TURN", 0.01)
    slot = SimpleNamespace(caption=lambda text: said.set(), empty=lambda: None)
    monkeypatch.setattr(turns.st, "empty", lambda: slot)
    workers, order, said, door = Workers(1, 100), [], threading.Event(), threading.Event()

    def build(name):
        with turns.within_turn(workers):
            order.append(f"{name} begins")
            door.wait(60)
            order.append(f"{name} ends")

    pages = [in_queue(workers, f"192.0.2.{name}", lambda name=name: build(name)) for name in (1, 2)]
    assert said.wait(60)
    door.set()
    for page in pages:
        page.join(60)
    assert order == ["1 begins", "1 ends", "2 begins", "2 ends"]


def test_who_leaves_while_others_do_large_work_leaves_the_queue(monkeypatch):
    class Left(Exception):
        pass

    def caption(text):
        assert text.startswith("Others are waiting too: you are number 1 ")
        raise Left

    monkeypatch.setattr(turns, "LOOK_FOR_TURN", 0.01)
    monkeypatch.setattr(turns.st, "context", SimpleNamespace(ip_address="192.0.2.1"))
    monkeypatch.setattr(turns.st, "empty", lambda: SimpleNamespace(caption=caption))
    workers, door = Workers(1, 100), threading.Event()
    workers.submit("nobody", door.wait)
    with pytest.raises(Left), turns.within_turn(workers):
        pytest.fail("it is not its turn")
    assert not workers._waiting
    door.set()


def test_one_session_of_a_client_at_a_time(monkeypatch):
    """Others waited for minutes for the 1000 pictures, and for the zips, of somebody else."""
    monkeypatch.setattr(turns, "LOOK_FOR_TURN", 0.01)
    order, doors = [], {"first": threading.Event(), "other": threading.Event()}
    slot = SimpleNamespace(caption=lambda text: waits.set(), empty=lambda: None)
    monkeypatch.setattr(turns.st, "empty", lambda: slot)
    begun, waits = threading.Event(), threading.Event()

    def build(name, kind="index"):
        with turns.one_of_client(kind):
            order.append(f"{name} begins")
            begun.set()
            if name in doors:
                doors[name].wait(60)
            order.append(f"{name} ends")

    def begin(address, *what, until=begun):
        until.clear()
        thread = threading.Thread(target=build, args=what, daemon=True)
        monkeypatch.setattr(turns.st, "context", SimpleNamespace(ip_address=address))
        thread.start()
        assert until.wait(60)
        return thread

    first = begin("192.0.2.1", "first")
    second = begin("192.0.2.1", "second", until=waits)
    begin("192.0.2.1", "brings", "pictures").join(60)
    other = begin("192.0.2.2", "other")
    assert order == ["first begins", "brings begins", "brings ends", "other begins"]
    doors["other"].set()
    other.join(60)
    doors["first"].set()
    for thread in (first, second):
        thread.join(60)
    assert order[4:] == ["other ends", "first ends", "second begins", "second ends"]


def test_who_leaves_while_another_session_is_at_it_takes_no_turn(monkeypatch):
    monkeypatch.setattr(turns, "LOOK_FOR_TURN", 0.01)
    monkeypatch.setattr(turns.st, "context", SimpleNamespace(ip_address="192.0.2.1"))

    class Left(Exception):
        pass

    def caption(text):
        raise Left

    with turns.one_of_client("index"):
        monkeypatch.setattr(turns.st, "empty", lambda: SimpleNamespace(caption=caption))
        with pytest.raises(Left), turns.one_of_client("index"):
            pass
    monkeypatch.setattr(turns.st, "empty", lambda: SimpleNamespace(empty=lambda: None))
    with pytest.raises(Left), turns.one_of_client("index"):
        raise Left
    with turns.one_of_client("index"):
        assert len(turns.taken) == 1
    assert not turns.taken
