"""The look that all figures share: colours, axes, the small print, and the dark theme.

Colour-blind people can tell the colours apart (Okabe and Ito).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retrieval.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each method has one colour everywhere, with a contrast of 3 : 1 on white and on a dark page.
METHOD_COLOURS = {"sir": "#0072B2", "delf": "#C77F00", "cnn-irwnha": "#B3589A"}
COLOURS = "#0072B2", "#C77F00"  # of two series that are not methods
OTHER_COLOUR = "#7A8692"  # of rankings that a visitor uploaded, and of other methods
DARK_BACKGROUND, DARK_TEXT = "#12171e", "#eef2f6"  # of the app's dark theme
NO_MATHTEXT: dict[str, Any] = {"parse_math": False}  # else a $ in a name starts a formula


def style_axes(axes: Axes) -> None:
    """Give axes a pale grid behind the data, no frame, and large enough text."""
    axes.grid(color="#d9dfe4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=12)
    axes.xaxis.label.set_fontsize(13)
    axes.yaxis.label.set_fontsize(13)


def small_print(figure: Figure, note: str) -> None:
    """Write the small print, of one line or more, below a figure."""
    # File names may be invalid Unicode, with which matplotlib fails or writes a broken SVG.
    note = "\n".join(one_line(line, 1000) for line in note.split("\n"))
    # Wrapped text is parsed for formulas even with parse_math=False.
    style: dict[str, Any] = {"fontsize": 9, "color": "#55606a", "wrap": "$" not in note}
    figure.supxlabel(note, x=0.01, ha="left", **style, **NO_MATHTEXT)


def darken(figure: Figure) -> None:
    """Give a figure a dark background, pale text and axes; data keep their colours."""
    from matplotlib.spines import Spine
    from matplotlib.text import Text

    figure.set_facecolor(DARK_BACKGROUND)
    for axes in figure.axes:
        axes.set_facecolor(DARK_BACKGROUND)
        axes.tick_params(colors=DARK_TEXT)
        for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
            line.set_color("#3a4655")
    for spine in figure.findobj(Spine):
        spine.set_color(DARK_TEXT)
    for text in figure.findobj(Text):
        text.set_color(DARK_TEXT)
