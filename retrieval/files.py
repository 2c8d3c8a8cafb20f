"""Files: written as a whole or not at all, digests, JSON, and arrays in files of strangers."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import os
import secrets
import stat
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from retrieval.errors import RetrievalError

CHUNK = 1 << 20  # bytes that are read at a time
DEEPEST = 200  # folders in folders
ABANDONED = 86_400  # seconds without a write after which an unfinished file is deleted
LIST = 1_000_000  # bytes of the list of files in a zip of a few files; each takes 50 to 100
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes
OBJECT = 24  # bytes, at least, that an object of a JSON file has on average
MAX_HOLES = 20_000_000  # bytes that were never written; a copy of a file may leave out zeros
MAX_TEXT = 1_000_000  # bytes of texts in an array; ours have a digest of 64 letters
MAX_ARRAYS = 1_000_000_000  # bytes; rankings of a million pictures for 70 queries have 0.56 GB


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits. Raises OSError."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        # No more than it states: a link to /proc/self/pagemap states nothing and has 256 GB.
        left = os.fstat(file.fileno()).st_size
        while left and (chunk := file.read(min(left, CHUNK))):
            total.update(chunk)
            left -= len(chunk)
    return total.hexdigest()


def walk(
    folder: Path, onerror: Callable[[OSError], object] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk`` in a folder of somebody else.

    Raises RetrievalError where more than DEEPEST folders are inside each other: Python 3.11 would
    call itself for each, until it cannot.
    """
    for parent, folders, names in os.walk(folder, onerror=onerror):
        if len(Path(parent).relative_to(folder).parts) > DEEPEST:
            raise RetrievalError(
                f"{folder} cannot be read: it has more than {DEEPEST} folders inside each other."
            )
        yield parent, folders, names


def inside(folder: Path) -> list[Path]:
    """Files and folders in a folder of somebody else. Raises RetrievalError as ``walk`` does."""
    return [
        Path(parent, name) for parent, folders, names in walk(folder) for name in (*folders, *names)
    ]


def as_json(content: Any) -> bytes:
    """JSON to be kept in a file, on lines. Raises ValueError for numbers that JSON has not."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # Names of files need not be text; a lone surrogate becomes JSON's own escape of it.
    return text.encode("utf-8", "backslashreplace")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` when all of it is written.

    Until then readers of ``path`` find the old file. Where the block raises, nothing has changed.
    Raises OSError.
    """
    # Other threads, and other containers with the same process numbers, may write there too.
    new = path.with_name(f"{path.name}.{secrets.randbelow(10**9)}.new")
    for left in path.parent.glob(f"{glob.escape(path.name)}.[0-9]*.new"):  # by a killed process
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - ABANDONED:
                left.unlink()
    try:
        with open(new, "xb") as file:  # "x" does not write through a link
            yield file
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Put JSON in the place of ``path``. Raises OSError, and ValueError as ``as_json`` does."""
    with replacing(path) as file:
        file.write(as_json(content))


def check_writable(folder: Path, subject: str) -> None:
    """Raise RetrievalError for a folder without the right to write, before minutes of work.

    subject: of the message, in words: what would be written.
    """
    if not os.access(folder, os.W_OK):
        raise RetrievalError(
            f"The {subject} cannot be kept in {folder}: nothing can be written there; allow that."
        )


def read(path: Path, max_bytes: int = MAX_ARRAYS) -> bytes:
    """The bytes of a file that somebody else made.

    Raises OSError where it cannot be read, is no regular file (a pipe has no end), or has more than
    ``max_bytes``: an archive of a few bytes may unpack to a gigabyte of zeros.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    if state.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes // 1_000_000} MB", str(path))
    with open(path, "rb") as file:
        # Asked again, as it may have been replaced. Files of /proc state nothing, some never end.
        return file.read(min(os.fstat(file.fileno()).st_size, max_bytes))


def has_holes(path: Path) -> bool:
    """Whether a file is sparse: over MAX_HOLES of its bytes were never written to the disk.

    A tar of a kilobyte can unpack to a sparse file of a terabyte. Raises OSError.
    """
    if not hasattr(os, "SEEK_DATA"):  # on Windows
        return False
    with open(path, "rb") as file:
        size, end, missing = path.stat().st_size, 0, 0
        while end < size and missing <= MAX_HOLES:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
                after = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    return False  # a file system that does not tell holes
                start = after = size  # there is no data behind the last hole
            missing += start - end
            end = after
    return missing > MAX_HOLES


def read_json(path: Path, max_bytes: int = MAX_ARRAYS) -> Any:
    """What a JSON file that somebody else made holds; it takes at most 30 times its size.

    Raises OSError as ``read`` does, and ValueError where it is no JSON, is nested too deep, holds
    NaN, which JSON does not allow, or is mostly brackets and commas: three bytes of those take 72
    in memory, and an object of seven bytes takes 240. What takes most is an object of very many
    short keys, with one emoji: 28 times its size.
    """
    data = read(path, max_bytes)
    if sum(map(data.count, (b"[", b"{", b","))) > len(data) // 6 + 1000:
        raise ValueError("brackets and commas")
    room = iter(range(len(data) // OBJECT + 1000))

    def counted(value: dict) -> dict:
        if next(room, None) is None:
            raise ValueError("too many small objects")
        return value

    try:
        return json.loads(data, parse_constant=_no_constant, object_hook=counted)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")


class LongList(zipfile.BadZipFile):
    """A zip lists very many files: for each, zipfile makes an object of half a kilobyte."""


class ShortReads:
    """A zip file of which zipfile reads few bytes at once: it reads its list of files in one go.

    max_bytes: of one read. Raises LongList where zipfile asks for more and there is more.
    """

    def __init__(self, file: BinaryIO, max_bytes: int = LIST) -> None:
        self.file, self.max_bytes = file, max_bytes
        self.seek, self.tell, self.seekable = file.seek, file.tell, lambda: True

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.max_bytes:
            # Without a size zipfile reads to the end of the file, from at most 64 kB before it.
            data = self.file.read(self.max_bytes + 1)
            if len(data) > self.max_bytes:
                raise LongList("the list of its files is too long")
            return data
        return self.file.read(size)


def read_array(
    source: str | Path | BinaryIO, key: str | None = None, max_bytes: int | None = None
) -> np.ndarray:
    """An array out of an ``.npz`` (key: which one, where there are several) or an ``.npy``.

    The file may be anybody's: nothing in it is executed, and what the array holds is for the caller
    to check. max_bytes: limit of the file, and of all arrays in an ``.npz`` together, unpacked;
    MAX_ARRAYS by default.
    Raises RetrievalError for other files, missing keys, and arrays that are too large.
    """
    max_bytes = max_bytes or MAX_ARRAYS
    label = str(source) if isinstance(source, str | Path) else getattr(source, "name", "The file")
    try:
        if isinstance(source, str | Path) and os.path.exists(source):
            if not os.path.isfile(source):
                raise OSError("it is no file")  # a pipe has no end
            if os.path.getsize(source) > max_bytes:
                raise _too_large(label, max_bytes)
        with ExitStack() as opened:
            file: Any = source
            if isinstance(source, str | Path):
                file = opened.enter_context(open(source, "rb"))
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            array = np.load(ShortReads(file) if is_zip else file, allow_pickle=False)
            if not isinstance(array, np.ndarray):
                array = _array_of_archive(array, key, label, max_bytes)
            if array.dtype.kind == "U" and array.nbytes <= MAX_TEXT:
                array.tobytes().decode("utf-32")  # numpy makes no text of other numbers
            elif array.dtype.kind not in "biufc":
                raise ValueError(array.dtype)
            return array
    except FileNotFoundError as error:
        raise RetrievalError(f"There is no file {label}.") from error
    # The last five are what numpy raises for headers that were made to do harm.
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        MemoryError,
        RuntimeError,
        zlib.error,
        zipfile.BadZipFile,
        OverflowError,
        TypeError,
        AttributeError,
        SyntaxError,
        tokenize.TokenError,
    ) as error:
        raise RetrievalError(
            f"{label} is not a readable .npz or .npy file of plain numbers."
        ) from error


def _array_of_archive(arrays: Any, key: str | None, label: str, max_bytes: int) -> np.ndarray:
    """An array of an open ``.npz``; key, max_bytes: as for ``read_array``. label: for errors."""
    if key is None and len(arrays.files) == 1:
        key = arrays.files[0]
    if key not in arrays.files:
        content = f"no array {key!r}" if key else "several arrays"
        raise RetrievalError(
            f"{label} holds {content}; name one of: {', '.join(arrays.files)[:1000]}, "
            f"as {label}:NAME."
        )
    # All of them are counted: of several with one name, numpy may take any.
    members = arrays.zip.infolist()
    if sum(member.file_size for member in members) > max_bytes:
        raise _too_large(label, max_bytes)
    # With other methods zipfile unpacks a whole piece at once, and a kilobyte of bzip2 may become
    # gigabytes.
    if any(member.compress_type not in PACKED for member in members):
        raise ValueError("packed with another method than deflate")
    array = arrays[key]
    if not isinstance(array, np.ndarray):  # numpy returns other members as bytes
        raise ValueError(key)
    return array


def _too_large(label: str, max_bytes: int) -> RetrievalError:
    limit = max_bytes // 1_000_000
    return RetrievalError(f"The arrays in {label} are larger than {limit} MB together.")


def human_bytes(count: float) -> str:
    """1_500_000 → '1.5 MB'."""
    power = min(int(math.log10(count) // 3), 4) if count >= 1 else 0
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
