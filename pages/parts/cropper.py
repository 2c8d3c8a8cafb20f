"""Draw a box on a picture with the mouse, a finger, or the arrow keys."""

import base64
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from retrieval.images import Box

HERE = Path(__file__).parent

# Ours and not streamlit-image-coordinates: that shows no box while one is being drawn (its
# issue 39) and has no handles or touch; a Plotly box selection needs a tool-bar and 3 MB of script.
_mount = st.components.v2.component(
    "cropper",
    html='<div class="stage" tabindex="0" role="application" aria-label="Draw a box">'
    '<div class="view"><img draggable="false"><div class="shade" hidden></div></div>'
    '<div class="frame" hidden><i></i><i></i><i></i><i></i></div>'
    '<button class="crop" aria-pressed="false">Crop</button></div>',
    css=(HERE / "cropper.css").read_text("utf-8"),
    js=(HERE / "cropper.js").read_text("utf-8"),
)


def cropper(
    jpeg: bytes,
    size: tuple[int, int],
    box: Box | None,
    alt: str,
    on_draw: Callable[[Box | None], None],
    key: str,
) -> None:
    """Show a picture and the box on it; ``on_draw`` is called with every new one.

    jpeg: what to show, of any resolution. size: width and height that the box is measured in.
    key: of the widget, for this picture alone.
    """

    def drawn() -> None:
        if key in st.session_state:  # else the page shows another picture by now
            box = st.session_state[key].box
            on_draw(tuple(box) if box else None)

    source = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    _mount(
        key=key,
        data={"src": source, "size": size, "box": box, "alt": alt},
        on_box_change=drawn,
    )
