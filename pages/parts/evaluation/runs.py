"""The runs on show: every evaluated index of a collection, and a ranking that a visitor brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from pages.parts import indexing, loaders, own_pictures
from pages.parts.plain import plain
from retrieval import index, methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation.runs import Run
from retrieval.ranking import chain
from retrieval.ranking.chain import BEST, MAX_LENGTH, RERANKERS

UPLOAD = "upload"
MOST_KEPT = 20  # re-rankings of an index that visitors make: everybody's page shows all of them
state = st.session_state


@dataclass(frozen=True)
class Measured:
    """A run on show. id: in the address. label: unlike that of any other run here.

    then: the re-rankers. alone: id of the run of the same index without them.
    """

    id: str
    label: str
    run: Run
    then: tuple[str, ...] = ()
    alone: str = ""

    @property
    def key(self) -> str:
        """Stands for its numbers."""
        return f"{self.id} {self.run.record['made']}"


def _indexes(collection: Collection) -> list[tuple[str, Path]]:
    """Method and folder of every index of a collection, a visitor's own included."""
    if collection.name == own_pictures.NAME:
        return list(own_pictures.indexes(collection).items())
    return index.find_all(collection.name)


def gather(collection: Collection) -> tuple[dict[str, Measured], list[tuple]]:
    """Runs by id, and (label, folder, trouble) of every index without a run that fits it."""
    own, found = collection.name == own_pictures.NAME, _indexes(collection)
    without: list[tuple] = []
    several = {method for method, _ in found if sum(method == other for other, _ in found) > 1}
    measured = {}
    for method, path in found:
        title = methods.METHODS[method].title
        label = f"{title}, {path.name}" if method in several else title
        try:
            run, chains = loaders.run(path, collection), loaders.chains(path, collection)
        except RetrievalError as error:
            # Each new judgement makes the last evaluation one of other labels.
            without.append((label, path, "" if own else str(error)))
            continue
        if run is None:
            without.append((label, path, ""))
        else:
            measured[path.name] = Measured(path.name, label, run)
        for then in filter(None, chains):
            id = reranked_id(path, then)
            try:
                reranked = loaders.run(path, collection, then)
            except RetrievalError as error:
                st.warning(plain(str(error)), icon=":material/warning:")
                continue
            if reranked is not None:
                measured[id] = Measured(
                    id, f"{label} + {chain.title(then)}", reranked, then, path.name
                )
    return measured, without


def reranked_id(path: Path, then: tuple[str, ...]) -> str:
    return "+".join([path.name, *then])


def with_boxes(collection: Collection, whole: Mapping[str, Measured], protocol: str) -> str:
    """' With their boxes the queries gave mAP 54.27 (SIR)', of the methods alone, to compare."""
    boxed, _ = gather(collection)
    known = [
        f"{100 * one.run.scores[protocol].map:.2f} ({one.label})"
        for id, one in boxed.items()
        if id in whole
    ]
    return f" With their boxes the queries gave mAP {', '.join(known)}." if known else ""


def evaluate_now(collection: Collection, label: str, path: Path, trouble: str) -> None:
    """An index that was not evaluated: say so, and do it where that is possible."""
    if trouble:
        st.warning(plain(trouble), icon=":material/warning:")
    elif not collection.has_pictures:
        st.info(f"{plain(label)} was not evaluated; its queries need pictures, which are not here.")
    else:
        st.info(f"The {plain(label)} index was not evaluated yet.")
    if not collection.has_pictures or not st.button("Evaluate now", key=f"run-{path.name}"):
        return
    indexing.evaluate(collection, label, path)
    st.rerun()


def evaluate_reranked(collection: Collection, measured: Mapping[str, Measured]) -> None:
    """Any index with any chain of re-rankers, on request; the chart then shows before and after."""
    paths = {path.name: path for _, path in _indexes(collection)}
    alone = [name for name in measured if name in paths]
    if not alone or not collection.has_pictures:
        return
    with st.expander("Evaluate another re-ranking"):
        first, second = st.columns([1, 2], gap="small")
        name = first.selectbox(
            "Of which index",
            alone,
            format_func=lambda name: measured[name].label,
            key="rerank-index",
        )
        local = methods.METHODS[measured[name].run.record["provenance"]["method"]].kind == "local"
        fitting = [one for one in RERANKERS.values() if not (local and one.vectors)]
        chosen = second.multiselect(
            "Re-rankers, in this order",
            [one.name for one in fitting],
            list(BEST),
            format_func=lambda name: RERANKERS[name].title,
            max_selections=MAX_LENGTH,
            key=f"rerank-then-{'local' if local else 'global'}",
            help="  \n".join(f"**{one.title}** {one.summary}" for one in fitting),
        )
        with loaders.errors_shown():  # a message by hand may name anything, and twice
            then = chain.parse_chain(",".join(chosen))
        id = reranked_id(paths[name], then)
        kept = sum(one.alone == name for one in measured.values())
        full = id not in measured and kept >= MOST_KEPT
        if st.button("Evaluate", key="rerank-run", disabled=not then or full):
            if id not in measured:
                label = f"{measured[name].label} + {chain.title(then)}"
                indexing.evaluate(collection, label, paths[name], then)
            state["eval-method"], state["eval-against"] = id, name
            st.rerun()
        st.caption(
            f"{kept} re-rankings are kept beside this index, the most that visitors may make. The "
            "owner of this app can evaluate others by command, or delete some."
            if full
            else "Every query of the collection is searched for, which takes up to a minute. The "
            "result is kept beside the index."
        )


def uploaded(collection: Collection) -> Measured | str | None:
    """The visitor's ranking, scored; what is wrong with it; or None where there is none."""
    file = state.get("eval-upload")
    if file is None:
        return None
    try:
        run = loaders.submission(file, collection)
    except RetrievalError as error:
        return str(error)
    return Measured(UPLOAD, "Your upload", run)
