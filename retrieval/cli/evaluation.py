"""``evaluate``, ``ablate`` and ``reproduce``: score an index or rankings; the report's table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval import files, methods
from retrieval.cli.arguments import command, folder, place, then_argument
from retrieval.cli.output import Bar, check_output, print_table, printable, write_json, writing
from retrieval.collections import Collection, GroundTruth, open_collection, read_ground_truth
from retrieval.collections.ground_truth import note_on_own_pictures
from retrieval.errors import RetrievalError
from retrieval.evaluation import PROTOCOLS, evaluate

if TYPE_CHECKING:
    from retrieval.evaluation.runs import Run
    from retrieval.index import Index


MAX_SCORES = 20_000_000  # bytes of scores in JSON that may be replaced; ours have 700 a query


def add(commands) -> None:
    parser = command(commands, "evaluate", _evaluate, "score an index or given rankings")
    parser.add_argument(
        "index", type=place, nargs="?", metavar="INDEX", help="a folder, or the address of a store"
    )
    parser.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the index was made of"
    )
    parser.add_argument(
        "--protocol",
        action="append",
        choices=PROTOCOLS,
        help="may be given more than once; default: all there are labels for",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="scores of every query")
    parser.add_argument(
        "--ranks",
        metavar="FILE.npz[:KEY]",
        help="with INDEX: where to write the rankings; without: the rankings to "
        "score, database x queries, best first, zero-based; or arrays queries and database, one "
        "descriptor a row",
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        metavar="gnd_….pkl",
        help="what to score --ranks against (.pkl or .json)",
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="the file the index was made with")
    parser.add_argument(
        "--no-boxes",
        action="store_true",
        help="ask with whole pictures, and say what the boxes of the queries are worth",
    )
    then_argument(parser)

    ablate = command(commands, "ablate", _ablate, "what each step of SIR or CNN-IRwNHA is worth")
    ablate.add_argument("index", type=folder, metavar="INDEX")

    command(commands, "reproduce", _reproduce, "the report's table: measured here, and stated")


def _evaluate(args: argparse.Namespace) -> int:
    if args.index is None:
        return _evaluate_ranks(args)
    if args.ground_truth is not None:
        raise RetrievalError("Give either an index or --ranks with --ground-truth, not both.")
    if args.ranks and Path(args.ranks).is_file():
        raise RetrievalError(
            f"{args.ranks} is there already, and would be overwritten: with an index, --ranks says "
            "where to write its rankings. To score a file, give --collection in place of the index."
        )
    check_output(Path(args.ranks) if args.ranks else None, lambda path: False)
    check_output(args.json, _has_scores)
    from retrieval import index as indexes
    from retrieval.evaluation import runs
    from retrieval.index import finding

    index = indexes.load(args.index)
    collection = finding.collection_of(index, args.collection)
    needs_pictures = not index.brings_queries
    _check_evaluable(args.protocol, collection, needs_pictures)
    boxed = collection
    if args.no_boxes:
        if not needs_pictures or not collection.has_boxes:
            raise RetrievalError(
                "--no-boxes is for queries that are pictures with boxes: leave it out."
            )
        collection = collection.without_boxes()
    method = methods.for_index(index, args.checkpoint) if needs_pictures else None
    with Bar(len(collection.queries), "query") as bar:
        run = runs.evaluate_index(index, collection, method, bar.update, args.then)
    record = dict(run.record)
    if args.protocol:
        record["protocols"] = {name: record["protocols"][name] for name in args.protocol}
    write_json(args.json, record)
    if args.ranks:  # last: the same command is refused where this file is there
        with writing(Path(args.ranks)) as file:
            np.savez_compressed(file, ranks=run.ranks)
    protocols = list(record["protocols"])
    _print_run(run, protocols, index, collection, args.then)
    if args.then:
        alone = runs.evaluated(index, collection, method)
        _print_gains("the method alone", run, alone, protocols)
    if args.no_boxes:
        with_boxes = runs.evaluated(index, boxed, method, None, args.then)
        _print_gains("the boxes", run, with_boxes, protocols)
    seconds = ", ".join(
        f"{stage} {value:.3f} s" for stage, value in run.record["seconds_a_query"].items()
    )
    print(f"a query: {seconds}; kept in {index.path}", file=sys.stderr)
    return 0


def _print_run(
    run: Run, protocols: Sequence[str], index: Index, collection: Collection, then: Sequence[str]
) -> None:
    """Print what was evaluated, and the scores under these protocols."""
    text = (
        f"{collection.title}: {len(collection.queries)} queries, {len(index)} of "
        f"{len(collection)} pictures, {index.method} with {index.checkpoint}"
        + (f", search {index.search_stated}" if index.search != "exact" else "")
        + (f", then {', '.join(then)}" if then else "")
        + (", whole queries without their boxes" if collection.whole else "")
    )
    print(printable(text))
    _print_notes(collection)
    print_table({name: run.scores[name] for name in protocols})
    if run.note:
        print(f"note: {run.note}", file=sys.stderr)


def _print_gains(title: str, run: Run, baseline: Run, protocols: Sequence[str]) -> None:
    """Print by how many points the mAP of a run is above that of another."""
    gains = (
        f"{name} {100 * (run.scores[name].map - baseline.scores[name].map):+.2f}"
        for name in protocols
    )
    print(f"mAP against {title}: {', '.join(gains)}")


def _evaluate_ranks(args: argparse.Namespace) -> int:
    """Score rankings that were computed elsewhere."""
    from retrieval.evaluation import runs, submissions

    for option in ("no-boxes", "then", "checkpoint"):
        if getattr(args, option.replace("-", "_")):
            raise RetrievalError(f"--{option} is for an index: name one, or leave it out.")
    if not args.ranks or bool(args.ground_truth) == bool(args.collection):
        raise RetrievalError(
            "Give an index, or --ranks FILE.npz with --ground-truth FILE or --collection NAME."
        )
    check_output(args.json, _has_scores)
    truth = (
        read_ground_truth(args.ground_truth)
        if args.ground_truth
        else open_collection(args.collection)
    )
    path, key = args.ranks, None
    if not Path(path).exists() and ":" in path:
        path, _, key = path.rpartition(":")
    scores = evaluate(submissions.read_rankings(path, key, truth), truth, args.protocol)
    write_json(
        args.json,
        {
            "ranks": args.ranks,
            "ground_truth": str(args.ground_truth or args.collection),
            "labels_sha256": runs.labels_digest(truth.queries),
            "queries": [
                {"name": query.name, "box": query.box, "landmark": query.landmark}
                for query in truth.queries
            ],
            "protocols": {name: protocol.to_json() for name, protocol in scores.items()},
        },
    )
    print(f"{len(truth.queries)} queries, {len(truth.names)} pictures")
    _print_notes(truth)
    print_table(scores)
    return 0


def _print_notes(truth: Collection | GroundTruth) -> None:
    """Print what is to be known about labels before the scores are read."""
    positions = {name: n for n, name in enumerate(truth.names)}
    for note in (truth.note, note_on_own_pictures(positions, truth.queries)):
        if note:
            print(printable(note))


def _has_scores(path: Path) -> bool:
    """Whether a file is what ``evaluate --json`` writes."""
    content = files.read_json(path, MAX_SCORES)
    return isinstance(content, dict) and content.keys() >= {"queries", "protocols"}


def _check_evaluable(
    wanted: list[str] | None, collection: Collection, needs_pictures: bool
) -> None:
    """Raise RetrievalError for missing labels and query pictures, before minutes are spent."""
    if not collection.protocols and collection.queries:
        raise RetrievalError(
            f"No query of {collection.title} has a right picture in its ground truth, so nothing "
            "can be scored: name right pictures there. Judge, on the app's search page, marks them."
        )
    if not collection.protocols:
        raise RetrievalError(
            f"{collection.title} has no labelled queries to evaluate with: put a ground_truth.json "
            "beside its pictures. Judge, on the app's search page, can make one."
        )
    for protocol in wanted or ():
        if protocol not in collection.protocols:
            raise RetrievalError(
                f"{collection.title} has no labels for {protocol}; it has them for "
                f"{', '.join(collection.protocols)}."
            )
    for query in collection.queries if needs_pictures else ():
        if not collection.path(query.name).is_file():
            raise RetrievalError(
                f"The query picture {query.name} of {collection.title} is not on this machine; "
                "download the collection, or put the picture back."
            )


def _ablate(args: argparse.Namespace) -> None:
    from retrieval import index as indexes
    from retrieval.evaluation import ablation
    from retrieval.index import finding

    index = indexes.load(args.index)
    collection = finding.collection_of(index)
    with Bar(len(index) + len(collection.queries)) as bar:
        result = ablation.make(index, collection, methods.for_index(index), bar.update)
    print(f"kept in {index.path / ablation.FILE}", file=sys.stderr)
    title = printable(collection.title)
    if np.isnan(result.maps).all():
        print(
            f"{title} has no labels for {ablation.PROTOCOL}: only the page How it works uses this."
        )
        return
    print(f"{title}, {index.checkpoint}: mAP (Medium) in per cent")
    print(f"{'one scale':>16}{'no layer':>10}{'layer':>10}")
    for p, (without, with_layer) in zip(result.exponents, result.maps, strict=True):
        print(f"{f'p = {p:.3g}':>16}{100 * without:10.2f}{100 * with_layer:10.2f}")
    for count, value in enumerate(result.scale_maps, 1):
        print(f"{f'scales: {count}':>16}{'':10}{100 * value:10.2f}")


def _reproduce(args: argparse.Namespace) -> None:
    from retrieval.evaluation import reproduce

    for name, protocols in reproduce.COLLECTIONS.items():
        lines = reproduce.table(name)
        first, width = (
            max(len(getattr(line, key)) for line in lines) for key in ("method", "network")
        )
        print(f"{name}, mAP in per cent; seen: training pictures show landmarks of the queries")
        print(
            f"{'method':{first}}  {'origin':15}{'network; trained on':{width}}"
            + "".join(f"{p:>9}" for p in protocols)
            + "  seen"
        )
        for line in lines:
            numbers = "".join(
                f"{line.map[p]:9.2f}" if p in line.map else f"{'-':>9}" for p in protocols
            )
            text = f"{line.method:{first}}  {line.origin:15}{line.network:{width}}"
            print(printable(text + (line.note or f"{numbers}  {line.overlap}").rstrip()))
        if any(line.origin == reproduce.MEASURED and line.map for line in lines):
            print(open_collection(name).note)
        if not any(line.origin == reproduce.MEASURED for line in lines):
            print(f"nothing is measured here yet: python -m retrieval index {name} --method METHOD")
        print()
