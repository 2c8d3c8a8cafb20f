"""Requests in tiny pieces, which keep a server in Python from everything else."""

from __future__ import annotations

import contextlib
from asyncio import Transport

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SOME = 1000  # chunks of a body that may be tiny
LEAST = 512  # bytes that the others have on average
MAX_HEADER = 16_384  # bytes, as in Node: 100 of 64 kB, of empty lines, took 4 s
READ = 16_384  # bytes of one connection that are read before it is the turn of the next


class Connection(h11.Connection):
    """A server's of h11, which refuses bodies of tiny chunks.

    Each chunk takes 20 µs, and what has arrived is read in one go: 20 clients that sent chunks of
    one byte kept all others waiting for a quarter of a minute.
    """

    chunks = size = 0  # of the body that arrives

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEADER)

    def next_event(self):
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.chunks = self.size = 0
        elif isinstance(event, h11.Data) and event.chunk_start:
            self.chunks += 1
            self.size += len(event.data)
            if self.chunks > SOME + self.size / LEAST:
                raise h11.RemoteProtocolError("too many tiny chunks")
        return event


def limit(protocol: H11Protocol, transport: Transport) -> None:
    """Set these limits for a connection that was just made."""
    protocol.conn = Connection()
    with contextlib.suppress(AttributeError):  # only asyncio's own would read 256 kB
        setattr(transport, "max_size", READ)  # noqa: B010, mypy allows no assignment
