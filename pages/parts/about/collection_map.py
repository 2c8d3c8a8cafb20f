"""Map of a collection: every descriptor as a dot, pictures that are alike near each other."""

from __future__ import annotations

from pathlib import Path

import altair
import numpy as np
import streamlit as st

from pages.parts import loaders, query
from retrieval import index
from retrieval.collections import Collection
from retrieval.collections.ground_truth import same_landmark
from retrieval.methods import METHODS

OTHERS = "No landmark"
Point = tuple[str, str, tuple[float, float]]  # name, landmark, place on the map
state = st.session_state


def section() -> None:
    """The maps of the methods with one descriptor a picture, side by side; a click searches."""
    shelf = loaders.shelf()
    if not shelf:
        return
    st.subheader("Map of a collection", anchor=False)
    st.markdown(
        "Each dot is a picture. The descriptors have a thousand numbers and more; the map keeps "
        "the two directions in which they differ most (principal component analysis). Pictures "
        "that are far apart here are different for the method. Pictures that lie together may "
        "still differ in the directions that are left out. Click a dot to search with its picture."
    )
    name = st.selectbox("Collection", shelf, format_func=shelf.__getitem__, key="map-collection")
    with loaders.explained():
        collection = loaders.collection(name)
        paths = {
            method: path
            for method, path in index.find(name).items()
            if METHODS[method].kind == "global"
        }
        if not paths:
            st.info("There is no index with one descriptor a picture of this collection yet.")
            return
        for column, (method, path) in zip(st.columns(len(paths)), paths.items(), strict=True):
            with column:
                changed = loaders.stamp(path / "manifest.json")
                points, share = _points(changed, path, collection.name, collection)
                st.markdown(
                    f"**{METHODS[method].title}** · the two directions hold {share:.0%} of all "
                    "differences"
                )
                st.altair_chart(
                    _chart(points),
                    key=f"map-{method}",
                    on_select=lambda method=method: _clicked(method, name),
                    selection_mode="pick",
                    alt=f"Descriptors of {METHODS[method].title} in two dimensions",
                )
    if state.pop("map-asks", False):
        st.switch_page("pages/search.py")


def _clicked(method: str, name: str) -> None:
    """Callback of a map: search with the picture of a dot."""
    points = state[f"map-{method}"]["selection"]["pick"]
    if points:
        state.collection, state.method = name, method
        query.ask_database(points[0]["Picture"])
        state["map-asks"] = True


def _chart(points: list[Point]) -> altair.Chart:
    rows = [
        {"Picture": name, "Landmark": landmark, "x": x, "y": y} for name, landmark, (x, y) in points
    ]
    pick = altair.selection_point("pick", fields=["Picture"], on="click")
    landmarks = sorted({landmark for _, landmark, _ in points} - {OTHERS})
    plain = altair.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)
    return (
        altair.Chart(altair.Data(values=rows))
        .mark_circle(size=70, opacity=0.85, cursor="pointer")
        .encode(
            x=altair.X("x:Q", axis=plain),
            y=altair.Y("y:Q", axis=plain),
            color=altair.condition(
                f"datum.Landmark == '{OTHERS}'",
                altair.value("#9aa4ad"),
                altair.Color(
                    "Landmark:N",
                    scale=altair.Scale(domain=landmarks, scheme="tableau20"),
                    legend=altair.Legend(orient="bottom", columns=4, title=None, symbolLimit=0),
                ),
            ),
            tooltip=["Picture:N", "Landmark:N"],
        )
        .add_params(pick)
        .properties(height=420)
    )


@st.cache_data(max_entries=12, show_spinner="Drawing the map")
def _points(
    changed: tuple[str, int], _path: Path, name: str, _collection: Collection
) -> tuple[list[Point], float]:
    """The places of all pictures, and the share of the variance that the two directions hold."""
    opened = loaders.index_of(_path, _collection)
    opened = opened.first(len(opened))
    vectors = opened.arrays["descriptors"].astype(np.float32)
    middle = vectors - vectors.mean(axis=0)
    _, lengths, directions = np.linalg.svd(middle, full_matrices=False)
    places = middle @ directions[:2].T
    where = {name: n for n, name in enumerate(_collection.names)}
    found = []
    for name, (x, y) in zip(opened.names, places.tolist(), strict=True):
        known = same_landmark(_collection.queries, where[name])
        landmark = known[0].replace("_", " ") if known else OTHERS
        found.append((name, landmark, (x, y)))
    return found, float((lengths[:2] ** 2).sum() / (lengths**2).sum())
