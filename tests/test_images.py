import io
import struct
import tempfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retrieval import images
from retrieval.errors import RetrievalError
from retrieval.images import PictureError, check_box, crop, fit, read

RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0),
)  # fmt: skip


def encode(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def corners(picture):
    w, h = picture.size
    places = (2, 2), (w - 3, 2), (2, h - 3), (w - 3, h - 3)
    return [picture.getpixel(place) for place in places]


def png(width, height, colour_type=2):
    """A PNG that declares a size without having the pixels."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def refused(source, words, **options):
    with pytest.raises(PictureError, match=words) as caught:
        read(source, **options)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text


@pytest.fixture(scope="module")
def flag():
    """Red, green / blue, white: 24 × 16, every corner in another colour."""
    picture = Image.new("RGB", (24, 16))
    for colour, place in zip(
        (RED, GREEN, BLUE, WHITE), ((0, 0), (12, 0), (0, 8), (12, 8)), strict=True
    ):
        picture.paste(colour, (*place, place[0] + 12, place[1] + 8))
    return picture


# What a viewer shows of the flag at each orientation: its corners, row by row.
UPRIGHT = {
    1: (RED, GREEN, BLUE, WHITE),
    2: (GREEN, RED, WHITE, BLUE),
    3: (WHITE, BLUE, GREEN, RED),
    4: (BLUE, WHITE, RED, GREEN),
    5: (RED, BLUE, GREEN, WHITE),
    6: (BLUE, RED, WHITE, GREEN),
    7: (WHITE, GREEN, BLUE, RED),
    8: (GREEN, WHITE, RED, BLUE),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(flag, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    picture = read(encode(flag, kind, exif=exif, **options.get(kind, {})))
    assert picture.mode == "RGB"
    assert picture.size == ((24, 16) if orientation < 5 else (16, 24))
    difference = np.abs(np.subtract(corners(picture), UPRIGHT[orientation]))
    assert difference.max() <= (3 if kind == "JPEG" else 0)


@pytest.mark.parametrize(
    "exif", [b"", b"junk" * 9, b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\x08\0\0\0\x01\0\x12\x01\2\0"]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_is_no_reason_to_refuse(flag, exif, kind):
    assert read(encode(flag, kind, exif=b"Exif\0\0" + exif)).size == (24, 16)


def palette(transparent=None):
    picture = Image.new("P", (16, 16), 1)
    picture.putpalette([*BLACK, *RED, *GREEN])
    if transparent is not None:
        picture.info["transparency"] = transparent
    return picture


def tiff_in_planes(bits, colour):
    """A TIFF of 16 × 16 pixels of one colour that has first all reds, then all greens, all blues.

    Not packed: Pillow cannot write it.
    """
    planes = [np.full((16, 16), value, f"<u{bits // 8}").tobytes() for value in colour]
    size = len(planes[0])
    tags = {256: [16], 257: [16], 258: [bits] * 3, 259: [1], 262: [2], 277: [3], 278: [16]}
    tags |= {273: [200, 200 + size, 200 + 2 * size], 279: [size] * 3, 284: [2]}
    entries, beside = b"", b""
    for tag in sorted(tags):
        values = struct.pack(f"<{len(tags[tag])}L", *tags[tag])
        if len(values) > 4:
            values, beside = struct.pack("<L", 8 + 2 + 120 + 4 + len(beside)), beside + values
        entries += struct.pack("<HHL", tag, 4, len(tags[tag])) + values
    head = b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4) + beside
    return head.ljust(200, b"\0") + b"".join(planes)


def test_a_tiff_of_16_bits_in_planes_is_not_read_as_other_pixels():
    """Pillow takes each half of a number for a pixel: the picture is twice beside itself."""
    assert read(tiff_in_planes(8, (250, 130, 10))).getpixel((8, 8)) == (250, 130, 10)
    refused(tiff_in_planes(16, (64_000, 33_000, 2_000)), "16 bits and one colour behind the other")


def grey16(value):
    """16-bit grey: one bright pixel tells what white is."""
    array = np.full((16, 16), value, np.uint16)
    array[0, 0] = 65535
    return Image.fromarray(array)


@pytest.mark.parametrize(
    ("picture", "kind", "expected"),
    [
        (Image.new("L", (16, 16), 77), "PNG", (77, 77, 77)),
        (Image.new("1", (16, 16), 1), "PNG", WHITE),
        (Image.new("LA", (16, 16), (0, 0)), "PNG", WHITE),
        (Image.new("LA", (16, 16), (90, 255)), "PNG", (90, 90, 90)),
        (Image.new("RGBA", (16, 16), (*BLUE, 255)), "PNG", BLUE),
        (Image.new("RGBA", (16, 16), (*BLUE, 0)), "PNG", WHITE),
        (Image.new("RGBA", (16, 16), (*BLACK, 128)), "PNG", (127, 127, 127)),
        (palette(), "PNG", RED),
        (palette(transparent=1), "PNG", WHITE),
        (palette(transparent=2), "PNG", RED),
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF", RED),
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", RED),
        (Image.new("YCbCr", (16, 16), (76, 85, 255)), "TIFF", RED),
        (grey16(0), "PNG", BLACK),
        (grey16(32768), "PNG", (127, 127, 127)),
        (grey16(32768), "TIFF", (127, 127, 127)),
        (grey16(65535), "TIFF", WHITE),
        (Image.frombytes("I;16B", (16, 16), b"\x80\x00" * 256), "TIFF", (127, 127, 127)),
        (Image.new("I", (16, 16), 2**30), "TIFF", WHITE),
        (Image.new("F", (16, 16), 0.5), "TIFF", (127, 127, 127)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(picture, kind, expected):
    options = {"transparency": picture.info["transparency"]} if picture.info else {}
    found = read(encode(picture, kind, **options))
    assert (found.mode, found.size) == ("RGB", (16, 16))
    assert np.abs(np.subtract(found.getpixel((8, 8)), expected)).max() <= 2


def test_a_transparent_colour_of_an_rgb_file_becomes_white():
    data = encode(Image.new("RGB", (16, 16), RED), "PNG", transparency=RED)
    assert read(data).getpixel((3, 3)) == WHITE


def test_first_frame_of_several():
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("MPO", {})):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.abs(np.subtract(read(data).getpixel((8, 8)), RED)).max() <= 2, kind


@pytest.mark.skipif(not images.HEIC, reason="pillow-heif is not installed")
def test_heic_is_read_upright(flag, tmp_path):
    import pillow_heif

    pillow_heif.register_heif_opener()  # to write one
    path = tmp_path / "a.heic"
    path.write_bytes(encode(flag, "HEIF", quality=-1))
    assert ".heic" in images.SUFFIXES
    found = read(path)
    assert (found.mode, found.size) == ("RGB", (24, 16))
    assert np.abs(np.subtract(corners(found), UPRIGHT[1])).max() < 60
    refused(path.read_bytes()[: path.stat().st_size // 2], "is not a picture")


def test_any_source(flag, tmp_path):
    data = encode(flag, "PNG")
    path = tmp_path / "a b é.png"
    path.write_bytes(data)
    with tempfile.TemporaryFile() as temporary:  # its name is a number
        temporary.write(data)
        temporary.seek(0)
        for source in (path, str(path), data, io.BytesIO(data), temporary):
            assert read(source).size == (24, 16)
    with open(path, "rb") as file:
        assert read(file).size == (24, 16)


def test_what_is_no_picture(flag, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    jpeg = encode(Image.fromarray(noise), "JPEG")
    refused(b"", "is empty")
    refused(
        jpeg[: len(jpeg) // 2], "is not a picture that can be read: .* kind than JPEG, PNG, WEBP"
    )
    refused(b"just a few words\n" * 20, "is not a picture")
    refused(encode(Image.new("P", (16, 16)), "GIF"), "is not a picture")
    refused(b"%PDF-1.7 \n%%EOF", "is not a picture")
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html><img src=x></html>")
    refused(tmp_path / "page.jpg", r"^page\.jpg is not a picture")
    refused(tmp_path / "page.jpg", r"^what I call it is not", name="what I call it")
    refused(tmp_path / "gone.jpg", r"^gone\.jpg cannot be read: No such file")
    refused(tmp_path, "cannot be read: it is a folder")
    refused("a\0b.jpg", "cannot be read")
    refused(tmp_path / ("long" * 100), "cannot be read")


def test_sizes_that_are_refused():
    refused(png(1, 1), r"only 1 × 1 pixels; at least 8 × 8")
    refused(png(8, 7), r"only 8 × 7 pixels")
    refused(png(20000, 20000), r"more than the 120 megapixels")
    refused(png(12000, 12000), r"12000 × 12000 pixels, more than the 120 megapixels")
    refused(png(2**31 - 1, 2**31 - 1), r"more than the 120 megapixels")
    refused(png(65001, 9), r"65001 × 9 pixels; a side may have 65000")
    assert read(encode(Image.new("RGB", (8, 8)), "PNG")).size == (8, 8)


def test_a_huge_file_is_refused_before_it_is_read_whole(tmp_path):
    path = tmp_path / "huge.jpg"
    with open(path, "wb") as file:
        file.truncate(images.MAX_BYTES * 50)  # a hole: it takes no room
    refused(path, "larger than 200 MB")


sizes = st.tuples(st.integers(8, 3000), st.integers(8, 3000))
numbers = st.floats(-1e4, 1e4) | st.integers(-100, 4000) | st.floats()


@given(st.tuples(numbers, numbers, numbers, numbers), sizes)
def test_check_box_is_inside_or_refused(box, size):
    try:
        x1, y1, x2, y2 = check_box(box, size)
    except RetrievalError:
        return
    assert 0 <= x1 < x2 <= size[0]
    assert 0 <= y1 < y2 <= size[1]
    assert x2 - x1 >= images.MIN_SIDE
    assert y2 - y1 >= images.MIN_SIDE
    assert (x1, y1, x2, y2) == (
        max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((50, 0, 10, 40), "empty or inverted"),
        ((0, 40, 40, 10), "empty or inverted"),
        ((10, 10, 10, 40), "empty or inverted"),
        ((10, 10, 40, 10), "empty or inverted"),
        ((200, 0, 300, 40), "covers less than 8 × 8 pixels of this 100 × 80 picture"),
        ((-50, -50, -10, -10), "covers less"),
        ((95, 0, 300, 40), "covers less"),
        ((0, 0, 7.9, 40), "covers less"),
        ((0, 0, float("nan"), 40), "four finite numbers"),
        ((0, 0, float("inf"), 40), "four finite numbers"),
        ((0, 0, 40), "four finite numbers"),
    ],
)
def test_boxes_that_are_refused(box, words):
    with pytest.raises(RetrievalError, match=words) as caught:
        check_box(box, (100, 80))
    assert str(caught.value).endswith(".")
    with pytest.raises(RetrievalError, match=words):
        crop(Image.new("RGB", (100, 80)), box)


def test_boxes_by_hand():
    assert check_box((10, 20, 30, 40), (100, 80)) == (10, 20, 30, 40)
    assert check_box((-5, -5, 30.5, 999), (100, 80)) == (0, 0, 30.5, 80)
    assert check_box((0, 0, 100, 80), (100, 80)) == (0, 0, 100, 80)


@given(sizes, st.data())
def test_crop_has_the_rounded_size_and_the_right_pixels(size, data):
    width, height = size
    x = sorted(data.draw(st.floats(0, width)) for _ in range(2))
    y = sorted(data.draw(st.floats(0, height)) for _ in range(2))
    # A little more than 8: sums of floats come out a little short.
    box = x[0], y[0], max(x[1], x[0] + 8.01), max(y[1], y[0] + 8.01)
    if box[2] > width or box[3] > height:
        return
    picture = Image.new("RGB", size)
    left, top = round(box[0]), round(box[1])
    picture.putpixel((left, top), RED)
    found = crop(picture, box)
    assert found.size == (round(box[2]) - left, round(box[3]) - top)
    assert min(found.size) >= images.MIN_SIDE
    assert found.getpixel((0, 0)) == RED


@given(sizes, st.integers(32, 2000), st.data())
def test_fit_keeps_the_factor_of_the_full_picture(size, most, data):
    picture = Image.new("RGB", size)
    box = None
    if data.draw(st.booleans()):
        x = data.draw(st.integers(0, size[0] - 8))
        y = data.draw(st.integers(0, size[1] - 8))
        w = data.draw(st.integers(8, size[0] - x))
        h = data.draw(st.integers(8, size[1] - y))
        box = x, y, x + w, y + h
    before = (box[2] - box[0], box[3] - box[1]) if box else size
    after = fit(picture, most, box).size
    factor = min(1, most / max(size))
    assert all(1 <= new <= old for new, old in zip(after, before, strict=True))
    assert max(after) <= max(1, most)
    # Whole pixels: the longer side is cut off, the shorter one follows it.
    assert abs(max(after) - max(1, max(before) * factor)) <= 1
    assert abs(min(after) - max(1, min(before) * factor)) <= 1.5


def test_fit_by_hand():
    picture = Image.new("RGB", (1000, 500))
    assert fit(picture, 250).size == (250, 125)
    assert fit(picture, 1000).size == (1000, 500)
    assert fit(picture, 4000).size == (1000, 500)
    # A quarter, because the full picture shrinks to a quarter: not the 250 of the box alone.
    assert fit(picture, 250, (0, 0, 400, 200)).size == (100, 50)
    assert fit(picture, 2000, (0, 0, 400, 200)).size == (400, 200)
    # A box that all but vanishes.
    assert fit(Image.new("RGB", (4000, 3000)), 64, (5, 5, 13, 13)).size == (1, 1)
    assert picture.size == (1000, 500)


def test_fit_may_enlarge_up_to_a_factor():
    picture = Image.new("RGB", (100, 50))
    assert fit(picture, 300, enlarge=True).size == (300, 150)
    assert fit(picture, 3000, enlarge=True).size == (400, 200)
    assert fit(picture, 50, enlarge=True).size == (50, 25)
    assert fit(picture, 200, (0, 0, 40, 20), enlarge=True).size == (80, 40)


def test_a_small_jpeg_is_shown_as_it_is(tmp_path):
    picture = Image.effect_noise((120, 90), 60).convert("RGB")
    plain, turned = io.BytesIO(), io.BytesIO()
    picture.save(plain, "JPEG", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture.save(turned, "JPEG", quality=90, exif=exif)

    assert images.as_jpeg(plain.getvalue(), 100) == (plain.getvalue(), (120, 90))
    data, size = images.as_jpeg(plain.getvalue(), 60)  # too large for that
    assert size == (120, 90)
    assert Image.open(io.BytesIO(data)).size == (60, 45)
    data, size = images.as_jpeg(turned.getvalue(), 100)  # where it was taken is in there too
    assert size == (90, 120)
    assert Image.open(io.BytesIO(data)).size == (75, 100)
    assert not Image.open(io.BytesIO(data)).getexif()
    with pytest.raises(images.PictureError):
        images.as_jpeg(plain.getvalue()[:200], 100)
