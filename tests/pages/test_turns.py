"""What waits for its turn among the work of other visitors."""

import threading
from types import SimpleNamespace

from matplotlib.figure import Figure

from pages.parts import loaders
from retrieval.workers import Workers


def test_figures_are_drawn_in_turn():
    """Twenty visitors who drew kept another waiting for 19 seconds, without a word."""
    drew = []

    def draw():
        drew.append(threading.current_thread())
        return Figure(figsize=(1, 1))

    png = loaders.figure_on_page(("in turn",), draw)
    assert (
        png
        == loaders.figure_on_page(("in turn",), draw)
        == loaders.figure_file("png", ("in turn",), draw)
    )
    assert drew == loaders.DRAWERS._threads


def test_sessions_of_one_client_take_its_turns(monkeypatch):
    """Sixty tabs that searched kept another visitor waiting for seven seconds."""
    workers, done, door = Workers(1, 100), [], threading.Event()
    workers.submit("nobody", door.wait)
    waiting = []

    def ask(address, session):
        monkeypatch.setattr(loaders.st, "context", SimpleNamespace(ip_address=address))
        begun = threading.Event()

        def run():
            loaders.in_turn(lambda: done.append(session), workers)

        submit = workers.submit

        def submitted(*work):
            future = submit(*work)
            begun.set()
            return future

        monkeypatch.setattr(workers, "submit", submitted)
        waiting.append(threading.Thread(target=run))
        waiting[-1].start()
        assert begun.wait(20)
        monkeypatch.setattr(workers, "submit", submit)

    for session in ("a", "b", "c"):
        ask("192.0.2.1", session)
    ask("192.0.2.2", "other")
    door.set()
    for thread in waiting:
        thread.join(20)
    assert done == ["a", "other", "b", "c"]
