"""The REST service: the same search for other clients. A thin door, like the command line.

``python -m retrieval serve``; every call is described at /docs, in OpenAPI at /openapi.json.
It serves the indexes below ``precomputed/`` and reads nothing else: what a client names is looked
up among them, never opened as a path. Uploads are checked as everywhere (``images.read``), live in
memory or in a temporary file, and are gone with the answer.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel

from retrieval import images, methods
from retrieval import index as indexes
from retrieval.collections import Collection
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.index import Index, store
from retrieval.ranking import search as search_module
from retrieval.ranking.chain import RERANKERS, parse_chain

MAX_UPLOAD = 50_000_000  # bytes of a request, the picture and what surrounds it
MOST = 1000  # results
LONGEST = 2048  # pixels of the longer side of a picture that is sent

# A search uses every core, so a second one at the same time would only slow both down.
_searching = threading.Lock()
_loading = threading.RLock()  # loading a method asks for its index


class IndexInfo(BaseModel):
    """An index that can be searched, at /indexes/{id}/search."""

    id: str
    collection: str
    method: str
    checkpoint: str
    pictures: int
    settings: dict[str, Any]
    made: str


class Result(BaseModel):
    """score: cosine, or inliers + votes for DELF. inliers: matches that agree on one map.

    moved: places up from where the method alone had it, where it was re-ranked.
    """

    rank: int
    name: str
    score: float
    inliers: int | None = None
    moved: int | None = None
    picture: str


class Answer(BaseModel):
    """provenance: what the numbers rest on. timings: seconds by stage.

    confidence: level (sure, unsure, nothing) and reason. notes: what could not be done.
    """

    query: dict[str, Any]
    results: list[Result]
    confidence: dict[str, str]
    notes: list[str]
    provenance: dict[str, Any]
    timings: dict[str, float]


BoxText = Annotated[
    str, Query(description="Part to search for: x1,y1,x2,y2 in pixels of the upright picture")
]
Top = Annotated[int, Query(ge=1, le=MOST, description="How many results")]
THEN = f"Re-rankers with commas between, or best: {', '.join(RERANKERS)}"
Then = Annotated[str, Query(description=THEN)]


def create() -> FastAPI:
    """The service, ready for uvicorn or any other ASGI server."""
    # The pages at /docs come from here, not from a server on the net.
    app = FastAPIOffline(
        title="Image retrieval",
        description="Search photographs by example with SIR, DELF and CNN-IRwNHA.",
    )
    app.add_middleware(_LimitedBody, most=MAX_UPLOAD)

    @app.exception_handler(RetrievalError)
    def explained(request: Request, error: RetrievalError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.get("/", include_in_schema=False)
    def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the service is up; loads nothing."""
        return {"status": "ok"}

    @app.get("/indexes")
    def list_indexes() -> list[IndexInfo]:
        """The indexes on this machine."""
        return [_info(path) for path in _shelf().values()]

    @app.get("/indexes/{collection}/{checkpoint}/search", response_model_exclude_none=True)
    def search_by_name(
        collection: str,
        checkpoint: str,
        name: str,
        box: BoxText = "",
        top: Top = 10,
        then: Then = "",
    ) -> Answer:
        """Search with a picture of the collection: a database picture, or one of its queries."""
        index, opened = _open(collection, checkpoint)
        data = images.read_bytes(_path(opened, name), name)
        return _answer(index, opened, data, box, top, then, name)

    @app.post("/indexes/{collection}/{checkpoint}/search", response_model_exclude_none=True)
    def search_by_upload(
        collection: str,
        checkpoint: str,
        picture: Annotated[UploadFile, File(description="JPEG, PNG, WebP, TIFF or HEIC")],
        box: Annotated[str, Form(description="x1,y1,x2,y2 in pixels")] = "",
        top: Annotated[int, Form(ge=1, le=MOST)] = 10,
        then: Annotated[str, Form(description=THEN)] = "",
    ) -> Answer:
        """Search with a picture of your own."""
        index, opened = _open(collection, checkpoint)
        name = Path(picture.filename or "picture").name
        data = images.read_bytes(picture.file, name)
        return _answer(index, opened, data, box, top, then, name)

    @app.get("/collections/{collection}/pictures/{name:path}", response_class=Response)
    def picture(
        collection: str, name: str, side: Annotated[int, Query(ge=16, le=LONGEST)] = 1024
    ) -> Response:
        """A picture of a collection as JPEG, its longer side at most ``side`` pixels."""
        found = images.read(_path(_collection(collection), name))
        found.thumbnail((side, side))
        data = io.BytesIO()
        found.save(data, "JPEG", quality=85)
        return Response(data.getvalue(), media_type="image/jpeg")

    return app


def run(host: str, port: int) -> None:
    """The command ``serve``."""
    import uvicorn

    uvicorn.run(create(), host=host, port=port)


def _shelf() -> dict[str, Path]:
    """id → folder of every index of a collection that can be opened here."""
    return {
        f"{entry.name}/{path.name}": path
        for entry in collections.registered()
        if entry.available
        for _, path in indexes.find_all(entry.name, store.PRECOMPUTED)
    }


def _info(path: Path) -> IndexInfo:
    index = _index(path, _stamp(path))
    return IndexInfo(
        id=f"{path.parent.name}/{path.name}",
        collection=path.parent.name,
        method=index.method,
        checkpoint=index.checkpoint,
        pictures=len(index),
        settings=index.settings,
        made=index.manifest["made"],
    )


def _open(collection: str, checkpoint: str) -> tuple[Index, Collection]:
    path = _shelf().get(f"{collection}/{checkpoint}")
    if path is None:
        raise HTTPException(404, f"There is no index {collection}/{checkpoint}; see /indexes.")
    return _index(path, _stamp(path)), _collection(collection)


def _collection(name: str) -> Collection:
    if name not in {entry.name for entry in collections.registered() if entry.available}:
        raise HTTPException(404, f"There is no collection {name}.")
    return collections.open_collection(name)


def _path(collection: Collection, name: str) -> Path:
    """File of a picture that the collection lists; nothing else is ever opened."""
    if name not in collection.names and name not in {query.name for query in collection.queries}:
        raise HTTPException(404, f"There is no picture {name} in {collection.name}.")
    return collection.path(name)


def _stamp(path: Path) -> int:
    """Another index in the same place is another index."""
    return (path / "manifest.json").stat().st_mtime_ns


def _once(load: Callable) -> Callable:
    """Cached, and loaded by one thread only where several ask at the same time."""
    cached = lru_cache(maxsize=8)(load)

    def loader(*key):
        with _loading:
            return cached(*key)

    return loader


@_once
def _index(path: Path, changed: int) -> Index:
    return indexes.load(path)


@_once
def _method(path: Path, changed: int) -> methods.Method:
    return methods.for_index(_index(path, changed))


def _answer(
    index: Index, opened: Collection, data: bytes, box: str, top: int, then: str, name: str
) -> Answer:
    area, chain = _box(box), parse_chain(then)
    picture = images.read(data, name)
    method = _method(index.path, _stamp(index.path))
    with _searching:
        ranking = search_module.rank_picture(
            index,
            method,
            picture,
            area,
            top,
            then=chain,
            collection=opened,
            own=index.name_of(data),
        )
    assert ranking.confidence is not None
    collection = ranking.provenance["collection"]
    return Answer(
        query={"picture": name, "box": area},
        results=[
            Result(**row, picture=f"/collections/{collection}/pictures/{quote(row['name'])}")
            for row in ranking.rows()
        ],
        confidence=asdict(ranking.confidence),
        notes=ranking.notes,
        provenance=ranking.provenance,
        timings=ranking.timings,
    )


def _box(text: str) -> Box | None:
    if not text.strip():
        return None
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError as error:
        raise RetrievalError("A box is four numbers in pixels: x1,y1,x2,y2.") from error
    return x1, y1, x2, y2


class _LimitedBody:
    """Refuses a request whose body is longer than ``most`` bytes, before it fills the disk."""

    def __init__(self, app, most: int):
        self.app, self.most = app, most

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = 0

        async def counted():
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.most:
                text = f"A request may have {self.most // 1_000_000} MB; send a smaller picture."
                raise HTTPException(413, text)
            return message

        await self.app(scope, counted, send)
