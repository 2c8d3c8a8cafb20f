"""Pictures that a visitor brings: kept and indexed in a private folder that goes with the session.

The folder is a TemporaryDirectory, readable by this user only. It is deleted some minutes after
the session's connection breaks, unless that comes back, and when the server stops.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from threading import Timer

import streamlit as st

from pages.parts import indexing, loaders, permission, query
from pages.parts.plain import plain
from retrieval import images, index, methods
from retrieval.collections import archives, judgements, metadata
from retrieval.collections import collection as collections
from retrieval.errors import RetrievalError
from retrieval.workers import Workers

NAME, TITLE = "mine", "My pictures"
FILES, MEGABYTES = "RETRIEVAL_OWN_FILES", "RETRIEVAL_OWN_MB"  # of one session, unpacked
FOLDERS = "RETRIEVAL_ALLOW_FOLDERS"
MOST_OF_TABLE = 4_000_000  # bytes; while Python reads JSON, everybody waits
# Bytes of the disk that stay free for everything else; of a small one, as in Docker, a tenth.
ROOM, PART = 1_500_000_000, 0.1
# What visitors bring is unpacked and read one after the other: forty zips at once kept both cores
# and the disk from everybody else, as large tables do, which keep Python busy.
UNPACKER = Workers(1, 200)


GRACE = 180  # s; for two minutes Streamlit lets a broken connection come back to its session


@dataclass
class Own:
    """What one session brought: copies of pictures, or a folder that they stay in, and indexes."""

    collection: collections.Collection
    folder: TemporaryDirectory
    indexes: dict[str, Path] = field(default_factory=dict)
    skipped: list[dict] = field(default_factory=list)  # name and reason of unreadable pictures
    deletion: Timer | None = None

    def keep(self) -> Own:
        if self.deletion:
            self.deletion.cancel()
        return self

    def delete_later(self) -> None:
        """The connection is broken; a telephone's may be back in a moment."""
        self.deletion = Timer(GRACE, self.folder.cleanup)
        self.deletion.daemon = True
        self.deletion.start()


@st.cache_resource(scope="session", max_entries=1, show_spinner=False, on_release=Own.delete_later)
def _present(_own: Own, folder: str) -> Own:
    """Streamlit forgets this when the connection breaks, though it keeps the session's state."""
    return _own.keep()


def current() -> Own | None:
    own = st.session_state.get("own")
    if own is None or not Path(own.folder.name).exists():
        return None
    return _present(own, own.folder.name)


def collection_titles() -> dict[str, str]:
    """Name → title of the collections that can be opened here, the visitor's own pictures last."""
    return loaders.collection_titles() | ({NAME: TITLE} if current() else {})


def opened(name: str) -> collections.Collection:
    """One of these collections by name, the visitor's own pictures included."""
    own = current() if name == NAME else None
    return own.collection if own else loaders.collection(name)


def indexes(collection: collections.Collection) -> dict[str, Path]:
    """The index of a collection for each method that has one."""
    own = current() if collection.name == NAME else None
    return own.indexes if own else index.find(collection.name)


def allowed_folders() -> list[Path]:
    """Folders on this machine that a visitor may name a folder in; none unless the owner says so.

    The owner lists them in the environment variable RETRIEVAL_ALLOW_FOLDERS, separated like PATH.
    """
    roots = [] if permission.unknown_name() else os.environ.get(FOLDERS, "").split(os.pathsep)
    return [Path(root).expanduser().resolve() for root in roots if root.strip()]


def choose() -> None:
    """Callback: search in pictures of one's own."""
    st.session_state.update(collection=NAME, searched=False)


def section(wanted: list[str]) -> None:
    """The pictures in use and the way to bring others; ends the page where there are none."""
    own = current()
    with st.expander("Use other pictures" if own else "Use my pictures", expanded=own is None):
        form(wanted)
    if own is None:
        if not loaders.collection_titles():
            st.info("No collection is installed here yet: bring pictures of your own.")
        if st.query_params.get("collection") == NAME:
            st.info(
                "No pictures of yours are here. They are deleted when a session ends, and a "
                "reload of the page ends it. Bring them again."
            )
        st.stop()
    elif own.skipped:
        many = "1 file" if len(own.skipped) == 1 else f"{len(own.skipped)} files"
        with st.expander(f"{many} could not be read and will not be found"):
            for skipped in own.skipped:
                st.markdown(plain(skipped["reason"]))


def form(wanted: list[str]) -> None:
    """Ask for pictures, and index them with the ``wanted`` methods."""
    ways = ["Files or a zip", "A folder on this machine"]
    way = st.radio("From", ways, horizontal=True, key="own_from") if allowed_folders() else ways[0]
    files, folder = [], ""
    if os.environ.get(FOLDERS) and (host := permission.unknown_name()):
        st.caption(f"No folder can be named here, because {permission.how_to_be_known(host)}")
    if way == ways[0]:
        files = st.file_uploader(
            "Pictures, or one zip of pictures",
            type=[suffix[1:] for suffix in sorted(images.SUFFIXES)] + ["zip", "csv", "json"],
            accept_multiple_files=True,
            key="own_files",
            help="A CSV or JSON table may come with them: one column called name, with the file of "
            "each picture, and whatever else is known. Results show it and can be filtered by it.",
        )
        st.caption(
            f"Pictures are files of the kinds {', '.join(images.FORMATS)}. Other files, such as a "
            "PDF, are not allowed: save their pages as pictures first."
        )
    else:
        folder = st.text_input(
            "Folder",
            key="own_folder",
            help="Below " + " or ".join(map(str, allowed_folders())) + ", subfolders included.",
        )
    if st.button(
        f"Index with {methods.METHODS[wanted[0]].title}",
        type="primary",
        disabled=not (files or folder),
        key="own_index",
    ):
        with loaders.errors_shown():
            if files:
                brought = loaders.in_turn(lambda: _bring(files), UNPACKER)
            else:
                brought = _bring_folder(folder)
            before = current()
            st.session_state["own"] = brought
            if before:
                before.folder.cleanup()
            built = build(wanted[0])  # the others when their results are asked for
            # The first query is a picture that can be read, with no box of one of the same name.
            st.session_state["database"], st.session_state["boxed"] = built.names[0], None
            # An upload or photograph to ask with does not outlive this run of the page.
            if st.session_state.get("source") in (query.UPLOAD, query.CAMERA):
                st.session_state["source"], st.session_state["searched"] = query.DATABASE, False
        st.rerun()
    if own := current():
        used = len(own.collection)
        st.markdown(
            f"{used:,} {'picture is' if used == 1 else 'pictures are'} in use. "
            "Bringing others replaces them."
        )
    st.caption(
        "To index is to let a network describe each picture, once: then they can be searched. Your "
        "pictures are kept in a private folder for this session only: nobody else sees them, and "
        "they are deleted when the session ends."
    )


def build(name: str) -> index.Index:
    """Index the session's pictures with one method, showing how far it is."""
    own = current()
    assert own is not None  # it was brought just now
    out = Path(own.folder.name) / "indexes" / name
    built = indexing.build(own.collection, name, out, images.visitors_limit())
    if built.manifest["skipped"]:
        # What cannot be read is no part of the collection; the features of the rest are kept.
        own.skipped = built.manifest["skipped"]
        queries = judgements.refer_to(own.collection, built.names)
        own.collection = replace(own.collection, names=built.names, queries=queries)
        built = indexing.build(own.collection, name, out, images.visitors_limit())
    own.indexes[name] = out
    return built


def judged(collection: collections.Collection) -> str:
    """'Judged by you: 2 queries, 9 pictures'"""
    queries, pictures = len(collection.queries), judgements.count(collection)
    return (
        f"Judged by you: {queries} {'query' if queries == 1 else 'queries'}, "
        f"{pictures} {'picture' if pictures == 1 else 'pictures'}"
    )


PREFIX = "retrieval-own-"


def _private_folder() -> TemporaryDirectory:
    """A new folder, named after this server, so that a later one knows what was left behind."""
    return TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-")


@st.cache_resource(show_spinner=False)
def sweep() -> None:
    """Delete, once a server, what servers left that were killed."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        if number.isdecimal() and not _runs(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    if os.name != "posix":  # elsewhere a signal of 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, but is not ours
        return True
    return True


def _limit(variable: str, default: int) -> int:
    """What the owner of the app allows a session, by an environment variable."""
    text = os.environ.get(variable, str(default))
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise RetrievalError(f"{variable} is a whole number from 1 to 999999, not {text!r}.")
    return int(text)


def _bring(files: list) -> Own:
    """Copy uploads into a new private folder, unpacking zips."""
    most_files, megabytes = _limit(FILES, 2000), _limit(MEGABYTES, 500)
    folder = _private_folder()
    root = Path(folder.name) / "pictures"
    root.mkdir()
    room, left = most_files - len(files), megabytes * 1_000_000
    too_many = RetrievalError(f"These are more than {most_files:,} files; bring fewer.")
    if room < 0:
        raise too_many
    for number, file in enumerate(files, 1):
        disk = shutil.disk_usage(root)
        if disk.free < min(ROOM, PART * disk.total):
            raise RetrievalError(
                "There is no room for more pictures on this machine; try again in some minutes."
            )
        target = root / _safe(file.name)
        if target.suffix.lower() in (".csv", ".json"):
            target = root / f"metadata{target.suffix.lower()}"
            if any((root / name).exists() for name in metadata.FILES):
                raise RetrievalError("Bring one table: these files are more than one.")
            if file.size > MOST_OF_TABLE:
                most = MOST_OF_TABLE // 1_000_000
                raise RetrievalError(f"{file.name} has more than {most} MB; bring a shorter table.")
        is_zip = target.suffix.lower() == ".zip"
        if is_zip:
            target = target.with_suffix("")
        stem = target.stem
        while target.exists():  # two folders may each hold an IMG_0001.jpg
            target = target.with_stem(f"{stem} ({number})")
            number += 1
        if is_zip:
            paths = archives.unpack(
                file, target, max_bytes=left, max_files=most_files, suffixes=images.SUFFIXES
            )
            left -= sum(path.stat().st_size for path in paths)
            room -= len(paths) - 1  # the zip itself is none
            if room < 0:
                raise too_many
            continue
        left -= file.size
        if left < 0:
            raise RetrievalError(
                f"These pictures are more than {megabytes} MB together; bring fewer."
            )
        try:
            target.write_bytes(file.getbuffer())
        except OSError as error:
            raise RetrievalError(
                f"{file.name} cannot be kept here: {error.strerror or error}."
            ) from error
    return Own(_named(collections.open_collection(root)), folder)


def _bring_folder(text: str) -> Own:
    """Use a folder where it is; only its indexes go into the private folder."""
    refused = RetrievalError(f"The owner of this app has not opened the folder {text} to it.")
    try:
        folder = Path(text).expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # ~nobody, a zero byte
        raise refused from error
    if not any(folder.is_relative_to(root) for root in allowed_folders()):
        raise refused
    return Own(_named(collections.open_collection(folder)), _private_folder())


def _named(collection: collections.Collection) -> collections.Collection:
    for name in (*collection.names, *(one.name for one in collection.queries)):
        if name != name.encode("utf-8", "replace").decode():
            raise RetrievalError(
                f"The file name {name} is not in UTF-8, so no browser can show it: rename the file."
            )
    return replace(collection, name=NAME, title=TITLE)


def _safe(name: str) -> str:
    """A file name that every file system takes, and that is not that of a hidden file."""
    stem, suffix = os.path.splitext(re.sub(r"[^\w.() -]", "_", Path(name).name).lstrip("."))
    # File systems count bytes, up to 255, and a number may be added.
    stem = stem.encode()[:200].decode(errors="ignore")
    return (stem or "picture") + suffix[:10]
