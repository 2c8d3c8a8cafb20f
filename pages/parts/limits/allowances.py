"""Token buckets: how much a connection or a client may ask for at once, and then every second."""

from __future__ import annotations

import time

from streamlit import runtime

from retrieval import hosts

MAX_CLIENTS = 4096  # that are remembered


class Allowance:
    """A token bucket: what one connection or client may still ask for.

    capacity: of the full bucket. a_second: how much comes back every second.
    """

    def __init__(self, capacity: int, a_second: int):
        self.capacity, self.a_second = capacity, a_second
        self._left, self._then = float(capacity), time.monotonic()

    def take(self, count: int, owe: bool = False) -> bool:
        """Take ``count`` of it; False where less is left.

        owe: take it also where less is left. Until as much came back, nothing can be taken.
        """
        now = time.monotonic()
        self._left = min(self._left + (now - self._then) * self.a_second, self.capacity)
        self._then = now
        enough = count <= self._left
        if enough or owe:
            self._left -= count
        return enough


class OfClients:
    """An allowance for each client. capacity, a_second: as for ``Allowance``."""

    def __init__(self, capacity: int, a_second: int):
        self.capacity, self.a_second = capacity, a_second
        self._allowances: dict[str, Allowance] = {}

    def take(self, client: str, count: int, owe: bool = False) -> bool:
        """Take ``count`` of what a client may ask for; False where less is left.

        owe: as for ``Allowance.take``.
        """
        if client not in self._allowances:
            if len(self._allowances) >= MAX_CLIENTS:
                self._allowances.clear()
            self._allowances[client] = Allowance(self.capacity, self.a_second)
        return self._allowances[client].take(count, owe)


def client_of(session: str) -> str:
    """The client that a session belongs to, as ``hosts.client_of_address`` names it."""
    client = runtime.get_instance().get_client(session)
    address = client.client_context.remote_ip if client and client.client_context else None
    return hosts.client_of_address(address)
