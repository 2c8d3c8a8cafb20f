"""Cached loaders of collections, methods, indexes, answers and pictures, for all pages.

Everything heavy is loaded here and only when it is needed, so that the first paint of a page
imports no deep learning library; the first network is loaded in the background once the page is
there. Models and indexes are loaded once and shared by all sessions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import streamlit as st
from PIL import Image

from pages.parts import notices, own_uploads, turns
from pages.parts.cache import Cache, Part
from pages.parts.plain import plain
from retrieval import images, index, memory, methods
from retrieval.collections import Collection
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.evaluation import ablation, runs, similarity, submissions
from retrieval.figures import files as figure_files
from retrieval.images import Box
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints
from retrieval.ranking import groups, verification, verifiers
from retrieval.ranking import search as search_module
from retrieval.ranking.ranking import Query, Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from streamlit.runtime.uploaded_file_manager import UploadedFile

    from pages.parts.query import QueryPicture

T = TypeVar("T")

CACHE = Cache(128 << 20)  # bytes of pictures to show, figures, and results about collections
PRIVATE = Cache(256 << 20)  # the same of all sessions about what visitors brought
PAIR_BATCH = 8  # pictures that are compared with their nearest pictures in one turn
PAINT_DELAY = 1.0  # s after which a page that was sent is on the screen


def file_key(path: Path) -> tuple[str, int]:
    """A cache key for a file, which changes with its content: path and time of change in ns.

    It is made before the file is read: what is read may be newer than its key, never older.
    Raises RetrievalError where the file is gone.
    """
    try:
        return str(path), path.stat().st_mtime_ns
    except OSError as error:
        raise RetrievalError(
            f"{path.name} cannot be read: {error.strerror}; reload the page."
        ) from error


def collection_titles() -> dict[str, str]:
    """Name → title of the collections that can be opened here."""
    return {entry.name: entry.title for entry in collections.registered() if entry.available}


def collection(name: str) -> Collection:
    """An installed collection by name. Raises RetrievalError where there is none."""
    for entry in collections.registered():
        if entry.name == name:
            return _collection(name, file_key(entry.ground_truth_path))
    raise RetrievalError(f"There is no collection called {name}; choose another.")


@st.cache_resource(max_entries=8, show_spinner="Opening the collection")
def _collection(name: str, key: tuple[str, int]) -> Collection:
    opened = collections.open_collection(name)
    check_names(opened)
    return opened


def check_names(opened: Collection) -> None:
    """Raise RetrievalError for a name of a picture that is not in UTF-8."""
    for name in (*opened.names, *(query.name for query in opened.queries)):
        if name != name.encode("utf-8", "replace").decode():
            raise RetrievalError(
                f"The file name {name} is not in UTF-8, so no browser can show it: rename the file."
            )


def load_method(name: str, checkpoint: str | None = None, /, **settings) -> methods.Method:
    """A method with its network, shared by all sessions."""
    title = methods.METHODS[name].title
    with st.spinner(f"Loading the network of {title}: some seconds, once for everybody"):
        return _method(name, checkpoint or methods.METHODS[name].default, json.dumps(settings))


@st.cache_resource(max_entries=6, show_spinner=False)
def _method(name: str, checkpoint: str, settings: str) -> methods.Method:
    # The checkpoint may be named by a stranger's index: registered ones only, never a path.
    record = checkpoints.registered(name, checkpoint)
    method = methods.load_record(record, **json.loads(settings))
    memory.freeze_objects()
    return method


def settings_of(opened: index.Index) -> Mapping[str, Any]:
    """The settings of an index; one that its manifest leaves out has the method's default."""
    return load_method(opened.method, opened.checkpoint, **opened.settings).settings


def processor() -> str:
    """'GPU' or 'CPU': where the networks compute; '' before the first of them is loaded."""
    trunks = sys.modules.get("retrieval.networks.trunks")
    return "" if trunks is None else "GPU" if trunks.placement()[0].type == "cuda" else "CPU"


_preloaded: set[Path] = set()


def preload(paths: list[Path]) -> None:
    """Load the indexes at these paths and their networks in the background.

    It begins when the page is on the screen. A search that comes meanwhile waits for the same
    network.
    """
    new = [path for path in paths if path not in _preloaded]
    if new:
        _preloaded.update(new)
        timer = Timer(PAINT_DELAY, _preload, (new,))
        timer.daemon = True
        timer.start()


def _preload(paths: list[Path]) -> None:
    # The first picture through a network takes longer: a blank one goes before the visitors'.
    blank = Image.new("RGB", (640, 480), "gray")
    for path in paths:
        with contextlib.suppress(RetrievalError):  # a search will show this error
            opened = _index(path, file_key(path / "manifest.json"))
            method = _method(opened.method, opened.checkpoint, json.dumps(opened.settings))
            rank = partial(search_module.rank_picture, opened, method, blank, top=1)
            turns.WORKERS.submit("nobody", rank)


def cache_for(*sources: Path | bytes | None) -> Cache | Part:
    """The cache for results about pictures: that of the session where a visitor brought one.

    sources: pictures, folders with pictures, or indexes; None where the pictures are not here.
    """
    return _session_cache() if any(map(_is_of_visitor, sources)) else CACHE


def _is_of_visitor(source: Path | bytes | None) -> bool:
    return isinstance(source, bytes) or (source is not None and own_uploads.is_private(source))


def cached(source: Path | bytes, key: Hashable, work: Callable[[], T], message: str) -> T:
    """What ``work()`` returns about a picture, from the cache or done in turn.

    message: the text on the page meanwhile.
    """
    with st.spinner(message):
        return _kept(cache_for(source), key, work)


def _kept(
    cache: Cache | Part,
    key: Hashable,
    work: Callable[[], T],
    in_turn: Callable[[Callable[[], T]], T] = turns.in_turn,
) -> T:
    """The value of a key, or what ``work()`` returns, done in turn.

    Where two clients ask for the same, both make it: if one waited for the other, it would wait for
    all searches that the other has in the queue.
    """

    def look_again() -> T:  # another client may have made it by now
        return cache.get(key, work, wait=False)

    return cache.get(key, lambda: in_turn(look_again), wait=False)


@st.cache_resource(scope="session", show_spinner=False, on_release=Part.forget)
def _session_cache() -> Part:
    """This cache ends with the session. 16 MB for each took 1 GB with fifty tabs of one client."""
    return Part(PRIVATE)


@st.cache_resource(max_entries=12, show_spinner=False)
def _index(path: Path, key: tuple[str, int]) -> index.Index:
    return index.load(path)


@st.cache_resource(scope="session", max_entries=len(methods.METHODS), show_spinner=False)
def _own_index(path: Path, key: tuple[str, int]) -> index.Index:
    return index.load(path)


def index_of(path: Path, collection: Collection) -> index.Index:
    """The index at ``path``. Raises RetrievalError where it is not one of this collection."""
    load = _own_index if own_uploads.is_private(path) else _index
    with st.spinner("Opening the index"):
        opened = load(path, file_key(path / "manifest.json"))
    opened.check_collection(collection)
    return opened


def search(
    path: Path,
    method_name: str,
    collection: Collection,
    query_picture: QueryPicture,
    box: Box | None,
    then: tuple[str, ...] = (),
    where: str = "",
) -> Ranking:
    """Rank a whole collection for a picture, or for a box in it; the ranking is cached.

    path: of the index. then: re-rankers, one after the other. where: a filter by metadata.
    Where the picture is one of the collection, it is left out of the ranking. An uploaded file that
    the collection has keeps its place there, and a note says so.
    """
    index_key = file_key(path / "manifest.json")
    opened = index_of(path, collection)
    method = load_method(method_name, opened.checkpoint, **opened.settings)
    opened.check_method(method)
    source = query_picture.source
    own = query_picture.own_name
    cache = cache_for(source, path)  # a worker's thread has no session

    def rank() -> Ranking:
        picture = decoded(source)
        # The features are cached too: another chain of re-rankers needs them again.
        features, seconds = cache.get(
            features_key(query_picture.key, box, method, opened.settings),
            lambda: timed(lambda: search_module.describe_query(method, picture, box)),
            wait=False,
        )
        timings = {"extraction": seconds}
        described = Query(opened, features, picture, box, collection=collection)
        name = opened.name_of(source) if isinstance(source, bytes) else own
        ranking = search_module.rank_query(
            described, then=then, own=name, where=where, timings=timings
        )
        if own is None and name in ranking.names:  # a filter may leave it out
            said = (
                f"The same file is in the collection: {plain(Path(name).name)}. It always finds "
                "itself, so confidence and re-rankers look at the others only."
            )
            ranking = replace(ranking, note=f"{ranking.note} {said}".strip())
        return ranking

    key = "ranking", index_key, query_picture.key, box, then, where
    message = "Searching"
    if verification.PAIR_MATCHERS.keys() & set(then) and not verifiers.keypoints_path(opened.local):
        message += (
            ". Geometry first finds the keypoints of up to 100 pictures, where it has not yet: "
            "that may take a minute."
        )
    with st.spinner(message):
        ranking = _kept(cache, key, rank)
    return ranking.without(own) if own else ranking


def features_key(key: str, box: Box | None, method: methods.Method, settings: Mapping) -> Hashable:
    """The cache key for the features of a picture, or of a box in it, as ``timed`` returns them.

    key: of the picture, see ``QueryPicture.key``. settings: of the index.
    """
    return "features", key, box, method.name, method.checkpoint.id, json.dumps(settings)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What ``work()`` returns, and the seconds that it took."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def decoded(source: Path | bytes) -> Image.Image:
    """Decode a picture. Raises PictureError where it has more pixels than visitors may bring."""
    limit = images.visitors_limit()
    return images.read(source, max_pixels=limit, of_visitor=_is_of_visitor(source))


def confirmed_pairs(
    path: Path, collection: Collection, progress: Callable[[int, int], None]
) -> list[groups.Pair]:
    """All pairs of similar pictures of an index that geometry confirms; kept beside the index.

    progress(done, total): called with numbers of pictures. The page warns where some pictures could
    not be compared. Raises RetrievalError where there is no pair then.
    """
    index_key = file_key(path / "manifest.json")
    whole = index_of(path, collection)
    opened = whole.first(len(whole))
    database = verifiers.DatabaseFeatures(opened, collection)

    def compare(batch: range) -> tuple[list[groups.Pair], str]:
        return groups.pairs_of(opened, database, batch), database.note

    pairs: list[groups.Pair] = []
    note = ""
    for start in range(0, len(opened), PAIR_BATCH):
        batch = range(start, min(start + PAIR_BATCH, len(opened)))
        key = "pairs", index_key, start
        found, problem = _kept(cache_for(path), key, partial(compare, batch))
        pairs, note = pairs + found, note or problem
        progress(batch.stop, len(opened))
    if note and not pairs:
        raise RetrievalError(note)
    if note:
        st.warning(plain(note), icon=":material/warning:")
    else:
        groups.keep(whole, pairs)
    return pairs


def pair_cosines(path: Path, collection: Collection) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of pairs of one landmark, and of other pairs: see ``similarity.pair_cosines``."""
    key = "cosines", file_key(path / "manifest.json"), runs.labels_digest(collection.queries)
    opened = index_of(path, collection)
    return cache_for(path).get(
        key, lambda: similarity.pair_cosines(opened, collection.names, collection.queries)
    )


def local_ranking(
    path: Path, collection: Collection, features: LocalFeatures, key: str, box: Box | None
) -> tuple[Ranking, np.ndarray]:
    """DELF's ranking for the features of a query, and its votes (N,) float32 for every picture.

    key: of the query picture, see ``QueryPicture.key``.
    """
    index_key = file_key(path / "manifest.json")
    opened = index_of(path, collection)
    opened.check_method(load_method("delf", opened.checkpoint, **opened.settings))
    with st.spinner("Searching"):
        return _kept(
            _session_cache(),
            ("votes", index_key, key, box),
            lambda: (
                search_module.rank_features(opened, features),
                opened.searcher.scores(features.descriptors),
            ),
        )


def chains(path: Path, collection: Collection) -> list[tuple[str, ...]]:
    """The chains of re-rankers that an index was evaluated with; () is the method alone."""
    return runs.kept_chains(index_of(path, collection))


def run(path: Path, collection: Collection, then: tuple[str, ...] = ()) -> runs.Run | None:
    """The stored evaluation of the index at ``path``; None where there is none.

    then: the chain of re-rankers.
    """
    keys = tuple(map(file_key, [path / "manifest.json", *sorted(path.glob("evaluation*"))]))
    labels = runs.labels_digest(collection.queries)
    if own_uploads.is_private(path):  # it names a visitor's pictures
        key = "run", keys, labels, then
        load = partial(runs.load_run, index_of(path, collection), collection, then)
        return _session_cache().get(key, load)
    return _run(keys, labels, then, path, collection)


@st.cache_resource(max_entries=24, show_spinner="Reading the evaluation")
def _run(
    keys: tuple, labels: str, then: tuple[str, ...], _path: Path, _collection: Collection
) -> runs.Run | None:
    return runs.load_run(index_of(_path, _collection), _collection, then)


def evaluate(
    path: Path,
    collection: Collection,
    progress: Callable[[int, int, str], None],
    then: tuple[str, ...] = (),
) -> runs.Run:
    """Evaluate the index at ``path`` with all queries of its collection, and keep the run there.

    then: the chain of re-rankers. Each query waits for its turn among the searches of others.
    """
    opened = index_of(path, collection)
    method = None
    if not opened.brings_queries:
        method = load_method(opened.method, opened.checkpoint, **opened.settings)
    who = turns.client()
    return runs.evaluate_index(
        opened,
        collection,
        method,
        progress,
        then,
        turn=partial(turns.WORKERS.run, who),
    )


def submission(file: UploadedFile, collection: Collection) -> runs.Run:
    """The ranking in a visitor's file, scored."""

    def read() -> runs.Run:
        ranks = submissions.read_submission(file, collection)
        return submissions.as_run(ranks, collection, file.name)

    def score() -> runs.Run:
        # It may take ten seconds: searches do not wait for it, and a client has one at a time.
        with turns.one_of_client("ranking"):
            return turns.in_turn(read, turns.SCORERS)

    key = "submission", file.file_id, runs.labels_digest(collection.queries)
    with st.spinner("Scoring your ranking"):
        return _session_cache().get(key, score)


def figure_file(kind: str, cache: Cache | Part, key: tuple, draw: Callable[[], Figure]) -> bytes:
    """A figure as a file of a kind, 'png' or 'svg'.

    cache: from ``cache_for``. The caller chooses it, as a file to download is made in a thread that
    has no session. key: stands for everything that is drawn.
    """
    return cache.get(("drawing", kind, key), lambda: figure_files.encode(draw(), kind))


def figure_on_page(cache: Cache | Part, key: tuple, draw: Callable[[], Figure]) -> bytes:
    """A figure as a PNG in the colours of the page, drawn when it is this session's turn.

    cache, key, draw: as for ``figure_file``. Where too many wait, the page says so and ends there.
    """
    dark = st.context.theme.type == "dark"

    def encoded() -> bytes:
        return figure_files.encode(draw(), "png", dark)

    with notices.errors_shown():
        return _kept(
            cache,
            ("drawing", "dark" if dark else "png", key),
            encoded,
            partial(turns.in_turn, workers=turns.DRAWERS),
        )


def view(source: Path | bytes, side: int, name: str | None = None) -> tuple[bytes, tuple[int, int]]:
    """A picture as a JPEG to be shown ``side`` pixels large, and its true (width, height).

    Raises PictureError where it cannot be read.
    """
    if isinstance(source, bytes):
        key: Hashable = hashlib.sha256(source).digest()
    else:
        key = file_key(source)
    return _kept(
        cache_for(source),
        ("view", key, side),
        lambda: images.as_jpeg(source, side, name, images.visitors_limit(), _is_of_visitor(source)),
        turns.in_turn_unseen,
    )


def variants(path: Path, collection: Collection) -> ablation.Ablation | None:
    """The ablation that is kept beside an index; None where there is none."""
    keys = tuple(map(file_key, [path / "manifest.json", *path.glob(ablation.FILE)]))
    labels = runs.labels_digest(collection.queries)
    return _variants(keys, labels, index_of(path, collection), collection)


@st.cache_resource(max_entries=4, show_spinner=False)
def _variants(
    keys: tuple, labels: str, _index: index.Index, _collection: Collection
) -> ablation.Ablation | None:
    return ablation.load(_index, _collection)
