"""How it works: the three methods."""

import streamlit as st

from pages.parts import cards, loaders
from pages.parts.about import collection_map
from retrieval import methods
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
