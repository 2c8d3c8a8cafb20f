"""The hidden folder with the state of an unfinished download."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval import files
from retrieval.collections.commons.choice import File
from retrieval.collections.commons.order import Order
from retrieval.collections.commons.site import MAX_BYTES
from retrieval.errors import RetrievalError

FOLDER = ".commons"  # in the folder of the collection


@contextmanager
def locked_folder(order: Order, out: Path) -> Iterator[Path]:
    """Open the work folder of ``out``, for one process and one order.

    Raises RetrievalError where ``out`` holds something else, or another process uses it.
    """
    from filelock import FileLock, Timeout

    work = out / FOLDER
    if out.is_dir() and any(out.iterdir()) and not work.is_dir():
        raise RetrievalError(f"{out} is not empty; choose a new folder.")
    # The folder may be a stranger's: a link in it would lead writes to another place, and a pipe
    # would be waited for.
    if work.is_symlink() or any(
        path.is_symlink() or not (path.is_file() or path.is_dir()) for path in files.inside(work)
    ):
        raise RetrievalError(f"{work} holds links or devices, which no download makes; delete it.")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / ".lock", timeout=0):
            settings = json.loads(json.dumps(asdict(order)))
            saved = _read_json(work / "order.json")
            if saved not in (None, settings) and any(out.glob("*.jpg")):
                raise RetrievalError(
                    f"{out} holds a download with other settings; choose a new folder, or ask for "
                    "the same again."
                )
            if saved != settings:
                for listing in work.glob("list-*.json"):
                    listing.unlink()
                files.write_json(work / "order.json", settings)
            yield work
    except Timeout as error:
        raise RetrievalError(f"Another download into {out} is running; wait for it.") from error
    except OSError as error:
        raise RetrievalError(
            f"{out} cannot be written: {error.strerror or error}; choose another place."
        ) from error


class Ledger(dict[str, str]):
    """pageid → the SHA-256 of a picture, or '!' and the reason why it is left out. On disk."""

    def __init__(self, path: Path) -> None:
        saved = _read_json(path)
        notes = saved.items() if isinstance(saved, dict) else ()
        super().__init__((key, note) for key, note in notes if isinstance(note, str))
        self.path = path

    def note(self, file: File, outcome: str) -> None:
        self[str(file.pageid)] = outcome
        files.write_json(self.path, self)

    def reason(self, file: File) -> str:
        """The reason why a picture was left out; '' where it was not, or not yet fetched."""
        outcome = self.get(str(file.pageid), "")
        return outcome[1:] if outcome.startswith("!") else ""


def _read_json(path: Path) -> Any:
    """The content of a JSON file; None where it is missing or damaged."""
    try:
        return files.read_json(path, MAX_BYTES)
    except (OSError, ValueError):
        return None
