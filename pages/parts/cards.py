"""Results as a grid of large pictures, marked right or wrong where the truth is known."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw
from streamlit.delta_generator import DeltaGenerator

from pages.parts import entrance, loaders, scroll
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.collections.credits import Credit
from retrieval.errors import RetrievalError
from retrieval.figures.local_features import BOX
from retrieval.images import Box
from retrieval.ranking.ranking import Ranking
from retrieval.text import table


class Verdict(NamedTuple):
    symbol: str
    label: str
    colour: str  # after Okabe and Ito, dark enough for white symbols (4.5 : 1)


VERDICTS = {
    "positive": Verdict("✓", "Same landmark", "#008060"),
    "ignored": Verdict("–", "Left out of the score", "#0072B2"),
    "wrong": Verdict("✗", "Another place", "#C05000"),
}

_VERDICT_STYLE = """
.chip.{name} {{background: {colour}}}
div[class*="st-key-card-{name}-"] img {{outline: 5px solid {colour}; outline-offset: -5px}}
div[class*="st-key-card-{name}-"]::before {{content: "{symbol}"; background: {colour}}}
"""


def _stylesheet() -> str:
    """The look of all pages, cards.css, and below it the colours and symbols of the verdicts."""
    rules = (Path(__file__).parent / "cards.css").read_text("utf-8")
    for name, verdict in VERDICTS.items():
        rules += _VERDICT_STYLE.format(name=name, symbol=verdict.symbol, colour=verdict.colour)
    return f"<style>\n{rules}</style>"


def open_page(text: str) -> None:
    """Begin a page with its style and title. A page calls this before anything else."""
    entrance.run_app_first()
    style()
    title(text)


def style() -> None:
    """Add the stylesheet of the cards. A page calls this once, before anything else."""
    st.markdown(_stylesheet(), unsafe_allow_html=True)
    scroll.keep()


def title(text: str, where: DeltaGenerator | None = None, **options) -> None:
    """The title of a page.

    It is Markdown with HTML, as the style is: a browser shows such text later than plain text. A
    plain title would appear before the style and then jump.
    """
    (where or st).markdown(f"# {text}", unsafe_allow_html=True, **options)


def grid(columns: int, key: str) -> DeltaGenerator:
    """A container whose cells stand in ``columns`` columns at most, in two on a phone."""
    return st.grid(columns, min_column_width=150, gap="xsmall", key=f"grid-{key}")


def skeleton(count: int, compared: bool) -> str:
    """HTML of grey cards in place of pictures that are still to come, of the same height."""
    cells = "<span><i></i><b></b></span>" * count
    return (
        f'<div class="skeleton{" compared" if compared else ""}" aria-hidden="true">{cells}</div>'
    )


def credit_line(credit: Credit | None, first: str = "") -> None:
    """A line below a picture: its author, with links to its licence and its source.

    first: Markdown at the start of the line.
    """
    parts = [first]
    if credit is not None:
        licence = plain(credit.licence)
        parts += [
            plain(credit.author),
            f"[{licence}](<{credit.licence_url}>)" if credit.licence_url else licence,
            f"[source](<{credit.page}>)" if credit.page else "",
            plain(credit.note),
        ]
    if any(parts):
        st.caption(" · ".join(filter(None, parts)))


def legend(judged: str = "") -> None:
    """The symbols of the cards. judged: a sentence beside them."""
    parts = [
        f'<span><span class="chip {name}">{verdict.symbol}</span> {verdict.label}</span>'
        for name, verdict in VERDICTS.items()
    ]
    st.html(f'<div class="legend">{"".join(parts)}<p>{judged}</p></div>', width="content")


def card(
    collection: Collection,
    name: str,
    caption: str,
    *,
    label: str,
    key: str,
    on_click: Callable[[], None],
    verdict: str | None = None,
    tip: str | None = None,
    alt: str = "",
) -> None:
    """One picture with a caption; a click anywhere on it calls ``on_click``.

    caption, label, tip: Markdown. Screen readers read the label; the tip appears under the mouse.
    key: unique on the page. alt: of the picture, as for ``picture``.
    """
    with st.container(key=f"card-{verdict or 'plain'}-{key}"):
        picture(collection, name, 480, alt)
        st.markdown(caption)
        st.button(label, key=f"open-{key}", on_click=on_click, help=tip)


def picture(collection: Collection, name: str, side: int, alt: str = "") -> None:
    """The picture, or a plain note where it is not on this machine.

    alt: what stands for it in the note and for screen readers; its name by default.
    """
    try:
        jpeg, _ = loaders.view(collection.path(name), side)
    except RetrievalError:
        shown = alt or plain(Path(name).name)
        st.info(f"No picture of {shown} here.", icon=":material/hide_image:")
    else:
        st.image(jpeg, width="stretch", alt=alt or name)


def boxed(jpeg: bytes, size: tuple[int, int], box: Box | None) -> Image.Image:
    """A picture with a box on it. size: (width, height) that the box is measured in."""
    shown = Image.open(io.BytesIO(jpeg))
    if box is not None:
        x, y = shown.width / size[0], shown.height / size[1]
        # Pillow also draws the part of a line outside of the picture: 30 million pixels take a
        # second, and meanwhile no other thread runs.
        last = (shown.width - 1, shown.height - 1)
        corners = np.clip(np.multiply(box, (x, y, x, y)), 0, last * 2).tolist()
        width = max(2, shown.width // 150)
        draw = ImageDraw.Draw(shown)
        for wide, colour in ((width * 2, "black"), (width, BOX)):  # to be seen on any picture
            draw.rectangle(corners, outline=colour, width=wide)
    return shown


def csv_name(collection: str, ranking: Ranking, query: str) -> str:
    """The name of the file of ``as_csv``; with and without re-rankers it is another one."""
    made = ranking.provenance
    steps = [made["method"], *(step["name"] for step in made.get("then", ()))]
    return f"{collection}-{'-'.join(steps)}-{Path(query).stem}.csv"


def as_csv(ranking: Ranking, verdict: Callable[[str], str | None] | None) -> bytes:
    """A ranking as CSV. verdict: gives that of a picture by name; None without ground truth."""
    columns: dict[str, Sequence[object]] = {
        "rank": range(1, len(ranking) + 1),
        "name": ranking.names,
        # Numbers: text with a minus would get an apostrophe, see ``table``.
        "score": [float(f"{score:.6g}") for score in ranking.scores],
    }
    if ranking.inliers is not None:
        columns["inliers"] = ranking.inliers.tolist()
    if verdict is not None:
        columns["verdict"] = [verdict(name) or "" for name in ranking.names]
    return table(list(columns), zip(*columns.values(), strict=True))
