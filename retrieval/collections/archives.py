"""Unpack archives that a stranger made, or read zips where they lie.

These are zip (stored or deflated) and tar (plain or gzip). An archive is unpacked as a whole, or
refused with the reason. Limits count the unpacked bytes, as an archive may state a false size.
"""

from __future__ import annotations

import errno
import gzip
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import thread_time
from typing import BinaryIO, Protocol, cast

from retrieval import files
from retrieval.errors import RetrievalError
from retrieval.files import CHUNK
from retrieval.workers import move_to_slow_workers

# Unpacking may take SECONDS of computing, and one more for each SPEED bytes that come out.
SECONDS, SPEED = 5.0, 10e6
QUICK = 1.0  # s of it, after which others do not wait for it
MAX_DEPTH = 32  # folders in folders
MAX_ENTRY = 512  # bytes that a file takes in the list of a zip, on average
MAX_LETTERS = 75_000_000  # of the names of all files and folders; a letter takes up to 4 bytes
MAX_HEADER = 1 << 16  # tarfile reads a header of any announced size at once; true ones are small
MAX_RECORDS = 100  # in such a header; true ones have about ten
MAX_DIGITS = 100  # in a row there: the time of tarfile grows with their square (to Python 3.11.10)

# Suffixes of archives, which are refused in an archive.
ARCHIVES = frozenset(
    """
    .zip .tar .tgz .gz .bz2 .tbz2 .xz .txz .7z .rar .zst .lz4 .lzma .cab .iso .jar
    """.split()  # noqa: SIM905
)
# What the standard library raises where an archive is damaged.
DAMAGE = (
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    tarfile.TarError,
    struct.error,
    RuntimeError,
    ValueError,
    LookupError,
    ArithmeticError,
)


class _Refused(Exception):
    """The reason why an archive is not unpacked; it completes "<archive> is refused: …"."""


def files_of_zip(
    file: BinaryIO, label: str, *, max_files: int, suffixes: Collection[str]
) -> dict[str, Callable[[], BinaryIO]]:
    """The files in a zip with these suffixes: name → function that opens it, to read.

    file: stays open as long as they are read, one at a time. What comes out of an entry may have
    any length, and raises one of ``DAMAGE`` where it is damaged. Other parameters, what is left
    out and what is refused: as for ``unpack``.
    """
    with _refusing(label):
        archive = zipfile.ZipFile(_with_short_list(file, max_files))
        chosen = _chosen(_zip_entries(archive), max_files, suffixes)
        return {"/".join(parts): source for parts, _, source in chosen}


def unpack(
    archive: str | Path | BinaryIO,
    into: str | Path,
    *,
    max_bytes: int,
    max_files: int,
    suffixes: Collection[str] | None = None,
) -> list[Path]:
    """Unpack ``archive`` into the folder ``into``, which must be empty or not exist yet.

    max_bytes: of all unpacked files together. max_files: entries, folders included.
    suffixes: if given, files with other suffixes (lower case, with dot) are left out, silently; a
    whole file name stands for the files of that name.
    Hidden files and ``__MACOSX`` are always left out.
    Returns the files written, in the order of the archive.
    Raises RetrievalError, and leaves nothing in ``into``, for: a file that is no such archive or
    is damaged or encrypted; paths that leave the folder, links, devices; an archive in the
    archive; a name that occurs twice; too many bytes or files; nothing left to unpack.
    """
    into = Path(into)
    existed = into.exists()
    if existed and (not into.is_dir() or any(into.iterdir())):
        raise RetrievalError(f"{into} is not an empty folder; unpack into a new one.")
    label = str(archive) if isinstance(archive, str | Path) else _label(archive)
    with _refusing(label):
        try:
            with ExitStack() as stack:
                if isinstance(archive, str | Path):
                    archive = stack.enter_context(open(archive, "rb"))
                into.mkdir(parents=True, exist_ok=True)
                return _unpack(archive, into, max_bytes, max_files, suffixes)
        except BaseException as error:
            for path in into.iterdir() if into.is_dir() else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not existed and into.is_dir():
                into.rmdir()
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                # Windows takes 255 letters of any kind, Linux 255 bytes: 85 Chinese letters.
                begin = max(Path(error.filename).parts, key=len)[:30]
                raise _Refused(
                    f"the name that begins with {begin!r} is too long for this disk; shorten it"
                ) from error
            if isinstance(error, OSError) and not isinstance(error, DAMAGE):
                raise RetrievalError(
                    f"{label} could not be unpacked: {error.strerror or error}."
                ) from error
            raise


@contextmanager
def _refusing(label: str) -> Iterator[None]:
    """Turn errors about a damaged or refused archive into a RetrievalError with a sentence."""
    try:
        yield
    except (_Refused, files.LongList) as error:
        raise RetrievalError(f"{label} is refused: {error}.") from error
    except DAMAGE as error:
        raise RetrievalError(
            f"{label} is damaged or not complete; make or download it again."
        ) from error


def names_in(file: BinaryIO) -> list[str]:
    """Names of the files in a zip that should hold a few. Raises BadZipFile for a flood of them."""
    with zipfile.ZipFile(files.ShortReads(file)) as archive:
        return archive.namelist()


def _unpack(
    file: BinaryIO, into: Path, max_bytes: int, max_files: int, suffixes: Collection[str] | None
) -> list[Path]:
    written = []
    left = max_bytes
    timed = _Timed(file, SECONDS)
    entries = _entries(cast(BinaryIO, timed), max_bytes, max_files)
    for parts, size, source in _chosen(entries, max_files, suffixes):
        if size > left:
            raise _too_large(max_bytes)
        target = into.joinpath(*parts)
        into.stat()  # raises where it was deleted meanwhile, as when the app ends
        target.parent.mkdir(parents=True, exist_ok=True)
        with source() as reader, open(target, "xb") as out:
            while chunk := reader.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise _too_large(max_bytes)
                out.write(chunk)
                timed.until += len(chunk) / SPEED
        written.append(target)
    return written


@contextmanager
def reading_within(seconds: float, file: BinaryIO) -> Iterator[BinaryIO]:
    """A zip of a few files, to read.

    Raises RetrievalError where reading it takes over ``seconds`` of computing.
    """
    with _refusing(_label(file)):
        yield cast(BinaryIO, _Timed(file, seconds))


class _Timed:
    """An archive that is refused where reading takes long and little comes out of it.

    Deflate and gzip allow any number of blocks that hold nothing, and each of them is computed.
    until: processor time of this thread, in seconds, after which nothing more is read.
    name: of the file, which readers put into their errors.
    Where quick workers read it, slow ones do after QUICK seconds.
    """

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        self.file, self.name, self.began = file, _label(file), thread_time()
        self.until = self.began + seconds
        self.seek, self.tell, self.seekable = file.seek, file.tell, lambda: True

    def read(self, size: int = -1) -> bytes:
        now = thread_time()
        if now > self.began + QUICK:
            move_to_slow_workers()
        if now > self.until:
            raise _Refused("it takes too long to unpack; pack it again")
        return self.file.read(size)


def _chosen(
    entries: Iterable[tuple], max_files: int, suffixes: Collection[str] | None
) -> Iterator[tuple[list[str], int, Callable[[], BinaryIO]]]:
    """(parts of the path, announced size, function that opens it) of every file to read."""
    chosen: set[str] = set()
    folders: set[str] = set()
    letters = 0  # folders in folders have long names in common, but each of them has its own copy
    for count, (name, is_file, size, source) in enumerate(entries, 1):
        if count > max_files:
            raise _Refused(f"it holds more than {max_files:,} files")
        parts = _safe_parts(name)
        if not is_file or any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        suffix = Path(parts[-1]).suffix.lower()
        if suffix in ARCHIVES:
            raise _Refused(f"there is another archive in it, {name!r}; unpack that one first")
        if suffixes is not None and suffix not in suffixes and parts[-1] not in suffixes:
            continue
        relative = "/".join(parts)
        if relative in chosen or relative in folders:
            raise _Refused(f"{relative!r} is in it twice")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent in chosen:
                raise _Refused(f"{parent!r} is in it both as a file and as a folder")
            if parent not in folders:
                letters += len(parent)
                folders.add(parent)
        letters += len(relative)
        if letters > MAX_LETTERS:
            raise _Refused("the names of its files are too long")
        chosen.add(relative)
        yield parts, size, source
    if not chosen:
        endings = sorted(suffix for suffix in suffixes or () if suffix.startswith("."))
        kinds = f" ending in {', '.join(endings)}" if endings else ""
        raise _Refused(f"there are no files{kinds} in it")


def _entries(file: BinaryIO, max_bytes: int, max_files: int) -> Iterator[tuple]:
    """(name, whether it is a file, announced size, function that opens it) of every entry."""
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=file, mode="rb") as plain:
            yield from _tar_entries(plain, max_bytes, max_files)
    elif head[257:262] == b"ustar":
        yield from _tar_entries(file, max_bytes, max_files)
    elif head[:2] == b"PK" or zipfile.is_zipfile(file):
        with zipfile.ZipFile(_with_short_list(file, max_files)) as archive:
            yield from _zip_entries(archive)
    else:
        raise _Refused("it is neither a zip nor a tar archive (plain or gzip)")


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[tuple]:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _Refused(f"{info.filename!r} is a link or a device")
        if info.flag_bits & 0x1:
            raise _Refused("it is encrypted; unpack it yourself and give the folder")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Refused("it is packed with a method other than deflate; pack it again")
        yield (
            info.filename,
            not info.is_dir() and kind != stat.S_IFDIR,
            info.file_size,
            lambda info=info: archive.open(info),
        )


def _tar_entries(file: _Readable, max_bytes: int, max_files: int) -> Iterator[tuple]:
    stream = _Forward(file, max_bytes, max_files)
    # The stubs ask for a file that can be written and closed too, even to read it.
    with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise _Refused(f"{member.name!r} is a link or a device")
            stream.in_header = False
            yield (
                member.name,
                member.isreg(),
                member.size,
                lambda member=member: archive.extractfile(member),
            )
            stream.in_header = True
            archive.members.clear()  # tarfile would keep every entry
    # tarfile takes a header that is cut off or damaged for the end. The true end is a block of
    # zeros, and the rest of the file has to be read for the checksum of gzip.
    if len(stream.last) != tarfile.BLOCKSIZE or stream.last.strip(b"\0"):
        raise tarfile.ReadError("no end")
    while stream.pass_over(CHUNK):
        pass


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _with_short_list(file: BinaryIO, max_files: int) -> files.ShortReads:
    """A zip that is refused where its list of files is too long for so many."""
    return files.ShortReads(file, max(2 * CHUNK, MAX_ENTRY * max_files))


class _Forward:
    """A tar archive that is read once from front to back, up to a limit.

    in_header: whether tarfile reads the header of a file; each read then gives it few bytes.
    """

    def __init__(self, file: _Readable, max_bytes: int, max_files: int) -> None:
        self.file, self.max_bytes = file, max_bytes
        # Headers and padding: two or three blocks of 512 bytes a file.
        self.headers = 4096 * max_files + MAX_HEADER
        self.limit = max_bytes + self.headers + CHUNK
        self.position, self.last, self.in_header = 0, b"", True
        self.kind = b""  # of the header that the next block belongs to

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        if self.in_header:
            self.headers -= max(size, 0)
            if not 0 <= size <= MAX_HEADER or self.headers < 0:
                raise _Refused("a header in it has no sensible size")
        data = self.pass_over(size)
        if self.in_header:
            if self.kind in (b"x", b"g", b"X"):
                _check_records(data)
            longer = self.kind in (b"x", b"g", b"X", b"L", b"K")
            self.kind = b"" if longer else data[156:157]
        return data

    def pass_over(self, size: int) -> bytes:
        if self.position + size > self.limit:
            raise _too_large(self.max_bytes)
        self.last = self.file.read(size)
        self.position += len(self.last)
        return self.last

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position < self.position:
            raise tarfile.ReadError("a tar archive that points backwards")
        while self.position < position and self.pass_over(min(CHUNK, position - self.position)):
            pass
        return self.position


def _check_records(data: bytes) -> None:
    """Refuse an extended header of tar that is not made of records ``length key=value``.

    tarfile searches any distance for the next "=", and for a number again from each of its digits.
    """
    rest = data.rstrip(b"\0")
    if re.search(rb"\d{%d}" % MAX_DIGITS, rest):
        raise _Refused("a header in it has no sensible numbers")
    start = count = 0
    while start < len(rest):
        count += 1
        length = int(rest[start : max(rest.find(b" ", start, start + 10), start)])
        record = rest[start : start + length]
        if b"=" not in record or not record.endswith(b"\n"):
            raise tarfile.ReadError("no record")
        if b"GNU.sparse" in record:
            raise _Refused("a file in it is sparse; pack it again")
        if count > MAX_RECORDS:
            raise _Refused("a header in it has no sensible size")
        start += length


def _safe_parts(name: str) -> list[str]:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise _Refused(f"{name!r} would be written outside the folder")
    if len(parts) > MAX_DEPTH:
        raise _Refused(f"it has more than {MAX_DEPTH} folders inside each other")
    if any("\0" in part for part in parts):
        raise _Refused(f"{name!r} is no file name")
    return parts


def _too_large(max_bytes: int) -> _Refused:
    return _Refused(f"unpacked it is larger than {max_bytes / 1e6:,.0f} MB")


def _label(file: BinaryIO) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "The archive"
