"""Map of a collection: every descriptor as a mark, pictures that are alike near each other."""

from __future__ import annotations

from pathlib import Path

import altair
import numpy as np
import streamlit as st
from streamlit import runtime

from pages.parts import loaders, notices, query
from pages.parts.about.followed_query import FollowedQuery
from retrieval import index
from retrieval.collections import Collection, ground_truth
from retrieval.collections.metadata import choices
from retrieval.errors import RetrievalError
from retrieval.evaluation import projection
from retrieval.methods import METHODS

LANDMARK = "landmark"  # the column by which marks are coloured at first
MAX_WORDS = 20  # different words of a column that can be told apart by colour
MAX_COLOURED_NUMBERS = 6  # different numbers of a column that each get a colour
# Each has 3 : 1 on white and on a dark page, and colour-blind people tell them apart. Neighbours in
# the legend differ in shape too. Five colours with four shapes make twenty kinds; then hollow ones.
COLOURS = ("#3355ff", "#a69021", "#177345", "#9542a6", "#7c93bf")
SHAPES = ("circle", "triangle-up", "diamond", "square")
UNKNOWN = "#7A8692"
# Pixels of a mark, a letter and a whole name in the legend: two columns fit on a telephone.
MARK_WIDTH, LETTER_WIDTH, NAME_WIDTH = 28, 6.5, 140
NEAREST = 10  # neighbours of the query that are marked
THUMBNAIL_SIDE = 96  # pixels of a picture under the mouse
MAX_THUMBNAILS = 600  # pictures of a map; with more of them, none is shown
KINDS = {"pca": "Principal components", "tsne": "Neighbourhoods (t-SNE)"}
TEXTS = {
    "pca": "The map keeps the two directions in which the descriptors differ most (principal "
    "component analysis). Pictures that are far apart here are different for the method. Pictures "
    "that lie together may still differ in the directions that are left out.",
    "tsne": "The map keeps neighbours together (t-SNE): marks that lie together have similar "
    "descriptors. How far apart two groups lie, and how large they are, says nothing.",
}
state = st.session_state


def section(followed: FollowedQuery) -> None:
    """The maps of the methods with one descriptor a picture, side by side; a click searches."""
    collection = followed.collection
    st.markdown(
        "Each mark is a picture; colour and shape show its landmark. Where a landmark forms a "
        "group of its own, the method tells it from the others; where landmarks mix, it confuses "
        "them. DELF has no map, because it has hundreds of descriptors for each picture."
    )
    st.markdown(
        "Point at a mark to see its picture; click it to search with it. Click a name below a map "
        f"to see it alone. Rings: the {NEAREST} nearest neighbours of the picture above. Cross: "
        "that picture, if it is on the map. Small grey dots: no landmark is known."
    )
    columns = _columns(collection)
    with st.container(horizontal=True):
        st.segmented_control(
            "Map",
            KINDS,
            format_func=KINDS.__getitem__,
            required=True,
            key="map-kind",
            width="content",
            persist_state="session",
        )
        colour = LANDMARK
        if columns:
            colour = st.selectbox(
                "Colour",
                [LANDMARK, *columns],
                format_func=lambda column: column.replace("_", " ").capitalize(),
                key=f"map-colour-{collection.name}",
                help="A column of the metadata. Where its colours lie apart, the method tells such "
                "pictures apart.",
                width=240,
                persist_state="session",
            )
    kind: str = state["map-kind"]
    st.caption(TEXTS[kind])
    paths = {
        method: path
        for method, path in index.find(collection.name).items()
        if METHODS[method].kind == "global"
    }
    if not paths:
        notices.no_index(collection, "cnn-irwnha")
        return
    with notices.errors_shown():
        for column, (method, path) in zip(st.columns(len(paths)), paths.items(), strict=True):
            with column:
                _map(method, path, kind, followed, colour, columns.get(colour, "N"))
    if state.pop("map-asks", False):
        st.switch_page("pages/search.py")


def _columns(collection: Collection) -> dict[str, str]:
    """Columns of the metadata to colour by: 'N' if each value gets a colour, 'Q' for a scale."""
    scales = {}
    for column, values in choices(collection.metadata, len(collection)).items():
        if column == LANDMARK:  # the ground truth has it
            continue
        if isinstance(values[0], str):
            if len(values) <= MAX_WORDS:
                scales[column] = "N"
        else:
            scales[column] = "Q" if len(values) > MAX_COLOURED_NUMBERS else "N"
    return scales


def _map(
    method: str, path: Path, kind: str, followed: FollowedQuery, colour: str, scale: str
) -> None:
    """colour: 'landmark' or a column of the metadata. scale: of the column, see _columns."""
    collection, query_picture = followed.collection, followed.query_picture
    index_key = loaders.file_key(path / "manifest.json")
    full_index = loaders.index_of(path, collection)
    opened = full_index.first(projection.MAX_PICTURES)
    names = opened.names[: projection.MAX_PICTURES]
    if len(names) < 4:
        st.info("A map needs at least four pictures.")
        return
    if len(names) < len(full_index):
        st.caption(f"The first {len(names):,} of {len(full_index):,} pictures.")
    nearest = loaders.search(path, method, collection, query_picture, followed.box).names[:NEAREST]
    places, share = loaders.cached(
        path,
        ("map", index_key, kind),
        lambda: _places(kind, opened),
        f"Computing the places of {len(names):,} pictures: once for everybody",
    )
    st.markdown(
        f"**{METHODS[method].title}**"
        + (f" · the two directions hold {share:.0%} of all differences" if kind == "pca" else "")
    )
    landmarks = _landmarks(collection, names)
    key = f"map-{method}-{kind}-{colour}"
    rows = [
        {
            "Picture": name,
            "Landmark": landmark or "none known",
            "value": (
                landmark if colour == LANDMARK else collection.metadata.get(name, {}).get(colour)
            ),
            "x": x,
            "y": y,
            "ring": name in nearest,
            "query": name == query_picture.own_name,
            **({"image": image} if image else {}),
        }
        for name, landmark, (x, y), image in zip(
            names, landmarks, places.tolist(), _thumbnails(collection, names),
            strict=True,
        )
    ]  # fmt: skip
    st.altair_chart(
        _chart(rows, colour, scale),
        key=key,
        on_select=lambda: _clicked(key, method, collection.name),
        selection_mode="pick",
        alt=f"Descriptors of {METHODS[method].title} in two dimensions",
    )


def _clicked(key: str, method: str, name: str) -> None:
    """Callback of a map: search with the picture of a dot."""
    points = state[key]["selection"]["pick"]
    if points:
        state.collection, state.method = name, method
        query.ask_database(points[0]["Picture"])
        state["map-asks"] = True


def _chart(rows: list[dict], colour: str, scale: str) -> altair.LayerChart:
    """rows: a mark each. colour, scale: as for ``_map``."""
    pick = altair.selection_point("pick", fields=["Picture"], on="click")
    title = colour.replace("_", " ").capitalize()
    no_axis = altair.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)
    tooltips: list[str | altair.Tooltip] = [
        "Picture:N",
        "Landmark:N",
        *([altair.Tooltip("value:N", title=title)] if colour != LANDMARK else []),
        *(["image:N"] if "image" in rows[0] else []),
    ]
    base = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X("x:Q", axis=no_axis, scale=altair.Scale(zero=False)),
        y=altair.Y("y:Q", axis=no_axis, scale=altair.Scale(zero=False)),
        tooltip=tooltips,
    )
    unknown = base.transform_filter("datum.value === null").mark_circle(
        size=30, opacity=1, cursor="pointer", color=UNKNOWN
    )
    marks = base.transform_filter("datum.value !== null").mark_point(
        filled=True, size=90, strokeWidth=2, opacity=0.9, cursor="pointer"
    )
    marks = _by_amount(marks, title) if scale == "Q" else _by_kind(marks, rows)
    marks = marks.add_params(pick)
    neighbours = base.transform_filter("datum.ring")
    dark, light = (  # to be seen on any background
        neighbours.mark_point(
            size=190, strokeWidth=width, color=colour, fill=None, cursor="pointer"
        )
        for width, colour in ((5, "#000"), (2, "#fff"))
    )
    followed_mark = base.transform_filter("datum.query").mark_point(
        size=320, shape="cross", filled=True, color="#D55E00", stroke="#fff"
    )
    return (unknown + marks + dark + light + followed_mark).properties(height=520)


def _by_amount(marks: altair.Chart, title: str) -> altair.Chart:
    """Marks whose colour shows the size of ``value``."""
    legend = altair.Legend(orient="bottom", title=title, gradientLength=200)
    return marks.encode(
        color=altair.Color("value:Q", scale=altair.Scale(scheme="viridis"), legend=legend)
    )


def _by_kind(marks: altair.Chart, rows: list[dict]) -> altair.Chart:
    """Marks with a colour and a shape for each ``value``; a click in the legend shows one alone."""
    known = sorted({row["value"] for row in rows if row["value"] is not None})
    colours = [COLOURS[n % len(COLOURS)] for n in range(len(known))]
    kinds = len(COLOURS) * len(SHAPES)
    channels = {
        "stroke": colours,
        "fill": ["transparent" if n // kinds % 2 else colour for n, colour in enumerate(colours)],
        "shape": [SHAPES[n % len(SHAPES)] for n in range(len(known))],
    }
    legend = altair.Legend(
        orient="bottom",
        columns=_legend_columns(known),
        title=None,
        symbolLimit=0,
        symbolSize=100,
        symbolStrokeWidth=2,
        labelFontSize=14,
        labelLimit=NAME_WIDTH,
    )
    legend_selection = altair.selection_point("alone", fields=["value"], bind="legend")
    return marks.encode(
        **{
            channel: getattr(altair, channel.capitalize())(
                "value:N", scale=altair.Scale(domain=known, range=values), legend=legend
            )
            for channel, values in channels.items()
        },
        opacity=altair.condition(legend_selection, altair.value(0.9), altair.value(0.12)),
    ).add_params(legend_selection)


def _legend_columns(names: list) -> altair.ExprRef:
    """As many columns of names, four at most, as a browser has room for below the map.

    Names beyond the edge could be neither read nor clicked.
    """
    columns = "1"
    for count in (2, 3, 4):
        starts = range(min(count, len(names)))
        longest = [max(len(str(name)) for name in names[start::count]) for start in starts]
        room = sum(MARK_WIDTH + min(LETTER_WIDTH * letters, NAME_WIDTH) for letters in longest)
        columns = f"width >= {room:.0f} ? {count} : {columns}"
    return altair.ExprRef(columns)


def _places(kind: str, opened: index.Index) -> tuple[np.ndarray, float]:
    """Places (N, 2) of the pictures, and the share of the variance that they hold, 0 if unknown.

    kind: of ``KINDS``.
    """
    vectors = opened.arrays["descriptors"][: projection.MAX_PICTURES].astype(np.float32)
    if kind == "tsne":
        return projection.tsne(vectors), 0.0
    axes = projection.pca(vectors)
    return axes.place(vectors), axes.share


def _landmarks(collection: Collection, names: tuple[str, ...]) -> list[str | None]:
    """The landmark of each picture by the ground truth; None where it is not known."""
    known = ground_truth.landmarks(collection.names, collection.queries)
    return [known[name].replace("_", " ") if name in known else None for name in names]


def _thumbnails(collection: Collection, names: tuple[str, ...]) -> list[str]:
    """The address of a small copy of each picture; '' where there are too many or none is here."""
    if len(names) > MAX_THUMBNAILS or not collection.has_pictures:
        return [""] * len(names)
    with st.spinner("Reading the pictures"):
        return [_thumbnail(collection, name) for name in names]


def _thumbnail(collection: Collection, name: str) -> str:
    """The address of a small copy, which the browser fetches when the mouse is on the mark.

    Inside the chart all of them would take megabytes.
    """
    try:
        jpeg, _ = loaders.view(collection.path(name), THUMBNAIL_SIDE)
    except RetrievalError:
        return ""
    address = runtime.get_instance().media_file_mgr.add(jpeg, "image/jpeg", f"map-{name}")
    return address.lstrip("/")  # beside the page, wherever the app is hosted
