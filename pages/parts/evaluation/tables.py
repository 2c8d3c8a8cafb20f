"""The tables of the evaluation page: our scores, the figures of others, the AP of each query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from itertools import groupby

import streamlit as st

from pages.parts.downloads import downloads
from pages.parts.evaluation.runs import Measured
from pages.parts.terms import TERMS
from retrieval.collections import Collection
from retrieval.evaluation import PROTOCOLS, Scores, published
from retrieval.ranking import chain
from retrieval.ranking.chain import RERANKERS


def percent(value: float) -> float:
    return round(100 * value, 2)


def summary(measured: Iterable[Measured], protocols: Iterable[str]) -> list[dict]:
    """A row for each method and protocol."""
    rows = []
    for one in measured:
        made = one.run.record["provenance"]
        for protocol in protocols:
            scores = one.run.scores[protocol]
            rows.append(
                {
                    "Method": one.label,
                    "Protocol": protocol,
                    "mAP": percent(scores.map),
                    **{f"mP@{k}": percent(value) for k, value in scores.mp.items()},
                    "Queries": int(scores.counted.sum()),
                    "Checkpoint": made["checkpoint"],
                    "Measured": str(one.run.record["made"])[:10],
                }
            )
    return rows


def wide(rows: list[dict], protocol: str) -> list[dict]:
    """The same with a row for each method: mAP of all protocols, precision of one."""
    table = []
    for _, same in groupby(rows, key=lambda row: row["Method"]):
        group = list(same)
        here = next(row for row in group if row["Protocol"] == protocol)
        table.append(
            {"Method": here["Method"]}
            | {f"mAP {row['Protocol'].capitalize()}": row["mAP"] for row in group}
            | {key: here[key] for key in here if key.startswith("mP@")}
            | {key: here[key] for key in ("Queries", "Checkpoint", "Measured")}
        )
    return table


def columns(table: list[dict]) -> dict:
    """How the columns of ``wide`` are written, and what their terms mean."""
    found: dict = {"Checkpoint": st.column_config.TextColumn(help=TERMS["checkpoint"])}
    for name in table[0]:
        if name.startswith("m"):
            term = "mAP" if name.startswith("mAP") else "mP@k"
            found[name] = st.column_config.NumberColumn(format="%.2f", help=TERMS[term])
    return found


def reranked(measured: Mapping[str, Measured], protocol: str) -> list[dict]:
    """mAP of one protocol: a row for each index, a column for each chain of re-rankers."""
    chains = list(dict.fromkeys(one.then for one in measured.values() if one.then))
    chains.sort(key=lambda then: (len(then), [*RERANKERS].index(then[0])))
    rows = []
    for name, one in measured.items():
        runs = {other.then: other.run for other in measured.values() if other.alone == name}
        if not one.then and runs:
            row: dict = {"Method": one.label, "Alone": percent(one.run.scores[protocol].map)}
            for then in chains:
                run = runs.get(then)
                row[chain.title(then)] = run and percent(run.scores[protocol].map)
            rows.append(row)
    return rows


def literature(collection: str, ours: Set[str] = frozenset()) -> None:
    """What others state for a collection. ours: checkpoints that were measured here."""
    rows = published.rows(collection)
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.map))
    kinds.sort(key=list(PROTOCOLS).index)
    table = [
        {
            "Method": row.method,
            **{f"mAP {kind.capitalize()}": row.map.get(kind) for kind in kinds},
            "Network": row.network,
            "Trained on": row.trained_on,
            "Saw the landmarks": row.overlap,
            **({"Measured above": row.checkpoint in ours} if ours else {}),
            "Source": row.source,
        }
        for row in sorted(rows, key=lambda row: not (row.checkpoint and row.checkpoint in ours))
    ]
    numbers = st.column_config.NumberColumn(format="%.2f")
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        column_config={f"mAP {kind.capitalize()}": numbers for kind in kinds}
        | {"Network": st.column_config.TextColumn(width=170)},
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
    downloads(f"{collection}-literature", table)


def query_rows(
    collection: Collection, scores: Mapping[str, Scores], order: Iterable[int]
) -> list[dict]:
    """Name, landmark and AP of each query, in this order."""
    rows = []
    for number in order:
        asked = collection.queries[number]
        rows.append(
            {"Query": asked.name, "Landmark": asked.landmark}
            | {label: round(float(one.aps[number]), 6) for label, one in scores.items()}
            | {"Right pictures": int(next(iter(scores.values())).positives[number])}
        )
    return rows
