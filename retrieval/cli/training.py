"""``train``: a method learns from photographs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from retrieval import methods
from retrieval.cli.arguments import command, positive, whole_number
from retrieval.cli.download import download_missing
from retrieval.cli.output import Bar
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError

SHARED = ("epochs", "rate", "optimiser", "patience", "seed")
# Options of one method: their values, default first, the method, and the help.
CHOICES = {
    "pairs": (("geometry", "labels"), "cnn-irwnha", "what says that two pictures match"),
    "loss": (("contrastive", "triplet"), "cnn-irwnha", "of a tuple"),
    "trunk": (("landmarks", "correspondences", "frozen"), "delf", "what fine-tunes the trunk"),
    "attention": (("landmarks", "geometry", "norm"), "delf", "what the attention learns from"),
}


def add(commands) -> None:
    train = command(commands, "train", _train, "train a method on a collection")
    train.add_argument("method", choices=methods.METHODS)
    train.add_argument("collection", metavar="FOLDER", help="a folder, or a name: roxford5k")
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE.pth",
        help="the network; its curves and what a stopped training goes on with lie beside it",
    )
    train.add_argument(
        "--checkpoint", metavar="ID or FILE", help="to start from; default: efficientnet-lite0"
    )
    # The defaults are those of each trainer's Settings, whose import would take seconds.
    train.add_argument(
        "--epochs",
        type=whole_number,
        metavar="N",
        help="at most (sir 10, delf 6, cnn-irwnha 4); 0: only what is fitted: whitening, PCA",
    )
    train.add_argument(
        "--rate",
        type=_learning_rate,
        metavar="R",
        help="the highest learning rate (0.0001); of delf: of its trunk",
    )
    train.add_argument("--optimiser", choices=("adamw", "sgd"), help="default: adamw")
    train.add_argument(
        "--patience",
        type=positive,
        metavar="N",
        help="epochs without a better validation after which it stops (5)",
    )
    train.add_argument("--seed", type=whole_number, metavar="N", help="of all that is random (0)")
    train.add_argument(
        "--tuples", type=positive, metavar="N", help="in an epoch of cnn-irwnha (250)"
    )
    train.add_argument(
        "--batch",
        type=positive,
        metavar="N",
        help="of one step: tuples of cnn-irwnha (1), pairs of pictures of delf (8)",
    )
    for name, (values, method, text) in CHOICES.items():
        train.add_argument(
            f"--{name}", choices=values, help=f"{text}: {method}, default {values[0]}"
        )
    train.set_defaults(resumed=True)


def _train(args: argparse.Namespace) -> None:
    from retrieval.training import delf, siamese, sir

    trainer: Any = {"sir": sir, "delf": delf, "cnn-irwnha": siamese}[args.method]
    options = {name: getattr(args, name) for name in (*SHARED, "tuples", "batch", *CHOICES)}
    settings = {name: value for name, value in options.items() if value is not None}
    for name in settings:
        if not hasattr(trainer.Settings, name):
            raise RetrievalError(f"--{name} is no option of {args.method}: leave it out.")
    download_missing(args)
    collection = open_collection(args.collection)
    # realpath, as Path.resolve raises for a loop of links
    folders = Path(os.path.realpath(args.out)).parents
    if collection.root and Path(os.path.realpath(collection.root)) in folders:
        raise RetrievalError(
            f"{args.out} is in the folder of the pictures, where its curves would be one of them; "
            "choose another --out."
        )
    with Bar(len(collection.names)) as bar:
        path = trainer.train(
            collection,
            args.out,
            args.checkpoint,
            trainer.Settings(**settings),
            progress=bar.update,
            say=bar.say,
        )
    print(f"trained: {path}; use it with --method {args.method} --checkpoint {path}")
    if path.with_suffix(".csv").is_file():  # none where nothing is learned in epochs
        print(f"curves: {path.with_suffix('.csv')}, {path.with_suffix('.png')}")


def _learning_rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and below a million")
    return value
