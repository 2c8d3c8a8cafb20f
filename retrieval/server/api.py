"""The calls of this service: indexes, searches, pictures.

An upload is checked as everywhere (``images.read``). It is kept in memory until the answer.
"""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel

from retrieval import images
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.images import Source
from retrieval.index import Index
from retrieval.ranking.chain import RERANKERS, parse_chain
from retrieval.ranking.ranking import Ranking
from retrieval.server import catalogue

MAX_RESULTS = 1000  # of a search
MAX_SIDE = 2048  # pixels of the longer side of a picture that is sent
MAX_TEXT = 2_000_000  # letters of names, addresses and credits in an answer

router = APIRouter()


class Problem(BaseModel):
    """Why a request is refused, in one sentence."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be read"},
    401: {"model": Problem, "description": "The token is missing or wrong"},
    404: {"model": Problem, "description": "There is no such index, collection or picture"},
    408: {"model": Problem, "description": "The request came too slowly"},
    413: {"model": Problem, "description": "The request is too large"},
    422: {"model": Problem, "description": "Something in the request is wrong"},
    429: {"model": Problem, "description": "Too many requests wait: see Retry-After"},
    503: {"model": Problem, "description": "The service cannot answer now; try again later"},
}


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
    """A picture that was found.

    score: cosine, or inliers + votes for DELF; after re-rankers, that of the last of them.
    inliers: see ``ranking.geometry``; 0 also where geometry did not compare the picture.
    moved: places that re-ranking moved the picture up; below 0 for down.
    credit: author, licence and source, to be named wherever the picture is shown.
    """

    rank: int
    name: str
    score: float
    inliers: int | None = None
    moved: int | None = None
    picture: str
    credit: str | None = None


class Answer(BaseModel):
    """The answer to a search.

    provenance: index, weights and settings of the search. timings: seconds of each stage.
    confidence: its reason and level: sure, unsure, unchecked, or nothing where the query is blank
    or has no keypoints. notes: sentences about steps that were left out.
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
Top = Annotated[int, Query(ge=1, le=MAX_RESULTS, description="How many results")]
THEN = f"Re-rankers with commas between, or best: {', '.join(RERANKERS)}"
Then = Annotated[str, Query(description=THEN)]
WHERE = 'Only pictures whose metadata fit: landmark == "chapel"'
Where = Annotated[str, Query(description=WHERE, max_length=500)]


class Asked(NamedTuple):
    """What a search may ask for beside its picture, as the request has it."""

    box: str
    top: int
    then: str
    where: str


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the service is up. It loads nothing and never waits for searches."""
    return {"status": "ok"}


@router.get("/indexes")
async def list_indexes(request: Request) -> list[IndexInfo]:
    """The indexes on this machine; one that is damaged is left out."""
    return await catalogue.in_turn(request, _index_infos, catalogue.LOOKUP_WORKERS)


def _index_infos() -> list[IndexInfo]:
    infos = []
    folders = catalogue.index_folders()
    for name in folders:
        try:
            index = catalogue.open_index(name, folders)
        except HTTPException:
            continue
        infos.append(
            IndexInfo(
                id=name,
                collection=name.partition("/")[0],
                method=index.method,
                checkpoint=index.checkpoint,
                pictures=len(index),
                settings=index.settings,
                made=index.manifest["made"],
            )
        )
    return infos


@router.get("/indexes/{collection}/{checkpoint}/search", response_model_exclude_none=True)
async def search_by_name(
    request: Request,
    collection: str,
    checkpoint: str,
    name: str,
    box: BoxText = "",
    top: Top = 10,
    then: Then = "",
    where: Where = "",
) -> Answer:
    """Search with a picture of the collection: a database picture, or one of its queries."""

    def look_up() -> tuple[Index, Path]:
        index = catalogue.ready_index(f"{collection}/{checkpoint}")
        return index, catalogue.picture_path(catalogue.collection(collection), name)

    index, path = await catalogue.in_turn(request, look_up, catalogue.LOOKUP_WORKERS)
    return await _answer(request, index, path, name, Asked(box, top, then, where))


@router.post("/indexes/{collection}/{checkpoint}/search", response_model_exclude_none=True)
async def search_by_upload(
    request: Request,
    collection: str,
    checkpoint: str,
    picture: Annotated[UploadFile, File(description="JPEG, PNG, WebP, TIFF or HEIC")],
    box: Annotated[str, Form(description="x1,y1,x2,y2 in pixels")] = "",
    top: Annotated[int, Form(ge=1, le=MAX_RESULTS)] = 10,
    then: Annotated[str, Form(description=THEN)] = "",
    where: Annotated[str, Form(description=WHERE, max_length=500)] = "",
) -> Answer:
    """Search with a picture of your own."""
    index = await catalogue.in_turn(
        request,
        lambda: catalogue.ready_index(f"{collection}/{checkpoint}"),
        catalogue.LOOKUP_WORKERS,
    )
    name = catalogue.as_text(Path(picture.filename or "picture").name)
    return await _answer(request, index, picture.file, name, Asked(box, top, then, where))


@router.get(
    "/collections/{collection}/pictures/{name:path}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
async def picture(
    request: Request,
    collection: str,
    name: str,
    side: Annotated[int, Query(ge=16, le=MAX_SIDE)] = 1024,
) -> Response:
    """A picture of a collection as JPEG, its longer side at most ``side`` pixels."""

    def encode() -> bytes:
        return jpeg(catalogue.picture_path(catalogue.collection(collection), name), side)

    data = await catalogue.in_turn(request, encode, catalogue.PICTURE_WORKERS)
    return Response(data, media_type="image/jpeg")


def jpeg(path: Path, side: int) -> bytes:
    """A picture as JPEG, its longer side at most ``side`` pixels."""
    small, _ = images.thumbnail(path, side)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return data.getvalue()


def picture_address(collection: str, name: str) -> str:
    """The path of the call that sends a picture of a collection."""
    return f"/collections/{collection}/pictures/{quote(catalogue.as_text(name))}"


async def _answer(
    request: Request, index: Index, source: Source, name: str, asked: Asked
) -> Answer:
    box, chain = images.read_box(asked.box), parse_chain(asked.then)

    def search() -> tuple[Ranking, list[Result]]:
        ranking = catalogue.search(index, source, name, box, asked.top, chain, asked.where)
        return ranking, _results(ranking, catalogue.collection(index.path.parent.name))

    ranking, results = await catalogue.in_turn(request, search)
    assert ranking.confidence is not None
    named = {"collection": catalogue.as_text(ranking.provenance["collection"])}
    return Answer(
        query={"picture": name, "box": box},
        results=results,
        confidence=asdict(ranking.confidence),
        notes=ranking.notes,
        provenance=ranking.provenance | named,
        timings=ranking.timings,
    )


def _results(ranking: Ranking, collection: Collection) -> list[Result]:
    """Raises RetrievalError where names or credits, which may be a stranger's, are too long."""
    results, letters = [], 0
    for row in ranking.rows():
        credit = collection.credits.get(row["name"])
        line = credit.line if credit else None
        picture = picture_address(collection.name, row["name"])
        letters += len(row["name"]) + len(picture) + len(line or "")
        if letters > MAX_TEXT:
            raise RetrievalError(
                f"The names and credits of {len(ranking)} pictures are too long to be sent; ask "
                "for fewer."
            )
        row |= {"name": catalogue.as_text(row["name"]), "picture": picture}
        results.append(Result(**row, credit=line))
    return results
