"""The runs on show: every evaluated index of a collection, and a ranking that a visitor brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from pages.parts import loaders, own_pictures
from pages.parts.plain import plain
from retrieval import index, methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation.runs import Run
from retrieval.ranking.chain import RERANKERS

UPLOAD = "upload"
state = st.session_state


@dataclass(frozen=True)
class Measured:
    """A run on show. id: in the address. label: unlike that of any other run here."""

    id: str
    label: str
    run: Run

    @property
    def key(self) -> str:
        """Stands for its numbers."""
        return f"{self.id} {self.run.record['made']}"


def gather(collection: Collection) -> tuple[dict[str, Measured], list[tuple]]:
    """Runs by id, and (label, folder, trouble) of every index without a run that fits it."""
    own = collection.name == own_pictures.NAME
    found = (
        list(own_pictures.indexes(collection).items()) if own else index.find_all(collection.name)
    )
    without: list[tuple] = []
    several = {method for method, _ in found if sum(method == other for other, _ in found) > 1}
    measured = {}
    for method, path in found:
        title = methods.METHODS[method].title
        label = f"{title}, {path.name}" if method in several else title
        try:
            run = loaders.run(path, collection)
        except RetrievalError as error:
            # Each new judgement makes the last evaluation one of other labels.
            without.append((label, path, "" if own else str(error)))
            continue
        if run is None:
            without.append((label, path, ""))
        else:
            measured[path.name] = Measured(path.name, label, run)
        for then in filter(None, loaders.chains(path, collection)):
            id = f"{path.name}+{'+'.join(then)}"
            names = ", then ".join(RERANKERS[name].title for name in then)
            try:
                reranked = loaders.run(path, collection, then)
            except RetrievalError as error:
                st.warning(plain(str(error)), icon=":material/warning:")
                continue
            if reranked is not None:
                measured[id] = Measured(id, f"{label} + {names}", reranked)
    return measured, without


def evaluate_now(collection: Collection, label: str, path: Path, trouble: str) -> None:
    """An index that was not evaluated: say so, and do it where that is possible."""
    if trouble:
        st.warning(plain(trouble), icon=":material/warning:")
    elif not collection.has_pictures:
        st.info(f"{label} was not evaluated; its queries need pictures, which are not here.")
    else:
        st.info(f"The {label} index was not evaluated yet.")
    if not collection.has_pictures or not st.button("Evaluate now", key=f"run-{path.name}"):
        return
    with loaders.explained():
        bar = st.progress(0.0, f"Putting {len(collection.queries)} queries to {label}")

        def show(done: int, total: int, name: str) -> None:
            bar.progress(done / total)

        loaders.evaluate(path, collection, show)
    st.rerun()


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
