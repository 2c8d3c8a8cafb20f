"""Keypoints and matches: what DELF and XFeat see in a picture, and what two have in common."""

from __future__ import annotations

import streamlit as st

from pages.parts import cards, choose, loaders, own_pictures, query
from pages.parts.keypoints.engine import delf_of, xfeat_of
from pages.parts.keypoints.link import DEFAULTS, VIEWS, follow_link, write_link
from pages.parts.keypoints.one_picture import sees
from pages.parts.keypoints.two_pictures import pair

state = st.session_state

cards.open_page("Keypoints and matches")

titles = own_pictures.collection_titles()
if not titles:
    loaders.nothing_here()
follow_link(titles)
for key, value in DEFAULTS.items():
    state.setdefault(key, value)

place, way = st.columns([1, 2], gap="medium", vertical_alignment="bottom")
with place:
    name = choose.collection(titles, "collection")
view = way.segmented_control(
    "View", VIEWS, format_func=VIEWS.__getitem__, key="kp-view", required=True,
    persist_state="session", label_visibility="collapsed",
)  # fmt: skip
with loaders.errors_shown():
    collection = own_pictures.opened(name)
if asked := state.pop("kp-asked", None):
    query.follow(collection, *asked)
delf, xfeat = delf_of(collection), xfeat_of(collection)
asked_before = any(state.get(key) for key in ("kp-been", "searched", "kept-upload"))
if not asked_before and collection.has_pictures and delf.index:
    state.source = query.DATABASE  # its features are in the index: no network to wait for
state["kp-been"] = True
draw = sees if view == "sees" else pair
write_link(collection, draw(collection, delf, xfeat))
