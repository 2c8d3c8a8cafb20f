"""A visitor's own ranking, uploaded as a file and scored."""

from __future__ import annotations

import streamlit as st

from pages.parts import query
from pages.parts.downloads import as_csv, download, downloads
from pages.parts.evaluation.runs import LabelledRun
from pages.parts.evaluation.tables import in_percent, score_rows
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.evaluation import submissions


def offer_scoring(collection: Collection, uploaded: LabelledRun | str | None) -> None:
    """Draw the form for a visitor's ranking, and its scores.

    uploaded: see ``runs.uploaded_run``.
    """
    with st.expander("Score a ranking of your own", expanded=uploaded is not None):
        st.markdown(
            f"{submissions.FORM} {collection.title} has {len(collection.names):,} pictures and "
            f"{len(collection.queries)} queries, in the order of the two CSV files below. Your "
            "file stays in this tab and is not part of the link."
        )
        st.file_uploader(".npz", ["npz"], key="eval-upload", max_upload_size=200)
        if isinstance(uploaded, str):
            st.error(plain(uploaded), icon=":material/error:")
        elif uploaded is not None:
            _show_scores(collection, uploaded)
        with st.container(horizontal=True):
            download(
                "Pictures in order",
                lambda: as_csv(
                    {"position": n, "name": name} for n, name in enumerate(collection.names)
                ),
                f"{collection.name}-pictures.csv",
                "text/csv",
            )
            download(
                "Queries in order",
                lambda: as_csv(
                    {
                        "column": n,
                        "name": prepared_query.name,
                        "box": query.box_as_text(prepared_query.box),
                    }
                    for n, prepared_query in enumerate(collection.queries)
                ),
                f"{collection.name}-queries.csv",
                "text/csv",
            )


def _show_scores(collection: Collection, uploaded: LabelledRun) -> None:
    ranked = uploaded.run.ranks.shape[0]
    if ranked < len(collection.names):
        st.warning(
            f"Your file ranks only {ranked:,} of the {len(collection.names):,} pictures. A right "
            "picture that it does not list adds nothing to the score."
        )
    st.success("Scored: choose “Your upload” as a method above to see it query by query.")
    rows = score_rows([uploaded], collection.protocols)
    shown = [
        {key: row[key] for key in row if key not in ("Method", "Checkpoint", "Measured")}
        for row in rows
    ]
    st.dataframe(shown, hide_index=True, key="upload-scores")
    downloads(f"{collection.name}-upload", in_percent(rows))
