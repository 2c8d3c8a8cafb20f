"""Six searches in the embedded collection that show what each method can and cannot do."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st

from pages.parts import query
from retrieval.collections import Collection
from retrieval.methods import METHODS


class Stop(NamedTuple):
    """A search, and the sentence to say about it.

    right: of the first ten answers of SIR, DELF and CNN-IRwNHA, under Medium. part: of "How it
    works", where the same picture shows the reason.
    """

    name: str
    title: str
    sentence: str
    right: tuple[int, int, int]
    part: str


STOPS = (
    Stop(
        "hall_004.jpg",
        "Two brick buildings",
        "One vector mixes up two halls of the same brick; DELF compares details, and all of its "
        "first ten are right.",
        (6, 10, 7),
        "delf",
    ),
    Stop(
        "observatory_007.jpg",
        "A detail",
        "Only a part of the building is in the query. SIR has five right pictures in ten, DELF and "
        "CNN-IRwNHA have nine.",
        (5, 9, 9),
        "cnn-irwnha",
    ),
    Stop(
        "museum_017.jpg",
        "A look-alike",
        "The exchange has the same style and stone. SIR's first answer is the exchange.",
        (6, 7, 8),
        "sir",
    ),
    Stop(
        "exchange_019.jpg",
        "Everybody is fooled",
        "The museum looks like the exchange: CNN-IRwNHA's first answer is the museum, and SIR and "
        "CNN-IRwNHA have three right pictures in ten.",
        (3, 5, 3),
        "cnn-irwnha",
    ),
    Stop(
        "priory_007.jpg",
        "DELF loses",
        "Here DELF has only four right pictures in ten, and SIR, the simplest method, has seven.",
        (7, 4, 6),
        "delf",
    ),
    Stop(
        "belltower_013.jpg",
        "Black and white",
        "This picture has no colour. DELF has six right pictures in ten, SIR and CNN-IRwNHA have "
        "five.",
        (5, 6, 5),
        "sir",
    ),
)


def tour(collection: Collection) -> None:
    """The six links, where their pictures are."""
    known = {asked.name: asked for asked in collection.queries}
    if not all(stop.name in known or stop.name in collection.names for stop in STOPS):
        return
    with st.expander("Tour: six searches that tell the story", icon=":material/tour:"):
        for number, stop in enumerate(STOPS, 1):
            link = {"collection": collection.name, "method": "all", "query": stop.name}
            if stop.name in known:
                link["box"] = query.written(known[stop.name].box)
            with st.container(horizontal=True, gap="small"):
                st.page_link(
                    "pages/search.py",
                    label=f"**{number} · {stop.title}**",
                    query_params={key: value for key, value in link.items() if value},
                )
                st.page_link(
                    "pages/about.py",
                    label=f"{METHODS[stop.part].title} step by step",
                    icon=":material/school:",
                    query_params={
                        "collection": collection.name, "query": stop.name, "part": stop.part
                    },
                )  # fmt: skip
            st.markdown(stop.sentence)
