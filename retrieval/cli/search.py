"""``search`` and ``describe``: rank an index, and write features."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np

from retrieval import images, methods
from retrieval.cli.arguments import (
    box,
    command,
    load_method,
    method_arguments,
    place,
    positive,
    then_argument,
)
from retrieval.cli.output import Bar, check_output, printable, writing
from retrieval.errors import RetrievalError
from retrieval.methods.base import as_vector

if TYPE_CHECKING:
    from retrieval.ranking.ranking import Ranking


def add(commands) -> None:
    search = command(commands, "search", _search, "rank an index by likeness to a picture")
    search.add_argument(
        "index",
        type=place,
        metavar="INDEX",
        help="a folder: precomputed/town/gem-lite0; or a store: milvus://host:19530/town",
    )
    search.add_argument("picture", type=Path, metavar="PICTURE", help="a file to search with")
    search.add_argument("--box", type=box, metavar="X1,Y1,X2,Y2", help="crop, in pixels")
    search.add_argument("--top", type=positive, default=10, metavar="K", help="how many (10)")
    search.add_argument(
        "--verify",
        type=positive,
        metavar="N",
        help="pictures of DELF's shortlist that geometry verifies (100); as many as there are: "
        "exhaustive search",
    )
    search.add_argument(
        "--where",
        default="",
        metavar="FILTER",
        help="only pictures whose metadata fit, as 'landmark == \"chapel\"'",
    )
    search.add_argument("--checkpoint", metavar="FILE", help="the file the index was made with")
    then_argument(search)
    search.add_argument("--json", action="store_true", help="results, provenance and timings")

    describe = command(commands, "describe", _describe, "write the features of pictures")
    describe.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    method_arguments(describe)
    describe.add_argument(
        "--box",
        type=box,
        action="append",
        metavar="X1,Y1,X2,Y2",
        help="crop, in pixels; once for all pictures, or once a picture",
    )
    describe.add_argument("--out", type=Path, required=True, metavar="FILE.npz")


def _search(args: argparse.Namespace) -> None:
    from retrieval import index as indexes
    from retrieval.index.finding import collection_of
    from retrieval.ranking.search import SHORTLIST, rank_picture

    index = indexes.load(args.index)
    if args.verify and index.kind == "global":
        raise RetrievalError("--verify is for DELF: one vector a picture has no geometry.")
    data = images.read_bytes(args.picture, args.picture.name)
    picture = images.read(data, args.picture.name)
    method = methods.for_index(index, args.checkpoint)
    collection = None
    if args.then or args.where:
        with suppress(RetrievalError):  # the features of its pictures may lie beside the index
            collection = collection_of(index)
    own = index.name_of(data)
    ranking = rank_picture(
        index,
        method,
        picture,
        args.box,
        args.top,
        args.verify or SHORTLIST,
        args.then,
        collection=collection,
        own=own,
        where=args.where,
    )
    assert ranking.confidence is not None
    if args.json:
        answer = {
            "query": {"picture": str(args.picture), "box": args.box},
            "results": ranking.rows(),
            "confidence": asdict(ranking.confidence),
            "notes": ranking.notes,
            "provenance": ranking.provenance,
            "timings": {stage: round(value, 4) for stage, value in ranking.timings.items()},
        }
        print(json.dumps(answer, indent=1))
        return
    _print_ranking(ranking, own)
    seconds = ", ".join(f"{stage} {value:.2f} s" for stage, value in ranking.timings.items())
    search = "" if index.search == "exact" else f" ({index.search_stated})"
    print(f"{index.checkpoint} on {len(index)} pictures{search}: {seconds}", file=sys.stderr)
    print(f"{ranking.confidence.text}: {ranking.confidence.reason}", file=sys.stderr)


def _print_ranking(ranking: Ranking, own: str | None) -> None:
    """Print a line for each result. own: name of the query, where it is a picture of the index."""
    for result in ranking.rows():
        note = f"  {result['inliers']} inliers" if result.get("inliers") else ""
        if moved := result.get("moved"):
            note += f"  {'up' if moved > 0 else 'down'} {abs(moved)}"
        if result["name"] == own:  # it keeps its place and its score when others are re-ranked
            note += "  the query itself"
        print(printable(f"{result['rank']:4}  {result['score']:8.4f}  {result['name']}{note}"))
    for note in ranking.notes:
        print(f"note: {note}", file=sys.stderr)


def _has_features(path: Path) -> bool:
    """Whether a file is what ``describe`` writes."""
    with ZipFile(path) as file:
        return {"names.npy", "descriptors.npy"} <= set(file.namelist())


def _describe(args: argparse.Namespace) -> None:
    boxes = args.box or [None]
    if len(boxes) not in (1, len(args.pictures)):
        raise RetrievalError(
            f"Give --box once for all pictures or once for each: {len(boxes)} boxes, "
            f"{len(args.pictures)} pictures."
        )
    boxes = boxes * len(args.pictures) if len(boxes) == 1 else boxes
    check_output(args.out, _has_features)
    method = load_method(args)
    rows = []
    with Bar(len(args.pictures)) as bar:
        for done, (path, box) in enumerate(zip(args.pictures, boxes, strict=True), 1):
            rows.append(method.describe(images.read(path), box))
            bar.update(done, len(args.pictures), path.name)
    arrays = {"names": np.array([str(path) for path in args.pictures])}
    if method.kind == "global":
        arrays["descriptors"] = np.stack([as_vector(row) for row in rows])
    else:
        arrays["offsets"] = np.cumsum([0, *map(len, rows)])
        for key in ("keypoints", "scales", "scores", "descriptors"):
            arrays[key] = np.concatenate([getattr(row, key) for row in rows])
    with writing(args.out) as file:  # numpy would add .npz to a name
        np.savez(file, allow_pickle=False, **arrays)
    shape = " × ".join(map(str, arrays["descriptors"].shape))
    print(f"{shape} descriptors of {method.checkpoint.id} in {args.out}")
