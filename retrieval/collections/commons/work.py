"""The hidden folder in which an unfinished download keeps what it knows."""

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
from retrieval.errors import RetrievalError

FOLDER = ".commons"  # in that of the collection


@contextmanager
def locked_folder(order: Order, out: Path) -> Iterator[Path]:
    """The work folder of ``out``, for one process and one order."""
    from filelock import FileLock, Timeout

    work = out / FOLDER
    if out.is_dir() and any(out.iterdir()) and not work.is_dir():
        raise RetrievalError(f"{out} is not empty; choose a new folder.")
    # It may have come with a stranger's pictures, and what is fetched is written into it.
    if any(path.is_symlink() for path in (work, *work.rglob("*"))):
        raise RetrievalError(f"{work} holds links, which no download makes; delete it.")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / ".lock", timeout=0):
            asked = json.loads(json.dumps(asdict(order)))
            before = _read_json(work / "order.json")
            if before not in (None, asked) and any(out.glob("*.jpg")):
                raise RetrievalError(
                    f"{out} holds a download with other settings; choose a new folder, or ask for "
                    "the same again."
                )
            if before != asked:
                for listed in work.glob("list-*.json"):
                    listed.unlink()
                files.write_json(work / "order.json", asked)
            yield work
    except Timeout as error:
        raise RetrievalError(f"Another download into {out} is running; wait for it.") from error
    except OSError as error:
        raise RetrievalError(f"{out} cannot be written: {error.strerror or error}.") from error


class Ledger(dict[str, str]):
    """pageid → the SHA-256 of a picture that was taken, or '!' and why it was not. On disk."""

    def __init__(self, path: Path) -> None:
        before = _read_json(path)
        super().__init__(before if isinstance(before, dict) else {})
        self.path = path

    def note(self, file: File, outcome: str) -> None:
        self[str(file.pageid)] = outcome
        files.write_json(self.path, self)

    def refused(self, file: File) -> str:
        """Why a picture was not taken; '' if it was, or was not looked at."""
        outcome = self.get(str(file.pageid), "")
        return outcome[1:] if outcome.startswith("!") else ""


def _read_json(path: Path) -> Any:
    """What a file of ours holds; None where there is none, or it is damaged."""
    try:
        return files.read_json(path)
    except (OSError, ValueError):
        return None
