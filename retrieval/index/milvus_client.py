"""``pymilvus``, made safe for answers of a server that may be hostile, slow or away.

It is imported at the first call, so that it is not needed for an index in a folder.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

from retrieval.errors import RetrievalError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

T = TypeVar("T")

MAX_HITS = 16_384  # rows of an answer, which is Milvus's own limit
MAX_FIELDS = 100  # columns of an answer or a description, where we have six
MAX_ANSWER = 10_000_000  # bytes of an answer; the client takes up to a hundred times the memory
MAX_PAUSE = 2000  # ms between two attempts to connect; gRPC's own grow to two minutes
DAMAGE = AttributeError, LookupError, TypeError, ValueError  # of the client, by damaged answers

# When the requests of this thread end, on the clock of ``time.monotonic``.
END: ContextVar[float] = ContextVar("end", default=math.inf)


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


@lru_cache(maxsize=16)
def _clients(server: str, token: str, process: int) -> list[MilvusClient]:
    """A list for the client of a process: empty at first; ``connected`` puts the client in it."""
    return []


def connected(server: str, token: str, timeout: float) -> MilvusClient:
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


@lru_cache(maxsize=1)
def errors() -> tuple[type[Exception], ...]:
    """The exceptions of a request that failed."""
    import grpc
    from pymilvus.exceptions import MilvusException

    return MilvusException, grpc.RpcError


def damage() -> tuple[type[Exception], ...]:
    """The exceptions that a damaged answer causes when it is read.

    The client decodes a row only when it is used, so its errors may also come after the call.
    """
    return *DAMAGE, *errors()


def code_of(error: Exception) -> Any:
    """The code of an error: a number of Milvus, or the name of a gRPC status."""
    code = getattr(error, "code", None)
    code = code() if callable(code) else code
    return getattr(code, "name", code)


def details_of(error: Exception) -> str:
    """The server's own text."""
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)


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
    """A request that is made once, and ends with the time of ``milvus.call``.

    The client itself repeats it and connects anew, for as many seconds each time, and all its other
    requests wait for that.
    """
    import grpc
    from pymilvus.exceptions import MilvusException

    @wraps(ask)
    def asked_once(*args: Any, **options: Any) -> T:
        if (end := END.get()) < math.inf:
            options["timeout"] = max(end - time.monotonic(), 0.01)
        try:
            return ask(*args, **options)
        except grpc.RpcError as error:
            raise MilvusException(code_of(error), details_of(error)) from error

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
