"""Collections: those on this machine, photographs to download, and the authors of photographs."""

from __future__ import annotations

import time

import streamlit as st

from pages.parts import cards, loaders, notices
from pages.parts.downloads import download
from pages.parts.indexing import build
from pages.parts.permission import command_instead, may_download
from pages.parts.plain import plain
from retrieval import index, methods
from retrieval.collections import PRECOMPUTED, Collection, commons, credits, data_folder, registered
from retrieval.errors import RetrievalError
from retrieval.methods.base import as_vector

state = st.session_state


def command(preset: str) -> str:
    return (
        f"python -m retrieval download commons --preset {preset} "
        f"--contact {state.get('contact') or 'you@example.org'}"
    )


def bring(preset: str) -> None:
    """Download a preset and show the progress."""
    name = f"{preset}-commons"
    method = loaders.load_method("cnn-irwnha")  # its descriptors show duplicate photographs
    bar, news = st.progress(0.0, "Asking Wikimedia Commons"), st.empty()
    start = time.monotonic()
    before: list[int] = []  # pictures that an earlier try had downloaded

    def progress(done: int, total: int, landmark: str) -> None:
        before.append(done - 1)
        rate = (done - before[0]) / max(time.monotonic() - start, 1e-6)
        left = f", about {(total - done) / rate / 60:.0f} minutes left" if len(before) > 20 else ""
        text = f"{plain(landmark)}: {done} of {total} photographs{left}"
        bar.progress(min(done / total, 1.0), text)

    try:
        commons.download(
            commons.Order(commons.PRESETS[preset]),
            data_folder() / name,
            state.contact,
            lambda picture: as_vector(method.describe(picture)),
            progress,
            news.text,
        )
    except RetrievalError as error:
        st.error(notices.sentence(error), icon=":material/error:")
        st.info(
            "The pictures that have arrived are kept: press the button again to continue. If this "
            "machine has no internet, run the command below on one that has, and copy the folder "
            f"`{name}` that it makes to `{data_folder()}` here."
        )
        st.code(command(preset), language=None)
        st.stop()
    st.rerun()


def photographs() -> None:
    """Offer the presets of Wikimedia Commons."""
    st.subheader("Photographs from Wikimedia Commons", anchor=False)
    st.markdown(
        "Photographs under free licences, with their authors. The label of each is its category on "
        "Commons, which is too coarse for a benchmark."
    )
    preset = st.radio(
        "Which",
        commons.PRESETS,
        format_func=str.capitalize,
        captions=[
            f"{len(names)} landmarks, {commons.Order(names).plan}"
            for names in commons.PRESETS.values()
        ],
        key="preset",
    )
    entry = next(entry for entry in registered() if entry.name == f"{preset}-commons")
    if not may_download():
        command_instead(command(preset))
    elif not entry.available:
        st.text_input(
            "Your e-mail address or web page",
            key="contact",
            help="Wikimedia asks for an address of each user. It is sent to Wikimedia only.",
            persist_state="session",
        )
        if st.button("Download", type="primary", key="bring", disabled=not state.contact):
            bring(preset)
    else:
        make_indexes(entry.name, entry.title)


def make_indexes(name: str, title: str) -> None:
    """Offer the indexes that an installed collection lacks."""
    lacking = [method for method in methods.METHODS if method not in index.find(name)]
    if not lacking:
        st.success(f"{title} is here and indexed.", icon=":material/check:")
        return
    st.markdown(f"{title} is on this machine. Index it with a method to search with that method.")
    with st.container(horizontal=True):
        for method in lacking:
            if st.button(f"Index with {methods.METHODS[method].title}", key=f"make-{method}"):
                with notices.errors_shown():
                    out = PRECOMPUTED / name / methods.METHODS[method].default
                    build(loaders.collection(name), method, out)
                st.rerun()


def photographers(titles: dict[str, str], opened: dict[str, Collection]) -> None:
    """A table of author, licence and source of every picture of a collection."""
    named = {name: collection for name, collection in opened.items() if collection.credits}
    if not named:
        return
    st.subheader("Who made the photographs", anchor=False)
    name = st.selectbox("Collection", named, format_func=titles.__getitem__, key="credited")
    st.dataframe(
        [
            {
                "Picture": picture,
                "Author": credit.author,
                "Licence": credit.licence,
                "Terms": credit.licence_url or None,
                "Source": credit.page or None,
                "Note": credit.note,
            }
            for picture, credit in named[name].credits.items()
        ],
        hide_index=True,
        key="credits",
        placeholder="–",
        column_config={
            "Picture": st.column_config.TextColumn(width="medium"),
            "Terms": st.column_config.LinkColumn(display_text="licence"),
            "Source": st.column_config.LinkColumn(display_text="page"),
        },
    )
    download("CSV", lambda: credits.as_csv(named[name].credits), f"{name}-credits.csv", "text/csv")


cards.open_page("Collections")
titles = loaders.collection_titles()
opened: dict[str, Collection] = {}
problems: list[str] = []
for name, title in titles.items():
    try:
        opened[name] = loaders.collection(name)
    except RetrievalError as error:
        problems.append(f"{plain(title)} cannot be opened. {notices.sentence(error)}")
with notices.errors_shown():
    rows = [
        {
            "Collection": titles[name],
            "Pictures": len(collection),
            "Queries": len(collection.queries),
            "Indexed with": ", ".join(methods.METHODS[method].title for method in index.find(name)),
            "From": collection.credit,
        }
        for name, collection in opened.items()
    ]
st.subheader("On this machine", anchor=False)
if rows:
    st.dataframe(rows, hide_index=True, key="here")
for problem in problems:
    st.error(problem, icon=":material/error:")
if not titles:
    st.info("None yet. The search page can take pictures of your own.")
photographs()
photographers(titles, opened)
