"""The calls of the report's server, so that its client works with this one unchanged."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from pydantic import BaseModel

from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.index import Index
from retrieval.server import api, catalogue, guard

METHODS = {"0": "sir", "1": "cnn-irwnha", "2": "delf"}
RESULTS = 20
SIDE = 320  # pixels of the longer side of a result: twenty of them stay below 2 MB
BOX = ("x", "y", "x_max", "y_max")

FIELDS = {
    "type": "object",
    "required": ["image", "method"],
    "properties": {
        "image": {"type": "string", "description": "PNG or JPEG: a data URL, or bare base64"},
        "method": {"type": "string", "enum": list(METHODS), "description": "as in METHODS"},
        **{key: {"type": "string", "description": "pixels; all 0: everything"} for key in BOX},
    },
}
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
BODY = {"required": True, "content": {kind: {"schema": FIELDS} for kind in FORMS}}


class Item(BaseModel):
    """credit: author, licence and source, where they are known."""

    rank: int
    name: str
    score: float
    link: str
    credit: str = ""


class Results(BaseModel):
    """results: JPEGs in base64, best first; items: what each of them is."""

    results: list[str]
    items: list[Item]


def router(collection: str) -> APIRouter:
    """GET and POST at /; the searches go through ``collection``."""
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    async def root(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("docs")
        return PlainTextResponse("Image retrieval; every call is described at /docs.\n")

    @routes.post("/", openapi_extra={"requestBody": BODY})
    async def search(request: Request) -> Results:
        """Search as the report's client does: with 0 SIR, 1 CNN-IRwNHA, 2 DELF."""
        form = await request.form(max_files=1, max_fields=20, max_part_size=guard.MAX_FORM)
        fields = {}
        for key, value in form.items():
            fields[key] = value if isinstance(value, str) else await value.read()
        box, method = _box(fields), METHODS.get(_text(fields, "method"))
        if method is None:
            raise RetrievalError("The field method is 0 (SIR), 1 (CNN-IRwNHA) or 2 (DELF).")
        picture = _picture(fields.get("image", ""))

        def looked_up() -> Index:
            paths = catalogue.index_of_each_method(collection)
            if method not in paths:
                raise RetrievalError(f"There is no index for method {method} here.")
            return catalogue.ready_index(paths[method])

        index = await catalogue.in_turn(request, looked_up, catalogue.LOOKUP_WORKERS)
        return await catalogue.in_turn(request, lambda: _search(index, picture, box))

    return routes


def _search(index: Index, picture: bytes, box: Box | None) -> Results:
    ranking = catalogue.search(index, picture, "The picture", box, RESULTS)
    name = index.path.parent.name
    collection = catalogue.collection(name)
    jpegs = [api.jpeg(collection.path(result), SIDE) for result in ranking.names]
    return Results(
        results=[base64.b64encode(jpeg).decode() for jpeg in jpegs],
        items=[
            Item(
                rank=row["rank"],
                name=catalogue.as_text(row["name"]),
                score=row["score"],
                link=api.picture_address(name, row["name"]),
                credit=credit.line if (credit := collection.credits.get(row["name"])) else "",
            )
            for row in ranking.rows()
        ],
    )


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key, "")
    return value.strip() if isinstance(value, str) else ""


def _picture(field: str | bytes) -> bytes:
    """The bytes of a picture that came as a file, a data URL or bare base64.

    Raises RetrievalError for anything else.
    """
    if isinstance(field, bytes):
        return field
    if field.startswith("data:"):
        field = field.partition(",")[2]
    try:
        # A plus sign that was not escaped arrives as a blank.
        return base64.b64decode(field.strip().replace(" ", "+"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RetrievalError("The field image is no picture in base64.") from error


def _box(fields: dict[str, Any]) -> Box | None:
    """The box (x1, y1, x2, y2) in pixels; None for the whole picture.

    The report's client asks for the whole picture with four fields that are zero, empty or NaN, and
    after a click without a drag with a box of no size. Raises RetrievalError for other text.
    """
    try:
        x1, y1, x2, y2 = (float(_text(fields, key) or 0) for key in BOX)
    except ValueError as error:
        raise RetrievalError("The fields x, y, x_max and y_max are numbers of pixels.") from error
    is_empty = all(not value or math.isnan(value) for value in (x1, y1, x2, y2))
    if is_empty or (x1, y1) == (x2, y2):
        return None
    return x1, y1, x2, y2
