"""Credits: the author and licence of each picture, in ``credits.json`` in its folder."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

from retrieval import files
from retrieval.errors import RetrievalError

FILE = "credits.json"
MAX_BYTES = 32_000_000
MAX_PICTURES = 250_000  # ten times as many are 32 MB, and take 2 GB on a page that lists them
_FORMULA = tuple("=+-@\t\r")
# Nothing that ends a link, and as long as browsers take.
_ADDRESS = re.compile(r"https://[\w.~:/?#@!$&'*+,;=%-]{1,2000}", re.ASCII)


@dataclass(frozen=True)
class Credit:
    """The credit of a picture: texts of one line.

    licence_url, page: https addresses, or ''. note: further notes of the source, for example that
    a trade mark is in the picture.
    """

    title: str
    author: str
    licence: str
    licence_url: str
    page: str
    note: str = ""

    @property
    def line(self) -> str:
        """The credit as one line, for small print."""
        return ", ".join(filter(None, (self.author, self.licence, self.page)))


def one_line(text: str, max_length: int = 300) -> str:
    """``text`` without control, direction and other invisible characters, in one line, cut."""
    shown = "".join(
        " " if character.isspace() else character
        for character in text[: 10 * max_length]
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    shown = " ".join(shown.split())
    return shown if len(shown) <= max_length else shown[: max_length - 1] + "…"


def plain_name(name: str) -> str:
    """A picture's name as collections have it: ./a.jpg, as ``find .`` writes it, is a.jpg."""
    # Most names have no folder, and a path takes a microsecond to make.
    return PurePosixPath(name).as_posix() if "/" in name else name


def read_credits(folder: Path) -> dict[str, Credit]:
    """Picture name → credit; {} where the folder has none.

    The file may be a stranger's: values that are no text are refused, and only https addresses are
    kept.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        pictures = files.read_json(path, MAX_BYTES)["pictures"]
        if len(pictures) > MAX_PICTURES:
            raise RetrievalError(
                f"{path} lists more than {MAX_PICTURES:,} pictures; delete it or shorten it."
            )
        return {plain_name(str(name)): checked(entry) for name, entry in pictures.items()}
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RetrievalError(
            f"{path} is damaged; download the collection again, or delete the file if the "
            "pictures are yours."
        ) from error


def checked(entry: Mapping[str, str]) -> Credit:
    """The credit that a stranger's file gives; raises TypeError or AttributeError for no text."""
    values = {field.name: one_line(entry.get(field.name, "")) for field in fields(Credit)}
    for name in ("licence_url", "page"):
        values[name] = entry.get(name, "") if _ADDRESS.fullmatch(entry.get(name, "")) else ""
    return Credit(**values)


def with_credits(note: str, *credits: Credit | None) -> str:
    """The note of a figure, with a line in front for each picture whose author is known."""
    return "\n".join([*(f"Photograph: {credit.line}" for credit in credits if credit), note])


def as_csv(credits: Mapping[str, Credit]) -> bytes:
    """A table with one line for each picture, as spreadsheets read it."""
    columns = [field.name for field in fields(Credit)]
    rows = ([name, *(getattr(credit, key) for key in columns)] for name, credit in credits.items())
    return table(["picture", *columns], rows)


def table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> bytes:
    """CSV in UTF-8. Text that spreadsheets take for a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(
            f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
            for cell in row
        )
    # The mark tells spreadsheets that it is UTF-8. Names of files need not be text.
    return out.getvalue().encode("utf-8-sig", "backslashreplace")
