"""``plot``: figures of local features, and of evaluations, from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval import images, methods
from retrieval.cli.evaluation import add_plot_evaluation_arguments, run_plot_evaluation, writing
from retrieval.collections.credits import Credit, read_credits, small_print
from retrieval.figures import evaluation as plots
from retrieval.images import Box
from retrieval.ranking import geometry
from retrieval.ranking.search import MIN_SIMILARITY, TOLERANCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_plot_arguments(
    parser: argparse.ArgumentParser,
    box: Callable[[str], Box],
    positive: Callable[[str], int],
) -> None:
    """box, positive: readers of an argument."""
    figures = parser.add_subparsers(required=True, metavar="FIGURE")
    text = "where DELF looks: keypoints sized by scale and coloured by attention"
    one = figures.add_parser("keypoints", help=text, description=text)
    one.add_argument("picture", type=Path, metavar="PICTURE")
    one.add_argument("--count", type=positive, default=200, metavar="N", help="the strongest (200)")
    one.set_defaults(draw=_keypoints)

    text = "matches between two pictures, and which of them agree on one map"
    two = figures.add_parser("matches", help=text, description=text)
    two.add_argument("picture", type=Path, metavar="PICTURE_A")
    two.add_argument("other", type=Path, metavar="PICTURE_B")
    two.add_argument("--box", type=box, metavar="X1,Y1,X2,Y2", help="of picture A, in pixels")
    two.add_argument("--model", choices=geometry.LEAST_PAIRS, default="affine")
    two.add_argument(
        "--min-similarity",
        type=_share,
        default=MIN_SIMILARITY,
        metavar="COSINE",
        help=f"from which nearest neighbours match ({MIN_SIMILARITY})",
    )
    two.add_argument(
        "--tolerance",
        type=_share,
        default=TOLERANCE,
        metavar="SHARE",
        help=f"of the longer side, within which a match agrees ({TOLERANCE})",
    )
    two.set_defaults(draw=_matches)

    for figure in (one, two):
        figure.add_argument("--checkpoint", metavar="ID or FILE", help="default: the embedded one")
        figure.add_argument("--out", type=Path, required=True, metavar="FILE.png or FILE.svg")

    text = "AP of every query, curves and means of indexes that were evaluated"
    three = figures.add_parser("evaluation", help=text, description=text)
    add_plot_evaluation_arguments(three)
    three.set_defaults(run=run_plot_evaluation)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 1")
    return value


def run_plot(args: argparse.Namespace) -> None:
    kind = plots.format_of(args.out)
    method = methods.load("delf", args.checkpoint)
    figure, said = args.draw(args, method)
    with writing(args.out) as file:
        file.write(plots.encode(figure, kind))
    print(f"{said}: {args.out}")


def _credit(picture: Path) -> Credit | None:
    """Who made a picture, if its folder says so."""
    return read_credits(picture.parent).get(picture.name)


def _keypoints(args: argparse.Namespace, method: methods.Method) -> tuple[Figure, str]:
    from retrieval.figures import local_features as plots_local

    picture = images.read(args.picture)
    features = method.describe(picture)[: args.count]
    note = f"{args.picture.name} · {method.checkpoint.id}, the {len(features)} strongest keypoints"
    note = small_print(note, _credit(args.picture))
    return plots_local.keypoints(picture, features, note), f"{len(features)} keypoints"


def _matches(args: argparse.Namespace, method: methods.Method) -> tuple[Figure, str]:
    from retrieval.figures import local_features as plots_local

    a, b = images.read(args.picture), images.read(args.other)
    features_a, features_b = method.describe(a, args.box), method.describe(b)
    pairs, found = geometry.verify_features(
        features_a, features_b, b.size, args.min_similarity, args.tolerance, args.model
    )
    note = (
        f"{args.picture.name} and {args.other.name} · {method.checkpoint.id}, similarity at least "
        f"{args.min_similarity:g}, {args.model}, tolerance {args.tolerance:.1%} of the longer side"
    )
    note = small_print(note, _credit(args.picture), _credit(args.other))
    figure = plots_local.matches(
        (a, b),
        (features_a.keypoints[pairs[:, 0]], features_b.keypoints[pairs[:, 1]]),
        found.inliers,
        note,
        geometry.outlines(args.box, found) if args.box else (None, None),
    )
    said = f"{found.count} of {len(pairs)} matches agree on one map"
    if found.count < geometry.NOISE_FLOOR:
        said += f" (fewer than {geometry.NOISE_FLOOR} say nothing)"
    return figure, said
