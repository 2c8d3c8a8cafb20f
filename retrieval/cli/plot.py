"""``plot``: figures of local features and of evaluations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval import images, methods
from retrieval.cli.arguments import box, place, positive, share
from retrieval.cli.output import check_output, writing
from retrieval.collections.credits import Credit, read_credits, with_credits
from retrieval.collections.ground_truth import usual_protocol
from retrieval.errors import RetrievalError
from retrieval.evaluation import PROTOCOLS
from retrieval.methods.base import as_local
from retrieval.ranking import geometry
from retrieval.ranking.geometry import MIN_SIMILARITY, TOLERANCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add(commands) -> None:
    text = "draw keypoints, matches or evaluations as PNG or SVG"
    parser = commands.add_parser("plot", help=text, description=text)
    figures = parser.add_subparsers(required=True, metavar="FIGURE")
    text = "where DELF looks: keypoints sized by scale and coloured by attention"
    keypoints = figures.add_parser("keypoints", help=text, description=text)
    keypoints.add_argument("picture", type=Path, metavar="PICTURE", help="a file")
    keypoints.add_argument(
        "--count", type=positive, default=200, metavar="N", help="the strongest (200)"
    )
    keypoints.set_defaults(draw=_draw_keypoints)

    text = "matches between two pictures, and which of them are inliers"
    matches = figures.add_parser("matches", help=text, description=text)
    matches.add_argument("picture", type=Path, metavar="PICTURE_A")
    matches.add_argument("other", type=Path, metavar="PICTURE_B")
    matches.add_argument("--box", type=box, metavar="X1,Y1,X2,Y2", help="of picture A, in pixels")
    matches.add_argument(
        "--model",
        choices=geometry.MIN_MATCHES,
        default="affine",
        help="kind of map from picture A to picture B; default: affine",
    )
    matches.add_argument(
        "--min-similarity",
        type=share,
        default=MIN_SIMILARITY,
        metavar="COSINE",
        help=f"from which nearest neighbours match ({MIN_SIMILARITY})",
    )
    matches.add_argument(
        "--tolerance",
        type=share,
        default=TOLERANCE,
        metavar="SHARE",
        help=f"of the longer side, within which a match agrees ({TOLERANCE})",
    )
    matches.set_defaults(draw=_draw_matches)

    for figure in (keypoints, matches):
        figure.add_argument("--checkpoint", metavar="ID or FILE", help="default: the embedded one")
        figure.add_argument("--out", type=Path, required=True, metavar="FILE.png or FILE.svg")
        figure.set_defaults(run=_plot_local_features)

    text = "AP of every query, curves and means of indexes that were evaluated"
    evaluation = figures.add_parser("evaluation", help=text, description=text)
    evaluation.add_argument("index", type=place, nargs="+", metavar="INDEX", help="evaluated ones")
    evaluation.add_argument(
        "--collection", metavar="NAME or FOLDER", help="default: the one the indexes were made of"
    )
    evaluation.add_argument("--protocol", choices=PROTOCOLS, help="default: medium, or classic")
    evaluation.add_argument(
        "--figure",
        choices=("queries", "curves", "distribution", "landmarks"),
        default="queries",
        help="default: AP of every query",
    )
    evaluation.add_argument("--out", type=Path, required=True, metavar="FILE.png or .svg")
    evaluation.set_defaults(run=_plot_evaluation)


def _plot_local_features(args: argparse.Namespace) -> None:
    from retrieval.figures import files as figure_files

    kind = figure_files.format_of(args.out)
    pictures = args.picture, getattr(args, "other", args.picture)
    check_output(args.out, figure_files.is_figure, pictures)
    method = methods.load("delf", args.checkpoint)
    figure, summary = args.draw(args, method)
    with writing(args.out) as file:
        file.write(figure_files.encode(figure, kind))
    print(f"{summary}: {args.out}")


def _credit(picture: Path) -> Credit | None:
    """The author and licence of a picture, where a table in its folder states them."""
    return read_credits(picture.parent).get(picture.name)


def _draw_keypoints(args: argparse.Namespace, method: methods.Method) -> tuple[Figure, str]:
    """The figure, and a summary for the terminal."""
    from retrieval.figures import local_features as plots

    picture = images.read(args.picture)
    features = as_local(method.describe(picture))[: args.count]
    note = f"{args.picture.name} · {method.checkpoint.id}, the {len(features)} strongest keypoints"
    note = with_credits(note, _credit(args.picture))
    return plots.keypoints(picture, features, note), f"{len(features)} keypoints"


def _draw_matches(args: argparse.Namespace, method: methods.Method) -> tuple[Figure, str]:
    """The figure, and a summary for the terminal."""
    from retrieval.figures import local_features as plots

    a, b = images.read(args.picture), images.read(args.other)
    features_a = as_local(method.describe(a, args.box))
    features_b = as_local(method.describe(b))
    pairs, verification = geometry.verify_features(
        features_a, features_b, b.size, args.min_similarity, args.tolerance, args.model
    )
    box = f", box {', '.join(f'{value:g}' for value in args.box)}," if args.box else ""
    note = (
        f"{args.picture.name}{box} and {args.other.name} · {method.checkpoint.id}, "
        f"similarity at least {args.min_similarity:g}, {args.model}, "
        f"tolerance {args.tolerance:.1%} of the longer side"
    )
    note = with_credits(note, _credit(args.picture), _credit(args.other))
    figure = plots.matches(
        (a, b),
        (features_a.keypoints[pairs[:, 0]], features_b.keypoints[pairs[:, 1]]),
        verification.inliers,
        note,
        geometry.outlines(args.box, verification) if args.box else (None, None),
    )
    summary = f"{verification.count} of {len(pairs)} matches are inliers"
    if verification.count < geometry.NOISE_FLOOR:
        summary += f" (fewer than {geometry.NOISE_FLOOR} say nothing)"
    return figure, summary


def _plot_evaluation(args: argparse.Namespace) -> int:
    from retrieval import index as indexes
    from retrieval.evaluation import runs
    from retrieval.figures import evaluation as plots
    from retrieval.figures import files as figure_files
    from retrieval.index import finding

    kind = figure_files.format_of(args.out)
    check_output(args.out, figure_files.is_figure)
    scores, records = {}, []
    for path in args.index:
        index = indexes.load(path)
        collection = finding.collection_of(index, args.collection)
        run = runs.load_run(index, collection)
        if run is None:
            raise RetrievalError(
                f"{path} was not evaluated; run: python -m retrieval evaluate {path}"
            )
        protocol = args.protocol or usual_protocol(run.scores)
        if protocol not in run.scores:
            raise RetrievalError(
                f"{collection.title} has no labels for {protocol}; choose another --protocol."
            )
        method = methods.METHODS.get(index.method)
        label = f"{method.title if method else index.method}, {index.checkpoint}"
        if label in scores:  # the same network with other settings
            label += f" ({path})"
        scores[label] = run.scores[protocol]
        records.append(run.record)
    tasks = {
        (record["provenance"]["collection_fingerprint"], record["provenance"]["labels_sha256"])
        for record in records
    }
    if len(tasks) > 1:
        raise RetrievalError(
            "The indexes are of collections with different pictures, queries or labels: draw a "
            "figure of each."
        )
    note = plots.provenance(collection.title, protocol, records)
    if args.figure == "queries":
        figure = plots.per_query(scores, collection.queries, note, "AP")
    elif args.figure == "landmarks":
        figure = plots.landmarks(scores, collection.queries, note)
    else:
        figure = getattr(plots, args.figure)(scores, note)
    with writing(args.out) as file:
        file.write(figure_files.encode(figure, kind))
    many = "1 index" if len(scores) == 1 else f"{len(scores)} indexes"
    print(f"{many}, {protocol}: {args.out}")
    return 0
