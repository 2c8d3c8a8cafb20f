"""What commands write: progress bars, tables, and files that appear when they are complete."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from retrieval import files
from retrieval.errors import RetrievalError
from retrieval.evaluation import KS, Scores

if TYPE_CHECKING:
    from tqdm import tqdm


def shown(text: str) -> str:
    """A line that may hold a stranger's names, without characters that a terminal obeys."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


class Bar:
    """A progress bar with rate and time left, on stderr, as the ``progress`` of a build."""

    def __init__(self, total: int, unit: str = "picture"):
        from tqdm import tqdm

        # No bar where stderr is no terminal, nor for what takes less than a second.
        self.tqdm = tqdm(total=total, unit=unit, delay=1.0, disable=None)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error) -> None:
        self.tqdm.close()

    def update(self, done: int, total: int, name: str) -> None:
        if done < self.tqdm.n:  # the next stage
            self.tqdm.reset(total)
        self.tqdm.total = total
        self.tqdm.update(done - self.tqdm.n)

    def say(self, text: str) -> None:
        self.tqdm.clear()
        print(text, flush=True)


class DownloadBar:
    """A progress bar a file, with rate and time left, on stderr."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.bar: tqdm | None = None
        self.here = 0

    def __enter__(self) -> DownloadBar:
        return self

    def __exit__(self, *error) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.name = self.bar = None

    def update(self, here: int, total: int | None, name: str) -> None:
        from tqdm import tqdm

        if name != self.name:
            self._close()
            self.name, self.here = name, here
            # initial: what was there before does not count as speed
            self.bar = tqdm(
                desc=name,
                total=total,
                initial=here,
                unit="B",
                unit_scale=True,
                delay=0.5,
                disable=None,
            )
        assert self.bar is not None
        if here < self.here:
            self.bar.reset(total)  # the server began again
            self.here = 0
        self.bar.update(here - self.here)
        self.here = here

    def say(self, text: str) -> None:
        self._close()
        print(text, flush=True)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under its name when it is complete. Raises RetrievalError."""
    try:
        with files.replacing(path) as file:
            yield file
    except OSError as error:
        raise RetrievalError(f"{path} cannot be written: {error.strerror or error}.") from error


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    if path is not None:
        with writing(path) as file:
            file.write(files.as_json(content))


def print_table(scores: Mapping[str, Scores]) -> None:
    print(f"{'protocol':10}{'queries':>8}{'mAP':>8}" + "".join(f"{f'mP@{k}':>8}" for k in KS))
    for protocol, one in scores.items():
        numbers = [one.map, *one.mp.values()]
        print(
            f"{protocol:10}{one.counted.sum():8}"
            + "".join(f"{100 * number:8.2f}" for number in numbers)
        )


def index_size(index) -> str:
    return files.human_bytes(sum(file["bytes"] for file in index.manifest["files"].values()))
