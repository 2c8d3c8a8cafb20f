"""Groups: pictures of the same thing in a collection, found without any query."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import streamlit as st

from pages.parts import address, cards, choose, loaders, notices, own_pictures, query, scroll
from pages.parts.downloads import downloads
from pages.parts.keys import key_about
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.index import Index
from retrieval.methods import METHODS
from retrieval.ranking import groups
from retrieval.ranking.verification import MIN_INLIERS

PER_PAGE = 10  # groups
MAX_PICTURES = 5000  # of a collection whose pictures are grouped, which takes minutes
MAX_SHOWN = 24  # pictures of one group
MAX_INLIERS = 60  # the end of the slider
state = st.session_state


def find_pairs(path: Path, collection: Collection) -> list[groups.Pair]:
    """The confirmed pairs of pictures; a progress bar is shown while they are searched for."""
    bar = st.progress(0.0, "Opening the index and the keypoints")

    def progress(done: int, total: int) -> None:
        bar.progress(done / total, f"{done} of {total} pictures compared with those like them")

    with notices.errors_shown():
        pairs = loaders.confirmed_pairs(path, collection, progress)
    bar.empty()
    return pairs


def show_group(number: int, group: groups.Group, collection: Collection, opened: Index) -> None:
    """Show one group as a strip; a click searches with a picture. number: from 1."""
    best = group.pairs[0]
    alike = best.share >= groups.SAME_VIEW
    st.markdown(
        f"**Group {number}** · {len(group.positions)} pictures · best pair: {best.inliers} "
        f"inliers, {best.share:.0%} of the keypoints"
        + (" · :orange-badge[nearly the same view]" if alike else "")
    )
    # Pictures in the order of the pairs, best pair first: nearly equal views are side by side.
    order = list(dict.fromkeys(n for pair in group.pairs for n in (pair.first, pair.second)))
    with st.container(horizontal=True, gap="xsmall", key=f"strip-group-{number}"):
        for position in order[:MAX_SHOWN]:
            name = opened.names[position]
            cards.card(
                collection,
                name,
                "",
                label=f"Search with {plain(name)}",
                key=key_about(f"group-{number}-{position}", collection.root),
                on_click=partial(search_with, collection.name, name),
                tip=plain(Path(name).name),
            )
    if len(order) > MAX_SHOWN:
        st.caption(f"{len(order) - MAX_SHOWN} more are in the CSV.")


def search_with(collection: str, name: str) -> None:
    """Callback of a card: search with its picture. name: of the picture in the collection."""
    state.collection = collection
    query.ask_database(name)
    state["groups-ask"] = True


cards.open_page("Groups")
if state.pop("groups-ask", False):
    st.switch_page("pages/search.py")
st.markdown(
    f"Pictures of the same thing, found without a query and without labels. Each picture is "
    f"compared with the {groups.NEAR} most like it, keypoint by keypoint. Two pictures are "
    "connected if one transformation explains enough of their matches (the **inliers**). Pictures "
    "that are connected, directly or through others, make a group. Nearly the same "
    "views come first: photographs from almost the same place, and copies."
)
titles = own_pictures.collection_titles()
if not titles:
    notices.nothing_here()
linked = address.new_link(titles, "groups-link", "groups-collection")
if (inliers := address.parse_number(linked.get("inliers", ""))) is not None:
    state["groups-least"] = min(max(round(inliers), MIN_INLIERS), MAX_INLIERS)
if linked:
    linked_page = address.parse_number(linked.get("page", "")) or 1
    state["groups-page"] = max(1, round(linked_page))
left, right = st.columns(2, gap="medium")
with left:
    name = choose.collection(titles, "groups-collection")
min_inliers = right.slider(
    "Inliers that connect two pictures",
    MIN_INLIERS,
    MAX_INLIERS,
    groups.CONNECTED,
    key="groups-least",
    persist_state="session",
    help="More: smaller groups and fewer mistakes. One wrong connection joins two groups.",
)
asked = name, min_inliers
if not linked and state.get("groups-asked", asked) != asked:
    state["groups-page"] = 1
state["groups-asked"] = asked
page = state.get("groups-page", 1)
address.keep_link(
    "groups-link", {"collection": name, "inliers": str(min_inliers), "page": str(page)}
)
with notices.errors_shown():
    collection = own_pictures.open_collection(name)
paths = own_pictures.indexes(collection)
method = next((name for name in ("cnn-irwnha", "sir", "delf") if name in paths), None)
if method is None:
    if collection.name == own_pictures.NAME:
        st.info("These pictures are not indexed yet: search in them once on the search page.")
    else:
        notices.no_index(collection, "cnn-irwnha")
    st.stop()
path = paths[method]
with notices.errors_shown():
    opened = loaders.index_of(path, collection)
    if len(opened) > MAX_PICTURES:
        st.info(
            f"On this page: up to {MAX_PICTURES:,} pictures. This collection has {len(opened):,}."
        )
        where = opened if opened.in_store else os.path.relpath(path)
        st.code(f"python -m retrieval groups {where} --csv groups.csv", language=None)
        st.stop()
confirmed = groups.load(opened)
if confirmed is None:
    wanted = state.setdefault("groups-found", set())
    asked_for = loaders.file_key(path / "manifest.json")  # not other pictures of the same name
    if asked_for not in wanted:
        st.button(
            "Find groups",
            type="primary",
            icon=":material/stacks:",
            key="groups-find",
            on_click=wanted.add,
            args=(asked_for,),
        )
        st.stop()
    confirmed = find_pairs(path, collection)
with notices.errors_shown():
    opened = opened.first(len(opened))
pairs = [pair for pair in confirmed if pair.inliers >= min_inliers]
sets = groups.grouped(pairs)
inside = sum(len(group.positions) for group in sets)
group_count = "1 group" if len(sets) == 1 else f"{len(sets)} groups"
pair_count = "1 connected pair" if len(pairs) == 1 else f"{len(pairs)} connected pairs"
st.markdown(
    f"**{group_count}** with {inside} of {len(opened)} pictures, from {pair_count}. "
    f"{METHODS[method].title} chose the pictures to compare, XFeat compared them. "
    "Click a picture to search with it."
)
same, labelled = groups.agreement(pairs, opened.names, collection)
if labelled:
    st.markdown(
        f"By the labels, **{same} of {labelled}** connected pairs show the same landmark.",
        help="The labels are those of the prepared queries, and are not used to find groups. "
        "Pairs with a picture that has no label are not counted.",
    )
if not sets:
    fewer = " Fewer inliers connect some." if confirmed else ""
    st.info(f"No two pictures are connected.{fewer}")
    st.stop()
downloads(f"{collection.name}-groups", groups.rows(sets, opened.names))
pages = -(-len(sets) // PER_PAGE)
page = state["groups-page"] = min(page, pages)
with st.container(key="groups-list"):
    for number, group in enumerate(sets[(page - 1) * PER_PAGE : page * PER_PAGE], 1):
        show_group((page - 1) * PER_PAGE + number, group, collection, opened)
scroll.page_numbers(pages, "groups-page", "groups-list")
