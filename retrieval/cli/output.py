"""What commands write: progress bars, tables, and files that appear when they are complete."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from zipfile import BadZipFile

from retrieval import files
from retrieval.errors import RetrievalError
from retrieval.evaluation import KS, Scores

if TYPE_CHECKING:
    from tqdm import tqdm

    from retrieval.index import Index


DELAY = 1.0  # s of work before a bar is shown
LOG_INTERVAL = 10.0  # s between two lines where stderr is no terminal

# Control character → its escape.
_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0))}


def printable(text: str) -> str:
    """A line with control characters as escapes (\\x1b): names of files may hold commands for a
    terminal.
    """
    return text.translate(_ESCAPES)


def _tqdm(**options: Any) -> tqdm:
    from tqdm import tqdm

    interval = 0.1 if sys.stderr.isatty() else LOG_INTERVAL
    return tqdm(delay=DELAY, mininterval=interval, **options)


class Bar:
    """A progress bar with rate and time left, on stderr. ``update`` is a ``progress`` callback."""

    def __init__(self, total: int, unit: str = "picture"):
        self.tqdm = _tqdm(total=total, unit=unit)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error) -> None:
        self.tqdm.close()

    def update(self, done: int, total: int, name: str) -> None:
        """name: of what is done; it is not shown."""
        if done < self.tqdm.n:  # the next stage
            self.tqdm.reset(total)
        self.tqdm.total = total
        self.tqdm.update(done - self.tqdm.n)

    def say(self, text: str) -> None:
        """Print a line on stdout above the bar."""
        self.tqdm.clear()
        print(text, flush=True)


class DownloadBar:
    """A progress bar for each file, with rate and time left, on stderr."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.bar: tqdm | None = None
        self.bytes_so_far = 0

    def __enter__(self) -> DownloadBar:
        return self

    def __exit__(self, *error) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.name = self.bar = None

    def update(self, bytes_so_far: int, total: int | None, name: str) -> None:
        """total: bytes of the file, where known. name: of the file."""
        if name != self.name:
            self._close()
            self.name, self.bytes_so_far = name, bytes_so_far
            # initial: bytes of an earlier download do not count for the rate
            self.bar = _tqdm(
                desc=name, total=total, initial=bytes_so_far, unit="B", unit_scale=True
            )
        assert self.bar is not None
        if bytes_so_far < self.bytes_so_far:
            self.bar.reset(total)  # the server began again
            self.bytes_so_far = 0
        self.bar.update(bytes_so_far - self.bytes_so_far)
        self.bytes_so_far = bytes_so_far

    def say(self, text: str) -> None:
        """Print a line on stdout; the bar ends."""
        self._close()
        print(text, flush=True)


def check_output(
    path: Path | None, is_former: Callable[[Path], bool], inputs: Iterable[Any] = ()
) -> None:
    """Refuse, before minutes of work, a path that no file can have, and to replace another file
    than a former output of the same command.

    is_former: whether a file is such an output, by what is in it; may raise OSError, ValueError or
    BadZipFile where it is none. inputs: paths of files that the command reads.
    """
    if path is None:
        return
    if path.exists() and not path.is_file():  # a rename would put a file in the place of /dev/null
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise RetrievalError(f"{path} is {kind}; name a file to write to.")
    if not path.parent.is_dir():
        raise RetrievalError(f"There is no folder {path.parent} to write to; make it first.")
    files.check_writable(path.parent, "file")
    if not path.is_file() or not path.stat().st_size:  # mktemp makes empty ones
        return
    from retrieval.index import target

    # The evaluation in an index has the form of the scores that ``evaluate`` writes elsewhere.
    of_index = (path.parent / "manifest.json").is_file() and any(
        fnmatch(path.name, pattern) for pattern in target.FILES
    )
    is_read = os.path.realpath(path) in (os.path.realpath(one) for one in inputs)
    may_go = False
    with suppress(OSError, ValueError, BadZipFile):
        may_go = not (of_index or is_read) and is_former(path)
    if not may_go:
        raise RetrievalError(
            f"{path} is there already, and this command did not write it: choose another name."
        )


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write to, which appears at ``path`` when it is complete.

    Raises RetrievalError where it cannot be written.
    """
    try:
        with files.replacing(path) as file:
            yield file
    except OSError as error:
        raise RetrievalError(
            f"{path} cannot be written: {error.strerror or error}; choose another place."
        ) from error


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write a JSON file, if there is a path. Raises RetrievalError where it cannot be written."""
    if path is not None:
        with writing(path) as file:
            file.write(files.as_json(content))


def print_table(scores: Mapping[str, Scores]) -> None:
    """Print a row for each protocol: queries that count, mAP and mP@k in per cent."""
    print(f"{'protocol':10}{'queries':>8}{'mAP':>8}" + "".join(f"{f'mP@{k}':>8}" for k in KS))
    for protocol, protocol_scores in scores.items():
        numbers = [protocol_scores.map, *protocol_scores.mp.values()]
        print(
            f"{protocol:10}{protocol_scores.counted.sum():8}"
            + "".join(f"{100 * number:8.2f}" for number in numbers)
        )


def index_size(index: Index) -> str:
    """The size of an index's files for readers: '3.1 MB'."""
    return files.human_bytes(sum(file["bytes"] for file in index.manifest["files"].values()))
