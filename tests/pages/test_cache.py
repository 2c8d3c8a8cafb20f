"""A cache with a limit in bytes."""

import threading

import numpy as np
import pytest

from pages.parts.cache import Cache, Part, size_of
from retrieval.methods.base import LocalFeatures


def test_made_once_and_the_longest_unused_goes_first():
    cache, made = Cache(3 * (50 + 1000)), []

    def make(name):
        made.append(name)
        return bytes(1000)

    for name in ("a", "b", "c", "a", "d", "a", "b"):
        cache.get(name, lambda name=name: make(name))
    assert made == ["a", "b", "c", "d", "b"]
    assert cache.bytes == 3 * 1050


def test_what_is_larger_than_all_is_not_kept():
    cache = Cache(1000)
    assert len(cache.get("large", lambda: bytes(5000))) == 5000
    assert cache.bytes == 0


def test_who_asks_meanwhile_waits_and_gets_the_same():
    cache, making, go, found = Cache(1000), threading.Event(), threading.Event(), []

    def make():
        making.set()
        assert go.wait(30)
        return ["made"]

    def ask(make):
        found.append(cache.get("key", make))

    first = threading.Thread(target=ask, args=(make,))
    first.start()
    assert making.wait(30)
    second = threading.Thread(target=ask, args=(lambda: ["made again"],))
    second.start()
    go.set()
    first.join(30)
    second.join(30)
    assert found == [["made"], ["made"]]
    assert found[0] is found[1]


def test_a_worker_does_not_wait_for_what_somebody_else_makes():
    cache = Cache(1000)

    def make():
        assert cache.get("key", lambda: b"by the worker", wait=False) == b"by the worker"
        return b"by the page"

    assert cache.get("key", make) == b"by the page"
    assert cache.get("key", lambda: b"again", wait=False) == b"by the page"
    assert cache.bytes == size_of(b"by the page")


def test_an_error_is_not_kept():
    cache = Cache(1000)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 / 0)
    assert cache.get("key", lambda: "fine") == "fine"


def test_sizes_count_arrays_and_bytes():
    points = np.zeros((100, 2), np.float32)
    features = LocalFeatures(points, points[:, 0], points[:, 0], np.zeros((100, 40), np.float32))
    arrays = 100 * 4 * (2 + 1 + 1 + 40)
    assert arrays <= size_of(features) <= arrays + 400
    assert size_of((b"x" * 1000, (640, 480))) >= 1000
    assert size_of({"scores": points}) >= points.nbytes
    assert size_of(None) < 100


def test_sessions_share_a_limit_and_nothing_else():
    """16 MB for each session took 1 GB where one client had fifty tabs."""
    cache = Cache(3 * 1050)
    mine, others = Part(cache), Part(cache)
    assert mine.get("a", lambda: bytes(1000)) != others.get("a", lambda: bytes([1]) * 1000)
    for name in ("b", "c"):
        mine.get(name, lambda: bytes(1000))
    assert cache.bytes == 3 * 1050
    mine.forget()
    assert cache.bytes == 1050
    assert others.get("a", lambda: b"made again")[0] == 1


def test_nothing_is_kept_of_a_session_that_ends_meanwhile():
    """A ranking of one's own pictures was kept if the tab was closed before it was made."""
    cache = Cache(1000)
    mine, others = Part(cache), Part(cache)
    others.get("a", lambda: bytes(10))

    def make():
        mine.forget()
        return bytes(100)

    assert mine.get("a", make, wait=False) == mine.get("b", lambda: bytes(100)) == bytes(100)
    assert cache.bytes == 60
