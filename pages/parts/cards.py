"""Results as a grid of large pictures, marked right or wrong where the truth is known."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import streamlit as st
from PIL import Image, ImageDraw
from streamlit.delta_generator import DeltaGenerator

from pages.parts import loaders, scroll
from pages.parts.plain import plain
from retrieval.collections import Collection
from retrieval.collections.credits import Credit, table
from retrieval.errors import RetrievalError
from retrieval.figures.local_features import BOX
from retrieval.images import Box
from retrieval.ranking.ranking import Ranking


class Verdict(NamedTuple):
    symbol: str
    label: str
    colour: str  # Okabe-Ito, which colour-blind people tell apart; the symbol says it again


VERDICTS = {
    "positive": Verdict("✓", "Same landmark", "#009E73"),
    "ignored": Verdict("–", "Left out of the score", "#0072B2"),
    "wrong": Verdict("✗", "Another place", "#D55E00"),
}

_STYLE = (
    """
<style>
.stMainBlockContainer {padding: 4rem 2rem 3rem}
.stMainBlockContainer h1 {padding: 0 0 1rem}
[data-testid="stDialog"] img {max-height: 60vh; object-fit: contain}
/* A projector or a large screen is looked at from further away. */
@media (min-width: 1800px) {html {font-size: 18px}}
[data-testid="stLayoutWrapper"]:has(> .st-key-scroll) {position: absolute; height: 0}
.st-key-one-query {scroll-margin-top: 4.5rem}
@media (max-width: 640px) {
  /* Tables and plots scroll sideways: their words stay as large as others. */
  [data-testid="stTable"] table {min-width: 44rem}
  div[class*="st-key-plot-"] {overflow-x: auto}
  div[class*="st-key-plot-"] img {min-width: 36rem}
  /* Without a mouse it always lies over the head of its table. */
  [data-testid="stFullScreenFrame"]:has([data-testid="stDataFrame"])
    [data-testid="stElementToolbar"] {display: none}
  .stMainBlockContainer {padding: 4rem 1rem 3rem}
  /* The first screen shows pictures to click, not the query that nobody has chosen yet. */
  .st-key-asking-idle .st-key-query-box {display: none}
}
@media (max-width: 767px) {
  [data-testid="stExpandSidebarButton"] {width: auto !important; padding: 0 .6rem}
  [data-testid="stExpandSidebarButton"]::after {content: "Pages"; margin-left: .4rem}
}
@media (any-pointer: coarse) {
  .stMainBlockContainer button, .stMainBlockContainer [role="radio"],
  .stMainBlockContainer summary, [data-testid="stCheckbox"] label,
  [data-testid="stPageLink-NavLink"], [data-testid="stSidebarNavLink"],
  [data-testid="stSidebarCollapseButton"] button, [data-testid="stExpandSidebarButton"]
    {min-height: 44px}
  [data-testid="stCheckbox"] label {align-items: center}
}
/* Border and ground say what is chosen; its word is as easy to read as the others. */
button[data-variant][data-selected="true"] {color: inherit !important;
  background: color-mix(in srgb, #2f7fb8 28%, transparent) !important}
/* What a step shows begins where its heading does. */
div[class*="st-key-step-"] {padding-top: .6rem}
/* Headings that are written as Markdown get a link of their own, which nobody asked for. */
:is(.stMainBlockContainer h1, .stMainBlockContainer h4) a[href^="#"] {display: none}
/* The query stays in sight while its results scroll by. */
@media (min-width: 900px) {
  div[data-testid="stLayoutWrapper"]:has(> .st-key-asking) {position: sticky; top: 4.5rem}
}
div[class*="st-key-card-"] {position: relative; gap: .3rem; min-width: 0}
div[class*="st-key-card-"] img {
  width: 100%; aspect-ratio: 4 / 3; object-fit: contain; border-radius: .5rem;
  background: color-mix(in srgb, currentColor 7%, transparent);
}
/* A list: small pictures with what is known beside them. */
div[class*="st-key-grid-list-"] div[class*="st-key-card-"] {flex-direction: row;
  align-items: center; gap: 1rem}
div[class*="st-key-grid-list-"] div[class*="st-key-card-"] > :first-child {flex: 0 0 8rem}
div[class*="st-key-grid-list-"] div[class*="st-key-card-"]::before {top: 0; left: 0}
div[class*="st-key-card-"] p {line-height: 1.3; overflow-wrap: anywhere}
/* The whole card is the button: one tab stop, and its label is read out. */
div[class*="st-key-card-"] [data-testid="stElementToolbar"] {display: none}
div[class*="st-key-card-"] div[class*="st-key-open-"] {position: absolute; inset: 0; width: 100%}
div[class*="st-key-open-"] * {height: 100%; width: 100%}
div[class*="st-key-open-"] button {opacity: 0; cursor: zoom-in}
div[class*="st-key-card-"]:hover img {filter: brightness(1.06)}
div[class*="st-key-card-"]:has(button:focus-visible) {
  outline: 3px solid #0b5f94; outline-offset: 4px; border-radius: .3rem;
}
div[class*="st-key-heading-"] {min-height: 2.6rem}
div[class*="st-key-heading-"] h4 {padding: 0; font-size: 1.1rem}
div[class*="st-key-heading-"] [data-testid="stMarkdownContainer"] {margin-bottom: 0}
div[class*="st-key-heading-"] h4 small {margin-left: .6rem; font-weight: 400; font-size: .8rem}
/* Three methods fit on a screen of 800 pixels: each heading stays in sight with its pictures. */
div[class*="st-key-heading-"]:has(small) {min-height: 1.6rem}
.skeleton {display: grid; grid-template-columns: repeat(auto-fill, minmax(max(150px, 32%), 1fr));
  gap: .5rem}
.skeleton i, .skeleton b {display: block; border-radius: .5rem;
  background: color-mix(in srgb, currentColor 9%, transparent)}
.skeleton i {aspect-ratio: 4 / 3}
.skeleton b {height: 1.9rem; margin: .6rem 0 .5rem; width: 60%}
/* A strip: ten small pictures beside each other; narrow screens scroll it sideways. */
div[class*="st-key-strip-"], .skeleton.strip {display: flex; flex-flow: row nowrap !important;
  gap: .35rem !important; overflow-x: auto}
div[class*="st-key-strip-"] > *, .skeleton.strip > * {flex: 1 0 4.6rem !important;
  min-width: 4.6rem !important}
.skeleton.strip b {height: 1rem; margin: .3rem 0 .2rem}
div[class*="st-key-strip-group-"] > * {flex: 0 0 8rem !important}
/* Room for the three buttons of each. */
div[class*="st-key-strip-judging-"] > * {flex-basis: 8rem !important; min-width: 8rem !important}
div[class*="st-key-strip-"] p {font-size: .8rem}
div[class*="st-key-strip-"] div[class*="st-key-card-"]::before {width: 1.2rem; height: 1.2rem;
  font-size: .75rem}
div[class*="st-key-strip-"] div[class*="st-key-card-"] img {border-width: 3px}
@media (min-height: 900px) {  /* there is room: buildings are rather tall than wide */
  div[class*="st-key-strip-"] div[class*="st-key-card-"] img, .skeleton.strip i {aspect-ratio: 1}
}
.legend {display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; align-items: center}
.legend span {white-space: nowrap}
.legend .chip {margin-right: .2rem}
.legend p {margin: 0}
.legend p:empty {display: none}
.chip, div[class*="st-key-card-"]::before {
  display: inline-grid; place-items: center; width: 1.7rem; height: 1.7rem; border-radius: .4rem;
  font-weight: 700; color: #fff;
}
div[class*="st-key-card-"]::before {position: absolute; z-index: 1; border-radius: .5rem 0 .5rem 0}
"""
    + "".join(
        f"""
.chip.{name} {{background: {verdict.colour}}}
div[class*="st-key-card-{name}-"] img {{border: 5px solid {verdict.colour}}}
div[class*="st-key-card-{name}-"]::before
  {{content: "{verdict.symbol}"; background: {verdict.colour}}}
"""
        for name, verdict in VERDICTS.items()
    )
    + "</style>"
)


def style() -> None:
    """The look of the cards; once a page, and first."""
    st.markdown(_STYLE, unsafe_allow_html=True)
    scroll.keep()


def title(text: str, where: DeltaGenerator | None = None, **options) -> None:
    """The title of a page.

    It is painted with the style and not before it, from where it would jump: a browser loads what
    shows Markdown with HTML later than what shows other words.
    """
    (where or st).markdown(f"# {text}", unsafe_allow_html=True, **options)


def grid(columns: int, key: str) -> DeltaGenerator:
    """Cells in at most so many columns, two on a phone."""
    return st.grid(columns, min_column_width=150, gap="xsmall", key=f"grid-{key}")


def skeleton(count: int, strip: bool) -> str:
    """HTML: grey cards where pictures will be, as high as those."""
    cells = "<span><i></i><b></b></span>" * count
    return f'<div class="skeleton{" strip" if strip else ""}" aria-hidden="true">{cells}</div>'


def credit_line(credit: Credit | None, first: str = "") -> None:
    """Who made a picture, below it, with the way to its licence and to where it came from.

    first: Markdown that stands before.
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
    label: str,
    key: str,
    verdict: str | None,
    on_click: Callable[..., None],
    args: tuple,
    tip: str | None = None,
) -> None:
    """One picture with a caption; a click anywhere on it calls ``on_click(*args)``.

    caption, label, tip: Markdown; the label is what screen readers say of the card, the tip what
    the mouse is told. key: unlike that of any other card on the page.
    """
    with st.container(key=f"card-{verdict or 'plain'}-{key}"):
        picture(collection, name, 480)
        st.markdown(caption)
        st.button(label, key=f"open-{key}", on_click=on_click, args=args, help=tip)


def picture(collection: Collection, name: str, side: int) -> None:
    """The picture, or a plain note where it is not on this machine."""
    try:
        jpeg, _ = loaders.view(collection.path(name), side)
    except RetrievalError:
        st.info(f"No picture of {plain(Path(name).name)} here.", icon=":material/hide_image:")
    else:
        st.image(jpeg, width="stretch", alt=name)


def boxed(jpeg: bytes, size: tuple[int, int], box: Box | None) -> Image.Image:
    """A picture with a box on it. size: (width, height) that the box is measured in."""
    shown = Image.open(io.BytesIO(jpeg))
    if box is not None:
        x, y = shown.width / size[0], shown.height / size[1]
        corners = (box[0] * x, box[1] * y, box[2] * x - 1, box[3] * y - 1)
        width = max(2, shown.width // 150)
        draw = ImageDraw.Draw(shown)
        for wide, colour in ((width * 2, "black"), (width, BOX)):  # to be seen on any picture
            draw.rectangle(corners, outline=colour, width=wide)
    return shown


def as_csv(ranking: Ranking, verdict: Callable[[str], str | None] | None) -> bytes:
    """verdict: of a picture by name, where the query has ground truth."""
    columns: dict[str, Sequence[object]] = {
        "rank": range(1, len(ranking) + 1),
        "name": ranking.names,
        "score": [f"{score:.6g}" for score in ranking.scores],
    }
    if ranking.inliers is not None:
        columns["inliers"] = ranking.inliers.tolist()
    if verdict is not None:
        columns["verdict"] = [verdict(name) or "" for name in ranking.names]
    return table(list(columns), zip(*columns.values(), strict=True))
