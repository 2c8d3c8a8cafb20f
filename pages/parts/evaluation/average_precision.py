"""The AP of one query explained: the list, what is left out of it, and the areas that sum to it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import groupby
from pathlib import Path

import streamlit as st

from pages.parts import cards, loaders
from pages.parts.downloads import downloads
from pages.parts.evaluation.runs import LabelledRun, figure_cache, file_stem, stated_title
from pages.parts.terms import explained
from retrieval.collections import Collection
from retrieval.evaluation import Explanation, Step, explain
from retrieval.figures import evaluation as plots

FOLDED_FROM = 20  # rank from which a long row of equal marks becomes one mark
MAX_EQUAL_MARKS = 3  # in a row, further down
MARKS_STYLE = """
<style>
.strip {display: flex; flex-wrap: wrap; gap: .35rem .2rem; align-items: flex-start}
.mark {display: inline-flex; flex-direction: column; align-items: center; min-width: 1.9rem;
  font-size: .8rem; line-height: 1.4}
.mark .chip {width: auto; min-width: 1.7rem; padding: 0 .35rem; font-size: .95rem}
.mark.more {padding: .15rem .5rem}
</style>
"""


def show_explanation(
    collection: Collection, number: int, protocol: str, entry: LabelledRun
) -> None:
    """Show how the AP of one query in a run is computed. number: of the query."""
    prepared_query, label = collection.queries[number], entry.label
    explanation = explain(entry.run.ranks[:, number], prepared_query.labels, protocol)
    st.markdown(
        f"Right pictures of this query: **{explanation.positives}**. "
        "Going down the list, each right picture adds an area, which is smaller the more wrong "
        "pictures stand above it. The areas sum to the AP."
    )
    cards.legend(f"AP of {escape(label)}: {explanation.average_precision:.4f}")
    st.html(MARKS_STYLE)
    st.markdown("**1. The list as ranked**")
    st.html(marks_html(explanation.kinds, "The list as ranked"))
    counted = [kind for kind in explanation.kinds if kind != "ignored"]
    ignored = len(explanation.kinds) - len(counted)
    st.markdown(
        f"**2. Left out of the score: {ignored}**. All below move up"
        if ignored
        else "**2. No picture is left out of the score** of this query"
    )
    if ignored:
        st.html(marks_html(counted, "The list as counted"))
    st.markdown(
        "**3. Precision and recall at each right picture**", help=explained("precision", "recall")
    )
    rows = step_rows(collection, explanation)
    name = f"{file_stem(collection)}-{protocol}-{label}-{Path(prepared_query.name).stem}"
    note = plots.provenance(
        f"{stated_title(collection)}, query {Path(prepared_query.name).name}",
        protocol,
        [entry.run.record],
    )
    key = ("steps", collection.name, protocol, label, entry.run.record["made"], number)
    cache = figure_cache(collection, [entry])
    figure = loaders.figure_on_page(cache, key, lambda: plots.steps(explanation, note))
    _show_steps(explanation, rows, figure)
    if explanation.steps:
        st.markdown(example_sentence(explanation))
    # One below the other: a telephone has no room for two beside each other.
    st.latex(r"\mathrm{AP}=\sum_{j=1}^{n}\frac{1}{n}\cdot\frac{p_j^-+p_j^+}{2}")
    st.latex(r"p_j^-=\frac{j-1}{r_j-1},\qquad p_j^+=\frac{j}{r_j}")
    st.latex(r"\mathrm{mAP}=\frac{1}{Q}\sum_{q=1}^{Q}\mathrm{AP}_q")
    st.caption(
        "n: number of right pictures. r: rank of the j-th of them, without those left "
        "out. p⁻ and p⁺: precision just before it and with it (p⁻ is 1 at rank 1). Q: queries that "
        "have a right picture. Trapezoid rule: Philbin et al., CVPR 2007. Easy, Medium, Hard: "
        "Radenović et al., CVPR 2018."
    )
    downloads(
        name,
        rows,
        lambda kind: loaders.figure_file(kind, cache, key, lambda: plots.steps(explanation, note)),
    )


def _show_steps(explanation: Explanation, rows: list[dict], figure: bytes) -> None:
    """Show the figure and the table of the steps side by side. rows: see ``step_rows``."""
    found = len(explanation.steps)
    figure_column, table_column = st.columns([2, 3], gap="medium")
    with figure_column.container(key="plot-steps"):
        st.image(
            figure,
            width="stretch",
            alt=f"Precision over recall; the shaded area is {explanation.average_precision:.4f}",
        )
    with table_column:
        precise = st.column_config.NumberColumn(format="%.4f")
        st.dataframe(
            rows,
            hide_index=True,
            height=300,
            key="steps",
            column_config=dict.fromkeys(("p⁻", "p⁺", "Area"), precise),
        )
        missing = explanation.positives - found
        st.markdown(
            f"p⁻ and p⁺: precision just before the picture and with it. The {found} areas sum to "
            f"**{sum(step.area for step in explanation.steps):.4f}**, the AP."
            + (f" {missing} right pictures are not in the list and add nothing." if missing else "")
        )


def marks_html(kinds: Iterable[str], label: str) -> str:
    """HTML of a ranked list as marks with their ranks, up to the last right picture.

    kinds: 'positive', 'ignored' or 'wrong' of each picture, best first. label: for screen readers.
    """
    kinds = list(kinds)
    last = max((n for n, kind in enumerate(kinds) if kind == "positive"), default=FOLDED_FROM - 1)
    marks, start = [], 0
    for kind, group in groupby(kinds[: last + 1]):
        length = len(list(group))
        is_folded = length > MAX_EQUAL_MARKS and start + length > FOLDED_FROM
        step = length if is_folded else 1
        for first in range(start, start + length, step):
            verdict = cards.VERDICTS[kind]
            ranks = f"{first + 1}–{first + length}" if is_folded else str(first + 1)
            count = f" × {length}" if is_folded else ""
            marks.append(
                f'<span class="mark" title="{ranks}: {verdict.label}">'
                f'<span class="chip {kind}">{verdict.symbol}{count}</span>{ranks}</span>'
            )
        start += length
    rest = len(kinds) - start
    if rest:
        marks.append(f'<span class="mark more">… {rest:,} more</span>')
    return f'<div class="strip" role="group" aria-label="{label}">{"".join(marks)}</div>'


def step_rows(collection: Collection, explanation: Explanation) -> list[dict]:
    """A row for each right picture in the list, best first."""
    return [
        {
            "#": n,
            "Picture": Path(collection.names[step.position]).name,
            "Listed at": step.raw_rank,
            "Counts at": step.rank,
            "p⁻": step.precision_before,
            "p⁺": step.precision_after,
            "Area": step.area,
            "Label": step.label,
        }
        for n, step in enumerate(explanation.steps, 1)
    ]


def example_sentence(explanation: Explanation) -> str:
    """The first row of ``step_rows`` with a wrong picture above it in words, else the last row."""
    steps = list(enumerate(explanation.steps, 1))
    number, step = next(((n, step) for n, step in steps if step.rank > n), steps[-1])
    before = "1, as nothing stands above it"
    if step.rank > 1:
        before = f"{number - 1} of {step.rank - 1} right, {step.precision_before:.3f}"
    return (
        f"For instance number {number} of the right pictures: it stands at rank **{step.rank}**"
        f"{_moved(step)}. Down to it {number} of {step.rank} are right, precision "
        f"{step.precision_after:.3f}; just above it: {before}. Their mean, divided by "
        f"{explanation.positives}, is its area: **{step.area:.4f}**."
    )


def _moved(step: Step) -> str:
    """How far pictures that are left out move a right one up, in words; '' without any."""
    if not step.ignored_above:
        return ""
    are = "picture above it is" if step.ignored_above == 1 else "pictures above it are"
    return f" (listed at {step.raw_rank}, but {step.ignored_above} {are} left out)"
