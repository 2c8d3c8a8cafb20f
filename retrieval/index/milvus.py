"""Addresses of Milvus collections, and calls to a server that may not answer.

``pymilvus`` is imported at the first call, so that it is not needed for an index in a folder.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from retrieval import workers
from retrieval.errors import RetrievalError

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
MAX_HITS = 16_384  # rows of an answer, which is Milvus's own limit
MAX_FIELDS = 100  # columns of an answer or a description, where we have six
MAX_ANSWER = 10_000_000  # bytes of an answer; the client takes up to a hundred times the memory
MAX_PAUSE = 2000  # ms between two attempts to connect; gRPC's own grow to two minutes

_away: dict[str, float] = {}  # server → time until which it is not asked, as it did not answer
_end: ContextVar[float] = ContextVar("end", default=math.inf)  # of the requests of a call
# Server → s that a piece of work waited for it.
_waited: ContextVar[Mapping[str, float]] = ContextVar("waited", default=MappingProxyType({}))
_DAMAGE = AttributeError, LookupError, TypeError, ValueError  # of the client, by damaged answers
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
    library()
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
        _end.set(math.inf)
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
        _end.set(begun + left)
        try:
            return work(_client(address.server, os.environ.get(TOKEN, ""), left), left)
        except _DAMAGE as error:
            raise RetrievalError(
                f"An answer of the store {address} is damaged; export the index again."
            ) from error
        except _errors() as error:
            code = _code(error)
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


class AwayError(RetrievalError):
    """The server does not answer."""


class RefusedError(RetrievalError):
    """The server refuses a request; ``reason`` is its own text."""

    def __init__(self, address: Address, reason: str):
        super().__init__(f"The store {address} refuses: {reason}.")
        self.reason = reason


class AbsentError(RetrievalError):
    """There is no such collection."""


class NotLoadedError(RetrievalError):
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
    reason = str(getattr(error, "message", None) or _details(error)).strip().partition("\n")[0]
    token = os.environ.get(TOKEN, "")
    if token:
        reason = reason.replace(token, "…")
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or "auth" in reason.lower():
        return RetrievalError(f"The store {address} refuses the token in {TOKEN}, or wants one.")
    return RefusedError(address, reason[:300].rstrip(".?! "))


def _code(error: Exception) -> Any:
    """The code of an error: a number of Milvus, or the name of a gRPC status."""
    code = getattr(error, "code", None)
    code = code() if callable(code) else code
    return getattr(code, "name", code)


def _details(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)


@lru_cache(maxsize=1)
def library():
    """``pymilvus``. Raises RetrievalError with how to install it."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else gRPC writes to the terminal
    try:
        import pymilvus
    except ImportError as error:
        raise RetrievalError(
            'A store needs the client of Milvus: pip install "pymilvus>=2.6,<4"'
        ) from error
    # Besides raising errors, it writes their tracebacks to the terminal.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
    _limit_answers()
    return pymilvus


def _limit_answers() -> None:
    """Give the client only what is used of an answer, with at most MAX_HITS rows and MAX_FIELDS.

    The client makes objects for each row that an answer states, and a hostile one may state 10¹²
    rows; and for each field, of which a description of 10 MB may have five million.
    """
    from pymilvus.grpc_gen import milvus_pb2_grpc

    class Stub(milvus_pb2_grpc.MilvusServiceStub):
        def __init__(self, channel):
            super().__init__(channel)
            ask = dict(vars(self))
            for name in ("DescribeCollection", "Query", "Search", "LoadCollection"):
                ask[name] = _once(ask[name])
            self.LoadCollection = ask["LoadCollection"]
            self.GetLoadingProgress = _once(ask["GetLoadingProgress"])
            self.Search = lambda *args, **options: _hits(ask["Search"](*args, **options))
            self.Query = lambda *args, **options: _rows(ask["Query"](*args, **options))
            describing = ask["DescribeCollection"]
            self.DescribeCollection = lambda *args, **options: _short(describing(*args, **options))

    milvus_pb2_grpc.MilvusServiceStub = Stub


def _once(ask: Callable[..., T]) -> Callable[..., T]:
    """A request that is made once, and ends with the time of ``call``.

    The client itself repeats it and connects anew, for as many seconds each time, and all its other
    requests wait for that.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    @wraps(ask)
    def asked_once(*args: Any, **options: Any) -> T:
        if (end := _end.get()) < math.inf:
            options["timeout"] = max(end - time.monotonic(), 0.01)
        try:
            return ask(*args, **options)
        except grpc.RpcError as error:
            raise MilvusException(_code(error), _details(error)) from error

    return asked_once


def _hits(answer: Any) -> Any:
    """Only the keys and similarities of an answer to a search, of at most MAX_HITS rows."""
    results = answer.results
    reduced = type(results)(
        ids=results.ids,
        scores=results.scores,
        topks=[min(len(results.ids.int_id.data), MAX_HITS)],
        primary_field_name=results.primary_field_name,
    )
    return type(answer)(status=answer.status, results=reduced)


def _short(description: Any) -> Any:
    """A description with at most MAX_FIELDS fields, and of each as many parameters."""
    schema = description.schema
    del schema.fields[MAX_FIELDS:], schema.functions[:], schema.struct_array_fields[:]
    for field in schema.fields:
        del field.type_params[MAX_FIELDS:], field.index_params[MAX_FIELDS:]
    return description


def _rows(answer: Any) -> Any:
    """Only fields with at least a byte for each row, at most MAX_FIELDS; none where there are over
    MAX_HITS rows."""
    fields = [
        field
        for field in answer.fields_data[:MAX_FIELDS]
        if field.HasField("scalars") or field.vectors.HasField("float_vector")
    ]
    if any(_length(field) > MAX_HITS for field in fields):
        fields = []
    for field in fields:
        field.ClearField("valid_data")
    return type(answer)(status=answer.status, fields_data=fields)


def _length(field: Any) -> int:
    """The number of rows of a field."""
    if field.HasField("vectors"):
        return len(field.vectors.float_vector.data) // max(field.vectors.dim, 1)
    kind = field.scalars.WhichOneof("data")
    return len(getattr(field.scalars, kind).data) if kind else 0


def damage() -> tuple[type[Exception], ...]:
    """The exceptions that a damaged answer causes when it is read.

    The client decodes a row only when it is used, so its errors may also come after the call.
    """
    return *_DAMAGE, *_errors()


@lru_cache(maxsize=1)
def _errors() -> tuple[type[Exception], ...]:
    import grpc
    from pymilvus.exceptions import MilvusException

    return MilvusException, grpc.RpcError


@lru_cache(maxsize=16)
def _clients(server: str, token: str, process: int) -> list[MilvusClient]:
    """A list that ``_client`` fills with the client of a process; it is cached."""
    return []


def _client(server: str, token: str, timeout: float) -> MilvusClient:
    """The connection to a server: one for each process, made when it is first needed."""
    clients = _clients(server, token, os.getpid())
    if not clients:
        # The client sets the first without limit, with a str as key; one with bytes takes effect.
        limits = {
            b"grpc.max_receive_message_length": MAX_ANSWER,
            b"grpc.max_reconnect_backoff_ms": MAX_PAUSE,
        }
        clients.append(
            library().MilvusClient(server, token=token, timeout=timeout, grpc_options=limits)
        )
    return clients[0]


def load(address: Address, collection: str, patience: float) -> None:
    """Let the server load a collection into its memory, which may take minutes.

    Where it takes longer than ``patience`` seconds, the server goes on and AwayError is raised.
    """
    call(address, lambda client, time: client.load_collection(collection, timeout=time), patience)
