"""Close connections whose client sends nothing, or has too many, so that others can connect."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from retrieval import hosts, request_limits

HEADER_SECONDS = 10.0  # to send the header of a request
COUNT_DELAY = 0.01  # s; by then the first request was read, which says for whom a proxy asks
MAX_CONNECTIONS = 400  # open connections
MAX_UNREAD = 256_000_000  # bytes of answers that clients have not read


class Connection(H11Protocol):
    """uvicorn's HTTP connection, with limits on their number and on the time for a header.

    Where there are too many, a connection of the client that has most of them is closed: the oldest
    that waits for its client (to send a request or to read an answer), or else the oldest. Where
    over MAX_UNREAD bytes wait to be read, the connection with most of them is closed, of the client
    with most of them.
    """

    # By client, oldest first: thousands may be made in a second.
    open: ClassVar[dict[str, dict[Connection, None]]] = {}
    timer: asyncio.TimerHandle | None = None  # while a header is missing
    key = ""  # the client; none before the connection counts

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        request_limits.limit_connection(self, transport)
        self._start_timer()
        # A proxy may make hundreds at once. Until their first requests are read, all of them seem
        # to be of one client.
        self.loop.call_later(COUNT_DELAY, self.loop.call_soon, self._count)

    def _count(self) -> None:
        if self not in self.connections:  # lost meanwhile
            return
        self.key = hosts.client_of_peer(self.scope["client"] if self.scope else self.client)
        self.open.setdefault(self.key, {})[self] = None
        if sum(map(len, self.open.values())) > MAX_CONNECTIONS:
            of_client = max(self.open.values(), key=len)
            waiting = (other for other in of_client if other._waits_for_client())
            next(waiting, next(iter(of_client)))._abort()
        self._limit_unread()  # its answer may have been sent before it counted

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
            self.loop.call_soon(self._move)  # once the client that a proxy states was read
        elif self.timer is None:
            self._start_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._limit_unread()

    def _limit_unread(self) -> None:
        if self._unread():
            by_client = {key: sum(map(Connection._unread, self.open[key])) for key in self.open}
            if sum(by_client.values()) > MAX_UNREAD:
                of_client = self.open[max(by_client, key=by_client.__getitem__)]
                max(of_client, key=Connection._unread)._abort()

    def _unread(self) -> int:
        """Bytes of answers that wait here until the client reads them."""
        return self.transport.get_write_buffer_size()

    def connection_lost(self, exc) -> None:
        self._stop_timer()
        self._forget()
        super().connection_lost(exc)

    def _move(self) -> None:
        """Count the connection of a proxy among those of the client for whom it asks."""
        key = hosts.client_of_peer(self.scope["client"])
        if key != self.key and self._forget():
            self.key = key
            self.open.setdefault(key, {})[self] = None

    def _waits_for_client(self) -> bool:
        """Whether the client has to send or to read something; else we work on its request."""
        cycle = self.cycle
        return cycle is None or cycle.more_body or cycle.response_started

    def _start_timer(self) -> None:
        self.timer = self.loop.call_later(HEADER_SECONDS, self._abort)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _forget(self) -> bool:
        """Do not count this connection any more. Returns whether it was counted."""
        of_client = self.open.get(self.key, {})
        was_open = self in of_client
        of_client.pop(self, None)
        if not of_client:
            self.open.pop(self.key, None)
        return was_open

    def _abort(self) -> None:
        self._stop_timer()
        self._forget()
        # Also where it is closing: it would wait until the client has read the answer.
        self.transport.abort()
