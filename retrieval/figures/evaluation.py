"""Figures of an evaluation, for the page and the command line.

Each function returns a matplotlib Figure that can be read without the page: axes with units, a
colour and a marker for each method, and a small print with the collection, protocol and methods.
matplotlib is imported when the first figure is drawn. pyplot is not used: it keeps figures in a
global state, and a server draws in many threads.

Arguments of several functions: scores: label → scores of a run, all under the same protocol; a
label begins with the title of the method. note: the small print, see ``provenance``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from retrieval.collections.ground_truth import Query
from retrieval.evaluation import RECALL_LEVELS, Explanation, Scores, precision_recall
from retrieval.figures.style import (
    COLOURS,
    METHOD_COLOURS,
    NO_MATHTEXT,
    OTHER_COLOUR,
    small_print,
    style_axes,
)
from retrieval.methods import METHODS
from retrieval.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MAX_ITEMS = 300  # queries or landmarks of a figure: a thousand take seconds and 0.4 GB
MAX_LABEL = 60  # characters of such a name: 200 names of 300 characters took up to 18 s


class Style(NamedTuple):
    """How a run is drawn. dashed: whether an earlier run has the same colour."""

    colour: str
    marker: str
    dashed: bool


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """Label → style. The method at the beginning of a label gives the colour."""
    style_of: dict[str, Style] = {}
    for label in labels:
        method = next((name for name in METHOD_COLOURS if label.lower().startswith(name)), "")
        colour = METHOD_COLOURS.get(method, OTHER_COLOUR)
        dashed = any(style.colour == colour for style in style_of.values())
        style_of[label] = Style(colour, MARKERS[len(style_of) % len(MARKERS)], dashed)
    return style_of


def provenance(title: str, protocol: str, records: Sequence[Mapping[str, Any]]) -> str:
    """The small print of a figure: collection, protocol, methods with checkpoints, and dates.

    title: of the collection. records: ``Run.record`` of each run.
    """
    methods = ", ".join(dict.fromkeys(_method_text(record["provenance"]) for record in records))
    days = sorted({str(record["made"])[:10] for record in records})
    return f"{title}, {protocol.capitalize()} · {methods} · measured {', '.join(days)}"


def _method_text(provenance: Mapping[str, Any]) -> str:
    """Method, checkpoint and re-rankers: 'DELF with delf-lite0, then expansion'."""
    rerankers = [stage["name"] for stage in provenance.get("then", ())]
    method = METHODS.get(provenance["method"])
    title = method.title if method else provenance["method"]
    return f"{title} with {', then '.join([provenance['checkpoint'], *rerankers])}"


def queries_order(scores: Mapping[str, Scores], by: str) -> np.ndarray:
    """Positions of the queries that have an AP, (n,) int64, in the order in which they are drawn.

    by: 'collection', the order of the collection; 'AP', of the first run, highest first; or
    'difference', AP of the first run minus AP of the second, highest first.
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
    """AP of every query: bars for one run; for more runs, markers that a line connects.

    by: the order, see ``queries_order``.
    """
    order = queries_order(scores, by)
    x_label = "Query"
    if len(order) > MAX_ITEMS:
        x_label = f"Query, the first {MAX_ITEMS} of {len(order):,}"
        order = order[:MAX_ITEMS]
    figure, axes = _figure(note, width=max(8.0, 2 + 0.17 * len(order)))
    x = np.arange(len(order))
    if len(scores) == 1:
        _, run, style = next(_with_styles(scores))
        axes.bar(x, run.aps[order], 0.8, color=style.colour)
    else:
        aps = np.array([run.aps[order] for run in scores.values()])
        axes.vlines(x, aps.min(0), aps.max(0), color="#9aa4ad", linewidth=2, zorder=1)
        for label, run, style in _with_styles(scores):
            axes.scatter(
                x, run.aps[order], 42, style.colour, marker=style.marker, label=label, zorder=2
            )
        _legend(axes)
    labels = [one_line(Path(queries[number].name).stem, MAX_LABEL) for number in order]
    axes.set_xticks(x, labels, rotation=90, fontsize=8 if len(order) > 20 else 11, **NO_MATHTEXT)
    axes.set_xlim(-0.8, len(order) - 0.2)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel(x_label)
    axes.set_ylabel("Average precision (0 to 1)")
    axes.grid(axis="x", visible=False)
    return figure


def curves(scores: Mapping[str, Scores], note: str) -> Figure:
    """Interpolated precision over recall, mean over the queries: a line for each run."""
    figure, axes = _figure(note)
    for label, run, style in _with_styles(scores):
        axes.plot(
            RECALL_LEVELS,
            run.curve,
            color=style.colour,
            marker=style.marker,
            linestyle="--" if style.dashed else "-",
            markevery=10,
            linewidth=2.5,
            markersize=7,
            label=f"{label}, mAP {100 * run.map:.1f}%",
        )
    _label_precision_recall(axes)
    _legend(axes, inside=True)
    return figure


def distribution(scores: Mapping[str, Scores], note: str) -> Figure:
    """Histogram of the AP of the queries, with ten bins."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(note)
    edges = np.arange(11) / 10  # those of linspace are above 0.3, 0.6 and 0.7
    width = 0.09 / len(scores)
    for number, (label, run, style) in enumerate(_with_styles(scores)):
        counts, _ = np.histogram(run.aps[run.counted], edges)
        axes.bar(
            edges[:-1] + 0.005 + width * (number + 0.5),
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
    """Mean AP of the queries of each landmark, with the lowest of the first run at the bottom."""
    means = {label: run.by_landmark(queries) for label, run in scores.items()}
    first = next(iter(means.values()))
    names = sorted(first, key=first.__getitem__)[:MAX_ITEMS]
    figure, axes = _figure(note, height=max(3.5, 1.6 + 0.36 * len(names)))
    y = np.arange(len(names))
    if len(means) > 1:
        values = np.array([[run[name] for name in names] for run in means.values()])
        axes.hlines(y, values.min(0), values.max(0), color="#9aa4ad", linewidth=2, zorder=1)
    for label, run, style in _with_styles(means):
        values = np.array([run[name] for name in names])
        axes.scatter(values, y, 70, style.colour, marker=style.marker, label=label, zorder=2)
    labels = [one_line(name.replace("_", " "), MAX_LABEL) or "without a name" for name in names]
    axes.set_yticks(y, labels, **NO_MATHTEXT)
    axes.set_xlim(-0.02, 1.02)
    hardest = f", the {MAX_ITEMS} hardest of {len(first):,}" if len(first) > MAX_ITEMS else ""
    axes.set_xlabel(f"Mean average precision (0 to 1){hardest}")
    _legend(axes)
    return figure


def steps(explanation: Explanation, note: str) -> Figure:
    """The precision-recall curve of one query, and below it the trapezoid of each right picture."""
    figure, axes = _figure(note)
    recall, precision = precision_recall(explanation)
    odd = np.arange(len(recall)) // 2 % 2 == 1  # neighbouring trapezoids differ in shade
    for where, alpha in ((~odd, 0.3), (odd, 0.16)):
        axes.fill_between(
            recall, precision, where=where, color=COLOURS[0], alpha=alpha, linewidth=0
        )
    axes.plot(recall, precision, color=COLOURS[0], linewidth=2.5, marker="o", markersize=4)
    _label_precision_recall(axes)
    axes.set_title(f"Shaded area = AP = {explanation.average_precision:.4f}", fontsize=14)
    return figure


def _figure(note: str, width: float = 8.0, height: float = 4.8) -> tuple[Figure, Axes]:
    """A figure with empty axes and the small print below them. width, height: inches."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    style_axes(axes)
    small_print(figure, note)
    return figure, axes


def _label_precision_recall(axes: Axes) -> None:
    """Label the axes recall (x) and precision (y), and let them go from 0 to 1."""
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("Recall (share of the right pictures found)")
    axes.set_ylabel("Precision (share that is right)")


def _legend(axes: Axes, inside: bool = False) -> None:
    """Draw the legend above the axes, or inside where the lines leave room."""
    handles, labels = axes.get_legend_handles_labels()
    # As many columns as fit, with about ten letters an inch.
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
        text.set(text=one_line(text.get_text(), 100), **NO_MATHTEXT)


def _with_styles(values: Mapping[str, T]) -> Iterator[tuple[str, T, Style]]:
    """Label, value and style of each item. values: by label."""
    for (label, value), style in zip(values.items(), styles(values).values(), strict=True):
        yield label, value, style
