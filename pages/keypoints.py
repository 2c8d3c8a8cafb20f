"""Keypoints and matches: the local features of one picture, and how those of two match."""

from __future__ import annotations

import streamlit as st

from pages.parts import cards, choose, notices, own_pictures, query
from pages.parts.keypoints.extractors import delf_extractor, xfeat_extractor
from pages.parts.keypoints.link import DEFAULTS, VIEWS, follow_link, write_link
from pages.parts.keypoints.one_picture import show_one_picture
from pages.parts.keypoints.two_pictures import show_two_pictures

state = st.session_state

cards.open_page("Keypoints and matches")

titles = own_pictures.collection_titles()
if not titles:
    notices.nothing_here()
follow_link(titles)
for key, value in DEFAULTS.items():
    state.setdefault(key, value)

left, right = st.columns([1, 2], gap="medium", vertical_alignment="bottom")
with left:
    name = choose.collection(titles, "collection")
view = right.segmented_control(
    "View",
    VIEWS,
    format_func=VIEWS.__getitem__,
    key="kp-view",
    required=True,
    label_visibility="collapsed",
    persist_state="session",
)
with notices.errors_shown():
    collection = own_pictures.open_collection(name)
if not collection.has_pictures:
    st.info(f"The pictures of {collection.title} are not on this machine.")
if linked := state.pop("kp-linked-query", None):
    query.follow(collection, *linked)
delf, xfeat = delf_extractor(collection), xfeat_extractor(collection)
show_view = show_one_picture if view == "sees" else show_two_pictures
write_link(collection, show_view(collection, delf, xfeat))
