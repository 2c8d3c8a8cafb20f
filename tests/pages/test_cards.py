"""Pictures as the pages show them."""

import io

import pytest
from PIL import Image, ImageDraw

from pages.parts import cards


@pytest.mark.parametrize(
    "box", [(0, 0, 2e9, 2e9), (-1e300, 5, 1e300, 6), (9e8, 9e8, 1e9, 1e9), (100, 100, 108, 108)]
)
def test_a_box_is_drawn_inside_its_picture(box, monkeypatch):
    """A box of two billion pixels, in a visitor's ground truth, stopped the app for minutes: Pillow
    goes along its edges. One of a few pixels in a large picture was a traceback.
    """
    drawn, rectangle = [], ImageDraw.ImageDraw.rectangle

    def noted(pen, corners, **style):
        drawn.append(corners)
        if max(map(abs, corners)) < 1e5:
            rectangle(pen, corners, **style)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", noted)
    data = io.BytesIO()
    Image.new("RGB", (800, 600)).save(data, "JPEG")
    assert cards.boxed(data.getvalue(), (8000, 6000), box).size == (800, 600)
    for left, top, right, bottom in drawn:
        assert 0 <= left <= right < 800
        assert 0 <= top <= bottom < 600
    assert len(drawn) == 2
