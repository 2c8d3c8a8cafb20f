"""Pictures that a visitor brings: a collection of the session, indexed in a private folder.

The folder is deleted some minutes after the session's connection breaks, unless that comes back,
and when the server stops.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from pages.parts import address, indexing, loaders, notices, own_uploads, permission, query, turns
from pages.parts.limits import uploads
from pages.parts.plain import plain
from retrieval import images, index, methods
from retrieval.collections import collection as collections
from retrieval.collections import judgements, metadata
from retrieval.errors import RetrievalError

NAME, TITLE = address.OWN_PICTURES, "My pictures"
LARGE_TABLE = 100_000  # bytes; larger ones are read one at a time
FOLDERS_VARIABLE = "RETRIEVAL_ALLOW_FOLDERS"
DELETION_DELAY = 180  # s; for two minutes Streamlit lets a broken connection come back
UPLOADS = "Files or a zip"  # the usual way to bring pictures
state = st.session_state


@dataclass
class OwnPictures:
    """The pictures that one session brought.

    folder: private; with copies of the pictures, unless they stay in a folder of the owner, and
    with the indexes. indexes: method → path. skipped: name and reason of each unreadable picture.
    session: its id.
    """

    collection: collections.Collection
    folder: TemporaryDirectory
    indexes: dict[str, Path] = field(default_factory=dict)
    skipped: list[dict] = field(default_factory=list)
    deletion: Timer | None = None
    session: str = ""

    def keep(self) -> OwnPictures:
        """Undo ``delete_later``."""
        if self.deletion:
            self.deletion.cancel()
        if context := get_script_run_ctx():
            self.session = context.session_id
        return self

    def delete_later(self) -> None:
        """Delete the folder after DELETION_DELAY: a telephone's connection may soon be back."""
        self.deletion = Timer(DELETION_DELAY, self._delete_unless_needed)
        self.deletion.daemon = True
        self.deletion.start()

    def _delete_unless_needed(self) -> None:
        # A browser that is connected again does not ask for the page, so nothing called ``keep``;
        # and its connection may have broken again a minute ago. Replaced pictures are gone already.
        there = runtime.exists() and uploads.is_session(self.session)
        if there and Path(self.folder.name).exists():
            self.delete_later()
        else:
            self.folder.cleanup()


def current() -> OwnPictures | None:
    """The pictures that this session brought; None where there are none, or no longer."""
    own = state.get("own")
    if own is None or not Path(own.folder.name).exists():
        return None
    return _keep_while_connected(own, own.folder.name)


@st.cache_resource(
    scope="session", max_entries=1, show_spinner=False, on_release=OwnPictures.delete_later
)
def _keep_while_connected(_own: OwnPictures, folder: str) -> OwnPictures:
    """Kept until the connection breaks: Streamlit then clears this cache, but not the state."""
    return _own.keep()


def collection_titles() -> dict[str, str]:
    """Name → title of the collections that can be opened here, the visitor's own pictures last."""
    return loaders.collection_titles() | ({NAME: TITLE} if current() else {})


def open_collection(name: str) -> collections.Collection:
    """One of ``collection_titles`` by name. Raises RetrievalError where there is none."""
    own = current() if name == NAME else None
    return own.collection if own else loaders.collection(name)


def indexes(collection: collections.Collection) -> dict[str, Path]:
    """Method → path of the index of a collection, for each method that has one."""
    own = current() if collection.name == NAME else None
    return own.indexes if own else index.find(collection.name)


def allowed_folders() -> list[Path]:
    """Folders on this machine below which a visitor may name a folder; by default none.

    The owner lists them in the environment variable RETRIEVAL_ALLOW_FOLDERS, separated like PATH.
    """
    if permission.unknown_name():
        return []
    roots = os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)
    return [Path(root).expanduser().resolve() for root in roots if root.strip()]


def search_own() -> None:
    """Callback: search in pictures of one's own."""
    state.update(collection=NAME, searched=False)


def show_section(method_name: str) -> None:
    """Draw the form that brings pictures, and say what could not be read.

    method_name: as for ``show_form``. Ends the page where there are no pictures yet.
    """
    own = current()
    with st.expander("Use other pictures" if own else "Use my pictures", expanded=own is None):
        show_form(method_name)
    if own is None:
        if not loaders.collection_titles():
            st.info("No collection is installed here yet: bring pictures of your own.")
        if st.query_params.get("collection") == NAME:
            st.info(address.NO_OWN_PICTURES)
        st.stop()
    if own.collection.note:
        st.caption(plain(own.collection.note))
    if own.skipped:
        files = "1 file" if len(own.skipped) == 1 else f"{len(own.skipped)} files"
        with st.expander(f"{files} could not be read and will not be found"):
            for picture in own.skipped:
                st.markdown(plain(picture["reason"]))


def show_form(method_name: str) -> None:
    """Ask for pictures, and index them with a method.

    The other methods index them when their results are asked for.
    """
    source = UPLOADS
    if allowed_folders():
        sources = [UPLOADS, "A folder on this machine"]
        source = st.radio("From", sources, horizontal=True, key="own_from")
    files, folder = [], ""
    if os.environ.get(FOLDERS_VARIABLE) and (host := permission.unknown_name()):
        st.caption(f"No folder can be named here, because {permission.how_to_be_known(host)}")
    if source == UPLOADS:
        files = st.file_uploader(
            "Pictures, or one zip of pictures",
            type=[suffix[1:] for suffix in sorted(images.SUFFIXES)] + ["zip", "csv", "json"],
            accept_multiple_files=True,
            key="own_files",
            help="A CSV or JSON table may come with them: a column called name, with the file of "
            "each picture, and other columns, which results show and can be filtered by. In a zip, "
            "its name is metadata.csv. Where folders have files of the same name, the table names "
            "them with their folders, as trip/a.jpg.",
        )
        st.caption(
            f"Pictures are files of the kinds {', '.join(images.FORMATS)}. Other files, such as a "
            "GIF, AVIF or PDF, are not allowed and are left out of a zip: save them as pictures of "
            "these kinds first. Put more than 1000 pictures into a zip: browsers lose some of so "
            "many files."
        )
    else:
        folder = st.text_input(
            "Folder",
            key="own_folder",
            help="Below " + " or ".join(map(str, allowed_folders())) + ", subfolders included.",
        )
    if st.button(
        f"Index with {methods.METHODS[method_name].title}",
        type="primary",
        disabled=not (files or folder),
        key="own_index",
    ):
        with notices.errors_shown():
            # Forty zips or folders at once took both cores and the disk from all other visitors,
            # and large tables keep Python busy.
            with turns.one_of_client("pictures"):
                brought = _bring_uploads(files) if files else _bring_folder(folder)
            _use(brought, method_name)
        st.rerun()
    if own := current():
        used = len(own.collection)
        st.markdown(
            f"{used:,} {'picture is' if used == 1 else 'pictures are'} in use. "
            "Bringing others replaces them."
        )
    st.caption(
        "Indexing lets a network describe each picture once; then they can be searched. Your "
        "pictures are kept in a private folder for this tab only: nobody else sees them, and they "
        "are deleted some minutes after it is closed or reloaded."
    )


def _use(brought: OwnPictures, method_name: str) -> None:
    """Index pictures with a method, in place of those that the session brought before.

    Raises RetrievalError where none can be read; those before then stay in use.
    """
    before, asked = current(), {"boxed": state.get("boxed"), "where": state.get("where", "")}
    # A box and a filter are about the pictures before, also where a click ends this run.
    state.update(own=brought, boxed=None, where="")
    replaced = before
    try:
        built = build_index(method_name)
    except RetrievalError:
        replaced = brought
        state.update(asked, own=before)  # with its judgements
        current()  # else its folder is deleted soon: the others had its place in the cache
        raise
    finally:
        if replaced:
            replaced.folder.cleanup()
    state["database"] = built.names[0]  # the first query can be read
    # An upload or photograph to ask with does not outlive this run of the page.
    if state.get("source") in (query.UPLOAD, query.CAMERA):
        state["source"], state["searched"] = query.DATABASE, False


def build_index(method_name: str) -> index.Index:
    """Index the session's pictures with a method, and show the progress.

    Pictures that cannot be read are taken out of the collection. Raises RetrievalError where none
    can be.
    """
    own = current()
    assert own is not None  # it was brought just now
    out = Path(own.folder.name) / "indexes" / method_name
    built = indexing.build(own.collection, method_name, out, images.visitors_limit())
    if built.manifest["skipped"]:
        # Unreadable pictures leave the collection; the features of the others are kept. Indexes of
        # other methods still have the unreadable ones: they have to be made again.
        own.indexes.clear()
        own.skipped = built.manifest["skipped"]
        queries = judgements.refer_to(own.collection, built.names)
        own.collection = replace(own.collection, names=built.names, queries=queries)
        built = indexing.build(own.collection, method_name, out, images.visitors_limit())
    own.indexes[method_name] = out
    return built


def judged_text(collection: collections.Collection) -> str:
    """'Judged by you: 2 queries, 9 marks'; a picture may have a mark for each query."""
    queries, marks = len(collection.queries), judgements.count(collection)
    return (
        f"Judged by you: {queries} {'query' if queries == 1 else 'queries'}, "
        f"{marks} {'mark' if marks == 1 else 'marks'}"
    )


def _bring_uploads(files: list) -> OwnPictures:
    """A collection of copies of uploads.

    Raises RetrievalError as ``copy_uploads`` does, where there is no picture, and for a table that
    cannot be read.
    """
    folder = own_uploads.private_folder()
    pictures = Path(folder.name) / "pictures"
    pictures.mkdir()
    own_uploads.copy_uploads(files, pictures)
    copies = (path for path in pictures.rglob("*") if path.is_file())
    if not any(path.suffix.lower() in images.SUFFIXES for path in copies):
        # To open the collection would say so too, and name this folder of the server.
        kinds = ", ".join(images.FORMATS)
        raise RetrievalError(f"There is no picture in these files that can be read: bring {kinds}.")
    tables = [pictures / name for name in metadata.FILES if (pictures / name).exists()]
    large = any(table.stat().st_size > LARGE_TABLE for table in tables)
    with turns.within_turn(turns.READERS) if large else nullcontext():
        collection = _open_folder(pictures)
    if tables and not collection.metadata:
        said = "The table says nothing about these pictures, so nothing of it is shown."
        collection = replace(collection, note=f"{collection.note} {said}".strip())
    return OwnPictures(collection, folder)


def _bring_folder(text: str) -> OwnPictures:
    """A collection of pictures that stay where they are; only indexes go into the private folder.

    Raises RetrievalError for a folder that the owner does not allow.
    """
    refused = RetrievalError(
        f"This app may not read the folder {text}: choose one of those that its owner lists in "
        "RETRIEVAL_ALLOW_FOLDERS."
    )
    try:
        folder = Path(text).expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # ~nobody, a zero byte
        raise refused from error
    if not any(folder.is_relative_to(root) for root in allowed_folders()):
        raise refused
    return OwnPictures(_open_folder(folder), own_uploads.private_folder())


def _open_folder(folder: Path) -> collections.Collection:
    """The collection in a folder, called NAME. Raises RetrievalError for names not in UTF-8."""
    collection = collections.open_collection(folder)
    loaders.check_names(collection)
    return replace(collection, name=NAME, title=TITLE, of_visitor=True)
