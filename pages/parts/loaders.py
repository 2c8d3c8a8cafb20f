"""Cached loaders of collections, methods, indexes, answers and pictures, for all pages.

Everything heavy is loaded here and only when it is needed, so that the first paint of a page
imports no deep learning library; the first network is loaded in the background once the page is
there. Models and indexes are loaded once and shared by all sessions. What keeps a core busy goes
through a few workers, which serve all sessions in turn.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import runpy
import sys
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np
import streamlit as st
from PIL import Image

from pages.parts.cache import Cache
from pages.parts.plain import plain
from retrieval import images, index, memory, methods, threads
from retrieval.collections import Collection
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.evaluation import ablation, runs, similarity, submissions
from retrieval.figures import evaluation as plots
from retrieval.images import Box
from retrieval.index import finding
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints
from retrieval.ranking import groups, verifiers
from retrieval.ranking import search as search_module
from retrieval.ranking.ranking import Ranking
from retrieval.workers import Workers

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from pages.parts.query import Question

T = TypeVar("T")

WORKERS = Workers(min(threads.usable_cores(), 4), 200)
CACHE = Cache(128 << 20)  # pictures to look at, figures, and answers about pictures of collections
OF_ONE_SESSION = 16 << 20  # bytes of the same about pictures that a visitor brought
PAIRED = 8  # pictures that are compared with those like them in one turn
PAINTED = 1.0  # s after which a page that was sent is on the screen


def through_app() -> None:
    """Run app.py first if Streamlit opened a page without it; every page begins with this call.

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
        st.error(plain(str(error)), icon=":material/error:")
        st.stop()


def stamp(path: Path) -> tuple[str, int]:
    """A cache key for a file: another content is another key. Raises RetrievalError when gone."""
    try:
        return str(path), path.stat().st_mtime_ns
    except OSError as error:
        raise RetrievalError(f"{path.name} cannot be read: {error.strerror}.") from error


def collection_titles() -> dict[str, str]:
    """Name → title of the collections that can be opened here."""
    with explained():
        finding.in_stores()  # one that is away when it is first asked: said here, once
    return {entry.name: entry.title for entry in collections.registered() if entry.available}


def nothing_here() -> NoReturn:
    """Say that no collection is here, lead to the ways to have one, and end the page."""
    st.info("There is no collection on this machine yet.")
    st.page_link(
        "pages/search.py",
        label="Search in pictures of your own",
        icon=":material/add_photo_alternate:",
    )
    st.page_link(
        "pages/collections.py",
        label="Download a collection",
        icon=":material/photo_library:",
    )
    st.stop()


def no_index(collection: Collection, method: str) -> None:
    """Say that a collection has no index of a method, and how to make it."""
    st.info(
        f"There is no {methods.METHODS[method].title} index of {plain(collection.title)} on this "
        f"machine yet. This command makes it: "
        f"`python -m retrieval index {collection.name} --method {method}`"
    )


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
    record = checkpoints.registered(name, checkpoint)
    method = methods.load_record(record, **json.loads(settings))
    memory.set_aside()
    return method


def processor() -> str:
    """'GPU' or 'CPU': where the networks compute; '' before the first of them is loaded."""
    trunks = sys.modules.get("retrieval.networks.trunks")
    return "" if trunks is None else "GPU" if trunks.placement()[0].type == "cuda" else "CPU"


_ahead: set[Path] = set()


def load_ahead(paths: list[Path]) -> None:
    """Load what a search in some indexes needs, in the background, once the page is on the screen.

    paths: of the indexes. A search that comes meanwhile waits for the same network.
    """
    new = [path for path in paths if path not in _ahead]
    if new:
        _ahead.update(new)
        timer = Timer(PAINTED, _load_ahead, (new,))
        timer.daemon = True
        timer.start()


def _load_ahead(paths: list[Path]) -> None:
    # The first picture through a network takes longer than those after it.
    blank = Image.new("RGB", (640, 480), "gray")
    for path in paths:
        with contextlib.suppress(RetrievalError):  # a search will say what is wrong
            opened = _index(path, stamp(path / "manifest.json"))
            method = _method(opened.method, opened.checkpoint, json.dumps(opened.settings))
            rank = partial(search_module.rank_picture, opened, method, blank, top=1)
            WORKERS.submit("nobody", rank)


def in_turn(work: Callable[[], T]) -> T:
    """What ``work()`` returns, done by a worker when it is this session's turn.

    The page shows the place in the queue meanwhile. ``work`` must not draw anything.
    """
    slot = st.empty()

    def waiting(place: int) -> None:
        if place:
            slot.caption(f"Others are searching too: yours is number {place} in the queue.")
        else:
            slot.empty()

    try:
        return WORKERS.run(_visitor(), work, waiting)
    finally:
        slot.empty()


def taking_turns(method: methods.Method) -> methods.Method:
    """The method for a build: each picture waits for its turn among the searches of others."""
    queued, who = copy.copy(method), _visitor()
    queued.describe_batch = lambda pictures: WORKERS.run(  # type: ignore[method-assign]
        who, lambda: method.describe_batch(pictures), lambda place: None
    )
    return queued


def _visitor() -> str:
    return st.session_state.setdefault("visitor", uuid.uuid4().hex)


def _cache(source: Path | bytes) -> Cache:
    """Where answers about a picture are kept: those about visitors' own go with their session."""
    return _session_cache() if isinstance(source, bytes) else CACHE


def computed(source: Path | bytes, key: Hashable, work: Callable[[], T], saying: str) -> T:
    """What ``work()`` returns about a picture, done in turn and kept under a key.

    saying: what the page says meanwhile.
    """
    with st.spinner(saying):
        return _cache(source).get(key, lambda: in_turn(work))


@st.cache_resource(scope="session", show_spinner=False)
def _session_cache() -> Cache:
    return Cache(OF_ONE_SESSION)


@st.cache_resource(max_entries=12, show_spinner=False)
def _index(path: Path, changed: tuple[str, int]) -> index.Index:
    return index.load(path)


def index_of(path: Path, collection: Collection) -> index.Index:
    """An index of this very list of pictures. Raises RetrievalError when it is of another."""
    with st.spinner("Opening the index"):
        opened = _index(path, stamp(path / "manifest.json"))
    opened.check_collection(collection)
    return opened


def search(
    path: Path,
    name: str,
    collection: Collection,
    question: Question,
    box: Box | None,
    then: tuple[str, ...] = (),
    where: str = "",
) -> Ranking:
    """Rank a whole collection for a picture; the same question again costs nothing.

    path: of the index. name: of the method. then: re-rankers, one after the other. where: a filter
    by metadata. A picture of the collection does not find itself.
    """
    changed = stamp(path / "manifest.json")
    opened = index_of(path, collection)
    method = load_method(name, opened.checkpoint, **opened.settings)
    source = question.source
    kept = _cache(source)
    described = features_key(question.key, box, method, opened.settings)
    # Another chain, and why a result was found, need the features again.
    cached = copy.copy(method)
    cached.describe = lambda picture, box=None: kept.get(  # type: ignore[method-assign]
        described, lambda: method.describe(picture, box), wait=False
    )

    def rank() -> Ranking:
        own = question.name if isinstance(source, Path) else None
        return search_module.rank_picture(
            opened,
            cached,
            decoded(source),
            box,
            then=then,
            collection=collection,
            own=own,
            where=where,
        )

    key = "ranking", changed, question.key, box, then, where
    ranking = computed(source, key, rank, "Searching")
    return ranking.without(question.name) if isinstance(source, Path) else ranking


def features_key(key: str, box: Box | None, method: methods.Method, settings: Mapping) -> Hashable:
    """Under which the features of a picture, or of a box in it, are kept."""
    return "features", key, box, method.name, method.checkpoint.id, json.dumps(settings)


def decoded(source: Path | bytes) -> Image.Image:
    """A picture with as many pixels as one of a visitor may have."""
    return images.read(source, most=images.visitors_limit())


def confirmed_pairs(
    path: Path, collection: Collection, progress: Callable[[int, int], None]
) -> list[groups.Pair]:
    """All pairs of alike pictures that geometry confirms; progress(done, total) in pictures.

    Raises RetrievalError where there are none and some pictures could not be compared.
    """
    opened = index_of(path, collection)
    opened = opened.first(len(opened))
    database = verifiers.Database(opened, collection)

    def find() -> list[groups.Pair]:
        found: list[groups.Pair] = []
        for start in range(0, len(opened), PAIRED):
            some = range(start, min(start + PAIRED, len(opened)))
            found += in_turn(partial(groups.pairs_of, opened, database, some))
            progress(some.stop, len(opened))
        if database.note and not found:
            raise RetrievalError(database.note)
        return found

    return CACHE.get(("pairs", stamp(path / "manifest.json")), find)


def pair_cosines(path: Path, collection: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of pictures of one landmark, and of other pictures, in a collection with labels."""
    changed = stamp(path / "manifest.json")
    labels = runs.labels_digest(collection.queries)
    return _pair_cosines(changed, labels, index_of(path, collection), collection)


@st.cache_data(max_entries=12, show_spinner=False)
def _pair_cosines(
    changed: tuple[str, int], labels: str, _index: index.Index, _collection: Collection
) -> tuple[np.ndarray, np.ndarray]:
    return similarity.pair_cosines(_index, _collection.names, _collection.queries)


def local_ranking(
    path: Path, collection: Collection, features: LocalFeatures, key: str, box: Box | None
) -> tuple[Ranking, np.ndarray]:
    """The ranking for a query's features, and the votes (N,) its shortlist was made by."""
    opened = index_of(path, collection)
    opened.check_method(load_method("delf", opened.checkpoint, **opened.settings))
    with st.spinner("Searching"):
        return _session_cache().get(
            ("votes", stamp(path / "manifest.json"), key, box),
            lambda: in_turn(
                lambda: (
                    search_module.rank_features(opened, features),
                    opened.searcher.scores(features.descriptors),
                )
            ),
        )


def chains(path: Path, collection: Collection) -> list[tuple[str, ...]]:
    """Chains of re-rankers that an index was evaluated with, () for the method alone."""
    return runs.kept_chains(index_of(path, collection))


def run(path: Path, collection: Collection, then: tuple[str, ...] = ()) -> runs.Run | None:
    """What the queries of the collection gave with the index at ``path``, if it was evaluated.

    then: with these re-rankers.
    """
    changed = tuple(map(stamp, [path / "manifest.json", *sorted(path.glob("evaluation*"))]))
    return _run(changed, runs.labels_digest(collection.queries), then, path, collection)


@st.cache_resource(max_entries=24, show_spinner="Reading the evaluation")
def _run(
    changed: tuple, labels: str, then: tuple[str, ...], _path: Path, _collection: Collection
) -> runs.Run | None:
    return runs.load_run(index_of(_path, _collection), _collection, then)


def evaluate(
    path: Path,
    collection: Collection,
    progress: Callable[[int, int, str], None],
    then: tuple[str, ...] = (),
) -> runs.Run:
    """Put every query to the index at ``path`` and keep what comes out beside it.

    then: with these re-rankers. Each query waits for its turn among the searches of others.
    """
    opened = index_of(path, collection)
    brings_queries = "queries_sha256" in opened.settings
    method = (
        None if brings_queries else load_method(opened.method, opened.checkpoint, **opened.settings)
    )
    who = _visitor()
    return runs.evaluate_index(
        opened,
        collection,
        method,
        progress,
        then,
        turn=lambda work: WORKERS.run(who, work, lambda place: None),
    )


def submission(file: UploadedFile, collection: Collection) -> runs.Run:
    """A visitor's own ranking, scored."""
    return _submission(file.file_id, runs.labels_digest(collection.queries), file, collection)


@st.cache_resource(scope="session", max_entries=4, show_spinner="Scoring your ranking")
def _submission(key: str, labels: str, _file: UploadedFile, _collection: Collection) -> runs.Run:
    # Unpacked it may take a quarter of a gigabyte: a few at a time.
    ranks = in_turn(lambda: submissions.read_submission(_file, _collection))
    return submissions.as_run(ranks, _collection, _file.name)


def drawing(kind: str, key: tuple, draw: Callable[[], Figure]) -> bytes:
    """A figure as 'png' or 'svg'. key: stands for everything that is drawn."""
    return CACHE.get(("drawing", kind, key), lambda: plots.encode(draw(), kind))


def shown(key: tuple, draw: Callable[[], Figure]) -> bytes:
    """The same as a PNG in the colours of the page."""
    if st.context.theme.type != "dark":
        return drawing("png", key, draw)
    return CACHE.get(("drawing", "dark", key), lambda: plots.encode(draw(), "png", dark=True))


def view(source: Path | bytes, side: int, name: str | None = None) -> tuple[bytes, tuple[int, int]]:
    """A picture as a JPEG to be shown ``side`` pixels large, and the size (width, height) it has.

    Raises PictureError where it cannot be shown.
    """
    if isinstance(source, bytes):
        key: Hashable = hashlib.sha256(source).digest()
    else:
        key = stamp(source)
    return _cache(source).get(
        ("view", key, side), lambda: images.as_jpeg(source, side, name, images.visitors_limit())
    )


def variants(path: Path, collection: Collection) -> ablation.Ablation | None:
    """The variants that are kept beside an index, if there are any."""
    changed = tuple(map(stamp, [path / "manifest.json", *path.glob(ablation.FILE)]))
    return _variants(changed, index_of(path, collection))


@st.cache_resource(max_entries=4, show_spinner=False)
def _variants(changed: tuple, _index: index.Index) -> ablation.Ablation | None:
    return ablation.load(_index)
