"""``index``, ``merge`` and ``info``: make an index, also of parts, and say what one is."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval import methods
from retrieval.cli.arguments import (
    command,
    folder,
    load_method,
    method_arguments,
    part,
    place,
    store,
)
from retrieval.cli.download import download_missing
from retrieval.cli.export import put_into
from retrieval.cli.output import Bar, index_size, print_table, printable
from retrieval.collections import PRECOMPUTED, Collection, registered, remote
from retrieval.errors import RetrievalError
from retrieval.index.approximate import KINDS
from retrieval.index.layout import EXACT
from retrieval.networks import checkpoints

if TYPE_CHECKING:
    import numpy as np

    from retrieval.index import Index
    from retrieval.index.builder import Describe
    from retrieval.index.layout import Part


def add(commands) -> None:
    index = command(commands, "index", _index, "describe every picture of a collection")
    index.add_argument(
        "collection",
        metavar="FOLDER",
        help="a folder, a name (town), a zip, or an address that fsspec reads: s3://bucket/folder",
    )
    method_arguments(index)
    index.add_argument(
        "--out",
        type=folder,
        metavar="INDEX",
        help="where to put it; default for collections with a name: precomputed/NAME/CHECKPOINT, "
        "and what has ground truth is evaluated",
    )
    index.add_argument(
        "--codebook", type=folder, metavar="INDEX", help="a DELF index whose visual words to use"
    )
    index.add_argument(
        "--verifier",
        choices=[methods.XFEAT.name],
        help="also keep the features that --then geometry checks pictures with, beside the index: "
        "33 kB a picture",
    )
    _search_argument(index)
    index.add_argument(
        "--part",
        type=part,
        metavar="3/8",
        help="describe the third of eight parts only, on a machine of a cluster; see merge",
    )
    index.add_argument(
        "--store", type=store, metavar="ADDRESS", help="also export it: milvus://host:19530/town"
    )
    index.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="let workers of Ray describe the pictures: local for those of this machine, auto or "
        "host:port for the cluster that it belongs to",
    )
    index.set_defaults(wrong_usage=index.error, resumed=True)

    merge = command(commands, "merge", _merge, "make one index of all parts of a collection")
    merge.add_argument("parts", type=folder, nargs="+", metavar="PART")
    merge.add_argument("--out", type=folder, required=True, metavar="INDEX")
    merge.add_argument(
        "--codebook", type=folder, metavar="INDEX", help="a DELF index whose visual words to use"
    )
    _search_argument(merge)

    info = command(commands, "info", _info, "check an index and say what it is")
    info.add_argument("index", type=place, metavar="INDEX")


def _search_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--search",
        choices=[EXACT, *KINDS],
        default=EXACT,
        help="how a method with one vector a picture searches: exact (the default, good for "
        "100,000 pictures), hnsw (a graph in memory) or ivfpq (codes of 64 bytes in memory)",
    )


def _index(args: argparse.Namespace) -> None:
    from retrieval.index import build
    from retrieval.index.finding import find_same
    from retrieval.ranking import verifiers

    codebook = _codebook(args.codebook, args.method == "delf")
    if args.part and (args.codebook or args.verifier or args.search != EXACT):
        args.wrong_usage("a part has no --codebook, --verifier or --search; merge has")
    if args.out is None and (
        args.part or args.collection not in {entry.name for entry in registered()}
    ):
        args.wrong_usage("the index of a folder or a part needs a place: --out INDEX")
    if args.store and (args.part or methods.METHODS[args.method].kind != "global"):
        args.wrong_usage("a store holds whole indexes with one vector a picture")
    download_missing(args)
    collection = remote.open_anywhere(args.collection)
    method = load_method(args)
    out = args.out or PRECOMPUTED / collection.name / method.checkpoint.id
    # It may have come with a stranger's index; a link that the user names is followed.
    if args.verifier and verifiers.target(out).is_symlink():
        raise RetrievalError(f"{verifiers.target(out)} is a link, which no build makes; delete it.")
    if collection.note:
        print(f"note: {printable(collection.note)}", file=sys.stderr)
    results = _results_beside(out)
    with Bar(len(collection.names)) as bar:
        index = build(
            collection,
            method,
            out,
            bar.update,
            codebook,
            find_same(method),
            part=args.part,
            search=args.search,
            describe=_describer(args.ray, method),
        )
    _print_built(index, out, results, args.part)
    if args.store:
        put_into(args.store, index, collection)
    if args.verifier:
        _build_keypoints(collection, verifiers.target(out))
    if args.out is None and collection.protocols:
        from retrieval.evaluation.runs import evaluated

        with Bar(len(collection.queries), "query") as bar:
            print_table(evaluated(index, collection, method, bar.update).scores)


def _describer(address: str | None, method: methods.Method) -> Describe:
    """What describes the pictures: this process, or workers of Ray at ``address``."""
    if address is None:
        from retrieval.index.describing import describe

        return describe
    from retrieval.index.cluster import describer

    return describer(address, partial(methods.load_record, method.checkpoint, **method.settings))


def _merge(args: argparse.Namespace) -> None:
    from retrieval.index import merge

    results = _results_beside(args.out)
    index = merge(args.parts, args.out, _codebook(args.codebook, True), args.search)
    _print_built(index, args.out, results)


def _codebook(path: Path | None, local: bool) -> np.ndarray | None:
    """The visual words (k, d) of another index; None without a path.

    local: whether they are for a DELF index. Raises RetrievalError where one of the two is none.
    """
    from retrieval.index import load

    if path is None:
        return None
    donor = load(path)
    if not local or donor.kind != "local":
        raise RetrievalError(
            "A codebook goes from one DELF index to another: name a DELF index with --codebook, "
            "and only with --method delf."
        )
    return donor.arrays["codebook"]


def _results_beside(out: Path) -> list[Path]:
    """The evaluations, the ablation and the groups of an index."""
    return sorted(
        path
        for pattern in ("evaluation*.json", "ablation.npz", "groups.npz")
        for path in out.glob(pattern)
    )


def _print_built(index: Index, out: Path, results: list[Path], part: Part | None = None) -> None:
    """Print what was built, which pictures are not in it, and which results are gone.

    results: ``_results_beside`` before the build. A changed index replaces the former one with all
    files beside it.
    """
    skipped = index.manifest["skipped"]
    for entry in skipped:
        print(printable(f"skipped {entry['name']}: {entry['reason']}"), file=sys.stderr)
    print(
        f"{len(index)} picture{'' if len(index) == 1 else 's'} in {out}"
        + (f", {part}" if part else "")
        + (f", {len(skipped)} skipped" if skipped else "")
        + f" ({index.manifest['seconds']:.0f} s, {index_size(index)})"
    )
    if gone := [path.name for path in results if not path.exists()]:
        deleted = printable(", ".join(gone))
        print(
            "note: the index has changed, so the results of the former one were deleted: "
            f"{deleted}. Compute them again with `evaluate`, `ablate` or `groups`.",
            file=sys.stderr,
        )
    if index.search != EXACT:
        print(f"approximate search: {index.search_stated} of exact search")


def _build_keypoints(collection: Collection, out: Path) -> None:
    """Build the index of XFeat keypoints that geometry reads beside another index."""
    from retrieval.index import build
    from retrieval.index.finding import find_same

    method = methods.load_record(checkpoints.of_method(methods.XFEAT.name)[0])
    with Bar(len(collection.names)) as bar:
        index = build(collection, method, out, bar.update, donors=find_same(method))
    print(
        f"keypoints of {len(index)} pictures in {out} "
        f"({index.manifest['seconds']:.0f} s, {index_size(index)})"
    )


def _info(args: argparse.Namespace) -> None:
    from retrieval import index as indexes

    index = indexes.load(args.index)
    manifest = index.manifest
    known = methods.METHODS | {methods.XFEAT.name: methods.XFEAT}
    rows = {
        "method": known[index.method].title if index.method in known else "?",
        "checkpoint": f"{index.checkpoint} (SHA-256 {manifest['checkpoint']['sha256'][:16]}…)",
        "collection": manifest["collection"]["name"],
        "pictures": len(index),
        "skipped": len(manifest["skipped"]),
        "descriptors": " × ".join(map(str, index.shape)),
        "settings": json.dumps(index.settings),
        "search": index.search_stated,
        "size": index_size(index),
        "made": f"{manifest['made']} in {manifest['seconds']} s",
        "with": ", ".join(f"{name} {value}" for name, value in manifest["versions"].items()),
        "checksums": "those of the exported index" if index.in_store else "all match",
    }
    for key, value in rows.items():
        print(printable(f"{key:12} {value}"))
    for entry in manifest["skipped"]:
        print(printable(f"{'skipped':12} {entry['name']}: {entry['reason']}"))
