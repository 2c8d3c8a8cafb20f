"""One AP explained: the list, what is taken out of it, and the areas that sum to it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import groupby
from pathlib import Path

import streamlit as st

from pages.parts import cards, loaders
from pages.parts.downloads import downloads
from pages.parts.terms import explained
from retrieval.collections import Collection
from retrieval.evaluation import Explanation, Step, explain
from retrieval.evaluation.runs import Run
from retrieval.figures import evaluation as plots

FOLD = 20  # ranks that the strip shows one by one; further down, long runs become one mark
RULES = {
    "easy": "Easy: the clearly visible views are right; difficult ones are left out of the score.",
    "medium": "Medium: the clearly visible and the difficult views are right.",
    "hard": "Hard: only the difficult views are right; clearly visible ones are left out.",
    "classic": "Classic: the good and the partly hidden views are right.",
}
STRIP = """
<style>
.strip {display: flex; flex-wrap: wrap; gap: .35rem .2rem; align-items: flex-start}
.mark {display: inline-flex; flex-direction: column; align-items: center; min-width: 1.9rem;
  font-size: .8rem; line-height: 1.4}
.mark .chip {width: auto; min-width: 1.7rem; padding: 0 .35rem; font-size: .95rem}
.mark.more {padding: .15rem .5rem}
</style>
"""


def strip(kinds: Iterable[str], what: str) -> str:
    """HTML: a ranked list as marks with their ranks, up to the last right picture."""
    kinds = list(kinds)
    last = max((n for n, kind in enumerate(kinds) if kind == "positive"), default=FOLD - 1)
    marks, start = [], 0
    for kind, group in groupby(kinds[: last + 1]):
        length = len(list(group))
        folded = length > 3 and start + length > FOLD
        step = length if folded else 1
        for first in range(start, start + length, step):
            verdict = cards.VERDICTS[kind]
            ranks = f"{first + 1}–{first + length}" if folded else str(first + 1)
            count = f" × {length}" if folded else ""
            marks.append(
                f'<span class="mark" title="{ranks}: {verdict.label}">'
                f'<span class="chip {kind}">{verdict.symbol}{count}</span>{ranks}</span>'
            )
        start += length
    rest = len(kinds) - start
    if rest:
        marks.append(f'<span class="mark more">… {rest:,} more</span>')
    return f'<div class="strip" role="group" aria-label="{what}">{"".join(marks)}</div>'


def example(step: Step, found: int, positives: int) -> str:
    """One line of the table in words."""
    before = "1, as nothing stands above it"
    if step.rank > 1:
        before = f"{found - 1} of {step.rank - 1} right, {step.precision_before:.3f}"
    moved = ""
    if step.ignored_above:
        many = "picture" if step.ignored_above == 1 else "pictures"
        moved = (
            f" (listed at {step.raw_rank}, but {step.ignored_above} {many} above it "
            f"{'is' if step.ignored_above == 1 else 'are'} left out)"
        )
    return (
        f"For instance number {found} of the right pictures: it stands at rank **{step.rank}**"
        f"{moved}. Down to it {found} of {step.rank} are right, precision "
        f"{step.precision_after:.3f}; just above it: {before}. Their mean, divided by "
        f"{positives}, is its area: **{step.area:.4f}**."
    )


def section(collection: Collection, number: int, protocol: str, label: str, run: Run) -> None:
    """How the AP of one query comes about. label: of the method that ranked."""
    asked = collection.queries[number]
    told = explain(run.ranks[:, number], asked.labels, protocol)
    found = len(told.steps)
    st.markdown(
        f"Right pictures of this query: **{told.positives}**. {RULES[protocol]} Going down the "
        "list, each right picture adds an area, which is smaller the more wrong pictures stand "
        "above it. The areas sum to the AP."
    )
    cards.legend(f"AP of {escape(label)}: {told.average_precision:.4f}")
    st.html(STRIP)
    st.markdown("**1. The list as ranked**")
    st.html(strip(told.kinds, "The list as ranked"))
    out = int(sum(kind == "ignored" for kind in told.kinds))
    st.markdown(
        f"**2. Left out of the score: {out}**. All below move up"
        if out
        else "**2. No picture is left out of the score** of this query"
    )
    if out:
        st.html(strip((kind for kind in told.kinds if kind != "ignored"), "The list as counted"))
    st.markdown(
        "**3. Precision and recall at each right picture**", help=explained("precision", "recall")
    )
    rows = step_rows(collection, told)
    name = f"{collection.name}-{protocol}-{label}-{Path(asked.name).stem}"
    drawn, numbers = st.columns([2, 3], gap="medium")
    note = plots.provenance(
        f"{collection.title}, query {Path(asked.name).name}", protocol, [run.record]
    )
    key = ("steps", collection.name, protocol, label, run.record["made"], number)
    with drawn.container(key="plot-steps"):
        st.image(
            loaders.figure_on_page(key, lambda: plots.steps(told, note)),
            width="stretch",
            alt=f"Precision over recall; the shaded area is {told.average_precision:.4f}",
        )
    with numbers:
        precise = st.column_config.NumberColumn(format="%.4f")
        st.dataframe(
            rows,
            hide_index=True,
            height=300,
            key="steps",
            column_config=dict.fromkeys(("p⁻", "p⁺", "Area"), precise),
        )
        missing = f" {told.positives - found} right pictures are not in the list and add nothing."
        st.markdown(
            f"p⁻ and p⁺: precision just before the picture and with it. The {found} areas sum to "
            f"**{sum(step.area for step in told.steps):.4f}**, the AP."
            + (missing if found < told.positives else "")
        )
    later = [n for n, step in enumerate(told.steps, 1) if step.rank > n] or [found]
    if found:
        st.markdown(example(told.steps[later[0] - 1], later[0], told.positives))
    # One below the other, as a phone has no room for more.
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
        name, rows, lambda kind: loaders.figure_file(kind, key, lambda: plots.steps(told, note))
    )


def step_rows(collection: Collection, told: Explanation) -> list[dict]:
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
        for n, step in enumerate(told.steps, 1)
    ]
