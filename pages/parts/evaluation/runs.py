"""The runs on show: every evaluated index of a collection, and a ranking that a visitor uploads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from pages.parts import indexing, loaders, notices, own_pictures
from pages.parts.cache import Cache, Part
from pages.parts.plain import plain
from retrieval import files, index, methods
from retrieval.collections import PRECOMPUTED, Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation.runs import Run
from retrieval.ranking import chain
from retrieval.ranking.chain import BEST, MAX_LENGTH, RERANKERS

UPLOAD = "upload"  # the id of a visitor's ranking
# Re-rankings of one index that visitors may have evaluated: everybody's page shows all of them.
MAX_RERANKINGS = 20
state = st.session_state


@dataclass(frozen=True)
class LabelledRun:
    """A run with its names on the page.

    run_id: in the address. label: for readers; no other run on the page has it.
    then: the re-rankers. without_reranking: run_id of the same index without them; else ''.
    """

    run_id: str
    label: str
    run: Run
    then: tuple[str, ...] = ()
    without_reranking: str = ""

    @property
    def cache_key(self) -> str:
        """A cache key, equal only for equal numbers."""
        return f"{self.run_id} {self.run.record['made']}"


def figure_cache(collection: Collection, shown: Iterable[LabelledRun]) -> Cache | Part:
    """The cache for figures of runs: the session's where a visitor brought pictures or ranking."""
    own = collection.of_visitor or any(entry.run_id == UPLOAD for entry in shown)
    return loaders.cache_for(b"" if own else collection.root)


def stated_title(collection: Collection) -> str:
    """The title of a collection, and in which form its queries were asked, for small print."""
    return collection.title + (", queries without their boxes" if collection.whole else "")


def file_stem(collection: Collection) -> str:
    """How the names of files to download begin: those without the boxes have other figures."""
    return collection.name + ("-without-boxes" if collection.whole else "")


class NotEvaluated(NamedTuple):
    """An index without a run that fits it. problem: the error of its run, in Markdown, or ''."""

    label: str
    path: Path
    problem: str


def _indexes(collection: Collection) -> list[tuple[str, Path]]:
    """Method and folder of every index of a collection, a visitor's own included."""
    if collection.name == own_pictures.NAME:
        return list(own_pictures.indexes(collection).items())
    return index.find_all(collection.name)


def find_runs(collection: Collection) -> tuple[dict[str, LabelledRun], list[NotEvaluated]]:
    """The stored runs of a collection by run_id, and its indexes that were not evaluated.

    All rankings are in memory at once, so of a very large collection only some runs are returned.
    """
    room = max(files.MAX_ARRAYS // (4 * len(collection.names) * len(collection.queries)), 1)
    indexes = _indexes(collection)
    method_names = [method for method, _ in indexes]
    left_out = False
    evaluated: list[tuple[str, Path, Run, list[tuple[str, ...]]]] = []
    not_evaluated: list[NotEvaluated] = []
    for method, path in indexes:
        if len(evaluated) >= room and (path / "evaluation.json").is_file():
            left_out = True
            continue
        label = methods.METHODS[method].title
        if method_names.count(method) > 1:
            label += f", {path.name}"
        try:
            run, chains = loaders.run(path, collection), loaders.chains(path, collection)
        except RetrievalError as error:
            # Each judgement of a visitor changes the labels, so the last evaluation no longer fits.
            problem = "" if collection.name == own_pictures.NAME else notices.sentence(error)
            not_evaluated.append(NotEvaluated(label, path, problem))
            continue
        if run is None:
            not_evaluated.append(NotEvaluated(label, path, ""))
            continue
        evaluated.append((label, path, run, chains))
    room -= len(evaluated)  # the rest is for runs with re-rankers
    labelled_runs: dict[str, LabelledRun] = {}
    for label, path, run, chains in evaluated:
        labelled_runs[path.name] = LabelledRun(path.name, label, run)
        for then in filter(None, chains):
            if not room:
                left_out = True
                break
            try:
                reranked = loaders.run(path, collection, then)
            except RetrievalError as error:
                st.warning(notices.sentence(error), icon=":material/warning:")
                continue
            if reranked is not None:
                room -= 1
                run_id = _reranked_run_id(path, then)
                labelled_runs[run_id] = LabelledRun(
                    run_id, f"{label} + {chain.title(then)}", reranked, then, path.name
                )
    if left_out:
        st.caption("The collection is large, so the page shows only these evaluations.")
    return labelled_runs, not_evaluated


def _reranked_run_id(path: Path, then: tuple[str, ...]) -> str:
    return "+".join([path.name, *then])


def scores_with_boxes(
    collection: Collection, without_boxes: Iterable[LabelledRun], protocol: str
) -> str:
    """' With their boxes the queries gave mAP 54.27 (SIR).', of the same runs made with boxes.

    collection: with the boxes. Returns '' where none of the runs was made with boxes as well.
    """
    paths = {path.name: path for _, path in _indexes(collection)}
    texts = []
    for entry in without_boxes:
        path = paths.get(entry.without_reranking or entry.run_id)
        with suppress(RetrievalError):  # it does not fit any more: as where there is none
            run = loaders.run(path, collection, entry.then) if path else None
            if run is not None:
                texts.append(f"{100 * run.scores[protocol].map:.2f} ({entry.label})")
    return f" With their boxes the queries gave mAP {', '.join(texts)}." if texts else ""


def command_text(collection: Collection, labelled_runs: Iterable[LabelledRun]) -> str:
    """' `python -m retrieval …` measures the first row again.', of the first run; or ''."""
    paths = {path.name: path for _, path in _indexes(collection)}
    path = next((paths[one.run_id] for one in labelled_runs if one.run_id in paths), None)
    if path is None or not path.is_relative_to(PRECOMPUTED):  # a visitor's own, or in a store
        return ""
    option = " --no-boxes" if collection.whole else ""
    command = f"python -m retrieval evaluate {os.path.relpath(path)}{option}"
    return f" `{command}` measures the first row again."


def offer_evaluation(collection: Collection, missing: NotEvaluated) -> None:
    """Say that an index was not evaluated, and draw a button that does it where it is possible."""
    label = plain(missing.label)
    if missing.problem:
        st.warning(missing.problem, icon=":material/warning:")
    elif not collection.has_pictures:
        st.info(
            f"{label} was not evaluated, because the pictures of its queries are not on this "
            "machine."
        )
    else:
        st.info(f"The {label} index was not evaluated yet.")
    if not collection.has_pictures or not st.button("Evaluate now", key=f"run-{missing.path.name}"):
        return
    indexing.evaluate(collection, missing.label, missing.path)
    st.rerun()


def offer_reranking(collection: Collection, labelled_runs: Mapping[str, LabelledRun]) -> None:
    """Draw the form that evaluates an index with re-rankers; the chart then shows both runs."""
    paths = {path.name: path for _, path in _indexes(collection)}
    choices = [run_id for run_id in labelled_runs if run_id in paths]
    if not choices or not collection.has_pictures:
        return
    with st.expander("Evaluate another re-ranking"):
        index_column, rerankers_column = st.columns([1, 2], gap="small")
        chosen_id = index_column.selectbox(
            "Of which index",
            choices,
            format_func=lambda run_id: labelled_runs[run_id].label,
            key="rerank-index",
        )
        chosen = labelled_runs[chosen_id]
        is_local = methods.METHODS[chosen.run.record["provenance"]["method"]].kind == "local"
        rerankers = [
            reranker for reranker in RERANKERS.values() if not (is_local and reranker.vectors)
        ]
        names = rerankers_column.multiselect(
            "Re-rankers, in this order",
            [reranker.name for reranker in rerankers],
            list(BEST),
            format_func=lambda name: RERANKERS[name].title,
            max_selections=MAX_LENGTH,
            key=f"rerank-then-{'local' if is_local else 'global'}",
            help="  \n".join(f"**{reranker.title}** {reranker.summary}" for reranker in rerankers),
        )
        with notices.errors_shown():  # a forged message may name anything, and twice
            then = chain.parse_chain(",".join(names))
        run_id = _reranked_run_id(paths[chosen_id], then)
        kept = sum(entry.without_reranking == chosen_id for entry in labelled_runs.values())
        is_full = run_id not in labelled_runs and kept >= MAX_RERANKINGS
        if st.button("Evaluate", key="rerank-run", disabled=not then or is_full):
            if run_id not in labelled_runs:
                label = f"{chosen.label} + {chain.title(then)}"
                indexing.evaluate(collection, label, paths[chosen_id], then)
            state["eval-method"], state["eval-against"] = run_id, chosen_id
            st.rerun()
        st.caption(
            f"{kept} re-rankings are kept beside this index, the most that visitors may make. The "
            "owner of this app can evaluate others by command, or delete some."
            if is_full
            else "The search runs for every query of the collection, which may take minutes. The "
            "result is kept beside the index."
        )


def uploaded_run(collection: Collection) -> LabelledRun | str | None:
    """The visitor's ranking, scored; a sentence on what is wrong with it; None without one."""
    file = state.get("eval-upload")
    if file is None:
        return None
    try:
        run = loaders.submission(file, collection)
    except RetrievalError as error:
        return str(error)
    return LabelledRun(UPLOAD, "Your upload", run)
