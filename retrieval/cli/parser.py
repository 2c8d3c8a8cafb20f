"""The command line: a thin door to the same functions that the pages call.

Exit codes: 0 done, 1 something the user can put right (one sentence on stderr), 2 wrong usage,
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval import images, methods
from retrieval.cli.evaluation import (
    DownloadBar,
    add_download_arguments,
    add_evaluate_arguments,
    print_table,
    run_download,
    run_evaluate,
)
from retrieval.cli.plot import add_plot_arguments, run_plot
from retrieval.collections import open_collection, registered
from retrieval.errors import RetrievalError
from retrieval.images import Box
from retrieval.networks import checkpoints


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(_join_boxes(sys.argv[1:] if argv is None else argv))
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be text, and not every terminal has every letter.
        if hasattr(stream, "reconfigure"):  # not where a caller catches the output
            stream.reconfigure(errors="backslashreplace")
    try:
        return args.run(args) or 0
    except RetrievalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = " What is finished is kept: the same command goes on."
        print("Stopped." + (kept if args.run in RESUMED else ""), file=sys.stderr)
        return 130
    except BrokenPipeError:  # … | head
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retrieval",
        description="Search photographs by example with SIR, DELF and CNN-IRwNHA.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    index = _command(commands, "index", _index, "describe every picture of a collection")
    index.add_argument("collection", metavar="FOLDER", help="a folder, or a name: town")
    _method_arguments(index)
    index.add_argument(
        "--out", type=Path, metavar="INDEX",
        help="where to put it; default for collections with a name: precomputed/NAME/CHECKPOINT, "
        "and what has ground truth is evaluated",
    )  # fmt: skip
    index.add_argument(
        "--codebook", type=Path, metavar="INDEX", help="a DELF index whose visual words to use"
    )
    index.set_defaults(wrong_usage=index.error)

    search = _command(commands, "search", _search, "rank an index by likeness to a picture")
    search.add_argument(
        "index", type=Path, metavar="INDEX", help="a folder: precomputed/town/gem-lite0"
    )
    search.add_argument("picture", type=Path, metavar="PICTURE", help="a file to search with")
    search.add_argument("--box", type=_box, metavar="X1,Y1,X2,Y2", help="crop, in pixels")
    search.add_argument("--top", type=_positive, default=10, metavar="K", help="how many (10)")
    search.add_argument(
        "--verify", type=_positive, metavar="N",
        help="pictures of DELF's shortlist that geometry verifies (100); as many as there are: "
        "exhaustive search",
    )  # fmt: skip
    search.add_argument("--checkpoint", metavar="FILE", help="the file the index was made with")
    search.add_argument("--json", action="store_true", help="results, provenance and timings")

    describe = _command(commands, "describe", _describe, "write the features of pictures")
    describe.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    _method_arguments(describe)
    describe.add_argument(
        "--box", type=_box, action="append", metavar="X1,Y1,X2,Y2",
        help="crop, in pixels; once for all pictures, or once a picture",
    )  # fmt: skip
    describe.add_argument("--out", type=Path, required=True, metavar="FILE.npz")

    info = _command(commands, "info", _info, "check an index and say what it is")
    info.add_argument("index", type=Path, metavar="INDEX")

    _command(commands, "methods", _methods, "list methods and their embedded checkpoints")

    _command(commands, "checkpoints", _checkpoints, "list all weights and what is on disk")

    fit = _command(commands, "fit", _fit, "fit the heads of checkpoints that need one, no labels")
    fit.add_argument("collection", metavar="FOLDER")
    fit.add_argument("--method", required=True, choices=methods.METHODS)
    fit.add_argument("--checkpoint", metavar="ID", help="default: the embedded one")

    train = _command(commands, "train", _train, "train CNN-IRwNHA on a collection, no labels")
    train.add_argument("collection", metavar="FOLDER", help="a folder, or a name: roxford5k")
    train.add_argument("--out", type=Path, required=True, metavar="FILE.pth")
    train.add_argument(
        "--checkpoint", metavar="ID or FILE", help="to start from; default: gem-lite0-imagenet"
    )
    train.add_argument("--epochs", type=_positive, default=4, metavar="N", help="(4)")

    evaluate = _command(commands, "evaluate", run_evaluate, "score an index or given rankings")
    add_evaluate_arguments(evaluate)

    download = _command(commands, "download", run_download, "fetch a public collection or weights")
    add_download_arguments(download)

    plot = _command(commands, "plot", run_plot, "draw keypoints or matches as PNG or SVG")
    add_plot_arguments(plot, _box, _positive)

    serve = _command(commands, "serve", _serve, "the REST service: this search for other clients")
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    serve.add_argument("--port", type=_positive, default=8000)

    _command(commands, "reproduce", _reproduce, "the report's table: measured here, and stated")

    bench = commands.add_parser("bench", help="measure speed on this machine").add_subparsers(
        required=True, metavar="WHAT"
    )
    _command(bench, "extract", _bench_extract, "extraction, beside the plain loop of PyTorch")
    _command(bench, "evaluation", _bench_evaluation, "scoring, beside a plain loop")
    local = _command(bench, "delf", _bench_delf, "DELF's search, beside the report's procedure")
    local.add_argument(
        "index", type=Path, nargs="?", metavar="INDEX", help="a DELF index; default: of town"
    )
    local.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the index was made of"
    )
    return parser


def _command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _method_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", required=True, choices=methods.METHODS)
    parser.add_argument("--checkpoint", metavar="ID or FILE", help="default: the embedded one")
    parser.add_argument("--size", type=_positive, metavar="PX", help="longer side, at most")
    parser.add_argument("--scales", type=_numbers, metavar="1,1.4142,0.7071")
    parser.add_argument("--keypoints", type=_positive, metavar="N", help="of DELF, at most")


def _load_method(args):
    settings = {key: getattr(args, key) for key in ("size", "scales", "keypoints")}
    given = {key: value for key, value in settings.items() if value is not None}
    return methods.load(args.method, args.checkpoint, **given)


def _index(args) -> None:
    from retrieval.index import build, load
    from retrieval.index.store import PRECOMPUTED, find_same

    codebook = None
    if args.codebook:
        donor = load(args.codebook)
        if args.method != "delf" or donor.kind != "local":
            raise RetrievalError("A codebook goes from one DELF index to another.")
        codebook = donor.arrays["codebook"]
    if args.out is None and args.collection not in {entry.name for entry in registered()}:
        args.wrong_usage("the index of a folder needs a place: --out INDEX")
    _bring(args)
    collection = open_collection(args.collection)
    method = _load_method(args)
    out = args.out or PRECOMPUTED / collection.name / method.checkpoint.id
    with _Bar(len(collection.names)) as bar:
        index = build(collection, method, out, bar.update, codebook, find_same(method, PRECOMPUTED))
    skipped = index.manifest["skipped"]
    for entry in skipped:
        print(f"skipped {entry['name']}: {entry['reason']}", file=sys.stderr)
    print(
        f"{len(index)} pictures in {out}"
        + (f", {len(skipped)} skipped" if skipped else "")
        + f" ({index.manifest['seconds']:.0f} s, {_size(index)})"
    )
    if args.out is None and collection.protocols:
        from retrieval.evaluation.report import evaluated

        with _Bar(len(collection.queries), "query") as bar:
            print_table(evaluated(index, collection, method, bar.update).scores)


def _bring(args) -> None:
    """Download what is asked for by name and not here: pictures, labels, weights."""
    from retrieval.collections import downloads

    with DownloadBar() as bar:
        checkpoint = checkpoints.REGISTRY.get(args.checkpoint)
        if checkpoint is not None and not checkpoint.available:
            checkpoints.find(args.method, checkpoint.id)  # before it is fetched for nothing
            checkpoints.download(checkpoint, bar.update, bar.say)
        if args.collection in downloads.SOURCES:
            downloads.download(args.collection, bar.update, bar.say)


def _search(args) -> None:
    from retrieval import index as indexes
    from retrieval.ranking.search import SHORTLIST, search

    index = indexes.load(args.index)
    if args.verify and index.kind == "global":
        raise RetrievalError("--verify is for DELF: one vector a picture has no geometry.")
    picture = images.read(args.picture)
    method = methods.for_index(index, args.checkpoint)
    verify = args.verify or SHORTLIST
    ranking = search(index, method, picture, args.box, args.top, verify)
    results = ranking.rows()
    if args.json:
        answer = {
            "query": {"picture": str(args.picture), "box": args.box},
            "results": results,
            "provenance": ranking.provenance,
            "timings": {stage: round(value, 4) for stage, value in ranking.timings.items()},
        }
        print(json.dumps(answer, indent=1))
        return
    for result in results:
        note = f"  {result['inliers']} inliers" if "inliers" in result else ""
        print(f"{result['rank']:4}  {result['score']:8.4f}  {result['name']}{note}")
    spent = ", ".join(f"{stage} {value:.2f} s" for stage, value in ranking.timings.items())
    print(f"{index.checkpoint} on {len(index)} pictures: {spent}", file=sys.stderr)


def _describe(args) -> None:
    boxes = args.box or [None]
    if len(boxes) not in (1, len(args.pictures)):
        raise RetrievalError(
            f"Give --box once for all pictures or once for each: {len(boxes)} boxes, "
            f"{len(args.pictures)} pictures."
        )
    boxes = boxes * len(args.pictures) if len(boxes) == 1 else boxes
    if not args.out.parent.is_dir():
        raise RetrievalError(f"There is no folder {args.out.parent} to write to.")
    method = _load_method(args)
    rows = []
    with _Bar(len(args.pictures)) as bar:
        for done, (path, box) in enumerate(zip(args.pictures, boxes, strict=True), 1):
            rows.append(method.describe(images.read(path), box))
            bar.update(done, len(args.pictures), path.name)
    arrays = {"names": np.array([str(path) for path in args.pictures])}
    if method.kind == "global":
        arrays["descriptors"] = np.stack(rows)
    else:
        arrays["offsets"] = np.cumsum([0, *map(len, rows)])
        for key in ("keypoints", "scales", "scores", "descriptors"):
            arrays[key] = np.concatenate([getattr(row, key) for row in rows])
    try:
        with open(args.out, "wb") as file:  # a file object: numpy would add .npz to a name
            np.savez(file, **arrays)
    except OSError as error:
        raise RetrievalError(
            f"{args.out} cannot be written: {error.strerror or 'the disk is full'}."
        ) from error
    shape = " × ".join(map(str, arrays["descriptors"].shape))
    print(f"{shape} descriptors of {method.checkpoint.id} in {args.out}")


def _info(args) -> None:
    from retrieval import index as indexes

    index = indexes.load(args.index)
    manifest = index.manifest
    rows = {
        "method": methods.METHODS[index.method].title if index.method in methods.METHODS else "?",
        "checkpoint": f"{index.checkpoint} (SHA-256 {manifest['checkpoint']['sha256'][:16]}…)",
        "collection": manifest["collection"]["name"],
        "pictures": len(index),
        "skipped": len(manifest["skipped"]),
        "descriptors": " × ".join(map(str, index.arrays["descriptors"].shape)),
        "settings": json.dumps(index.settings),
        "size": _size(index),
        "made": f"{manifest['made']} in {manifest['seconds']} s",
        "with": ", ".join(f"{name} {value}" for name, value in manifest["versions"].items()),
        "checksums": "all match",
    }
    for key, value in rows.items():
        print(f"{key:12} {value}")
    for entry in manifest["skipped"]:
        print(f"{'skipped':12} {entry['name']}: {entry['reason']}")


def _methods(args) -> None:
    for entry in methods.METHODS.values():
        print(f"{entry.name}: {entry.title}. {entry.summary}\n  {entry.paper}")
        checkpoint, *others = checkpoints.of_method(entry.name)
        print(f"  {checkpoint.id} (default): {checkpoint.title}")
        print(f"    stands in for: {checkpoint.stands_in_for}")
        print(f"    trained on: {checkpoint.trained_on}; licence: {checkpoint.licence}")
        if others:
            print(f"  others: {', '.join(other.id for other in others)}")
    print(f"To check what a method found: {methods.XFEAT.title}. {methods.XFEAT.summary}")
    print(f"  {methods.XFEAT.paper}")
    print(f"  {', '.join(one.id for one in checkpoints.of_method(methods.XFEAT.name))}")


def _checkpoints(args) -> None:
    for checkpoint in checkpoints.REGISTRY.values():
        where = f"not here, {checkpoint.size_text}"
        if checkpoint.available:
            where = "on disk" if checkpoint.address else "installed"
        print(f"{checkpoint.id} ({where}): {checkpoint.method}, {checkpoint.title}")
        print(f"    trained on: {checkpoint.trained_on}")
        print(f"    overlap with test landmarks: {checkpoint.overlap}")
        print(f"    licence: {checkpoint.licence}")
        print(f"    from: {checkpoint.address or checkpoint.source}")
        print(f"    SHA-256: {checkpoint.weights_sha256 or 'not stated'}")
        for collection, scores in checkpoint.published.items():
            numbers = ", ".join(f"{protocol} {value}" for protocol, value in scores.items())
            print(f"    published mAP on {collection}: {numbers} ({checkpoint.source})")


def _fit(args) -> None:
    from retrieval.training import heads

    heads.check(args.method, args.checkpoint)  # before anything is fetched for nothing
    _bring(args)
    collection = open_collection(args.collection)
    with _Bar(len(collection.names)) as bar:
        path = heads.fit(args.method, collection, bar.update, args.checkpoint)
    record = json.loads(path.with_suffix(".json").read_text("utf-8"))
    print(f"fitted on {record['pictures']} pictures: {path}")
    if isinstance(record.get("attention"), str):
        print(f"its attention is {record['attention']}")


def _train(args) -> None:
    args.method = "cnn-irwnha"
    _bring(args)
    collection = open_collection(args.collection)
    from retrieval.training import siamese

    with _Bar(len(collection.names)) as bar:
        path = siamese.train(
            collection, args.out, args.checkpoint, args.epochs, bar.update, bar.say
        )
    print(f"trained: {path}; use it with --method cnn-irwnha --checkpoint {path}")


def _serve(args) -> None:
    from retrieval import server

    server.run(args.host, args.port)


def _reproduce(args) -> int:
    from retrieval.evaluation import report as reproduce

    return reproduce.run()


def _bench_extract(args) -> int:
    from retrieval.benchmarks import extraction

    return extraction.run()


def _bench_evaluation(args) -> None:
    from retrieval.benchmarks import evaluation

    evaluation.run()


def _bench_delf(args) -> None:
    from retrieval.benchmarks import local

    with _Bar(0, "picture") as bar:
        local.run(args.index, args.collection, bar.update)


def _size(index) -> str:
    from retrieval.index.store import human_bytes

    return human_bytes(sum(file["bytes"] for file in index.manifest["files"].values()))


RESUMED = (_index, _train, run_download)  # commands that go on where they were stopped


class _Bar:
    """A progress bar with rate and time left, on stderr, as the ``progress`` of a build."""

    def __init__(self, total: int, unit: str = "picture"):
        from tqdm import tqdm

        # Silent where nobody watches, unless it takes long enough to wonder.
        self.tqdm = tqdm(total=total, unit=unit, delay=1.0, disable=None)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error) -> None:
        self.tqdm.close()

    def update(self, done: int, total: int, name: str) -> None:
        if done < self.tqdm.n:  # the next stage
            self.tqdm.reset(total)
        self.tqdm.total = total
        self.tqdm.update(done - self.tqdm.n)

    def say(self, text: str) -> None:
        self.tqdm.clear()
        print(text, flush=True)


def _join_boxes(argv: Sequence[str]) -> list[str]:
    """``--box -5,0,9,9`` as ``--box=-5,0,9,9``: argparse would take it for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--box":
            joined[-1] = f"--box={word}"
        else:
            joined.append(word)
    return joined


def _box(text: str) -> Box:
    values = _numbers(text)
    if len(values) != 4:
        raise argparse.ArgumentTypeError("a box is four numbers: x1,y1,x2,y2")
    return tuple(values)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from None


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value
