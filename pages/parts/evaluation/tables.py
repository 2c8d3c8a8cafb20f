"""The tables of the evaluation page: our scores, published scores, the AP of each query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from itertools import groupby

import streamlit as st

from pages.parts.downloads import downloads
from pages.parts.evaluation.runs import LabelledRun
from pages.parts.terms import TERMS
from retrieval.collections import Collection
from retrieval.evaluation import PROTOCOLS, Scores, published
from retrieval.ranking import chain
from retrieval.ranking.chain import RERANKERS


def _percent(share: float) -> float:
    return round(100 * share, 2)


def score_rows(labelled_runs: Iterable[LabelledRun], protocols: Iterable[str]) -> list[dict]:
    """A row for each run and protocol, in per cent."""
    rows = []
    for entry in labelled_runs:
        record = entry.run.record
        for protocol in protocols:
            scores = entry.run.scores[protocol]
            rows.append(
                {
                    "Method": entry.label,
                    "Protocol": protocol,
                    "mAP": _percent(scores.map),
                    **{f"mP@{k}": _percent(value) for k, value in scores.mp.items()},
                    "Queries": int(scores.counted.sum()),
                    "Checkpoint": record["provenance"]["checkpoint"],
                    "Measured": str(record["made"])[:10],
                }
            )
    return rows


def method_rows(rows: list[dict], protocol: str) -> list[dict]:
    """``score_rows`` with a row for each method: mAP of all protocols, the rest of ``protocol``.

    Its mAP comes first: a telephone shows one column beside the methods.
    """
    table = []
    for _, group in groupby(rows, key=lambda row: row["Method"]):
        rows_of_method = sorted(group, key=lambda row: row["Protocol"] != protocol)
        row = rows_of_method[0]
        table.append(
            {"Method": row["Method"]}
            | {f"mAP {scored['Protocol'].capitalize()}": scored["mAP"] for scored in rows_of_method}
            | {name: row[name] for name in row if name.startswith("mP@")}
            | {name: row[name] for name in ("Queries", "Checkpoint", "Measured")}
        )
    return table


def column_config(table: list[dict]) -> dict:
    """The format of the columns of ``method_rows``, with their terms explained."""
    config: dict = {"Checkpoint": st.column_config.TextColumn(help=TERMS["checkpoint"])}
    for name in table[0]:
        if name.startswith("m"):
            term = "mAP" if name.startswith("mAP") else "mP@k"
            config[name] = st.column_config.NumberColumn(format="%.2f", help=TERMS[term])
    return config


def in_percent(rows: Iterable[dict]) -> list[dict]:
    """Rows for a file, whose headers say that mAP and mP@k are in per cent."""
    return [
        {f"{name} (%)" if name.startswith(("mAP", "mP@")) else name: row[name] for name in row}
        for row in rows
    ]


def reranking_rows(labelled_runs: Mapping[str, LabelledRun], protocol: str) -> list[dict]:
    """mAP of one protocol in per cent: a row for each index, a column for each chain.

    Only indexes that were evaluated with re-rankers have a row. Shorter chains come first.
    """
    chains = list(dict.fromkeys(entry.then for entry in labelled_runs.values() if entry.then))
    chains.sort(key=lambda then: (len(then), [*RERANKERS].index(then[0])))
    rows = []
    for run_id, entry in labelled_runs.items():
        reranked = {
            other.then: other.run
            for other in labelled_runs.values()
            if other.without_reranking == run_id
        }
        if not entry.then and reranked:
            row: dict = {"Method": entry.label, "Alone": _percent(entry.run.scores[protocol].map)}
            for then in chains:
                run = reranked.get(then)
                row[chain.title(then)] = run and _percent(run.scores[protocol].map)
            rows.append(row)
    return rows


def reranking_file_rows(rows: list[dict], labelled_runs: Mapping[str, LabelledRun]) -> list[dict]:
    """Rows of ``reranking_rows`` for a file: with the unit, the checkpoint and the last date."""
    records: dict[str, list[Mapping]] = {}
    for run_id, entry in labelled_runs.items():
        alone = labelled_runs[entry.without_reranking or run_id]
        records.setdefault(alone.label, []).append(entry.run.record)
    return [
        {name if name == "Method" else f"mAP (%), {name}": row[name] for name in row}
        | {
            "Checkpoint": records[row["Method"]][0]["provenance"]["checkpoint"],
            "Measured": max(str(record["made"])[:10] for record in records[row["Method"]]),
        }
        for row in rows
    ]


def show_figures_of_others(collection: Collection, our_checkpoints: Set[str]) -> None:
    """Show, folded, the published scores for a collection, or without any those for ROxford5k.

    our_checkpoints: as for ``show_literature``.
    """
    if published.rows(collection.name):
        with st.expander(f"Published figures on {collection.title}, not measured here"):
            show_literature(collection.name, our_checkpoints)
        return
    with st.expander("Published figures on other collections"):
        st.markdown(
            f"No figures are published for {collection.title}. These are for 5,000 photographs of "
            "Oxford, so they **cannot be compared** with the table above; only the order of the "
            "methods can. “The report” is the one that this project started from."
        )
        for name, title in (("roxford5k", "ROxford5k"), ("oxford5k", "Oxford5k, classic")):
            st.markdown(f"**{title}**")
            show_literature(name)


def show_literature(collection: str, our_checkpoints: Set[str] = frozenset()) -> None:
    """Show the published scores for a collection, as a table with its CSV.

    our_checkpoints: those measured on the same page; they come first, and a column names them.
    """
    rows = published.rows(collection)
    rows = sorted(rows, key=lambda row: not (row.checkpoint and row.checkpoint in our_checkpoints))
    protocols = sorted({name for row in rows for name in row.map}, key=list(PROTOCOLS).index)
    table = [
        {
            "Method": row.method,
            **{f"mAP {name.capitalize()}": row.map.get(name) for name in protocols},
            "Network": row.network,
            "Trained on": row.trained_on,
            "Saw the landmarks": row.overlap,
            **({"Measured above": row.checkpoint in our_checkpoints} if our_checkpoints else {}),
            "Source": row.source,
        }
        for row in rows
    ]
    numbers = st.column_config.NumberColumn(format="%.2f")
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        column_config={f"mAP {name.capitalize()}": numbers for name in protocols},
        placeholder="–",
        key=f"literature-{collection}",
    )
    if any(row.overlap == published.YES for row in rows):
        st.caption(
            "“Saw the landmarks”: some training pictures show the buildings of the queries, so the "
            "figure is flattering. GLDv2-clean shows those of 36 of the 70 queries of ROxford and "
            "38 of RParis (Song et al., CVPR 2024, arXiv 2404.01524). Networks trained on pictures "
            "with captions, such as OpenCLIP, know kinds of buildings, but few single ones."
        )
    downloads(f"{collection}-literature", in_percent(table))


def query_rows(
    collection: Collection, scores: Mapping[str, Scores], numbers: Iterable[int]
) -> list[dict]:
    """A row for each of these queries: name, landmark, AP of each run, number of right pictures.

    scores: label of the run → scores of one protocol. An AP is from 0 to 1.
    """
    positives = next(iter(scores.values())).positives
    rows = []
    for number in numbers:
        prepared_query = collection.queries[number]
        rows.append(
            {"Query": prepared_query.name, "Landmark": prepared_query.landmark}
            | {
                f"AP {label}".strip(): round(float(of_run.aps[number]), 6)
                for label, of_run in scores.items()
            }
            | {"Right pictures": int(positives[number])}
        )
    return rows
