"""A process with limits that reads a stranger's file before this process reads it.

The checks of a reader stop only the attacks that their authors thought of. Here a file that takes
too much memory or time, for whatever reason, ends the other process and is refused. A file that
passes takes as much memory and time once more in this process.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrieval import processes
from retrieval.errors import RetrievalError

MEMORY = 1_000_000_000  # bytes
SECONDS = 60


def rehearse(read: Callable[[Path], Any], path: Path) -> None:
    """Call ``read(path)`` in a process of its own, whose memory and time are limited.

    read: a function at the top level of a module. Memory is limited on Linux only.
    Raises the RetrievalError that ``read`` raises there, and one where it takes more than MEMORY or
    SECONDS, or where no process can be started.
    """
    name = os.fspath(path)
    process = processes.start(
        __name__, read.__module__, read.__name__, os.getcwd(), name, str(MEMORY)
    )
    try:
        answer = process.communicate(timeout=SECONDS)[0]
    except subprocess.TimeoutExpired:
        answer = b""
    finally:
        processes.end(process)
    if not answer:
        raise RetrievalError(
            f"{name} is refused: it takes more than {MEMORY / 1e9:.0f} GB of memory or {SECONDS} "
            "seconds to read."
        )
    if refused := json.loads(answer):
        raise RetrievalError(refused)


def main(module: str, function: str, folder: str, path: str, memory: str) -> None:
    """Read a file, and answer with an empty text, or with why it is refused."""
    answers = processes.answers()
    read = getattr(importlib.import_module(module), function)
    os.chdir(folder)  # messages name the path as the user does
    processes.limit_memory(int(memory))
    refused = ""
    try:
        read(Path(path))
    except RetrievalError as error:
        refused = str(error)
    answers.write(json.dumps(refused).encode())
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
