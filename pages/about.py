"""How it works: the three methods, the networks in use, and the indexes on this machine."""

import json

import streamlit as st

from pages.parts import cards, loaders
from pages.parts.about import collection_map
from retrieval import index, methods
from retrieval.networks import checkpoints

STEPS = {
    "sir": ["Network", "Average of the feature map", "1024-unit layer", "Cosine"],
    "delf": ["Network at seven scales", "Attention picks the best points", "Match", "Geometry"],
    "cnn-irwnha": ["Network at three scales", "GeM pooling", "Whitening", "Cosine"],
}

loaders.through_app()
cards.style()
st.title("How it works", anchor=False)
st.markdown(
    "A network describes each picture of a collection by a list of numbers, its **descriptor**. "
    "The descriptors are computed once and stored: that is the **index**. To search, the query is "
    "described in the same way, and the pictures with the most similar descriptors come first."
)

for column, entry in zip(st.columns(3, gap="medium"), methods.METHODS.values(), strict=True):
    with column.container(border=True, height="stretch"):
        checkpoint = checkpoints.find(entry.name)
        st.subheader(entry.title, anchor=False)
        st.markdown(entry.summary)
        st.markdown("  \n".join(f"**{n}** {step}" for n, step in enumerate(STEPS[entry.name], 1)))
        st.markdown(
            f":small[**Network in use** {checkpoint.title} ({checkpoint.id})]\n\n"
            f":small[**Stands in for** {checkpoint.stands_in_for}]\n\n"
            f":small[**Trained on** {checkpoint.trained_on}]\n\n"
            f":small[**Paper** {entry.paper}]"
        )

collection_map.section()

st.subheader("Indexes on this machine", anchor=False)
rows = []
for name, title in loaders.shelf().items():
    for method, path in index.find_all(name):
        made = json.loads((path / "manifest.json").read_text("utf-8"))
        size = sum(file["bytes"] for file in made["files"].values())
        rows.append(
            {
                "Collection": title,
                "Method": methods.METHODS[method].title,
                "Checkpoint": made["checkpoint"]["id"],
                "Pictures": made["pictures"],
                "Skipped": len(made["skipped"]),
                "MB": round(size / 1e6, 1),
                "Made": made["made"][:10],
            }
        )
if rows:
    st.dataframe(rows, hide_index=True)
else:
    st.info("None yet. The search page can index pictures of your own.")

st.subheader("Networks to download", anchor=False)
st.markdown(
    "The networks above come with the installation and stand in for these: downloaded once, "
    "verified, and used by `python -m retrieval index`."
)
official = {one.id: one for one in checkpoints.REGISTRY.values() if one.address}
st.dataframe(
    [
        {
            "Network": one.id,
            "Method": methods.METHODS[one.method].title,
            "What it is": one.title,
            "Size": one.size_text,
            "On this machine": "yes" if one.available else "no",
            "Trained on": one.trained_on,
            "Licence": one.licence,
        }
        for one in official.values()
    ],
    hide_index=True,
)
missing = [name for name, one in official.items() if not one.available]
if missing:
    chosen = st.selectbox("Download a network", missing, key="network")
    if official[chosen].format == "saved-model":
        st.caption(
            "This one is a program of TensorFlow, a SavedModel. Only the part that describes "
            "pictures is run, and only if it is made of arithmetic."
        )
    if st.button(f"Download, {official[chosen].size_text}", icon=":material/download:"):
        bar = st.progress(0.0, "Connecting")

        def show(done: int, total: int | None, name: str) -> None:
            text = f"{name}: {done / 1e6:.0f} MB" + (f" of {total / 1e6:.0f} MB" if total else "")
            bar.progress(min(done / total, 1.0) if total else 0.0, text)

        with loaders.explained():
            checkpoints.download(official[chosen], show)
        st.rerun()
