"""Networks and indexes: those on this machine, and networks to download."""

import streamlit as st

from pages.parts import cards, loaders, notices
from pages.parts.permission import command_instead, may_download
from retrieval import index, methods
from retrieval.errors import RetrievalError
from retrieval.index import loading
from retrieval.networks import checkpoints


def networks_here() -> None:
    """The checkpoints that come with the installation."""
    st.subheader("Networks of this installation", anchor=False)
    computes = {
        "GPU": " They compute on the GPU.",
        "CPU": " They compute on the CPU: no GPU is used.",
    }
    st.markdown(
        "A **checkpoint** is one set of weights of a network. Each method uses the first of its "
        "checkpoints in this table; the others are for comparison."
        + computes.get(loaders.processor(), "")
    )
    st.dataframe(
        [
            {
                "Method": methods.METHODS[checkpoint.method].title,
                "Checkpoint": checkpoint.id,
                "What it is": checkpoint.title,
                "Stands in for": checkpoint.stands_in_for,
            }
            for name in methods.METHODS
            for checkpoint in checkpoints.of_method(name)
            if not checkpoint.address
        ],
        hide_index=True,
        height="content",
        column_config={
            "Stands in for": st.column_config.TextColumn(
                help="The larger network of the report or of the authors, which is too large to "
                "come with the app; or the network that this one is compared with."
            )
        },
    )


def indexes_here() -> None:
    st.subheader("Indexes on this machine", anchor=False)
    rows = []
    for name, title in loaders.collection_titles().items():
        for method, path in index.find_all(name):
            try:
                manifest = loading.read_manifest(path)
            except RetrievalError as error:
                st.warning(notices.sentence(error), icon=":material/warning:")
                continue
            size = sum(file["bytes"] for file in manifest["files"].values())
            rows.append(
                {
                    "Collection": title,
                    "Method": methods.METHODS[method].title,
                    "Checkpoint": manifest["checkpoint"]["id"],
                    "Pictures": manifest["pictures"],
                    "Unreadable": len(manifest["skipped"]),
                    "MB": round(size / 1e6, 1),
                    "Made": manifest["made"][:10],
                }
            )
    if rows:
        st.dataframe(rows, hide_index=True, height="content")
    else:
        st.info("None yet. The search page can index pictures of your own.")


def training_and_licences() -> None:
    """A table of training data and licences; checkpoints with the same weights share a line."""
    st.subheader("Training and licences", anchor=False)
    alike: dict[tuple[str, str, str], list[str]] = {}
    for checkpoint in checkpoints.REGISTRY.values():
        key = checkpoint.trained_on, checkpoint.overlap, checkpoint.licence
        alike.setdefault(key, []).append(checkpoint.id)
    st.table(
        [
            {
                "Checkpoint": ", ".join(names),
                "Trained on": trained_on,
                "Test landmarks in the training": overlap,
                "Licence": licence,
            }
            for (trained_on, overlap, licence), names in alike.items()
        ],
        hide_index=True,
    )


def networks_elsewhere() -> None:
    """The checkpoints that others publish, and a button or command that downloads one."""
    st.subheader("Networks to download", anchor=False)
    st.markdown(
        "These networks are larger. A downloaded file is checked against the SHA-256 of its "
        "authors, where they publish one. `python -m retrieval index` then uses it."
    )
    official = {
        checkpoint.id: checkpoint
        for checkpoint in checkpoints.REGISTRY.values()
        if checkpoint.address
    }
    st.dataframe(
        [
            {
                "Checkpoint": checkpoint.id,
                "Method": methods.METHODS[checkpoint.method].title,
                "What it is": checkpoint.title,
                "Size": checkpoint.size_text,
                "On this machine": "yes" if checkpoint.available else "no",
            }
            for checkpoint in official.values()
        ],
        hide_index=True,
        height="content",
    )
    missing = [name for name, checkpoint in official.items() if not checkpoint.available]
    if not missing:
        return
    chosen = st.selectbox("Download a network", missing, key="network")
    if official[chosen].format == "saved-model":
        st.caption(
            "This one is a SavedModel of TensorFlow, which is a program. Only the part that "
            "computes features is run, and only if it uses no files and no network."
        )
    if not may_download():
        command_instead(f"python -m retrieval download {chosen}")
    elif st.button(f"Download, {official[chosen].size_text}", icon=":material/download:"):
        bar = st.progress(0.0, "Connecting")

        def show(done: int, total: int | None, name: str) -> None:
            text = f"{name}: {done / 1e6:.0f} MB" + (f" of {total / 1e6:.0f} MB" if total else "")
            bar.progress(min(done / total, 1.0) if total else 0.0, text)

        with notices.errors_shown():
            checkpoints.download(official[chosen], show)
        st.rerun()


cards.open_page("Networks and indexes")
networks_here()
indexes_here()
networks_elsewhere()
training_and_licences()
