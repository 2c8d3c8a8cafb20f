"""Connections that keep us waiting are closed, so that they cannot keep others out."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from retrieval import chunks, hosts

HEADER_SECONDS = 10.0  # to send the header of a request
MOST = 400  # open connections; a process may have 1024 files by default


class Connection(H11Protocol):
    """uvicorn's, with a limit on their number and on the time for a header.

    Where there are too many, one goes of the client that has most of them, so that nobody keeps
    others out: the oldest that keeps us waiting, because it has not sent all of its request yet or
    takes its time to read the answer.
    """

    open: ClassVar[dict[Connection, None]] = {}  # oldest first
    timer: asyncio.TimerHandle | None = None  # while a header is missing

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        chunks.limit(self, transport)
        self.open[self] = None
        self._wait()
        if len(self.open) > MOST:
            most = Counter(one._who() for one in self.open).most_common(1)[0][0]
            theirs = [one for one in self.open if one._who() == most]
            next((one for one in theirs if one._waits_for_client()), theirs[0])._give_up()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self.timer is None:
            self._wait()

    def connection_lost(self, exc) -> None:
        self._stop_waiting()
        self.open.pop(self, None)
        super().connection_lost(exc)

    def _who(self) -> str:
        return hosts.client_at(self.client)

    def _waits_for_client(self) -> bool:
        """Whether it is not our turn: else we are at work on a request."""
        cycle = self.cycle
        return cycle is None or cycle.more_body or cycle.response_started

    def _wait(self) -> None:
        self.timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _give_up(self) -> None:
        self._stop_waiting()
        self.open.pop(self, None)
        if not self.transport.is_closing():
            self.transport.abort()
