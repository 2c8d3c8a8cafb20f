"""Cached loaders of collections, methods, indexes, answers and pictures, for all pages.

Everything heavy is loaded here and only when it is needed, so that the first paint of a page
imports no deep learning library. Models and indexes are loaded once and shared by all sessions.
"""

from __future__ import annotations

import io
import json
import runpy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from retrieval import images, index, methods
from retrieval.collections import Collection
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.evaluation import runs, submissions
from retrieval.figures import evaluation as plots
from retrieval.images import Box
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints
from retrieval.ranking import search as search_module
from retrieval.ranking.search import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from pages.parts.query import Question
    from retrieval.methods.delf import Attention


def through_app() -> None:
    """Run app.py where it was passed by: every page calls this before anything else.

    Until app.py has run once, Streamlit takes a folder called ``pages`` for its older kind of
    app, and opens a link to a page without app.py.
    """
    if not st.session_state.get("through_app"):
        runpy.run_path(str(Path(__file__).parents[2] / "app.py"))
        st.stop()


@contextmanager
def explained() -> Iterator[None]:
    """Show a RetrievalError raised inside as one sentence, and end the page there."""
    try:
        yield
    except RetrievalError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()


def stamp(path: Path) -> tuple[str, int]:
    """A cache key for a file: another content is another key. Raises RetrievalError when gone."""
    try:
        return str(path), path.stat().st_mtime_ns
    except OSError as error:
        raise RetrievalError(f"{path.name} cannot be read: {error.strerror}.") from error


def shelf() -> dict[str, str]:
    """Name → title of the collections that can be opened here."""
    return {entry.name: entry.title for entry in collections.registered() if entry.available}


def collection(name: str) -> Collection:
    """An installed collection by name."""
    for entry in collections.registered():
        if entry.name == name:
            return _collection(name, stamp(entry.ground_truth_path))
    raise RetrievalError(f"There is no collection called {name}.")


@st.cache_resource(max_entries=8, show_spinner="Opening the collection")
def _collection(name: str, changed: tuple[str, int]) -> Collection:
    return collections.open_collection(name)


def load_method(name: str, checkpoint: str | None = None, /, **settings) -> methods.Method:
    """A method with its network, shared by all sessions."""
    title = methods.METHODS[name].title
    with st.spinner(f"Loading the network of {title}: some seconds, once for everybody"):
        return _method(name, checkpoint or methods.METHODS[name].default, json.dumps(settings))


@st.cache_resource(max_entries=6, show_spinner=False)
def _method(name: str, checkpoint: str, settings: str) -> methods.Method:
    # An index names it, perhaps a stranger's: a path in it must not be opened.
    return methods.load_record(checkpoints.registered(name, checkpoint), **json.loads(settings))


@st.cache_resource(max_entries=12, show_spinner="Opening the index")
def _index(path: Path, changed: tuple[str, int]) -> index.Index:
    return index.load(path)


def index_of(path: Path, collection: Collection) -> index.Index:
    """An index of this very list of pictures. Raises RetrievalError when it is of another."""
    opened = _index(path, stamp(path / "manifest.json"))
    if opened.manifest["collection"]["fingerprint"] != collection.fingerprint:
        raise RetrievalError(
            f"The {methods.METHODS[opened.method].title} index of {collection.title} was made "
            "from another list of pictures; index the collection again."
        )
    return opened


def search(
    path: Path, name: str, collection: Collection, question: Question, box: Box | None
) -> Ranking:
    """Rank a whole collection for a picture; the same question again costs nothing.

    path: of the index. name: of the method. A picture of the collection does not find itself.
    """
    changed = stamp(path / "manifest.json")
    opened = index_of(path, collection)
    method = load_method(name, opened.checkpoint, **opened.settings)
    with st.spinner("Searching"):
        ranking = _search(changed, question.key, box, opened, method, question.source)
    return without(ranking, question.name) if isinstance(question.source, Path) else ranking


def _decoded(source: Path | bytes) -> Image.Image:
    return images.read(source, most=images.visitors_limit())


@st.cache_resource(scope="session", max_entries=32, show_spinner=False)
def _search(changed, key: str, box: Box | None, _index, _method, _source) -> Ranking:
    return search_module.rank_picture(_index, _method, _decoded(_source), box)


def without(ranking: Ranking, name: str) -> Ranking:
    """A ranking without the picture that asks."""
    keep = np.array([one != name for one in ranking.names])
    return replace(
        ranking,
        positions=ranking.positions[keep],
        scores=ranking.scores[keep],
        names=tuple(one for one in ranking.names if one != name),
        inliers=None if ranking.inliers is None else ranking.inliers[keep],
    )


def local_features(
    source: Path | bytes, key: str, box: Box | None, checkpoint: str | None, settings: Mapping
) -> LocalFeatures:
    """DELF's features of a picture; the same again, with whatever thresholds, costs nothing.

    key: stands for the picture, which is not hashed.
    """
    method = load_method("delf", checkpoint, **settings)
    with st.spinner("Finding keypoints"):
        return _local_features(key, box, method.checkpoint.id, json.dumps(settings), method, source)


@st.cache_resource(scope="session", max_entries=32, show_spinner=False)
def _local_features(key, box, checkpoint, settings, _method, _source) -> LocalFeatures:
    return _method.describe(_decoded(_source), box)


def attention(
    source: Path | bytes, key: str, scale: float, checkpoint: str | None, settings: Mapping
) -> Attention | None:
    """DELF's attention all over one pyramid level; None where the checkpoint cannot tell."""
    method = load_method("delf", checkpoint, **settings)
    if not hasattr(method, "attention"):
        return None
    with st.spinner("Looking at every place of the picture"):
        return _attention(key, scale, method.checkpoint.id, json.dumps(settings), method, source)


@st.cache_resource(scope="session", max_entries=32, show_spinner=False)
def _attention(key, scale, checkpoint, settings, _method, _source) -> Attention | None:
    return _method.attention(_decoded(_source), scale)


def local_ranking(
    path: Path, collection: Collection, features: LocalFeatures, key: str, box: Box | None
) -> tuple[Ranking, np.ndarray]:
    """The ranking for a query's features, and the votes (N,) its shortlist was made by."""
    opened = index_of(path, collection)
    opened.check_method(load_method("delf", opened.checkpoint, **opened.settings))
    with st.spinner("Searching"):
        return _local_ranking(stamp(path / "manifest.json"), key, box, opened, features)


@st.cache_resource(scope="session", max_entries=32, show_spinner=False)
def _local_ranking(changed, key, box, _index, _features) -> tuple[Ranking, np.ndarray]:
    votes = _index.searcher.scores(_features.descriptors)
    return search_module.rank_features(_index, _features), votes


def run(path: Path, collection: Collection) -> runs.Run | None:
    """What the queries of the collection gave with the index at ``path``, if it was evaluated."""
    kept = [path / name for name in ("evaluation.json", "evaluation.npz")]
    if not all(one.is_file() for one in kept):
        return None
    changed = tuple(map(stamp, [path / "manifest.json", *kept]))
    return _run(changed, runs.labels_digest(collection.queries), path, collection)


@st.cache_resource(max_entries=24, show_spinner="Reading the evaluation")
def _run(changed, labels: str, _path: Path, _collection: Collection) -> runs.Run | None:
    return runs.load_run(index_of(_path, _collection), _collection)


def evaluate(
    path: Path, collection: Collection, progress: Callable[[int, int, str], None]
) -> runs.Run:
    """Put every query to the index at ``path`` and keep what comes out beside it."""
    opened = index_of(path, collection)
    brings_queries = "queries_sha256" in opened.settings
    method = (
        None if brings_queries else load_method(opened.method, opened.checkpoint, **opened.settings)
    )
    return runs.evaluate_index(opened, collection, method, progress)


def submission(file: UploadedFile, collection: Collection) -> runs.Run:
    """A visitor's own ranking, scored."""
    return _submission(file.file_id, runs.labels_digest(collection.queries), file, collection)


@st.cache_resource(scope="session", max_entries=4, show_spinner="Scoring your ranking")
def _submission(key: str, labels: str, _file: UploadedFile, _collection: Collection) -> runs.Run:
    ranks = submissions.read_submission(_file, _collection)
    return submissions.as_run(ranks, _collection, _file.name)


@st.cache_data(max_entries=100, show_spinner=False)
def drawing(kind: str, key: tuple, _draw: Callable[[], Figure]) -> bytes:
    """A figure as 'png' or 'svg'. key: stands for everything that is drawn."""
    return plots.encode(_draw(), kind)


def view(source: Path | bytes, side: int, name: str | None = None) -> tuple[bytes, tuple[int, int]]:
    """A picture as a JPEG of at most ``side`` pixels, and the size (width, height) it really has.

    Raises PictureError where it cannot be shown.
    """
    if isinstance(source, bytes):
        return _view(source, side, name)
    return _view(stamp(source), side, name)


@st.cache_data(max_entries=1500, show_spinner=False)
def _view(
    source: tuple[str, int] | bytes, side: int, name: str | None
) -> tuple[bytes, tuple[int, int]]:
    data = source if isinstance(source, bytes) else Path(source[0])
    picture, size = images.thumbnail(data, side, name, images.visitors_limit())
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), size
