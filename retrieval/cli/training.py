"""``train``: a method learns from photographs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from retrieval import methods
from retrieval.cli.arguments import command, positive
from retrieval.cli.download import bring
from retrieval.cli.output import Bar
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError

# Options of one method: their values, and the methods that have them.
CHOICES = {
    "pairs": (("geometry", "labels"), "cnn-irwnha", "what says that two pictures match"),
    "loss": (("contrastive", "triplet"), "cnn-irwnha", "of a tuple"),
    "trunk": (("landmarks", "correspondences", "frozen"), "delf", "what fine-tunes the trunk"),
    "attention": (("landmarks", "geometry", "norm"), "delf", "what the attention learns from"),
}
COUNTS = {"tuples": "tuples of an epoch", "batch": "tuples of a step"}  # of cnn-irwnha


def add(commands) -> None:
    train = command(commands, "train", _train, "train a method on a collection")
    train.add_argument("method", choices=methods.METHODS)
    train.add_argument("collection", metavar="FOLDER", help="a folder, or a name: roxford5k")
    train.add_argument("--out", type=Path, required=True, metavar="FILE.pth")
    train.add_argument(
        "--checkpoint", metavar="ID or FILE", help="to start from; default: efficientnet-lite0"
    )
    train.add_argument("--epochs", type=_whole, metavar="N", help="at most; 0: only what is fitted")
    train.add_argument("--rate", type=_rate, metavar="R", help="the highest learning rate")
    train.add_argument("--optimiser", choices=("adamw", "sgd"))
    train.add_argument("--patience", type=positive, metavar="N", help="epochs without gain (5)")
    train.add_argument("--seed", type=_whole, metavar="N", help="(0)")
    for name, text in COUNTS.items():
        train.add_argument(f"--{name}", type=positive, metavar="N", help=f"{text}: cnn-irwnha")
    for name, (values, method, text) in CHOICES.items():
        train.add_argument(
            f"--{name}", choices=values, help=f"{text}: {method}, default {values[0]}"
        )
    train.set_defaults(resumed=True)


def _train(args: argparse.Namespace) -> None:
    whose = {name: method for name, (_, method, _) in CHOICES.items()}
    whose |= dict.fromkeys(COUNTS, "cnn-irwnha")
    for name, method in whose.items():
        if getattr(args, name) is not None and args.method != method:
            raise RetrievalError(f"--{name} is an option of {method}, not of {args.method}.")
    bring(args)
    collection = open_collection(args.collection)
    from retrieval.training import delf, siamese, sir

    trainer = {"sir": sir, "delf": delf, "cnn-irwnha": siamese}[args.method]
    shared = ("epochs", "rate", "optimiser", "patience", "seed")
    own = tuple(whose)
    settings = _given(trainer.DEFAULTS, args, shared)
    options: dict[str, Any] = {}
    if args.method != "sir":
        options["options"] = _given(trainer.OPTIONS, args, own)
    with Bar(len(collection.names)) as bar:
        path = trainer.train(
            collection,
            args.out,
            args.checkpoint,
            settings,
            progress=bar.update,
            say=bar.say,
            **options,
        )
    print(f"trained: {path}; use it with --method {args.method} --checkpoint {path}")
    print(f"curves: {path.with_suffix('.csv')}, {path.with_suffix('.png')}")


def _given(defaults, args: argparse.Namespace, names):
    """The defaults with what the command line sets instead."""
    from dataclasses import replace

    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return replace(defaults, **given)


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError("must be a whole number from 0")
    return int(text)


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return value
