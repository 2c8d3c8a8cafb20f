"""How it works: one picture goes through the three methods, step by step."""

import streamlit as st

from pages.parts import cards
from pages.parts.about import collection_map, followed_query, local, training, vectors
from pages.parts.terms import explained
from retrieval import methods
from retrieval.networks import checkpoints

METHODS = {"sir": vectors.sir, "delf": local.delf, "cnn-irwnha": vectors.gem}
OTHERS = {"training": "Training", "map": "Map of a collection"}
PARTS = {name: methods.METHODS[name].title for name in METHODS} | OTHERS
state = st.session_state

cards.open_page("How it works")
st.markdown(
    "A network describes each picture of a collection by lists of numbers, its **descriptors**. "
    "They are computed once and stored: that is the **index**. To search, the query is described "
    "in the same way, and the pictures with the most similar descriptors come first."
)
followed_query.follow_link(PARTS, collection_map.KINDS)
state.setdefault("about-part", "sir")
state.setdefault("map-kind", "tsne")
st.segmented_control(
    "Part",
    PARTS,
    format_func=PARTS.__getitem__,
    key="about-part",
    required=True,
    label_visibility="collapsed",
    persist_state="session",
)
part: str = state["about-part"]
if part == "training":
    training.section()
elif part == "map":
    followed = followed_query.pick()
    followed_query.write_link(followed)
    collection_map.section(followed)
else:
    entry = methods.METHODS[part]
    followed = followed_query.pick()
    followed_query.write_link(followed)
    opened = METHODS[part](followed)  # ends the page where there is no index
    checkpoint = checkpoints.registered(part, opened.checkpoint)
    stands_in = f", standing in for {checkpoint.stands_in_for}" if checkpoint.stands_in_for else ""
    st.caption(
        f"**{entry.title}.** {entry.summary} Network: {checkpoint.title} ({checkpoint.id})"
        f"{stands_in}. Trained on: {checkpoint.trained_on}. Paper: {entry.paper}.",
        help=explained("checkpoint"),
    )
