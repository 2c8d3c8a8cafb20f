"""The report's table: what is measured on this machine beside what others state.

Every figure says where it comes from: measured here, the report, or its authors' publication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval import index as indexes
from retrieval import methods
from retrieval.collections import Collection, open_collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import published, runs
from retrieval.index import Index, store

COLLECTIONS = {"roxford5k": ("easy", "medium", "hard"), "oxford5k": ("classic",)}
MEASURED = "measured here"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Line:
    """One line of the table. map: protocol → mAP in per cent; note: why there is none."""

    method: str
    origin: str
    network: str
    map: dict[str, float]
    note: str = ""


def table(collection: str, progress: Progress | None = None) -> list[Line]:
    """What the report and the authors state for a collection, and what its indexes here give.

    Indexes that were not evaluated yet are, where the pictures of the queries are on disk.
    """
    lines = [
        Line(row.method, row.origin, row.network, dict(row.map))
        for row in published.rows(collection)
    ]
    lines += _measured(collection, progress)
    # The three methods, then what is none of them; the report before its authors before ours.
    titles = [entry.title for entry in methods.METHODS.values()]
    origins = [published.REPORT, published.PUBLISHED, MEASURED]

    def place(line: Line) -> tuple[int, int]:
        method = titles.index(line.method) if line.method in titles else len(titles)
        return method, origins.index(line.origin)

    return sorted(lines, key=place)


def _measured(name: str, progress: Progress | None) -> Iterator[Line]:
    for method, path in indexes.find_all(name, store.PRECOMPUTED):
        title = methods.METHODS[method].title
        try:
            index = indexes.load(path)
            scores = evaluated(index, open_collection(name), None, progress).scores
        except RetrievalError as error:
            yield Line(title, MEASURED, Path(path).name, {}, str(error))
        else:
            yield Line(title, MEASURED, index.checkpoint, {
                protocol: 100 * one.map for protocol, one in scores.items()
            })  # fmt: skip


def evaluated(
    index: Index,
    collection: Collection,
    method: methods.Method | None = None,
    progress: Progress | None = None,
) -> runs.Run:
    """The run kept beside an index, or a new one where there is none that fits.

    method: that of the index, if it is loaded already.
    """
    if collection.fingerprint != index.manifest["collection"]["fingerprint"]:
        raise RetrievalError(
            f"The index {index.path} was made of another list of pictures than {collection.title} "
            "has now; index the collection again."
        )
    try:
        kept = runs.load_run(index, collection)
    except RetrievalError:  # of an earlier index, or of other labels
        kept = None
    if kept is not None:
        return kept
    if method is None and "queries_sha256" not in index.settings:
        method = methods.for_index(index)
    return runs.run(index, collection, method, progress)


def run(progress: Progress | None = None) -> int:
    """The command ``reproduce``."""
    for name, protocols in COLLECTIONS.items():
        lines = table(name, progress)
        width = max(len(line.network) for line in lines)
        print(f"{name}, mAP in per cent")
        print(
            f"{'method':18}{'origin':15}{'network':{width}}" + "".join(f"{p:>9}" for p in protocols)
        )
        for line in lines:
            numbers = "".join(
                f"{line.map[p]:9.2f}" if p in line.map else f"{'-':>9}" for p in protocols
            )
            print(f"{line.method:18}{line.origin:15}{line.network:{width}}{line.note or numbers}")
        if not any(line.origin == MEASURED for line in lines):
            print(f"nothing is measured here yet: python -m retrieval index {name} --method METHOD")
        print()
    return 0
