"""Metadata of pictures: a table beside them, with a line for each picture.

It is ``metadata.csv`` or ``metadata.json`` in the folder of a collection. One column holds the file
name and is called ``name``, ``file`` or ``filename``. Where no picture has that path, the one whose
path ends with it is meant. A stranger may have made the file: its size is limited, and text is
cut to one plain line.
"""

from __future__ import annotations

import csv
import io
import json
import keyword
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from retrieval import files
from retrieval.collections.names import by_ending, plain_name
from retrieval.errors import RetrievalError
from retrieval.text import one_line

Value = str | int | float
Values = Mapping[str, Value]  # column → value
Metadata = Mapping[str, Values]  # picture name → values

FILES = ("metadata.csv", "metadata.json")
NAMES = ("name", "file", "filename")  # of the column with the file
MAX_BYTES = 16_000_000
MAX_COLUMNS = 50
MAX_CELLS = 2_000_000  # lines × columns: an empty cell takes memory, too


def read_metadata(folder: Path, names: Sequence[str]) -> dict[str, Values]:
    """The table of a folder, for the pictures ``names``; {} where the folder has none.

    Raises RetrievalError for a table that cannot be read.
    """
    for file_name in FILES:
        path = folder / file_name
        if path.is_file():
            return of_pictures(read_table(path), names)
    return {}


def read_table(path: Path) -> dict[str, Values]:
    """File name → values, from a CSV file in UTF-8 or a JSON list of objects.

    The cells of a CSV file are separated by commas, semicolons or tabs. Numbers have a decimal
    point: 3,5 is text.

    Values are int where the whole column has integers, else float where it has numbers, else str.
    Empty cells are left out, and NaN or NA among numbers. Raises RetrievalError for a table that
    cannot be read.
    """
    try:
        text = files.read(path, MAX_BYTES).decode("utf-8-sig")
        lines = _csv(text) if path.suffix.lower() == ".csv" else _json(text)
    except OSError as error:
        raise RetrievalError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    except (ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise RetrievalError(
            f"{path.name} is no table: it must be CSV in UTF-8 whose first line names the columns, "
            "or a JSON list of objects."
        ) from error
    return _table(path.name, lines)


def _csv(text: str) -> list[dict[str, Any]]:
    # Where numbers have a decimal comma, spreadsheets write semicolons between the cells.
    head = re.split(r"[\r\n]", text, maxsplit=1)[0].replace('"', "")
    named = (mark for mark in ",;\t" if any(map(_holds_names, head.split(mark))))
    delimiter = next(named, ",")
    lines = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    if len(set(lines.fieldnames or ())) != len(lines.fieldnames or ()):
        raise ValueError("a column is there twice")
    table = []
    for line in islice(lines, MAX_CELLS // max(len(lines.fieldnames or ()), 1) + 1):
        if None in line:  # at once: two million lines with more cells took 1 GB
            raise ValueError("a line is longer than the first")
        table.append(line)
    return table


def _json(text: str) -> list[dict[str, Any]]:
    table = json.loads(text, parse_constant=lambda word: None)
    if isinstance(table, dict):  # by name
        table = [{**values, "name": name} for name, values in table.items()]
    if not isinstance(table, list) or not all(isinstance(line, dict) for line in table):
        raise ValueError("no list of objects")
    return table


def _table(file: str, lines: list[dict[str, Any]]) -> dict[str, Values]:
    if not lines:
        return {}
    columns = list(dict.fromkeys(key for line in lines for key in line))
    name_column = next(filter(_holds_names, columns), None)
    if name_column is None:
        raise RetrievalError(f"{file} needs a column called name, with the file of each picture.")
    if len(columns) > MAX_COLUMNS:
        raise RetrievalError(f"{file} has more than {MAX_COLUMNS} columns; leave some out.")
    if len(lines) * len(columns) > MAX_CELLS:
        raise RetrievalError(
            f"{file} has more than {MAX_CELLS:,} cells, empty ones included; leave some out."
        )
    names = [plain_name(str(line.get(name_column) or "")) for line in lines]
    table: dict[str, dict[str, Value]] = {}
    for name in names:
        if name in table:
            raise RetrievalError(f"{file} has {one_line(name, 100)} twice; keep one line of it.")
        table[name] = {}
    identifiers = {column: _identifier(column) for column in columns if column != name_column}
    if len(set(identifiers.values())) != len(identifiers):
        raise RetrievalError(f"{file} has two columns of the same name; rename one.")
    for column, identifier in identifiers.items():
        cells = {name: _cell(line.get(column)) for name, line in zip(names, lines, strict=True)}
        filled = {name: cell for name, cell in cells.items() if cell != ""}
        numbers = {n: cell for n, cell in filled.items() if not _MISSING.fullmatch(cell)}
        kind = _kind(numbers.values()) if numbers else str  # NA alone may be North America
        filled = numbers if kind is not str else filled
        for name, cell in filled.items():
            table[name][identifier] = kind(cell)
    return dict(table)


def _holds_names(column: str) -> bool:
    """Whether it is the name of the column with the files."""
    return column.strip().lower() in NAMES


def _identifier(column: str) -> str:
    """A column's name as it is written in a filter: Year_taken for 'Year taken'."""
    # Filters are parsed by Python, which normalises names: ﬁ to fi.
    word = unicodedata.normalize("NFKC", one_line(column, 100))
    word = re.sub(r"\W+", "_", word).strip("_") or "column"
    return word if word.isidentifier() and not keyword.iskeyword(word) else f"_{word}"


def _cell(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        return ""
    return one_line(str(value))


_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")  # 007 is a name, not a number
# Programs write seventeen digits behind the zeros: 0.012345678901234568 has eighteen decimals.
_NUMBER = re.compile(
    r"-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?(e(-[0-9]{1,3}|\+?[0-9]{1,2}))?", re.IGNORECASE
)
_MISSING = re.compile("nan|na", re.IGNORECASE)  # how NumPy and R write a missing number


def _kind(cells: Iterable[str]) -> Callable[[str], Value]:
    cells = list(cells)
    kinds: tuple[tuple[re.Pattern, Callable[[str], Value]], ...] = (
        (_WHOLE, int),
        (_NUMBER, lambda cell: float(cell) + 0),  # makes -0.0 0.0: stores take them for different
    )
    return next((kind for form, kind in kinds if all(map(form.fullmatch, cells))), str)


def of_pictures(table: Metadata, names: Sequence[str]) -> dict[str, Values]:
    """The lines of a table that belong to these pictures, by path, else by the end of the path."""
    endings = by_ending(names, table)
    return {name: values for name in names if name in endings and (values := table[endings[name]])}


def choices(metadata: Metadata, max_values: int = 40) -> dict[str, list[Value]]:
    """The columns with 2 to ``max_values`` different values: column → its values, sorted."""
    seen: dict[str, set[Value]] = {}
    for values in metadata.values():
        for column, value in values.items():
            seen.setdefault(column, set()).add(value)
    return {
        column: sorted(values) for column, values in seen.items() if 1 < len(values) <= max_values
    }
