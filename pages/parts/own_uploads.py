"""Private folders on disk for what visitors upload: copies within limits, and what clears up.

Each is a TemporaryDirectory, readable by this user only.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from time import thread_time
from weakref import WeakKeyDictionary

import streamlit as st

from pages.parts import turns
from retrieval import images
from retrieval.collections import archives, metadata
from retrieval.errors import RetrievalError

# Environment variables of the owner: what a session may bring, unpacked.
FILES_VARIABLE, MEGABYTES_VARIABLE = "RETRIEVAL_OWN_FILES", "RETRIEVAL_OWN_MB"
DEFAULT_FILES, DEFAULT_MEGABYTES = 2000, 500
TABLE_IN_ZIP = "metadata.csv"  # albums of Google Takeout have a metadata.json that is no table
MAX_TABLE_BYTES = 4_000_000  # while Python reads a table, everybody waits
# What stays free of the disk for everything else: the smaller of the two. Docker's disk is small.
MIN_FREE_BYTES, MIN_FREE_SHARE = 1_500_000_000, 0.1
FOLDER_PREFIX = "retrieval-own-"
MAX_NAME_BYTES, MAX_SUFFIX_LENGTH = 200, 10  # file systems take 255, and a number may be added
# Letters that at least one file system refuses in a name.
REFUSED_LETTERS = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
# Private folder → the client that brought what is in it.
clients: WeakKeyDictionary[TemporaryDirectory, str] = WeakKeyDictionary()


def private_folder() -> TemporaryDirectory:
    """A new folder, named after this server's process, so that a later one knows what was left."""
    folder = TemporaryDirectory(prefix=f"{FOLDER_PREFIX}{os.getpid()}-")
    clients[folder] = turns.client()
    return folder


def delete_all() -> None:
    """Delete the private folders of this server, which ends, though pages may still fill them.

    Each gets another name first: a zip that is being unpacked into it would fill it again.
    """
    for folder in list(clients):
        path = Path(folder.name)
        with suppress(OSError):
            shutil.rmtree(path.rename(f"{path}-deleted"), ignore_errors=True)
        shutil.rmtree(path, ignore_errors=True)


def is_private(path: Path) -> bool:
    """Whether a file lies in such a folder."""
    return any(part.startswith(FOLDER_PREFIX) for part in path.parts)


@st.cache_resource(show_spinner=False)
def delete_leftovers() -> None:
    """Delete, once a server, the private folders of servers that were killed.

    In a container, a killed server had the process number that this one has.
    """
    of_this_server = {folder.name for folder in list(clients)}
    for folder in Path(gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        process = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        if not process.isdecimal() or str(folder) in of_this_server:
            continue
        if int(process) == os.getpid() or not _is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Whether there is a process of this number; True where that cannot be asked."""
    if os.name != "posix":  # elsewhere a signal of 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, but is not ours
        return True
    return True


def copy_uploads(files: list, folder: Path) -> None:
    """Copy a visitor's files into an empty folder, under names of their own; zips are unpacked.

    files: as ``st.file_uploader`` returns them. A table becomes the folder's metadata, also one
    called TABLE_IN_ZIP in a zip. Raises RetrievalError for more files or bytes than a session may
    bring, for a second table or a long one, where the disk is full, and for zips that
    ``archives.unpack`` refuses.
    """
    max_files = _limit(FILES_VARIABLE, DEFAULT_FILES)
    max_megabytes = _limit(MEGABYTES_VARIABLE, DEFAULT_MEGABYTES)
    too_many = RetrievalError(f"These are more than {max_files:,} files; bring fewer.")
    files_left, bytes_left = max_files - len(files), max_megabytes * 1_000_000
    used = _used_disk(turns.client())
    until = thread_time() + archives.SECONDS
    if files_left < 0:
        raise too_many
    for number, file in enumerate(files, 1):
        _check_free_disk(folder, used)
        target = folder / _safe_name(file.name)
        suffix = target.suffix.lower()
        if suffix in (".csv", ".json"):
            target = folder / f"metadata{suffix}"
            _check_table(file.name, file.size, folder)
        if suffix == ".zip":
            paths = archives.unpack(
                file,
                _unused(target.with_suffix(""), number),
                max_bytes=bytes_left,
                max_files=max_files,
                suffixes=images.SUFFIXES | {TABLE_IN_ZIP},
            )
            size = sum(path.stat().st_size for path in paths)
            tables = [path for path in paths if path.name == TABLE_IN_ZIP]
            if tables:  # those of folders inside are not about all pictures
                table = min(tables, key=lambda path: len(path.parts))
                _check_table(f"{TABLE_IN_ZIP} in {file.name}", table.stat().st_size, folder)
                table.rename(folder / TABLE_IN_ZIP)
            bytes_left -= size
            # A hundred zips that each take as long as one may would keep others waiting for it.
            until += size / archives.SPEED
            if thread_time() > until:
                raise RetrievalError("These zips take too long to unpack; pack them again.")
            files_left -= len(paths) - 1  # the zip itself is none
            if files_left < 0:
                raise too_many
            continue
        bytes_left -= file.size
        if bytes_left < 0:
            raise RetrievalError(
                f"These pictures are more than {max_megabytes} MB together; bring fewer."
            )
        try:
            _unused(target, number).write_bytes(file.getvalue())
        except OSError as error:
            raise RetrievalError(
                f"{file.name} cannot be kept here: {error.strerror or error}."
            ) from error


def _limit(variable: str, default: int) -> int:
    """What the owner of the app allows a session, by an environment variable."""
    text = os.environ.get(variable, str(default))
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise RetrievalError(f"{variable} is a whole number from 1 to 999999, not {text!r}.")
    return int(text)


def _used_disk(client: str) -> int:
    """Bytes on disk of all that the sessions of a client brought, with the indexes of it."""
    size = 0
    for folder in [folder.name for folder, owner in list(clients.items()) if owner == client]:
        for parent, _, names in os.walk(folder):
            for name in names:
                with suppress(FileNotFoundError):  # its session ends meanwhile
                    size += os.stat(os.path.join(parent, name)).st_size
    return size


def _check_free_disk(folder: Path, used: int) -> None:
    """Check that others can still bring as much as a client has. used: bytes on disk, its own.

    Ten tabs with a zip of 0.6 MB each filled a disk of 5 GB, and nobody else could bring a picture.
    """
    disk = shutil.disk_usage(folder)
    if disk.free - used < min(MIN_FREE_BYTES, MIN_FREE_SHARE * disk.total):
        raise RetrievalError(
            "There is no room for more pictures on this machine: close other tabs, or try again "
            "in some minutes."
        )


def _check_table(name: str, size: int, folder: Path) -> None:
    if any((folder / name).exists() for name in metadata.FILES):
        raise RetrievalError("Bring one table: these files are more than one.")
    if size > MAX_TABLE_BYTES:
        megabytes = MAX_TABLE_BYTES // 1_000_000
        raise RetrievalError(f"{name} has more than {megabytes} MB; bring a shorter table.")


def _unused(path: Path, number: int) -> Path:
    """The path, with a number where it is taken: two folders may each hold an IMG_0001.jpg.

    number: the first to try.
    """
    stem = path.stem
    while path.exists():
        path = path.with_stem(f"{stem} ({number})")
        number += 1
    return path


def _safe_name(name: str) -> str:
    """A file name that every file system takes, and that is not that of a hidden file.

    Other letters stay, as tables and ground truth have the visitor's names.
    """
    # All of '.jpg' would be a stem: it has a letter before it meanwhile.
    stem, suffix = os.path.splitext("_" + REFUSED_LETTERS.sub("_", Path(name).name))
    stem = stem[1:].lstrip(".").encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return (stem or "picture") + suffix[:MAX_SUFFIX_LENGTH]
