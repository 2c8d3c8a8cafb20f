"""Controls for the comparison query by query: one or two runs, and the order of the queries."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from pages.parts.evaluation.runs import LabelledRun

NOTHING = "nothing"
ORDERS = {"collection": "Landmark", "AP": "AP", "difference": "Difference"}
state = st.session_state


def choose(
    labelled_runs: Mapping[str, LabelledRun], protocol: str
) -> tuple[list[LabelledRun], str]:
    """Draw the controls; returns the one or two runs to compare, and a key of ``ORDERS``.

    labelled_runs: by run_id, at least one of them without re-rankers.
    """
    without_reranking = [entry for entry in labelled_runs.values() if not entry.then]
    if state.get("eval-method") not in labelled_runs:
        best = max(without_reranking, key=lambda entry: entry.run.scores[protocol].map)
        state["eval-method"] = best.run_id
    others = [NOTHING, *(run_id for run_id in labelled_runs if run_id != state["eval-method"])]
    if state.get("eval-against") not in others:
        rivals = _rivals(labelled_runs[state["eval-method"]], without_reranking)
        state["eval-against"] = NOTHING if "eval-against" in state else (rivals or others)[-1]
    method_column, against_column, order_column = st.columns(3, gap="small")
    method_column.selectbox(
        "Method",
        labelled_runs,
        format_func=lambda run_id: labelled_runs[run_id].label,
        key="eval-method",
        persist_state="session",
    )
    against_column.selectbox(
        "Against",
        others,
        format_func=lambda name: "Nothing" if name == NOTHING else labelled_runs[name].label,
        key="eval-against",
        persist_state="session",
    )
    compared = [
        labelled_runs[state[key]]
        for key in ("eval-method", "eval-against")
        if state[key] != NOTHING
    ]
    orders = [name for name in ORDERS if name != "difference" or len(compared) > 1]
    if state.get("eval-order") not in orders:
        state["eval-order"] = "AP"
    order_column.segmented_control(
        "Order by",
        orders,
        format_func=ORDERS.__getitem__,
        key="eval-order",
        required=True,
        persist_state="session",
    )
    return compared, state["eval-order"]


def _rivals(chosen: LabelledRun, without_reranking: list[LabelledRun]) -> list[str]:
    """The run_ids that are best compared with a run, the best of them last.

    A run with re-rankers is compared with the same index without them; another run with those of
    the other methods' default checkpoints, rather than with another checkpoint of its method.
    """
    if chosen.then:
        return [chosen.without_reranking]
    first_of_method: dict[str, str] = {}
    for entry in without_reranking:
        method = entry.run.record["provenance"].get("method", entry.run_id)
        first_of_method.setdefault(method, entry.run_id)
    return [run_id for run_id in first_of_method.values() if run_id != chosen.run_id]
