"""The report's table, with scores measured on this machine beside published ones.

Every figure has its origin: measured here, the report, or the publication of the authors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval import index as indexes
from retrieval import methods
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import published, runs

COLLECTIONS = {"roxford5k": ("easy", "medium", "hard"), "oxford5k": ("classic",)}
MEASURED = "measured here"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Line:
    """One line of the table.

    map: protocol → mAP in per cent. note: why there is none. overlap: whether the training pictures
    show landmarks of the collection, in words; '' where that is not stated.
    """

    method: str
    origin: str
    network: str
    map: dict[str, float]
    note: str = ""
    overlap: str = ""


def table(collection: str, progress: Progress | None = None) -> list[Line]:
    """The scores of a collection in the report and in publications, and those measured here.

    An index that was not evaluated yet is evaluated now; that needs the pictures of the queries.
    A line with a note stands for an index where that fails.
    """
    lines = [
        Line(
            row.method,
            row.origin,
            f"{row.network}; {row.trained_on}",
            dict(row.map),
            overlap=row.overlap,
        )
        for row in published.rows(collection)
    ]
    lines += _measured(collection, progress)
    # The three methods before others; for each, the report's figures, the authors', then ours.
    titles = [entry.title for entry in methods.METHODS.values()]
    origins = [published.REPORT, published.PUBLISHED, MEASURED]

    def sort_key(line: Line) -> tuple[int, int]:
        method = titles.index(line.method) if line.method in titles else len(titles)
        return method, origins.index(line.origin)

    return sorted(lines, key=sort_key)


def _measured(name: str, progress: Progress | None) -> Iterator[Line]:
    for method, path in indexes.find_all(name):
        title = methods.METHODS[method].title
        try:
            index = indexes.load(path)
            scores = runs.evaluated(index, open_collection(name), None, progress).scores
        except RetrievalError as error:
            yield Line(title, MEASURED, Path(path).name, {}, str(error))
        else:
            yield Line(title, MEASURED, index.checkpoint, {
                protocol: 100 * score.map for protocol, score in scores.items()
            })  # fmt: skip
