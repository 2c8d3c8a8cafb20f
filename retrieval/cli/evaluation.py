"""The parts of the command line that belong to evaluation: evaluate, download.

Each command is a pair of functions, one that adds its arguments and one that runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import PROTOCOLS, Scores


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", type=Path, nargs="?", metavar="INDEX")
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
        "score, database x queries, best first, zero-based",
    )
    parser.add_argument(
        "--ground-truth",
        type=Path,
        metavar="gnd_….pkl",
        help="what to score --ranks against (.pkl or .json)",
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="the file the index was made with")


def run_evaluate(args: argparse.Namespace) -> int:
    if args.index is None:
        return _evaluate_ranks(args)
    if args.ground_truth is not None:
        raise RetrievalError("Give either an index or --ranks with --ground-truth, not both.")
    from tqdm import tqdm

    from retrieval import index as indexes
    from retrieval import methods
    from retrieval.evaluation import runs

    index = indexes.load(args.index)
    collection = runs.collection_of(index, args.collection)
    # An index of published features brings the descriptors of its queries.
    needs_pictures = "queries_sha256" not in index.settings
    _check_early(args.protocol, collection, needs_pictures)
    method = methods.for_index(index, args.checkpoint) if needs_pictures else None
    # Silent where nobody watches, unless it takes long enough to wonder.
    with tqdm(total=len(collection.queries), unit="query", delay=1.0, disable=None) as bar:
        run = runs.run(index, collection, method, lambda done, total, name: bar.update())
    if args.ranks:
        with writing(Path(args.ranks)) as file:
            np.savez_compressed(file, ranks=run.ranks)
    record = dict(run.record)
    if args.protocol:
        record["protocols"] = {name: record["protocols"][name] for name in args.protocol}
    _write_json(args.json, record)
    print(
        f"{collection.title}: {len(collection.queries)} queries, {len(index)} of "
        f"{len(collection)} pictures, {index.method} with {index.checkpoint}"
    )
    print_table({name: run.scores[name] for name in record["protocols"]})
    seconds = ", ".join(
        f"{stage} {value:.3f} s" for stage, value in run.record["seconds_a_query"].items()
    )
    print(f"a query: {seconds}; kept in {index.path / 'evaluation.json'}", file=sys.stderr)
    return 0


def _evaluate_ranks(args: argparse.Namespace) -> int:
    """Score rankings that were computed elsewhere."""
    from retrieval.collections import open_collection
    from retrieval.collections.ground_truth import read_ground_truth
    from retrieval.evaluation import evaluate, runs

    if not args.ranks or bool(args.ground_truth) == bool(args.collection):
        raise RetrievalError(
            "Give an index, or --ranks FILE.npz with --ground-truth FILE or --collection NAME."
        )
    truth = (
        read_ground_truth(args.ground_truth)
        if args.ground_truth
        else open_collection(args.collection)
    )
    path, key = args.ranks, None
    if not Path(path).exists() and ":" in path:
        path, _, key = path.rpartition(":")
    scores = evaluate(runs.read_ranks(path, key), truth, args.protocol)
    _write_json(
        args.json,
        {
            "ranks": args.ranks,
            "ground_truth": str(args.ground_truth or args.collection),
            "labels_sha256": runs.labels_digest(truth.queries),
            "queries": [
                {"name": query.name, "box": query.box, "landmark": query.landmark}
                for query in truth.queries
            ],
            "protocols": {name: one.to_json() for name, one in scores.items()},
        },
    )
    print(f"{len(truth.queries)} queries, {len(truth.names)} pictures")
    print_table(scores)
    return 0


def add_download_arguments(parser: argparse.ArgumentParser) -> None:
    from retrieval.collections.downloads import SOURCES

    parser.add_argument(
        "name",
        metavar="NAME",
        help=", ".join([*SOURCES, "roxford5k-gem-features", "rparis6k-gem-features"])
        + ", or a checkpoint: python -m retrieval checkpoints",
    )


def run_download(args: argparse.Namespace) -> int:
    from retrieval.collections import downloads
    from retrieval.evaluation import published_descriptors as features
    from retrieval.networks import checkpoints

    if args.name in checkpoints.REGISTRY:
        with DownloadBar() as bar:
            checkpoints.download(checkpoints.REGISTRY[args.name], bar.update, bar.say)
        return 0
    if args.name not in features.FEATURES and args.name not in downloads.SOURCES:
        networks = [one.id for one in checkpoints.REGISTRY.values() if one.address]
        raise RetrievalError(
            f"There is no download {args.name!r}; there are "
            f"{', '.join([*downloads.SOURCES, *features.FEATURES, *networks])}."
        )
    with DownloadBar() as bar:
        if args.name not in features.FEATURES:
            downloads.download(args.name, bar.update, bar.say)
            return 0
        run = features.download(args.name, bar.update, bar.say)
    found = features.agreement(args.name, run)
    print(f"{'mAP':10}{'here':>8}{'published':>11}")
    for protocol, (here, published, agrees) in found.items():
        print(f"{protocol:10}{here:8.2f}{published:11.2f}  {'agrees' if agrees else 'DIFFERS'}")
    print_table(run.scores)
    if not all(agrees for _, _, agrees in found.values()):
        raise RetrievalError("The scores do not agree with the published ones.")
    print("The scores agree with the published ones.")
    return 0


def add_plot_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", type=Path, nargs="+", metavar="INDEX", help="evaluated ones")
    parser.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the indexes were made of"
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: medium, or classic")
    parser.add_argument(
        "--figure",
        choices=("queries", "curves", "distribution", "landmarks"),
        default="queries",
        help="default: AP of every query",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png or .svg")


def run_plot_evaluation(args: argparse.Namespace) -> int:
    from retrieval import index as indexes
    from retrieval.evaluation import runs
    from retrieval.figures import evaluation as plots

    kind = plots.format_of(args.out)
    scores, records = {}, []
    for path in args.index:
        index = indexes.load(path)
        collection = runs.collection_of(index, args.collection)
        run = runs.load_run(index, collection)
        if run is None:
            raise RetrievalError(
                f"{path} was not evaluated; run: python -m retrieval evaluate {path}"
            )
        protocol = args.protocol or ("medium" if "medium" in run.scores else "classic")
        if protocol not in run.scores:
            raise RetrievalError(f"{collection.title} has no labels for {protocol}.")
        scores[f"{index.method}, {index.checkpoint}"] = run.scores[protocol]
        records.append(run.record)
    if len({len(one.aps) for one in scores.values()}) > 1:
        raise RetrievalError("The indexes are of collections with different queries.")
    note = plots.provenance(collection.title, protocol, records)
    if args.figure == "queries":
        figure = plots.per_query(scores, collection.queries, note, "AP")
    elif args.figure == "landmarks":
        figure = plots.landmarks(scores, collection.queries, note)
    else:
        figure = getattr(plots, args.figure)(scores, note)
    with writing(args.out) as file:
        file.write(plots.encode(figure, kind))
    print(f"{len(scores)} indexes, {protocol}: {args.out}")
    return 0


def print_table(scores: Mapping[str, Scores]) -> None:
    ks = next(iter(scores.values())).ks
    print(f"{'protocol':10}{'queries':>8}{'mAP':>8}" + "".join(f"{f'mP@{k}':>8}" for k in ks))
    for protocol, one in scores.items():
        numbers = [one.map, *one.mp.values()]
        print(
            f"{protocol:10}{one.counted.sum():8}"
            + "".join(f"{100 * number:8.2f}" for number in numbers)
        )


def _check_early(wanted: list[str] | None, collection: Collection, needs_pictures: bool) -> None:
    """Refuse what cannot work before minutes are spent on the rankings."""
    if not collection.protocols:
        raise RetrievalError(f"{collection.title} has no labelled queries to evaluate with.")
    for protocol in wanted or ():
        if protocol not in collection.protocols:
            raise RetrievalError(
                f"{collection.title} has no labels for {protocol}; it has them for "
                f"{', '.join(collection.protocols)}."
            )
    for query in collection.queries if needs_pictures else ():
        if not collection.path(query.name).is_file():
            raise RetrievalError(
                f"The query picture {query.name} of {collection.title} is not on this machine."
            )


def _write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    if path is not None:
        with writing(path) as file:
            text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
            file.write(text.encode() + b"\n")


class writing:
    """A binary file that appears under its name when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.new = path, path.with_name(f"{path.name}.{os.getpid()}.new")

    def __enter__(self):
        try:
            self.file = open(self.new, "wb")
        except OSError as error:
            raise RetrievalError(
                f"{self.path} cannot be written: {error.strerror or error}."
            ) from error
        return self.file

    def __exit__(self, kind, error, trace) -> None:
        try:
            self.file.close()
            if error is None:
                os.replace(self.new, self.path)
        except OSError as problem:
            raise RetrievalError(
                f"{self.path} cannot be written: {problem.strerror or problem}."
            ) from problem
        finally:
            self.new.unlink(missing_ok=True)


class DownloadBar:
    """A progress bar a file, with rate and time left, on stderr."""

    def __init__(self) -> None:
        self.name, self.bar, self.here = None, None, 0

    def __enter__(self) -> DownloadBar:
        return self

    def __exit__(self, *error) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.name = self.bar = None

    def update(self, here: int, total: int | None, name: str) -> None:
        from tqdm import tqdm

        if name != self.name:
            self._close()
            self.name, self.here = name, here
            # initial: what was there before does not count as speed
            self.bar = tqdm(
                desc=name,
                total=total,
                initial=here,
                unit="B",
                unit_scale=True,
                delay=0.5,
                disable=None,
            )
        elif here < self.here:
            self.bar.reset(total)  # the server began again
            self.here = 0
        self.bar.update(here - self.here)
        self.here = here

    def say(self, text: str) -> None:
        self._close()
        print(text, flush=True)
