"""What waits for its turn among the work of other visitors."""

import threading

from matplotlib.figure import Figure

from pages.parts import loaders


def test_figures_are_drawn_in_turn():
    """Twenty visitors who drew kept another waiting for 19 seconds, without a word."""
    drew = []

    def draw():
        drew.append(threading.current_thread())
        return Figure(figsize=(1, 1))

    png = loaders.figure_on_page(("in turn",), draw)
    assert (
        png
        == loaders.figure_on_page(("in turn",), draw)
        == loaders.figure_file("png", ("in turn",), draw)
    )
    assert drew == loaders.DRAWERS._threads
