"""Addresses of Milvus collections, and calls to a server that may not answer.

``milvus_client`` has the client that makes them.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from retrieval import workers
from retrieval.errors import RetrievalError
from retrieval.index import milvus_client

if TYPE_CHECKING:
    from pymilvus import MilvusClient

T = TypeVar("T")

STORES = "RETRIEVAL_STORE"  # addresses that the app and the service use in place of folders
TOKEN = "RETRIEVAL_STORE_TOKEN"  # "user:password" or an API key; never part of an address
PATIENCE = 10.0  # s that a search waits for a server that does not answer
QUICK_PATIENCE = 1.0  # s of these in a quick worker, for which other searches wait
LONG_PATIENCE = 120.0  # s that an export waits
ABSENT = 100  # Milvus: there is no such collection
NOT_LOADED = 101, 103  # Milvus: the collection is not in memory, or only in part
AWAY = 2  # Milvus and its client: no connection

_away: dict[str, float] = {}  # server → time until which it is not asked, as it did not answer
# Server → s that a piece of work waited for it.
_waited: ContextVar[Mapping[str, float]] = ContextVar("waited", default=MappingProxyType({}))
_ADDRESS = re.compile(
    r"milvus(?P<tls>\+tls)?://(?P<host>[\w.-]+|\[[0-9a-fA-F:.]+\])(:(?P<port>\d{1,5}))?"
    r"/(?P<collection>[A-Za-z_][A-Za-z0-9_]{0,199})",
    re.ASCII,
)


def is_address(where: object) -> bool:
    """Whether this is the address of a store, and not a folder."""
    return isinstance(where, str) and where.startswith(("milvus:/", "milvus+tls:/"))


@dataclass(frozen=True)
class Address:
    """``milvus://host:port/collection``, or ``milvus+tls://…`` for an encrypted connection."""

    host: str
    port: int
    collection: str
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises RetrievalError for any other text; its message never holds a password."""
        if "@" in text:
            raise RetrievalError(
                f"The address of a store holds no user and no password: put them into {TOKEN} as "
                "user:password."
            )
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match["port"] or 19530) > 65535:
            raise RetrievalError(
                f"{text} is no address of a store; one is milvus://host:19530/collection, with "
                "milvus+tls for an encrypted connection, and letters, digits and _ in the name."
            )
        port = int(match["port"] or 19530)
        return cls(match["host"], port, match["collection"], bool(match["tls"]))

    def __str__(self) -> str:
        scheme = "milvus+tls" if self.tls else "milvus"
        return f"{scheme}://{self.host}:{self.port}/{self.collection}"

    @property
    def server(self) -> str:
        """The server's address in the form that ``MilvusClient`` takes."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


def call(address: Address, work: Callable[[MilvusClient, float], T], patience: float) -> T:
    """The result of ``work(client, timeout)``, tried again while the server does not answer.

    work: must do no harm when it is done twice. patience: seconds, for all attempts together.
    Searches in slow workers hold up all other slow ones. So there the calls of a search to a server
    that take over QUICK_PATIENCE have ``patience`` together, and one that did not answer is not
    asked for as long again.
    Raises RetrievalError; see its subclasses in this module.
    """
    milvus_client.library()
    begun = time.monotonic()
    waited = 0.0
    if workers.in_slow_workers():
        waited = _waited.get().get(address.server, 0.0)
        if begun < _away.get(address.server, 0):
            raise AwayError(f"The store {address} did not answer a moment ago; try again later.")
    try:
        return _call(address, work, patience, begun + patience - waited)
    except AwayError:
        _away[address.server] = time.monotonic() + patience
        raise
    finally:
        milvus_client.END.set(math.inf)
        if (seconds := time.monotonic() - begun) > QUICK_PATIENCE:
            _waited.set({**_waited.get(), address.server: waited + seconds})


def _call(
    address: Address, work: Callable[[MilvusClient, float], T], patience: float, end: float
) -> T:
    pause = 0.1
    while True:
        left = max(end - time.monotonic(), 0.1)
        if workers.in_quick_workers():
            left = min(left, QUICK_PATIENCE)
        begun = time.monotonic()
        milvus_client.END.set(begun + left)
        try:
            token = os.environ.get(TOKEN, "")
            return work(milvus_client.connected(address.server, token, left), left)
        except milvus_client.DAMAGE as error:
            raise StoreError(
                f"An answer of the store {address} is damaged; export the index again."
            ) from error
        except milvus_client.errors() as error:
            code = milvus_client.code_of(error)
            # After a timeout the client may raise other errors, for example while loading.
            late = time.monotonic() - begun > 0.9 * left
            if late:
                workers.move_to_slow_workers()
            if late or code == "DEADLINE_EXCEEDED":
                raise AwayError(
                    f"The store {address} did not answer within {patience:g} s; try again later."
                ) from error
            if code not in (AWAY, "UNAVAILABLE"):
                raise _explained(address, error, code) from error
            if time.monotonic() + pause > end:
                how = " with TLS" if address.tls else ""
                raise AwayError(
                    f"The store {address} cannot be reached{how}: check that it runs and that the "
                    "address is right."
                ) from error
        # So that searches in other indexes do not wait for this server.
        workers.move_to_slow_workers()
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


class StoreError(RetrievalError):
    """Something that is for the owner of a store to mend, and nothing in what was asked."""


class AwayError(StoreError):
    """The server does not answer."""


class RefusedError(StoreError):
    """The server refuses a request; ``reason`` is its own text."""

    def __init__(self, address: Address, reason: str):
        super().__init__(f"The store {address} refuses: {reason}.")
        self.reason = reason


class AbsentError(StoreError):
    """There is no such collection."""


class NotLoadedError(StoreError):
    """The server has the collection, but not in its memory."""


def _explained(address: Address, error: Exception, code: object) -> RetrievalError:
    if code == ABSENT:
        return AbsentError(
            f"There is no index in {address}; put one there: python -m retrieval export INDEX "
            f"--store {address}"
        )
    if code in NOT_LOADED:
        return NotLoadedError(f"The store has not loaded {address}; try again.")
    # Only the first line: the others mark the position of the error in a filter.
    message = getattr(error, "message", None) or milvus_client.details_of(error)
    reason = str(message).strip().partition("\n")[0]
    token = os.environ.get(TOKEN, "")
    if token:
        reason = reason.replace(token, "…")
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or "auth" in reason.lower():
        return StoreError(f"The store {address} refuses the token in {TOKEN}, or wants one.")
    return RefusedError(address, reason[:300].rstrip(".?! "))


def load(address: Address, collection: str, patience: float) -> None:
    """Let the server load a collection into its memory, which may take minutes.

    Where it takes longer than ``patience`` seconds, the server goes on and AwayError is raised.
    """
    call(address, lambda client, time: client.load_collection(collection, timeout=time), patience)
