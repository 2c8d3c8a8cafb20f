"""A cache with a limit in bytes: results that are kept because they may be asked for again."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Cache:
    """Values by key; what was not used for longest goes first. Safe to use from several threads."""

    def __init__(self, max_bytes: int):
        """max_bytes: bytes of all values."""
        self.max_bytes, self.bytes = max_bytes, 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T], wait: bool = True) -> T:
        """The value of a key, made where it is not kept.

        wait: whether to wait where another thread is making it. Else it is made twice: a worker
        must not wait for a thread that may itself wait for a worker. What ``make`` raises is not
        kept.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
            if wait:
                making = self._making.setdefault(key, threading.Lock())
        if not wait:
            value = make()
            self._keep(key, value)
            return value
        with making:
            with self._lock:
                if key in self._values:  # somebody else made it
                    return self._values[key][0]
            try:
                value = make()
                self._keep(key, value)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return value

    def forget(self, part: Part) -> None:
        """Remove what one session keeps here."""
        with self._lock:
            for key in [key for key in self._values if isinstance(key, tuple) and key[0] is part]:
                self.bytes -= self._values.pop(key)[1]

    def _keep(self, key: Hashable, value: object) -> None:
        size = size_of(value)
        with self._lock:
            self.bytes += size - self._values.pop(key, (None, 0))[1]
            self._values[key] = value, size
            while self.bytes > self.max_bytes:
                self.bytes -= self._values.popitem(last=False)[1][1]


class Part:
    """What one session keeps in a cache of all sessions: no other finds it there."""

    def __init__(self, cache: Cache):
        self._cache, self._ended = cache, False

    def get(self, key: Hashable, make: Callable[[], T], wait: bool = True) -> T:
        """As of ``Cache``."""
        value = self._cache.get((self, key), make, wait)
        if self._ended:  # the session ended while it was made
            self._cache.forget(self)
        return value

    def forget(self) -> None:
        """Called when the session ends."""
        self._ended = True
        self._cache.forget(self)


def size_of(value: object) -> int:
    """About how many bytes a value takes: of arrays, text and what is made of them."""
    if isinstance(value, bytes | str):
        return 50 + len(value)
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, tuple | list):
        return 50 + sum(8 + size_of(item) for item in value)
    if dataclasses.is_dataclass(value):
        return sum(size_of(getattr(value, field.name)) for field in dataclasses.fields(value))
    return 50 + getattr(value, "nbytes", 0)
