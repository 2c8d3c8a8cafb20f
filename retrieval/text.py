"""Text of others, made fit to be shown on one line, and tables for spreadsheets."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence

_FORMULA = tuple("=+-@\t\r")


def one_line(text: str, max_length: int = 300) -> str:
    """``text`` without control, direction and other invisible characters, in one line, cut."""
    shown = "".join(
        " " if character.isspace() else character
        for character in text[: 10 * max_length]
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    shown = " ".join(shown.split())
    return shown if len(shown) <= max_length else shown[: max_length - 1] + "…"


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
