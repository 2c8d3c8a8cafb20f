"""Download public collections and unpack them safely.

Everything goes below ``retrieval.collections.data_folder()``. A collection is complete or absent:
pictures are unpacked in another folder, which is then renamed.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from retrieval.collections import Entry, data_folder, open_collection, registered
from retrieval.collections.archives import unpack
from retrieval.collections.ground_truth_files import read_ground_truth
from retrieval.collections.transfer import CHUNK, Progress, check_room, fetch
from retrieval.errors import RetrievalError

Say = Callable[[str], object]


@dataclass(frozen=True)
class Source:
    """Where a collection comes from. Sizes in bytes are estimates for the disk check.

    archives: addresses of the archives of pictures; folders in them do not matter, only file names.
    ground_truth: address. ground_truth_sha256: of the authors' file where it is known, because the
    file comes without encryption.
    """

    archives: tuple[str, ...]
    ground_truth: str
    size: int
    ground_truth_sha256: str = ""


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_OXFORD = (f"{_VGG}/oxbuildings/oxbuild_images-v1.tgz",)
_PARIS = (f"{_VGG}/parisbuildings/paris_1-v1.tgz", f"{_VGG}/parisbuildings/paris_2-v1.tgz")
_CLASSIC = "http://cmp.felk.cvut.cz/cnnimageretrieval/data/test"
_REVISITED = "http://cmp.felk.cvut.cz/revisitop/data/datasets"

SOURCES = {
    "oxford5k": Source(
        _OXFORD,
        f"{_CLASSIC}/oxford5k/gnd_oxford5k.pkl",
        2_000_000_000,
        "c84e5eb68524fd46aab5c0e80b90f970d7bf677507aeb8cddd6b12990d4bc19e",
    ),
    "paris6k": Source(
        _PARIS,
        f"{_CLASSIC}/paris6k/gnd_paris6k.pkl",
        2_600_000_000,
        "def916cf4f197a182d9a7840cdb6294489fa57c2121f9742a1bcc6f2209bb345",
    ),
    "roxford5k": Source(
        _OXFORD,
        f"{_REVISITED}/roxford5k/gnd_roxford5k.pkl",
        2_000_000_000,
        "ba7967754bd2d7d2210a5799f9c45ad5835e269a80ef9d3eba44caa35816c471",
    ),
    "rparis6k": Source(_PARIS, f"{_REVISITED}/rparis6k/gnd_rparis6k.pkl", 2_600_000_000),
}


def download(name: str, progress: Progress | None = None, say: Say = lambda text: None) -> None:
    """Download a registered collection: ground truth, then pictures. What is there is not fetched.

    say(text) is called before the download with the disk space that it takes. Raises RetrievalError
    where it fails; then no part of the collection is visible to others.
    """
    entry, source = _entry(name), SOURCES[name]
    with working_folder() as folder:
        pictures = data_folder() / entry.pictures
        missing = not pictures.is_dir()
        if missing:
            archives = sum(
                path.stat().st_size
                for path in (folder / _file_name(url) for url in source.archives)
                if path.is_file()
            )
            needed = 2 * source.size - archives
            free = shutil.disk_usage(folder).free
            say(
                f"{entry.title} takes about {needed / 1e9:.1f} GB below {data_folder()} "
                f"({source.size / 1e9:.1f} GB to download, and as much unpacked; the archives are "
                f"deleted afterwards); {free / 1e9:.1f} GB are free."
            )
            check_room(folder, needed, entry.title)
        ensure_ground_truth(name, progress)
        if missing:
            _bring_pictures(entry, source, folder, pictures, progress, say)
        say(
            f"{entry.title}: {entry.images} pictures and {entry.queries} queries "
            f"in {data_folder()}."
        )


def ensure_ground_truth(name: str, progress: Progress | None) -> None:
    """Fetch the ground truth of a registered collection if it is not there, and check it."""
    entry = _entry(name)
    if not entry.available:
        path = entry.ground_truth_path
        new = fetch(
            SOURCES[name].ground_truth,
            path.with_name(f"{path.stem}.new.pkl"),
            sha256=SOURCES[name].ground_truth_sha256,
            max_bytes=10_000_000,
            progress=progress,
        )
        try:
            truth = read_ground_truth(new)
            if (len(truth.names), len(truth.queries)) != (entry.images, entry.queries):
                raise RetrievalError(
                    f"{SOURCES[name].ground_truth} lists {len(truth.names)} pictures and "
                    f"{len(truth.queries)} queries instead of {entry.images} and {entry.queries}. "
                    "It was deleted: run the same command again."
                )
        except RetrievalError:
            new.unlink()
            raise
        os.replace(new, path)
    open_collection(name)


def _bring_pictures(
    entry: Entry, source: Source, folder: Path, pictures: Path, progress: Progress | None, say: Say
) -> None:
    collection = open_collection(entry.name)
    archives = [fetch(url, folder / _file_name(url), progress=progress) for url in source.archives]
    work = pictures.with_name(pictures.name + ".new")
    shutil.rmtree(work, ignore_errors=True)  # left by a kill
    try:
        flat = work / "flat"
        flat.mkdir(parents=True)
        for number, archive in enumerate(archives):
            say(f"Unpacking {archive.name} …")
            paths = unpack(
                archive,
                work / str(number),
                max_bytes=4 * source.size + CHUNK,
                max_files=20_000,
                suffixes={".jpg"},
            )
            for path in paths:
                if (flat / path.name).exists():
                    raise RetrievalError(
                        f"The archives of {entry.title} hold {path.name} twice; they were deleted. "
                        "Run the same command again."
                    )
                path.rename(flat / path.name)
        wanted = {*collection.names, *(query.name for query in collection.queries)}
        lacking = sorted(wanted - set(os.listdir(flat)))
        if lacking:
            raise RetrievalError(
                f"The archives of {entry.title} lack {len(lacking)} of {len(wanted)} pictures, "
                f"{lacking[0]} for one; they were deleted. Run the same command again."
            )
        flat.rename(pictures)
    except RetrievalError as error:
        # Bad archives are deleted, else they would be used again; those on a full disk are kept.
        if getattr(error.__cause__, "errno", None) in (None, errno.ENAMETOOLONG):
            for archive in archives:
                archive.unlink()
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for archive in archives:
        archive.unlink()


def _entry(name: str) -> Entry:
    for entry in registered():
        if entry.name == name and name in SOURCES:
            return entry
    raise RetrievalError(f"There is no download {name!r}; there are {', '.join(SOURCES)}.")


def _file_name(address: str) -> str:
    return urlsplit(address).path.rpartition("/")[2]


@contextmanager
def working_folder() -> Iterator[Path]:
    """The folder of unfinished downloads, locked for this process.

    Raises RetrievalError where another process has it or it cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = data_folder() / "downloads"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield folder
    except Timeout as error:
        raise RetrievalError(
            f"Another download into {data_folder()} is running; wait for it."
        ) from error
    except OSError as error:
        raise RetrievalError(
            f"{data_folder()} cannot be written: {error.strerror or error}."
        ) from error
