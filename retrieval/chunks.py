"""Bodies of requests in tiny pieces, which keep a server in Python from everything else."""

from __future__ import annotations

import h11

SOME = 1000  # chunks of a body that may be tiny
LEAST = 512  # bytes that the others have on average
MAX_HEADER = 65_536  # bytes, as in uvicorn


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
