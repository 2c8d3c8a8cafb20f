"""Python processes for work that may crash, hang or fill the memory: only such a process ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, cast

from retrieval.errors import RetrievalError

ROOT = Path(__file__).parents[1]


def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run a module of this checkout. It reads requests from its stdin and answers on its stdout.

    Raises RetrievalError where no process can be started.
    """
    # The working folder alone would not do where PYTHONSAFEPATH is set.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise RetrievalError(
            f"No process can be started ({error.strerror or error}); end other programs, then try "
            "again."
        ) from error


def pipes(process: subprocess.Popen[bytes]) -> tuple[BinaryIO, BinaryIO]:
    """Its stdin and its stdout."""
    return cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and close its pipes; also where it has ended already."""
    process.kill()
    process.wait()
    for pipe in pipes(process):
        with contextlib.suppress(OSError):  # what it did not read
            pipe.close()


def answers() -> BinaryIO:
    """In such a process: the file for answers. What libraries print goes to stderr from now on."""
    file = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return file


def limit_memory(size: int) -> None:
    """In such a process: let it have so many bytes. Without effect on Windows."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(
            resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )
