"""Collections: a named, ordered set of database pictures, with queries where there are some.

Four kinds: the embedded one (``town``, in the repository), the public benchmarks (Oxford and
Paris, classic and revisited), photographs from Wikimedia Commons, and any folder. ``remote`` adds
zips and object storage, for indexing. Benchmarks and photographs are fetched by ``python -m
retrieval download`` and lie below ``$RETRIEVAL_DATA``, by default ``~/.cache/retrieval``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath

from retrieval.collections.credits import Credit, read_credits
from retrieval.collections.ground_truth import GroundTruth, Query, protocols_of
from retrieval.collections.ground_truth_files import read_ground_truth
from retrieval.collections.metadata import Metadata, of_pictures, read_metadata, read_table
from retrieval.collections.names import check_name
from retrieval.errors import RetrievalError
from retrieval.files import walk
from retrieval.text import one_line

PRECOMPUTED = Path(__file__).resolve().parents[2] / "precomputed"


def data_folder() -> Path:
    """Where downloaded collections live: ``$RETRIEVAL_DATA`` or ``~/.cache/retrieval``.

    For a user without a home, as in some containers, ``.cache/retrieval`` in the working folder.
    """
    where = os.path.expanduser(os.environ.get("RETRIEVAL_DATA") or "~/.cache/retrieval")
    return Path(where.removeprefix("~/")).absolute()


@dataclass(frozen=True, eq=False)
class Collection:
    """Database pictures by name (relative posix paths below ``root``), and the queries.

    ``root`` is None, or a folder that does not exist, where the pictures are not on this
    machine: everything that needs no pixels still works.
    credit: of the collection. credits: picture name → who made that one, where this is known.
    metadata: picture name → column → value, where there is a table beside the pictures.
    note: one sentence on figures that are measured on the collection.
    whole: whether the boxes of its queries were taken away, see ``without_boxes``.
    of_visitor: whether a visitor of the app brought its pictures, see ``images.read``.
    """

    name: str
    title: str
    root: Path | None
    names: tuple[str, ...]
    queries: tuple[Query, ...] = ()
    credit: str = ""
    credits: Mapping[str, Credit] = field(default_factory=dict, repr=False)
    metadata: Metadata = field(default_factory=dict, repr=False)
    note: str = ""
    whole: bool = False
    of_visitor: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def path(self, name: str) -> Path:
        """File of a database or query picture; it need not exist."""
        if self.root is None:
            raise RetrievalError(f"The pictures of {self.title} are not on this machine.")
        return self.root / check_name(name)

    def read_bytes(self, name: str) -> bytes:
        """The bytes of a picture's file. Raises PictureError where it is missing or too large."""
        from retrieval import images  # imports Pillow, which is not needed to open a collection

        return images.read_bytes(self.path(name), name)

    def check_folder(self, folder: PurePath, gone: str) -> bool:
        """Whether a folder of pictures is there; RetrievalError where it is and cannot be read.

        gone: name of a picture below it that is not in the list any more.
        """
        if self.root is None:
            return False
        try:
            os.scandir(self.root / folder).close()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise unreadable(self.root / folder, error.strerror) from error
        return True

    @property
    def has_pictures(self) -> bool:
        """True when at least one database picture is on this machine.

        The app may have opened the collection before its pictures were downloaded.
        """
        return (
            self.root is not None
            and os.path.isdir(self.root)
            and any(os.path.isfile(self.path(name)) for name in self.names)
        )

    @cached_property
    def positions(self) -> dict[str, int]:
        """Database picture → its position, which the labels of the queries count in."""
        return {name: position for position, name in enumerate(self.names)}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the ordered list of database names, to which positions refer."""
        names = "\0".join(self.names).encode("utf-8", "surrogateescape")
        return hashlib.sha256(names).hexdigest()

    @property
    def has_boxes(self) -> bool:
        return any(query.box for query in self.queries)

    def without_boxes(self) -> Collection:
        """The collection with whole pictures as queries, which shows the effect of the boxes."""
        queries = tuple(replace(query, box=None) for query in self.queries)
        return replace(self, queries=queries, whole=True)

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that can be scored: (), ('easy', 'medium', 'hard') or ('classic',)."""
        return protocols_of(self.queries)


@dataclass(frozen=True)
class Entry:
    """A registered collection, before it is opened.

    pictures, ground_truth: paths below ``data_folder()``; Oxford's two share their pictures.
    images, queries: the counts that a complete ground truth has; None where they may differ.
    download: the argument of ``python -m retrieval download``, where that is not the name.
    """

    name: str
    title: str
    images: int | None = None
    queries: int | None = None
    pictures: str = ""
    ground_truth: str = ""
    credit: str = ""
    download: str = ""

    @property
    def note(self) -> str:
        """One sentence on figures that are measured on the collection, or ''."""
        return _BLURRED if self.images else ""

    @property
    def ground_truth_path(self) -> Path:
        if self.name == "town":
            return PRECOMPUTED / "town" / "ground_truth.json"
        return data_folder() / self.ground_truth

    @property
    def available(self) -> bool:
        """Whether ``open_collection`` can open it now (its pictures may still be absent)."""
        return os.path.isfile(self.ground_truth_path)  # False without rights, not an error


_OXFORD = "Philbin, Chum, Isard, Sivic, Zisserman, CVPR 2007; photographs from Flickr"
_PARIS = "Philbin, Chum, Isard, Sivic, Zisserman, CVPR 2008; photographs from Flickr"
_REVISITED = "; labels: Radenović, Iscen, Tolias, Avrithis, Chum, CVPR 2018"

_BLURRED = (
    "The files of Oxford and Paris that can be downloaded today have blurred faces; older "
    "published figures are of the files without."
)

_ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("town", "Town (embedded)", credit="Rendered for this project"),
        Entry(
            "oxford5k", "Oxford5k", 5063, 55, "oxford5k/jpg", "oxford5k/gnd_oxford5k.pkl", _OXFORD
        ),
        Entry("paris6k", "Paris6k", 6392, 55, "paris6k/jpg", "paris6k/gnd_paris6k.pkl", _PARIS),
        Entry(
            "roxford5k",
            "ROxford5k",
            4993,
            70,
            "oxford5k/jpg",
            "roxford5k/gnd_roxford5k.pkl",
            _OXFORD + _REVISITED,
        ),
        Entry(
            "rparis6k",
            "RParis6k",
            6322,
            70,
            "paris6k/jpg",
            "rparis6k/gnd_rparis6k.pkl",
            _PARIS + _REVISITED,
        ),
        *(
            Entry(
                f"{preset}-commons",
                f"{preset.capitalize()} (Wikimedia Commons)",
                pictures=f"{preset}-commons",
                ground_truth=f"{preset}-commons/ground_truth.json",
                credit="Photographs from Wikimedia Commons, each with its own author and licence",
                download=f"commons --preset {preset}",
            )
            for preset in ("oxford", "paris", "world")
        ),
    )
}


def registered() -> tuple[Entry, ...]:
    """Every registered collection, the embedded one first."""
    return tuple(_ENTRIES.values())


def open_collection(where: str | Path, max_files: int | None = None) -> Collection:
    """Open a registered collection by name, or a folder.

    A folder with ``ground_truth.json`` is read through that; any other is searched for
    pictures, subfolders included, in the order of their names, and labelled by the classic
    authors' ``*_1_query.txt`` if it holds them. Hidden files and links that leave the folder are
    left out, and so are folders in it that cannot be read, which ``note`` tells. A name wins over a
    folder of the same name: write ``./town`` for the folder.
    max_files: files and folders to search, where it is not the user who names the folder.
    Raises RetrievalError when there is nothing to open, and says what to do.
    """
    if isinstance(where, str) and where in _ENTRIES:
        return _open_registered(_ENTRIES[where])
    folder = Path(os.path.expanduser(where))  # unlike Path's, it leaves a ~ of nobody alone
    if not os.path.exists(folder):  # unlike Path.exists, it takes a name that is too long
        raise RetrievalError(
            f"There is no folder and no collection called {where}; "
            f"collections are {', '.join(_ENTRIES)}."
        )
    if not folder.is_dir():
        raise RetrievalError(f"{where} is a file; a collection is a folder of pictures.")
    try:
        return _open_folder(folder.resolve(), max_files)
    except OSError as error:
        raise RetrievalError(
            f"{error.filename or folder} cannot be read: {error.strerror or error}."
        ) from error


def _open_folder(folder: Path, max_files: int | None) -> Collection:
    if (folder / "ground_truth.json").is_file():
        return _with_ground_truth(folder, folder.name, folder.name, "")
    names, unread = _scan(folder, max_files)
    truth = GroundTruth(names, ())
    if any(folder.glob("*_[0-9]*_query.txt")):  # other files may be called my_query.txt
        truth = read_ground_truth(folder, names)
    return Collection(
        folder.name,
        folder.name,
        folder,
        names,
        truth.queries,
        credits=read_credits(folder),
        metadata=read_metadata(folder, names),
        note=" ".join(filter(None, [truth.note, unread])),
    )


def _open_registered(entry: Entry) -> Collection:
    path = entry.ground_truth_path
    if entry.name == "town":
        if not entry.available:
            raise RetrievalError(
                f"The embedded collection is not in this checkout: {path} is missing."
            )
        town = _with_ground_truth(path.parent, entry.name, entry.title, entry.credit)
        return replace(town, metadata=_views(path.with_name("views.csv"), town.names))
    if not entry.available:
        raise RetrievalError(
            f"{entry.title} is not on this machine: "
            f"python -m retrieval download {entry.download or entry.name}"
        )
    if entry.images is None:
        return _with_ground_truth(path.parent, entry.name, entry.title, entry.credit)
    truth = read_ground_truth(path, suffix=".jpg")
    if (len(truth.names), len(truth.queries)) != (entry.images, entry.queries):
        raise RetrievalError(
            f"{path} lists {len(truth.names)} pictures and {len(truth.queries)} queries, but "
            f"{entry.title} has {entry.images} and {entry.queries}; download it again."
        )
    return Collection(
        entry.name,
        entry.title,
        data_folder() / entry.pictures,
        truth.names,
        truth.queries,
        entry.credit,
        note=entry.note,
    )


def _with_ground_truth(folder: Path, name: str, title: str, credit: str) -> Collection:
    truth = read_ground_truth(folder / "ground_truth.json")
    if not truth.names:
        raise RetrievalError(
            f"{folder / 'ground_truth.json'} lists no pictures: name them in imlist or database."
        )
    # Names may count from the folder itself or from images/ in it.
    inside = not (folder / truth.names[0]).is_file() and (folder / "images").is_dir()
    root = folder / "images" if inside else folder
    return Collection(
        name,
        title,
        root,
        truth.names,
        truth.queries,
        credit,
        read_credits(folder),
        read_metadata(folder, truth.names),
        truth.note,
    )


def _views(path: Path, names: tuple[str, ...]) -> Metadata:
    """The renderer's notes on the embedded pictures, in a visitor's words."""
    if not path.is_file():
        return {}
    table = of_pictures(read_table(path), names)
    titles = {
        "landmark": "landmark",
        "kind": "view",
        "light": "light",
        "season": "season",
        "occluder": "in_front",
        "distance": "distance_in_metres",
    }
    words = {"view": "whole", "cut": "part", "scene": "street"}  # of the renderer's kinds of views
    return {
        name: {
            title: words.get(str(values[column]), values[column])
            for column, title in titles.items()
            if column in values
        }
        for name, values in table.items()
    }


def _scan(folder: Path, max_files: int | None) -> tuple[tuple[str, ...], str]:
    """Sorted names of the pictures below ``folder`` (already resolved); a note on folders not read.

    Raises RetrievalError where there are more than ``max_files`` files and folders, and OSError.
    """
    from retrieval.images import SUFFIXES  # imports Pillow

    names, others, seen = [], 0, 0
    unread: list[OSError] = []
    os.scandir(folder).close()  # unlike walking, it says what is wrong
    for parent, folders, files in walk(folder, unread.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        seen += 1 + len(files)
        if max_files is not None and seen > max_files:
            raise RetrievalError(
                f"{folder} has more than {max_files:,} files and folders; choose a smaller folder."
            )
        for file in files:
            path = Path(parent, file)
            if file.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES:
                others += 1
            elif path.is_file() and (
                not path.is_symlink() or path.resolve().is_relative_to(folder)
            ):
                names.append(path.relative_to(folder).as_posix())
    missing = [Path(error.filename).relative_to(folder).as_posix() for error in unread]
    reason = unread[0].strerror if len(unread) == 1 else ""
    return in_order(names, others, folder), left_out(missing, reason)


def unreadable(folder: object, reason: str | None) -> RetrievalError:
    """The error that stops an update, which would else drop all pictures of that folder."""
    return RetrievalError(
        f"{folder} cannot be read: {reason}. What is known of its pictures is kept: run the same "
        "command again when it can be read."
    )


def left_out(folders: Sequence[str], reason: str | None = "") -> str:
    """A sentence that names folders that cannot be read; '' where there are none."""
    if not folders:
        return ""
    count = "1 folder" if len(folders) == 1 else f"{len(folders):,} folders"
    return (
        f"{count} of this collection cannot be read, and the pictures there are left out: "
        + one_line(folders[0])
        + (" and others" if len(folders) > 1 else f" ({reason})" if reason else "")
        + "."
    )


def in_order(names: Iterable[str], others: int, where: object) -> tuple[str, ...]:
    """Names of pictures in the order of a collection. Raises RetrievalError where there are none.

    others: how many files are no pictures. where: the place that was searched.
    """
    from retrieval.images import SUFFIXES

    if ordered := tuple(sorted(names)):
        return ordered
    reason = f"none of its {others} files ends in" if others else "it is empty; use files in"
    raise RetrievalError(f"{where} holds no pictures: {reason} {', '.join(sorted(SUFFIXES))}.")
