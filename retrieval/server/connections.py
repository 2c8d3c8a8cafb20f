"""Connections that ask for nothing are closed, so that they cannot keep others out."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # to send the header of a request
MOST = 400  # open connections; a process may have 1024 files by default


class Connection(H11Protocol):
    """uvicorn's, with a limit on the time and the number of those that wait for a header."""

    waiting: ClassVar[dict[Connection, asyncio.TimerHandle]] = {}  # oldest first

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MOST and self.waiting:
            next(iter(self.waiting))._give_up()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self not in self.waiting:
            self._wait()

    def connection_lost(self, exc) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self.waiting[self] = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self in self.waiting:
            self.waiting.pop(self).cancel()

    def _give_up(self) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.close()
