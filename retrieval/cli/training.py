"""``fit`` and ``train``: learn what a checkpoint adds to its trunk."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from retrieval import methods
from retrieval.cli.arguments import command, positive
from retrieval.cli.download import bring
from retrieval.cli.output import Bar
from retrieval.collections import open_collection


def add(commands) -> None:
    fit = command(commands, "fit", _fit, "fit the heads of checkpoints that need one, no labels")
    fit.add_argument("collection", metavar="FOLDER")
    fit.add_argument("--method", required=True, choices=methods.METHODS)
    fit.add_argument("--checkpoint", metavar="ID", help="default: the embedded one")

    train = command(commands, "train", _train, "train CNN-IRwNHA on a collection, no labels")
    train.add_argument("collection", metavar="FOLDER", help="a folder, or a name: roxford5k")
    train.add_argument("--out", type=Path, required=True, metavar="FILE.pth")
    train.add_argument(
        "--checkpoint", metavar="ID or FILE", help="to start from; default: gem-lite0-imagenet"
    )
    train.add_argument("--epochs", type=positive, metavar="N", help="default: 4")
    train.set_defaults(resumed=True)


def _fit(args: argparse.Namespace) -> None:
    from retrieval.training import heads

    heads.check(args.method, args.checkpoint)  # before anything is fetched for nothing
    bring(args)
    collection = open_collection(args.collection)
    with Bar(len(collection.names)) as bar:
        path = heads.fit(args.method, collection, bar.update, args.checkpoint)
    record = json.loads(path.with_suffix(".json").read_text("utf-8"))
    print(f"fitted on {record['pictures']} pictures: {path}")
    if isinstance(record.get("attention"), str):
        print(f"its attention is {record['attention']}")


def _train(args: argparse.Namespace) -> None:
    args.method = "cnn-irwnha"
    bring(args)
    collection = open_collection(args.collection)
    from retrieval.training import siamese

    epochs = args.epochs or siamese.EPOCHS
    with Bar(len(collection.names)) as bar:
        path = siamese.train(collection, args.out, args.checkpoint, epochs, bar.update, bar.say)
    print(f"trained: {path}; use it with --method cnn-irwnha --checkpoint {path}")
