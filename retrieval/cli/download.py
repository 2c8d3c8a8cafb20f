"""``download``, ``checkpoints`` and ``methods``: what there is, and how it comes here."""

from __future__ import annotations

import argparse
from pathlib import Path

from retrieval import methods
from retrieval.cli.arguments import command, positive
from retrieval.cli.output import Bar, DownloadBar, print_table
from retrieval.collections import commons, data_folder, downloads, open_collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import published_descriptors as features
from retrieval.networks import checkpoints


def add(commands) -> None:
    command(commands, "methods", _methods, "list methods and their embedded checkpoints")
    command(commands, "checkpoints", _checkpoints, "list all weights and what is on disk")
    download = command(commands, "download", _download, "fetch a public collection or weights")
    download.add_argument(
        "name",
        metavar="NAME",
        help=", ".join([*downloads.SOURCES, *features.FEATURES])
        + ", commons, or a checkpoint: python -m retrieval checkpoints",
    )
    download.set_defaults(resumed=True, wrong_usage=download.error)
    photographs = download.add_argument_group(
        "commons", "photographs of landmarks from Wikimedia Commons, under free licences"
    )
    photographs.add_argument("--preset", choices=commons.PRESETS, help="a list of landmarks")
    photographs.add_argument(
        "--category", action="append", metavar="NAME", help="a landmark; may be given again"
    )
    photographs.add_argument(
        "--per", type=positive, metavar="N", help=f"photographs of each ({commons.Order.per})"
    )
    photographs.add_argument(
        "--depth", type=int, metavar="N", choices=range(4),
        help=f"how far down subcategories are looked into ({commons.Order.depth})",
    )  # fmt: skip
    photographs.add_argument(
        "--licence", action="append", choices=commons.LICENCES, help="only these; may be repeated"
    )
    photographs.add_argument(
        "--out", type=Path, metavar="FOLDER",
        help="where to put them; default of a preset: its place below RETRIEVAL_DATA",
    )  # fmt: skip
    photographs.add_argument(
        "--contact", metavar="ADDRESS",
        help="your e-mail or https address; Wikimedia wants one, it is sent nowhere else",
    )  # fmt: skip


def _methods(args: argparse.Namespace) -> None:
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
    ids = (checkpoint.id for checkpoint in checkpoints.of_method(methods.XFEAT.name))
    print(f"  {', '.join(ids)}")


def _checkpoints(args: argparse.Namespace) -> None:
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


def _download(args: argparse.Namespace) -> int:
    if args.name == "commons":
        return _commons(args)
    commons_options = ("preset", "category", "per", "depth", "licence", "out", "contact")
    if any(getattr(args, option) is not None for option in commons_options):
        args.wrong_usage("these options are for: download commons")
    if args.name in checkpoints.REGISTRY:
        with DownloadBar() as bar:
            checkpoints.download(checkpoints.REGISTRY[args.name], bar.update, bar.say)
        return 0
    if args.name not in features.FEATURES and args.name not in downloads.SOURCES:
        networks = [known.id for known in checkpoints.REGISTRY.values() if known.address]
        raise RetrievalError(
            f"There is no download {args.name!r}; there are "
            f"{', '.join([*downloads.SOURCES, 'commons', *features.FEATURES, *networks])}."
        )
    with DownloadBar() as bar:
        if args.name not in features.FEATURES:
            downloads.download(args.name, bar.update, bar.say)
            bar.say(open_collection(args.name).note)
            return 0
        run = features.download(args.name, bar.update, bar.say)
    agreement = features.agreement(args.name, run)
    print(f"{'mAP':10}{'here':>8}{'published':>11}")
    for protocol, (here, published, agrees) in agreement.items():
        print(f"{protocol:10}{here:8.2f}{published:11.2f}  {'agrees' if agrees else 'DIFFERS'}")
    print_table(run.scores)
    if not all(agrees for _, _, agrees in agreement.values()):
        raise RetrievalError("The scores do not agree with the published ones.")
    print("The scores agree with the published ones.")
    return 0


def _commons(args: argparse.Namespace) -> int:
    named = [name.removeprefix("Category:").replace("_", " ") for name in args.category or ()]
    categories = tuple(dict.fromkeys([*commons.PRESETS.get(args.preset, ()), *named]))
    if not categories:
        args.wrong_usage("name a --preset or a --category")
    if args.out is None and (args.preset is None or args.category):
        args.wrong_usage("photographs of your choice need a place: --out FOLDER")
    limits = {
        "per": args.per,
        "depth": args.depth,
        "licences": args.licence and tuple(args.licence),
    }
    order = commons.Order(
        categories, **{key: value for key, value in limits.items() if value is not None}
    )
    out = args.out or data_folder() / f"{args.preset}-commons"
    # Of two photographs whose descriptors are nearly equal, one is left out.
    describe = methods.load("cnn-irwnha").describe
    with Bar(order.pictures) as bar:
        collection = commons.download(order, out, args.contact or "", describe, bar.update, bar.say)
    name = f"{args.preset}-commons" if args.out is None else out
    print(
        f"{len(collection)} photographs and {len(collection.queries)} queries in {out}; authors "
        f"and licences in credits.csv\nnext: python -m retrieval index {name} --method cnn-irwnha"
        + ("" if args.out is None else " --out INDEX")
    )
    return 0


def download_missing(args: argparse.Namespace) -> None:
    """Download the collection and the weights that arguments name, where they are not here."""
    with DownloadBar() as bar:
        checkpoint = checkpoints.REGISTRY.get(args.checkpoint)
        if checkpoint is not None and not checkpoint.available:
            checkpoints.find(args.method, checkpoint.id)  # before it is fetched for nothing
            checkpoints.download(checkpoint, bar.update, bar.say)
        if args.collection in downloads.SOURCES:
            downloads.download(args.collection, bar.update, bar.say)
