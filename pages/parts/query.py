"""The picture to search with: which one, and which part of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import streamlit as st

from pages.parts import loaders
from pages.parts.cards import credit_line
from pages.parts.cropper import cropper
from pages.parts.keys import key_about
from pages.parts.plain import plain
from retrieval import images
from retrieval.collections import Collection, Query
from retrieval.collections.credits import Credit
from retrieval.errors import RetrievalError
from retrieval.images import Box

PREPARED, DATABASE, UPLOAD, CAMERA = "Prepared", "Database", "Upload", "Camera"
state = st.session_state


@dataclass(frozen=True)
class QueryPicture:
    """A picture to search with.

    name: its name in the collection, or that of the uploaded file.
    source: the path of its file, or the bytes that a visitor uploaded.
    own_box: (x1, y1, x2, y2) in pixels that a prepared query has; None for the whole picture.
    labels: right answers of a prepared query, positions by kind; empty for other pictures.
    credit: who made it, where the collection says so.
    """

    name: str
    source: Path | bytes
    own_box: Box | None = None
    labels: Mapping = field(default_factory=dict)
    credit: Credit | None = None

    @property
    def key(self) -> str:
        """A cache key for its pixels.

        A digest, as keys of widgets are sent to browsers: a path would tell where the owner's
        pictures are.
        """
        data = self.source
        if not isinstance(data, bytes):
            data = repr(loaders.file_key(data)).encode()
        return hashlib.sha256(data).hexdigest()

    @property
    def own_name(self) -> str | None:
        """Its name in the collection; None for a picture that a visitor uploaded."""
        return self.name if isinstance(self.source, Path) else None

    @property
    def identity(self) -> tuple:
        """A key that differs between pictures, so that a box is not kept for the next picture."""
        name = self.key if isinstance(self.source, bytes) else self.name
        return name, self.own_box


def ask_prepared(number: int) -> None:
    """Callback: search with one of the collection's own queries."""
    state.source, state.prepared, state.searched = PREPARED, number, True


def ask_database(name: str) -> None:
    """Callback: search with a database picture."""
    state.source, state.database, state.searched = DATABASE, name, True


def browse_again() -> None:
    """Callback: back to the pictures to choose from."""
    state.searched = False
    state.pop("kept-upload", None)
    if state.get("source") in (UPLOAD, CAMERA):
        del state.source


def follow(collection: Collection, name: str, box: str) -> None:
    """Choose the picture and the box of a link.

    name: of a prepared query or a database picture. box: as text. Where prepared queries share a
    picture, the one with this box is taken.
    """
    numbers = [n for n, query in enumerate(collection.queries) if query.name == name]
    if numbers:
        numbers.sort(key=lambda n: box_as_text(collection.queries[n].box) != box)
        ask_prepared(numbers[0])
        query_picture = prepared(collection, numbers[0])
    elif name in collection.names:
        ask_database(name)
        query_picture = in_database(collection, name)
    else:
        st.warning(
            f"This link asks for {plain(name)}, which is not in the collection. "
            "Choose another picture."
        )
        return
    put_box(collection, query_picture, box)


def labels(queries: Sequence[Query]) -> list[str]:
    """A name of each query for readers; no two are equal.

    Browsers send the text of an option: of two with one text, Streamlit takes the last.
    """
    texts = [_label(query) for query in queries]
    counts = Counter(texts)
    return [
        text
        if counts[text] == 1
        else f"{number} · {query.name} · {box_as_text(query.box) or 'whole picture'}"
        for number, (text, query) in enumerate(zip(texts, queries, strict=True), 1)
    ]


def _label(query: Query) -> str:
    """The landmark of a query, and what its file name adds to that."""
    name, landmark = Path(query.name).stem, query.landmark
    if landmark and name.startswith(landmark) and name != landmark:
        return f"{landmark} {name.removeprefix(landmark).strip('_- ')}".replace("_", " ")
    return f"{landmark.replace('_', ' ')} · {name}" if landmark else name


def choose_picture(collection: Collection) -> QueryPicture | None:
    """Draw the widgets that choose the query picture; None until there is one."""
    sources = [UPLOAD, CAMERA]
    if collection.has_pictures:
        sources = [*([PREPARED] if collection.queries else []), DATABASE, *sources]
    if state.get("source") not in sources:
        state.source = sources[0]
    st.segmented_control(
        "Query picture",
        sources,
        key="source",
        required=True,
        help="**Prepared**: a query whose right answers are known.  \n"
        "**Database**: one of the pictures that are searched."
        if PREPARED in sources
        else None,
        persist_state="session",
    )
    if state.source == UPLOAD:
        return _uploaded()
    if state.source == CAMERA:
        file = st.camera_input("Take a picture", key="camera")
        return QueryPicture("Camera picture", file.getvalue()) if file else None
    if state.source == DATABASE:
        if state.get("database") not in collection.names:
            state.database = collection.names[0]
        name = _choose(collection.names, "database", str)
        return in_database(collection, name)
    if state.get("prepared") not in range(len(collection.queries)):
        state.prepared = 0
    texts = labels(collection.queries)
    return prepared(collection, _choose(range(len(texts)), "prepared", texts.__getitem__))


def _uploaded() -> QueryPicture | None:
    """A visitor's picture. It is kept while the visitor is on another page, which empties the
    uploader."""
    # The uploader takes files of any type. A file that is no picture is refused later, by name.
    file = st.file_uploader(
        "A picture of yours", key="upload", on_change=lambda: state.pop("kept-upload", 0)
    )
    if file:
        state["kept-upload"] = file.name, file.getvalue()
    elif "kept-upload" in state:
        st.caption(f"Still in use: {plain(state['kept-upload'][0])}")
    return QueryPicture(*state["kept-upload"]) if "kept-upload" in state else None


def prepared(collection: Collection, number: int) -> QueryPicture:
    """One of the collection's own queries."""
    query = collection.queries[number]
    credit = collection.credits.get(query.name)
    return QueryPicture(query.name, collection.path(query.name), query.box, query.labels, credit)


def in_database(collection: Collection, name: str) -> QueryPicture:
    """One of the collection's database pictures."""
    return QueryPicture(name, collection.path(name), credit=collection.credits.get(name))


def _choose(options, key: str, format_func):
    return st.selectbox(
        "Query picture from the list",
        options,
        format_func=format_func,
        key=key,
        label_visibility="collapsed",
        on_change=lambda: state.update(searched=True),
        persist_state="session",
    )


def choose_box(collection: Collection, query_picture: QueryPicture) -> Box | None:
    """Show the query picture with the widgets that choose a box; None for the whole picture.

    Raises RetrievalError for a picture that cannot be read and a box that is not in it.
    """
    about = collection.root, *query_picture.identity
    if state.get("boxed") != about:
        put_box(collection, query_picture, box_as_text(query_picture.own_box))
    jpeg, size = loaders.view(query_picture.source, 1000, query_picture.name)
    try:
        box = images.read_box(state.get("box", ""))
        box, problem = box and images.check_box(box, size), None
    except RetrievalError as error:
        box, problem = None, error
    # The field shows what is searched; a query's own box may reach out, and keeps its labels.
    own = state.get("box") == box_as_text(query_picture.own_box)
    if box and not own and box != images.read_box(state.box):
        state.box = box_as_text(box)
    # A browser that has not yet received this page sends the box of the picture before.
    set_box = partial(_set_box, about)
    cropper(jpeg, size, box, query_picture.name, set_box, key_about("cropper", about))
    credit_line(query_picture.credit)
    row = st.container(horizontal=True, gap="xsmall", wrap=False)
    key = key_about("box", about)
    state[key] = state.box
    row.text_input(
        "Box: left, top, right, bottom",
        key=key,
        placeholder="Draw or type x1, y1, x2, y2",
        label_visibility="collapsed",
        on_change=_type_box,
        args=(key, about),
    )
    row.button(
        "Clear box",
        key=key_about("clear", about),
        on_click=set_box,
        args=(None,),
        disabled=not state.box,
    )
    if problem:
        raise problem
    return box


def box_as_text(box: Box | None) -> str:
    """A box as 'x1, y1, x2, y2'; '' for the whole picture."""
    return ", ".join(f"{value:g}" for value in box) if box else ""


def labelled_box(query_picture: QueryPicture, box: Box | None) -> Box | None:
    """The box of the prepared query where the box on the page shows it, else the box on the page.

    The box of a prepared query may reach out of the picture, or have more digits than its text.
    """
    unchanged = state.get("box") == box_as_text(query_picture.own_box)
    return query_picture.own_box if unchanged else box


def put_box(collection: Collection, query_picture: QueryPicture, text: str) -> None:
    """Set the box before its field is drawn."""
    state.box, state.boxed = text, (collection.root, *query_picture.identity)


def _type_box(key: str, about: tuple) -> None:
    """Callback of the field. about: the picture that it is about."""
    if state.get("boxed") == about:
        state.box = state[key]


def _set_box(about: tuple, box: Box | None) -> None:
    """Callback of the picture and of the button. about: as for ``_type_box``."""
    if state.get("boxed") == about:
        state.box = box_as_text(box)
