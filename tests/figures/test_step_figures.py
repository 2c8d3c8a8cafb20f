"""Pictures of the steps: sizes, and that what is strong is seen."""

import numpy as np
from PIL import Image

from retrieval.figures import steps
from retrieval.methods.base import LocalFeatures


def test_strong_places_turn_yellow():
    strength = np.zeros((4, 4))
    strength[0, 3] = 5.0
    shown = np.asarray(steps.overlay(Image.new("RGB", (80, 80), "gray"), strength), int)
    yellow = shown[..., 0] - shown[..., 2]
    assert shown.shape == (80, 80, 3)
    assert yellow[:20, 60:].mean() > 50 > 1 > yellow[60:, :20].mean()


def test_red_and_green_blind_people_see_the_heat_on_a_picture():
    """They see lightness, and how far blue is from the two others: red looks like brick to them."""
    for colour, sign in ((steps.OVERLAY_COLOUR, 1), (steps.BELOW_ZERO, -1)):
        red, green, blue = colour
        assert sign * ((red + green) / 2 - blue) > 200


def test_a_picture_where_nothing_is_strong():
    grey = np.asarray(steps.overlay(Image.new("RGB", (20, 20), "gray"), np.zeros((2, 2))))
    assert (grey == 128).all()


def test_a_strip_tells_signs_apart():
    strip = np.asarray(steps.strip(np.array([1.0, -1.0, 0.0, 0.25]), width=4, height=2))
    assert strip.shape == (2, 4, 4)
    assert tuple(strip[0, 0]) == (*steps.POSITIVE, 255)
    assert tuple(strip[0, 1]) == (*steps.NEGATIVE, 255)
    assert strip[0, 2, 3] == steps.MIN_OPACITY < strip[0, 3, 3] < 255


def test_a_mosaic_is_filled_row_by_row():
    colours = ("red", "green", "blue")
    sheet = steps.mosaic([Image.new("RGB", (10, 8), colour) for colour in colours], 2)
    assert sheet.size == (20 + steps.GAP, 16 + steps.GAP)
    assert sheet.getpixel((12 + steps.GAP, 2)) == (0, 128, 0, 255)
    assert sheet.getpixel((2, 10 + steps.GAP)) == (0, 0, 255, 255)
    assert sheet.getpixel((12 + steps.GAP, 10 + steps.GAP))[3] == 0


def test_keypoints_are_drawn_where_they_are():
    features = LocalFeatures(
        np.array([[100.0, 60.0]], np.float32), np.ones(1), np.ones(1), np.ones((1, 2))
    )
    blank = Image.new("RGB", (100, 60), "gray")
    drawn = np.asarray(steps.dots(blank, (200, 120), features))
    y, x = np.nonzero((drawn != 128).any(axis=2))
    assert abs(x.mean() - 50) < 1
    assert abs(y.mean() - 30) < 1
