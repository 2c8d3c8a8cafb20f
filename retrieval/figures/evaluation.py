"""Figures of an evaluation, for the page and the command line.

Each function returns a matplotlib Figure that stands on its own: axes with units, colours that
colour-blind people tell apart (Okabe and Ito), a shape for each method as well, and what the
numbers rest on in small print. matplotlib is imported by the first one that is drawn. pyplot is
left alone: it keeps figures in a global state, and a server draws in many threads.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retrieval.collections.credits import one_line
from retrieval.collections.ground_truth import Query
from retrieval.errors import RetrievalError
from retrieval.evaluation import RECALL_LEVELS, Explanation, Scores, precision_recall
from retrieval.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One colour a method everywhere: 3 : 1 on white and on a dark page, after Okabe and Ito.
METHOD_COLOURS = {"sir": "#0072B2", "delf": "#C77F00", "cnn-irwnha": "#B3589A"}
COLOURS = "#0072B2", "#C77F00"  # of two things that are no methods
OTHER = "#7A8692"  # a ranking that a visitor brought, a method without a colour of its own
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DARK, LIGHT = "#12171e", "#eef2f6"  # page and text of the dark theme
FORMATS = {"png": "image/png", "svg": "image/svg+xml"}
MOST = 300  # queries or landmarks in a figure: a thousand take seconds and 0.4 GB
AS_IT_IS: dict[str, Any] = {"parse_math": False}  # a $ in a name starts no formula
_DRAWING = Lock()  # text layout in matplotlib is not safe in several threads


class Style(NamedTuple):
    """How a run is drawn. dashed: where its colour was taken before it."""

    colour: str
    marker: str
    dashed: bool


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """Label → style. A label begins with the name of its method, which says the colour."""
    found: dict[str, Style] = {}
    for label in labels:
        colour = next(
            (one for name, one in METHOD_COLOURS.items() if label.lower().startswith(name)), OTHER
        )
        dashed = any(style.colour == colour for style in found.values())
        found[label] = Style(colour, MARKERS[len(found) % len(MARKERS)], dashed)
    return found


def provenance(title: str, protocol: str, records: Sequence[Mapping[str, Any]]) -> str:
    """The small print of a figure. records: what is kept with each run (``Run.record``)."""
    networks = ", ".join(dict.fromkeys(_made_by(one["provenance"]) for one in records))
    days = sorted({str(one["made"])[:10] for one in records})
    return f"{title}, {protocol} · {networks} · measured here, {' and '.join(days)}"


def _made_by(stated: Mapping[str, Any]) -> str:
    """Method, checkpoint, and what re-ranked its rankings."""
    stages = [stated["checkpoint"], *(one["name"] for one in stated.get("then", ()))]
    method = METHODS.get(stated["method"])
    return f"{method.title if method else stated['method']} with {', then '.join(stages)}"


def queries_order(scores: Mapping[str, Scores], by: str) -> np.ndarray:
    """Numbers of the queries that have an AP, (n,) int64, in the order they are drawn.

    by: 'collection'; 'AP', of the first method, the best first; or 'difference', first minus
    second method.
    """
    first, *others = scores.values()
    numbers = np.flatnonzero(first.counted)
    if by == "collection":
        return numbers
    values = first.aps[numbers]
    if by == "difference" and others:
        values = values - others[0].aps[numbers]
    return numbers[np.argsort(-values, kind="stable")]


def per_query(
    scores: Mapping[str, Scores], queries: Sequence[Query], note: str, by: str = "collection"
) -> Figure:
    """AP of every query: bars for one method, a dot each and a line between them for more.

    scores: label → scores of one protocol, the same for all.
    """
    order = queries_order(scores, by)
    shown = "Query" if len(order) <= MOST else f"Query, the first {MOST} of {len(order):,}"
    order = order[:MOST]
    figure, axes = _figure(note, width=max(8.0, 2 + 0.17 * len(order)))
    x = np.arange(len(order))
    if len(scores) == 1:
        ((_, one), style) = next(_styled(scores))
        axes.bar(x, one.aps[order], 0.8, color=style.colour)
    else:
        stacked = np.array([one.aps[order] for one in scores.values()])
        axes.vlines(x, stacked.min(0), stacked.max(0), color="#9aa4ad", linewidth=2, zorder=1)
        for (label, one), style in _styled(scores):
            axes.scatter(
                x, one.aps[order], 42, style.colour, marker=style.marker, label=label, zorder=2
            )
        _legend(axes)
    labels = [one_line(Path(queries[number].name).stem, 60) for number in order]
    axes.set_xticks(x, labels, rotation=90, fontsize=8 if len(order) > 20 else 11, **AS_IT_IS)
    axes.set_xlim(-0.8, len(order) - 0.2)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel(shown)
    axes.set_ylabel("Average precision (0 to 1)")
    axes.grid(axis="x", visible=False)
    return figure


def curves(scores: Mapping[str, Scores], note: str) -> Figure:
    """Interpolated precision over recall, mean over the queries, a line a method."""
    figure, axes = _figure(note)
    for (label, one), style in _styled(scores):
        axes.plot(
            RECALL_LEVELS,
            one.curve,
            color=style.colour,
            marker=style.marker,
            linestyle="--" if style.dashed else "-",
            markevery=10,
            linewidth=2.5,
            markersize=7,
            label=f"{label}, mAP {100 * one.map:.1f}",
        )
    _unit(axes, "Recall (share of the right pictures found)", "Precision (share that is right)")
    _legend(axes, inside=True)
    return figure


def distribution(scores: Mapping[str, Scores], note: str) -> Figure:
    """How many queries have which AP, in ten steps."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(note)
    edges = np.linspace(0, 1, 11)
    width = 0.09 / len(scores)
    for place, ((label, one), style) in enumerate(_styled(scores)):
        counts, _ = np.histogram(one.aps[one.counted], edges)
        axes.bar(
            edges[:-1] + 0.005 + width * (place + 0.5),
            counts,
            width,
            color=style.colour,
            hatch="//" if style.dashed else None,
            edgecolor="white",
            label=label,
        )
    axes.set_xlim(0, 1)
    axes.set_xticks(edges)
    locator = axes.yaxis.get_major_locator()
    assert isinstance(locator, MaxNLocator)
    locator.set_params(integer=True)
    axes.set_xlabel("Average precision (0 to 1)")
    axes.set_ylabel("Number of queries")
    axes.grid(axis="x", visible=False)
    _legend(axes)
    return figure


def landmarks(scores: Mapping[str, Scores], queries: Sequence[Query], note: str) -> Figure:
    """Mean AP of the queries of each landmark, the hardest for the first method at the bottom."""
    means = {label: one.by_landmark(queries) for label, one in scores.items()}
    first = next(iter(means.values()))
    names = sorted(first, key=first.__getitem__)[:MOST]
    figure, axes = _figure(note, height=max(3.5, 1.6 + 0.36 * len(names)))
    y = np.arange(len(names))
    if len(means) > 1:
        ends = np.array([[one[name] for name in names] for one in means.values()])
        axes.hlines(y, ends.min(0), ends.max(0), color="#9aa4ad", linewidth=2, zorder=1)
    for (label, one), style in _styled(means):
        values = [one[name] for name in names]
        axes.scatter(values, y, 70, style.colour, marker=style.marker, label=label, zorder=2)
    axes.set_yticks(y, [name.replace("_", " ") or "without a name" for name in names], **AS_IT_IS)
    axes.set_xlim(-0.02, 1.02)
    hardest = f", the {MOST} hardest of {len(first):,}" if len(first) > MOST else ""
    axes.set_xlabel(f"Mean average precision (0 to 1){hardest}")
    _legend(axes)
    return figure


def steps(explanation: Explanation, note: str) -> Figure:
    """The precision-recall curve of one query; each right picture adds the trapezoid below it."""
    figure, axes = _figure(note)
    recall, precision = precision_recall(explanation)
    for number in range(len(explanation.steps)):
        part = slice(2 * number, 2 * number + 2)
        axes.fill_between(
            recall[part],
            precision[part],
            color=COLOURS[0],
            alpha=0.16 if number % 2 else 0.3,
            linewidth=0,
        )
    axes.plot(recall, precision, color=COLOURS[0], linewidth=2.5, marker="o", markersize=4)
    _unit(axes, "Recall (share of the right pictures found)", "Precision (share that is right)")
    axes.set_title(f"Shaded area = AP = {explanation.average_precision:.4f}", fontsize=14)
    return figure


def encode(figure: Figure, kind: str, dark: bool = False) -> bytes:
    """The figure as a file: kind 'png' or 'svg'. The same figure gives the same bytes.

    dark: for a dark page. Files to download and print stay white.
    """
    buffer = io.BytesIO()
    with _DRAWING:
        import matplotlib

        if dark:
            _darken(figure)

        with matplotlib.rc_context({"svg.hashsalt": "retrieval"}):
            figure.savefig(
                buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None
            )
    return buffer.getvalue()


def _darken(figure: Figure) -> None:
    """Pale words and lines on the colour of a dark page; what is drawn keeps its colours."""
    from matplotlib.spines import Spine
    from matplotlib.text import Text

    figure.set_facecolor(DARK)
    for axes in figure.axes:
        axes.set_facecolor(DARK)
        axes.tick_params(colors=LIGHT)
        for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
            line.set_color("#3a4655")
    for spine in figure.findobj(Spine):
        spine.set_color(LIGHT)
    for text in figure.findobj(Text):
        text.set_color(LIGHT)


def format_of(path: Path) -> str:
    """'png' or 'svg' by the end of a file's name."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise RetrievalError(f"{path} must end in .png or .svg.")
    return kind


def _figure(note: str, width: float = 8.0, height: float = 4.8) -> tuple[Figure, Axes]:
    """An empty figure, in inches, with the small print below."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.grid(color="#d9dfe4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=12)
    axes.xaxis.label.set_fontsize(13)
    axes.yaxis.label.set_fontsize(13)
    small_print(figure, note)
    return figure, axes


def small_print(figure: Figure, note: str) -> None:
    """What the numbers rest on, below a figure."""
    # Names of files need not be text, which ends in an error or in an SVG that cannot be read.
    note = "\n".join(one_line(line, 1000) for line in note.split("\n"))
    # To wrap, matplotlib reads formulas all the same.
    style: dict[str, Any] = {"fontsize": 9, "color": "#55606a", "wrap": "$" not in note}
    figure.supxlabel(note, x=0.01, ha="left", **style, **AS_IT_IS)


def _unit(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _legend(axes: Axes, inside: bool = False) -> None:
    """Above the axes, or inside where the lines leave room."""
    handles, labels = axes.get_legend_handles_labels()
    # As many beside each other as the figure is wide enough for: about ten letters an inch.
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = int(10 * figure.get_figwidth() / (max(map(len, labels), default=0) + 6))
    columns = max(1, min(3, len(handles), room))
    where: dict[str, Any] = (
        {"loc": "best"}
        if inside
        else {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": columns}
    )
    legend = axes.legend(**where, fontsize=12, frameon=False)
    for text in legend.get_texts():
        text.set(text=one_line(text.get_text(), 100), **AS_IT_IS)


def _styled(of: Mapping[str, Any]):
    """Items, each with its style."""
    return zip(of.items(), styles(of).values(), strict=True)
