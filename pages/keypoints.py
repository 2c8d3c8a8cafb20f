"""Keypoints and matches: what DELF sees in a picture, and what two pictures have in loaders."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import streamlit as st
from PIL import Image

from pages.parts import cards, loaders, own_pictures, query
from pages.parts.downloads import downloads
from retrieval import images, index
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.figures import local_features as plots_local
from retrieval.images import Box
from retrieval.index import Index
from retrieval.methods.base import LocalFeatures
from retrieval.networks import checkpoints
from retrieval.ranking import geometry
from retrieval.ranking.geometry import NOISE_FLOOR
from retrieval.ranking.search import MIN_SIMILARITY, SHORTLIST, TOLERANCE, Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retrieval.methods.delf import Attention

VIEWS = {"sees": "What DELF sees", "pair": "Two pictures"}
LOOKS = {"keypoints": "Keypoints", "fields": "Receptive fields", "attention": "Attention map"}
MODELS = {"affine": "Affine map", "homography": "Homography"}
INCH = 84  # pixels of the page that an inch of a figure takes
HERE, UPLOAD = "From the collection", "Upload"
DEFAULTS = {
    "kp-view": "sees",
    "kp-look": "keypoints",
    "kp-count": 200,
    "kp-similarity": MIN_SIMILARITY,
    "kp-tolerance": 100 * TOLERANCE,
    "kp-model": "affine",
}
state = st.session_state


class Engine(NamedTuple):
    """Which DELF: that of the index, where there is one."""

    index: Index | None
    checkpoint: str | None
    settings: Mapping

    def features(self, source: Path | bytes, key: str, box: Box | None = None) -> LocalFeatures:
        return loaders.local_features(source, key, box, self.checkpoint, self.settings)

    def stored(self, name: str) -> LocalFeatures | None:
        """Features of a database picture as the index keeps them: no network is needed."""
        position = self.index.positions.get(name) if self.index else None
        return None if position is None else self.index.features(position)


# ---- the view is in the address ------------------------------------------------------------------


def follow_link(shelf: Mapping[str, str]) -> None:
    """Put what the address asks for into the session, before any widget is drawn."""
    asked = query.newly_asked(shelf, "kp-link", "collection")
    if not asked:
        return
    for key, options in (("view", VIEWS), ("look", LOOKS), ("model", MODELS)):
        if asked.get(key) in options:
            state[f"kp-{key}"] = asked[key]
    for key, least, most in (("similarity", 0.3, 0.95), ("tolerance", 0.5, 5), ("count", 10, 1000)):
        try:
            value = min(max(float(asked[key]), least), most)
        except (KeyError, ValueError):
            continue
        if not math.isfinite(value):  # of "nan" there is no least and no most
            continue
        state[f"kp-{key}"] = round(value / 10) * 10 if key == "count" else value
    if "result" in asked:
        state["kp-result"], state["kp-other"] = asked["result"], HERE
    state["kp-asked"] = (asked["query"], asked.get("box", "")) if "query" in asked else None


def write_link(collection: Collection, question: query.Question | None) -> None:
    """Mirror the view in the address. A visitor's own pictures cannot be part of it."""
    link = {"view": state["kp-view"]}
    keys = ("similarity", "tolerance", "model") if link["view"] == "pair" else ("look", "count")
    for key in keys:
        value = state[f"kp-{key}"]
        if value != DEFAULTS[f"kp-{key}"]:
            link[key] = value if isinstance(value, str) else f"{value:g}"
    if collection.name != own_pictures.NAME:
        link["collection"] = collection.name
        if question and isinstance(question.source, Path):
            link["query"] = question.name
            if link["view"] == "pair":
                if state.get("box"):
                    link["box"] = state.box
                if state.get("kp-other") == HERE and state.get("kp-result"):
                    link["result"] = state["kp-result"]
    state["kp-link"] = link
    if link != st.query_params.to_dict():
        st.query_params.from_dict(link)


# ---- what there is -------------------------------------------------------------------------------


def engine_of(collection: Collection) -> Engine:
    """DELF as the collection is indexed with it, or as it comes."""
    paths = (
        own_pictures.current().indexes
        if collection.name == own_pictures.NAME
        else index.find(collection.name)
    )
    if "delf" in paths:
        try:
            opened = loaders.index_of(paths["delf"], collection)
            return Engine(opened, opened.checkpoint, opened.settings)
        except RetrievalError as error:
            st.warning(str(error), icon=":material/warning:")
    return Engine(None, None, {})


def pixels(source: Path | bytes, name: str) -> tuple[Image.Image, tuple[int, int]]:
    """A picture to draw on, and the size it really has."""
    jpeg, size = loaders.view(source, plots_local.SHARP, name)
    return Image.open(io.BytesIO(jpeg)), size


def figure(name: str, key: tuple, draw: Callable[[], Figure], alt: str, rows: list[dict]) -> None:
    """A figure at its size in inches, so that a tall picture fits the screen; its downloads.

    key: stands, with the rows, for all that is drawn.
    """
    key = *key, hashlib.sha256(repr(rows).encode()).hexdigest()
    with st.spinner("Drawing"):
        png = loaders.drawing("png", key, draw)
    width = Image.open(io.BytesIO(png)).width
    st.image(png, width=round(width / 160 * INCH), alt=alt)
    downloads(name, rows, lambda kind: loaders.drawing(kind, key, draw))


# ---- one picture ---------------------------------------------------------------------------------


def sees(collection: Collection, engine: Engine) -> query.Question | None:
    """What DELF sees in one picture."""
    asking, answer = st.columns([1, 2], gap="medium")
    with answer, loaders.explained(), asking:
        question = query.pick(collection)
        if question is None:
            answer.info("Choose a picture on the left.")
            return None
        picture, size = pixels(question.source, question.name)
        stored = engine.stored(question.name) if isinstance(question.source, Path) else None
        features = stored or engine.features(question.source, question.key)
        look = st.segmented_control(
            "Show",
            LOOKS,
            format_func=LOOKS.get,
            key="kp-look",
            required=True,
            persist_state="session",
        )
        levels = np.unique(features.scales.round(2)).tolist()
        if look == "attention":
            level = chosen_level(engine)
        else:
            shown, level = select(features, levels), None
    stem = f"{Path(question.name).stem}-{look}"
    made = engine.checkpoint or checkpoints.of_method("delf")[0].id
    note = f"{Path(question.name).name} · {made}"
    with answer, loaders.explained():
        if look != "attention" and not len(shown):
            st.info(
                "DELF finds no keypoint here: the picture is blank or too small."
                if not len(features)
                else "No keypoint is left; lower the least attention or choose more levels."
            )
            return question
        if look == "keypoints":
            digest = hashlib.sha256(shown.keypoints.tobytes()).hexdigest()
            figure(
                stem,
                (look, question.key, note, digest),
                lambda: plots_local.keypoints(
                    picture, shown, f"{note}, {len(shown)} keypoints", size
                ),
                f"{len(shown)} keypoints",
                rows_of(shown),
            )
            st.caption(
                f"{len(shown)} of {len(features)} keypoints. A large circle was found in the "
                "shrunken picture and stands for something large. This DELF is trained on: "
                f"{checkpoints.find('delf', engine.checkpoint).trained_on}."
            )
        elif look == "fields":
            fields(question, engine, picture, size, shown, note, stem)
        else:
            attention(question, engine, picture, size, level, note, stem)
    if look == "keypoints":
        st.subheader("How strong, and at which scale", anchor=False)
        digest = hashlib.sha256(features.keypoints.tobytes()).hexdigest()
        levels = [
            {
                "scale": level,
                "keypoints": int((features.scales.round(2) == np.float32(level)).sum()),
            }
            for level in levels
        ]
        figure(
            f"{stem}-histograms",
            ("histograms", question.key, note, digest),
            lambda: plots_local.histograms(features, f"{note}, all {len(features)} keypoints"),
            "Histograms of attention and scale",
            levels,
        )
    if look != "fields":
        other_checkpoints(question, engine, features, picture, size, level)
    return question


def select(features: LocalFeatures, levels: list[float]) -> LocalFeatures:
    """The keypoints that the controls ask for."""
    count = st.slider(
        "Strongest keypoints", 10, 1000, step=10, key="kp-count", persist_state="session"
    )
    keep = np.ones(len(features), bool)
    if len(features) > 1 and features.scores[-1] < features.scores[0]:
        low, high = (
            float(edge) for edge in (np.floor(features.scores[-1]), np.ceil(features.scores[0]))
        )
        with st.expander("Which of them"):
            keep &= features.scores >= st.slider("Least attention", low, high, low)
            chosen = st.pills(
                "Pyramid levels",
                levels,
                default=levels,
                selection_mode="multi",
                format_func=lambda level: f"×{level:g}",
                help="×2: found in the picture enlarged twice, so a small detail.",
            )
            keep &= np.isin(features.scales.round(2), np.float32(chosen))
    return features[np.flatnonzero(keep)[:count]]


def chosen_level(engine: Engine) -> float:
    known = checkpoints.find("delf", engine.checkpoint).settings.get("scales")
    scales = engine.settings.get("scales") or known or [0.25, 0.5, 1.0, 2.0]
    return st.select_slider(
        "Pyramid level", scales, 1.0 if 1.0 in scales else scales[0], format_func="×{:.2g}".format
    )


def fields(question, engine, picture, size, shown, note, stem) -> None:
    """The squares that the strongest keypoint of each level sees."""
    _, first = np.unique(shown.scales.round(2), return_index=True)
    best = shown[np.sort(first)]
    whole = loaders.attention(
        question.source, question.key, 1.0, engine.checkpoint, engine.settings
    )
    if whole is None:
        st.info("This checkpoint does not tell how much of the picture each keypoint sees.")
        return
    sides = whole.side / best.scales
    figure(
        stem,
        ("fields", question.key, note, best.keypoints.tobytes()),
        lambda: plots_local.fields(picture, best, sides, note, size),
        "Receptive fields",
        [
            row | {"side": round(float(side), 1)}
            for row, side in zip(rows_of(best), sides, strict=True)
        ],
    )
    st.caption(
        "The strongest keypoint of each pyramid level, and the square of the picture that its "
        "numbers depend on. Much of it counts little: the middle counts most."
    )


def attention(question, engine, picture, size, level, note, stem) -> None:
    """Attention of one level as a heat map."""
    found = loaders.attention(
        question.source, question.key, level, engine.checkpoint, engine.settings
    )
    if found is None:
        st.info("There is no attention map of this level: the picture is too small for it.")
        return
    figure(
        f"{stem}-{level:g}",
        ("attention", question.key, note, level),
        lambda: plots_local.heat(picture, found, f"{note}, pyramid scale {level:.2g}", size),
        "Attention map",
        attention_rows(found),
    )
    st.caption("How much DELF would like a keypoint at every place, before the best are picked.")


def attention_rows(found: Attention) -> list[dict]:
    return [
        {"x": round(float(x), 1), "y": round(float(y), 1), "attention": float(score)}
        for y, line in zip(found.y, found.scores, strict=True)
        for x, score in zip(found.x, line, strict=True)
    ]


def rows_of(features: LocalFeatures) -> list[dict]:
    columns = (features.keypoints, features.scales, features.scores)
    return [
        {
            "x": round(float(x), 2),
            "y": round(float(y), 2),
            "scale": round(float(scale), 4),
            "attention": round(float(score), 4),
        }
        for (x, y), scale, score in zip(*columns, strict=True)
    ]


def other_checkpoints(
    question, engine: Engine, features: LocalFeatures, picture, size, level: float | None
) -> None:
    """The same picture through two checkpoints: keypoints, or the attention map of a level.

    features: of the checkpoint in use.
    """
    here = engine.checkpoint or checkpoints.of_method("delf")[0].id
    others = [one for one in checkpoints.of_method("delf") if one.ready and one.id != here]
    if not others:
        return
    st.subheader("The same picture through two checkpoints", anchor=False)
    st.toggle("Compare with another checkpoint", key="kp-compare", persist_state="session")
    if not state["kp-compare"]:
        return
    other = others[0]
    if len(others) > 1:
        other = st.selectbox("Which", others, format_func=lambda one: f"{one.id} · {one.title}")
    pairs = [(here, engine.settings), (other.id, {})]
    stem = Path(question.name).stem
    for column, (name, settings) in zip(st.columns(2), pairs, strict=True):
        with column, loaders.explained():
            one = checkpoints.find("delf", name)
            st.markdown(f"**{name}**  \n:small[{one.trained_on}]")
            if level is not None:
                found = loaders.attention(question.source, question.key, level, name, settings)
                note = f"{Path(question.name).name} · {name}, pyramid scale {level:.2g}"
                if found is None:
                    st.info("This checkpoint has no attention map of this level.")
                    continue
                figure(
                    f"{stem}-{name}-attention",
                    ("attention", question.key, note),
                    lambda found=found, note=note: plots_local.heat(picture, found, note, size),
                    f"Attention map of {name}",
                    attention_rows(found),
                )
                continue
            if name != here:
                source, key = question.source, question.key
                features = loaders.local_features(source, key, None, name, settings)
            best = features[: state["kp-count"]]
            note = f"{Path(question.name).name} · {name}, {len(best)} keypoints"
            figure(
                f"{stem}-{name}-keypoints",
                ("keypoints", question.key, note),
                lambda best=best, note=note: plots_local.keypoints(picture, best, note, size),
                f"{len(best)} keypoints of {name}",
                rows_of(best),
            )


# ---- two pictures --------------------------------------------------------------------------------


def pair(collection: Collection, engine: Engine) -> query.Question | None:
    """What two pictures have in loaders."""
    asking, answer = st.columns([1, 2], gap="medium")
    ranking = votes = None
    with answer, loaders.explained(), asking:
        question = query.pick(collection)
        if question is None:
            answer.info("Choose a picture on the left.")
            return None
        box = query.frame(collection, question)
        with answer:  # what takes time says so where the answer will be
            a = engine.features(question.source, question.key, box)
            if engine.index:
                path = engine.index.path
                ranking, votes = loaders.local_ranking(path, collection, a, question.key, box)
        other = second(collection, question, ranking)
        if other is None:
            answer.info("Bring the second picture on the left.")
            return question
        picture_a, size_a = pixels(question.source, question.name)
        picture_b, size_b = pixels(other.source, other.name)
        with answer:
            stored = engine.stored(other.name) if isinstance(other.source, Path) else None
            b = stored or engine.features(other.source, other.key)
        similarity, tolerance, model, outliers = settings()
    pairs, found = geometry.verify_features(a, b, size_b, similarity, tolerance / 100, model)
    with answer:
        verdict(len(a), len(b), len(pairs), found.count)
        made = engine.checkpoint or checkpoints.of_method("delf")[0].id
        note = (
            f"{Path(question.name).name} and {Path(other.name).name} · {made}, similarity at least "
            f"{similarity:g}, {model}, tolerance {tolerance:g} %"
        )
        points = a.keypoints[pairs[:, 0]], b.keypoints[pairs[:, 1]]
        outlines = geometry.outlines(box or (0, 0, *size_a), found)
        likeness = (a.descriptors[pairs[:, 0]] * b.descriptors[pairs[:, 1]]).sum(axis=1)
        figure(
            f"{Path(question.name).stem}-{Path(other.name).stem}-matches",
            ("matches", question.key, box, other.key, note, outliers),
            lambda: plots_local.matches(
                (picture_a, picture_b),
                points,
                found.inliers,
                note,
                outlines if box or found.matrix is not None else (None, None),
                outliers,
                (size_a, size_b),
            ),
            f"{found.count} of {len(pairs)} matches agree",
            [
                {
                    "x_a": round(float(xa), 2),
                    "y_a": round(float(ya), 2),
                    "x_b": round(float(xb), 2),
                    "y_b": round(float(yb), 2),
                    "similarity": round(float(alike), 4),
                    "inlier": int(inlier),
                }
                for (xa, ya), (xb, yb), alike, inlier in zip(
                    *points, likeness, found.inliers, strict=True
                )
            ],
        )
        if found.matrix is not None:
            laid_over(picture_a, size_a, picture_b, size_b, found.matrix)
        if ranking is not None and isinstance(other.source, Path):
            why(ranking, votes, other.name)
    return question


def second(
    collection: Collection, question: query.Question, ranking: Ranking | None
) -> query.Question | None:
    """The picture to compare with."""
    st.markdown("**Compare with**")
    places = [HERE, UPLOAD] if collection.has_pictures else [UPLOAD]
    if state.get("kp-other") not in places:
        state["kp-other"] = places[0]
    st.segmented_control(
        "Compare with",
        places,
        key="kp-other",
        required=True,
        label_visibility="collapsed",
        persist_state="session",
    )
    if state["kp-other"] == UPLOAD:
        suffixes = [suffix[1:] for suffix in sorted(images.SUFFIXES)]
        file = st.file_uploader("The second picture", suffixes, key="kp-upload")
        return query.Question(file.name, file.getvalue()) if file else None
    names = ranking.names if ranking is not None else collection.names
    if state.get("kp-result") not in names:
        if state.get("kp-result") in collection.names:
            st.caption("That picture is not in the index; here is the best of those that are.")
        state["kp-result"] = next((name for name in names if name != question.name), names[0])
    rank = {name: n for n, name in enumerate(names)}

    def said(name: str) -> str:
        if ranking is None:
            return name
        matches = ranking.inliers[rank[name]]
        return f"{rank[name] + 1} · {f'{matches} matches' if matches else 'no match'} · {name}"

    name = st.selectbox(
        "Result",
        names,
        format_func=said,
        key="kp-result",
        label_visibility="collapsed",
        persist_state="session",
    )
    return query.Question(name, collection.path(name))


def settings() -> tuple[float, float, geometry.Model, bool]:
    """Least similarity, tolerance in per cent, model, and whether to draw outliers."""
    with st.expander("Matching and geometry"):
        similarity = st.slider(
            "Least similarity",
            0.3,
            0.95,
            step=0.05,
            key="kp-similarity",
            help="Cosine from which two keypoints that are each other's nearest are a match.",
            persist_state="session",
        )
        tolerance = st.slider(
            "Tolerance, % of the longer side",
            0.5,
            5.0,
            step=0.5,
            key="kp-tolerance",
            help="How near a match must come to where the map puts it.",
            persist_state="session",
        )
        model = st.segmented_control(
            "Map from one picture to the other",
            MODELS,
            format_func=MODELS.get,
            key="kp-model",
            required=True,
            persist_state="session",
        )
        outliers = st.toggle("Show outliers", True, key="kp-outliers")
    return similarity, tolerance, model, outliers


def verdict(keypoints_a: int, keypoints_b: int, matches: int, count: int) -> None:
    """What the number of inliers means, in words."""
    for which, keypoints in (("first", keypoints_a), ("second", keypoints_b)):
        if not keypoints:
            st.info(f"DELF finds no keypoint in the {which} picture: it is blank or too small.")
            return
    floor = (
        f"Two unrelated pictures agree on a few matches by chance, so fewer than **{NOISE_FLOOR}** "
        "say nothing: that is the noise floor."
    )
    if count >= NOISE_FLOOR:
        st.markdown(f"#### {count} of {matches} matches agree on one map\n{floor}")
    elif count:
        st.markdown(f"#### Only {count} of {matches} matches agree\n{floor}")
    else:
        st.markdown(
            f"#### None of {matches} matches can be trusted\nNo map that keeps the picture in "
            f"shape fits enough of them. {floor}"
        )


@st.fragment
def laid_over(picture_a, size_a, picture_b, size_b, matrix: np.ndarray) -> None:
    """The first picture, moved by the map, over the second."""
    st.subheader("One over the other", anchor=False)
    opacity = st.slider(
        "How much of the first picture", 0, 100, 50, step=10, format="%d %%", key="kp-opacity"
    )
    over = plots_local.laid_over(picture_a, size_a, picture_b, size_b, matrix, opacity / 100)
    st.image(over, width=min(820, round(560 * size_b[0] / size_b[1])), alt="One over the other")


def why(ranking: Ranking, votes: np.ndarray, name: str) -> None:
    """The place of a result in the shortlist and after verification."""
    place = ranking.names.index(name)
    position = ranking.positions[place]
    before = int((votes > votes[position]).sum()) + 1
    inliers = int(ranking.inliers[place])
    st.subheader("Why this rank", anchor=False)
    first, then, last = st.columns(3)
    agree = str(inliers) if inliers else f"fewer than {NOISE_FLOOR}"
    first.metric("1. Place by votes of visual words", f"{before:,} of {len(votes):,}", border=True)
    then.metric("2. Matches that agree", agree, border=True)
    last.metric("3. Rank in the search", f"{place + 1:,} of {len(ranking):,}", border=True)
    if before > SHORTLIST and not inliers:
        text = f"Only the first {SHORTLIST} by votes are verified, and this one is not among them."
    elif not inliers:
        text = "Geometry says nothing here, so it stays behind all pictures that were verified."
    elif place:
        ahead = cards.plain(ranking.names[place - 1])
        text = f"The picture just ahead, {ahead}, has {ranking.inliers[place - 1]} matches."
    else:
        text = "No other picture has as many matches that agree."
    st.caption(
        f"{text} Votes: {votes[position]:.3f} of at most 1. "
        "These figures are the search's own, whatever is set on this page."
    )


# ---- the page ------------------------------------------------------------------------------------

loaders.through_app()
cards.style()
st.title("Keypoints and matches", anchor=False)

shelf = loaders.shelf() | (
    {own_pictures.NAME: own_pictures.TITLE} if own_pictures.current() else {}
)
if not shelf:
    st.info("No collection is installed here yet. The search page can take pictures of your own.")
    st.stop()
follow_link(shelf)
for key, value in DEFAULTS.items():
    state.setdefault(key, value)
if state.get("collection") not in shelf:
    state.collection = next(iter(shelf))

place, way = st.columns([1, 2], gap="medium", vertical_alignment="bottom")
place.selectbox(
    "Collection", shelf, format_func=shelf.get, key="collection", persist_state="session"
)
view = way.segmented_control(
    "View", VIEWS, format_func=VIEWS.get, key="kp-view", required=True, persist_state="session",
    label_visibility="collapsed",
)  # fmt: skip
with loaders.explained():
    collection = (
        own_pictures.current().collection
        if state.collection == own_pictures.NAME
        else loaders.collection(state.collection)
    )
if asked := state.pop("kp-asked", None):
    query.follow(collection, *asked)
engine = engine_of(collection)
if not (state.get("kp-been") or state.get("searched")) and collection.has_pictures and engine.index:
    state.source = query.DATABASE  # its features are in the index: no network to wait for
state["kp-been"] = True
write_link(collection, sees(collection, engine) if view == "sees" else pair(collection, engine))
