"""A visitor's own ranking, brought as a file and scored."""

from __future__ import annotations

import streamlit as st

from pages.parts import query
from pages.parts.downloads import as_csv, download, downloads
from pages.parts.evaluation.runs import Measured
from pages.parts.evaluation.tables import summary
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.evaluation import submissions


def bring(collection: Collection, mine: Measured | str | None) -> None:
    with st.expander("Score a ranking of your own", expanded=mine is not None):
        st.markdown(
            f"{submissions.FORM} {collection.title} has {len(collection.names):,} pictures and "
            f"{len(collection.queries)} queries; CSV files say in which order. The file stays in "
            "this session and is not part of the link."
        )
        st.file_uploader(".npz", ["npz"], key="eval-upload", max_upload_size=200)
        if isinstance(mine, str):
            st.error(plain(mine), icon=":material/error:")
        elif mine is not None:
            listed = mine.run.ranks.shape[0]
            if listed < len(collection.names):
                st.warning(
                    f"Your file ranks only {listed:,} of the {len(collection.names):,} pictures. A "
                    "right picture that it does not list adds nothing to the score."
                )
            st.success("Scored: choose “Your upload” as a method above to see it query by query.")
            rows = summary([mine], collection.protocols)
            shown = [
                {key: row[key] for key in row if key not in ("Method", "Checkpoint", "Measured")}
                for row in rows
            ]
            st.dataframe(shown, hide_index=True, key="upload-scores")
            downloads(f"{collection.name}-upload", rows)
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
                    {"column": n, "name": one.name, "box": query.box_as_text(one.box)}
                    for n, one in enumerate(collection.queries)
                ),
                f"{collection.name}-queries.csv",
                "text/csv",
            )
