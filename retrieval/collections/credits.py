"""Credits: the author and licence of each picture, in ``credits.json`` in its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from retrieval import files
from retrieval.collections.names import plain_name
from retrieval.errors import RetrievalError
from retrieval.text import one_line, table

FILE = "credits.json"
MAX_BYTES = 32_000_000
MAX_PICTURES = 250_000  # ten times as many are 32 MB, and take 2 GB on a page that lists them
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
