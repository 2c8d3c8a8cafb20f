"""The only way in for pixels: decode, limits, orientation, colour, crop and resize.

Everything behind this module sees an upright 8-bit RGB picture. A box is
``(x1, y1, x2, y2)`` in pixels of that upright picture, x to the right, y down, with x2 and y2
exclusive: a box of the whole picture is ``(0, 0, width, height)``.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

from retrieval import memory, picture_files
from retrieval.errors import RetrievalError
from retrieval.picture_files import PictureError as PictureError  # callers know it by this module

memory.configure()

try:  # phones write HEIC; the decoder is a separate wheel
    from pillow_heif import register_heif_opener
except ImportError:
    HEIC: frozenset[str] = frozenset()
else:
    register_heif_opener(thumbnails=False)
    HEIC = frozenset({".heic", ".heif"})

Box = tuple[float, float, float, float]
Source = str | Path | bytes | BinaryIO  # a path, the bytes of a file, or an open binary file

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}) | HEIC
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", *(("HEIF",) if HEIC else ()))

MAX_PIXELS = 120_000_000  # a 108-megapixel telephone passes; Pillow keeps 4 bytes a pixel
MEGAPIXELS = "RETRIEVAL_MEGAPIXELS"  # environment variable: most that a visitor's picture has
MAX_BYTES = 200_000_000
MOST_ENLARGED = 4.0
MIN_SIDE = 8  # pixels; smaller pictures leave a feature map without places to compare
MAX_SIDE = 65_000  # keypoints are stored as float16, which ends at 65 504
MAX_SECONDS = 10.0  # of computing, after which a picture is given up

BAND = 4_000_000  # pixels that are converted at once

_decoding = threading.Lock()  # one picture at a time: a decoder takes up to 20 bytes a pixel


def visitors_limit() -> int:
    """Most pixels of a picture that a visitor brings: $RETRIEVAL_MEGAPIXELS millions, or 25."""
    text = os.environ.get(MEGAPIXELS, "25")
    if not re.fullmatch(r"[1-9]\d{0,2}", text):
        raise RetrievalError(f"{MEGAPIXELS} is a whole number from 1 to 999, not {text!r}.")
    return min(int(text) * 1_000_000, MAX_PIXELS)


def read(source: Source, name: str | None = None, most: int = MAX_PIXELS) -> Image.Image:
    """Decode one picture into upright 8-bit RGB.

    name: what to call it in an error; by default the path's or the file's own name.
    most: pixels it may have.
    Raises PictureError for anything that is not a whole, reasonably sized picture.
    """
    return _decode(source, name, most)[0]


def thumbnail(
    source: Source,
    side: int,
    name: str | None = None,
    most: int = MAX_PIXELS,
) -> tuple[Image.Image, tuple[int, int]]:
    """A picture to look at: its longer side at most ``side``; and its true (width, height).

    A JPEG is decoded at a reduced size, and ``most`` counts the pixels that are decoded; but a
    progressive one is held in memory as a whole, and all its pixels count.
    """
    picture, size = _decode(source, name, most, side)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture, size


def as_jpeg(
    source: Source,
    side: int,
    name: str | None = None,
    most: int = MAX_PIXELS,
) -> tuple[bytes, tuple[int, int]]:
    """A picture to be shown ``side`` pixels large, as JPEG; and its true (width, height).

    Where the file is such a JPEG already, it is not made anew, which takes 15 ms a picture.
    """
    name = name or _name_of(source)
    data = read_bytes(source, name)
    # A file of 200 MB may hold a small picture.
    small = len(data) <= 4 * side * side
    if small and (size := _plain_jpeg(data, name)) and max(size) <= 1.5 * side:
        return data, size
    picture, size = thumbnail(data, side, name, most)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), size


def _plain_jpeg(data: bytes, name: str) -> tuple[int, int] | None:
    """Size (width, height) of a whole JPEG in RGB with no metadata; None for any other file."""
    if not data.startswith(b"\xff\xd8") or not data.endswith(b"\xff\xd9"):
        return None
    picture_files.check_jpeg(data, name)
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return picture.size if picture.mode == "RGB" and not picture.getexif() else None
    return None


def _decode(
    source: Source, name: str | None, most: int, side: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """An upright RGB picture and the size that the file states, upright too.

    side: where given, a picture about twice as large is enough.
    """
    name = name or _name_of(source)
    data = read_bytes(source, name)
    try:
        held = picture_files.check_jpeg(data, name)
        picture_files.check_tiff(data, name)
        picture_files.check_heic(data, name, most)
        with _decoding, warnings.catch_warnings():
            # Pillow warns of large pictures; our own limit below refuses them.
            warnings.simplefilter("ignore")
            with Image.open(_Clocked(data), formats=FORMATS) as picture:
                size = picture.size
                if side is not None:
                    picture.draft(None, (2 * side, 2 * side))
                _check_size(size if held else picture.size, name, most)
                picture_files.check_pieces(picture, len(data), name, most)
                picture.load()
                stated = picture.size
                _make_upright(picture)
                if picture.size != stated:
                    size = size[::-1]
                return _to_rgb(picture), size
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise picture_files.too_many_pixels(f"{name} has", most) from error
    except TimeoutError as error:
        raise PictureError(
            f"{name} takes more than {MAX_SECONDS:g} s to read; save it as a plain JPEG."
        ) from error
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        raise PictureError(
            f"{name} is not a picture that can be read (damaged, cut off, or another kind of file)."
        ) from error


class _Clocked(io.BytesIO):
    """The bytes of a picture, with a limit on the computing time in which they are read.

    Pillow reads a file of a million empty parts one by one.
    """

    def __init__(self, data: bytes):
        super().__init__(data)
        self.end = time.thread_time() + MAX_SECONDS  # computing counts, waiting does not

    def read(self, size: int | None = -1) -> bytes:
        if time.thread_time() > self.end:
            raise TimeoutError
        return super().read(size)


def _check_size(size: tuple[int, int], name: str, most: int) -> None:
    width, height = size
    if width * height > most:
        raise picture_files.too_many_pixels(f"{name} has {width} × {height} pixels,", most)
    if max(size) > MAX_SIDE:
        raise PictureError(f"{name} has {width} × {height} pixels; a side may have {MAX_SIDE}.")
    if min(size) < MIN_SIDE:
        raise PictureError(
            f"{name} has only {width} × {height} pixels; "
            f"at least {MIN_SIDE} × {MIN_SIDE} are needed."
        )


def read_bytes(source: Source, name: str) -> bytes:
    """The bytes of one picture file. Raises PictureError where there are none, or too many."""
    try:
        data = _bytes_of(source)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a path, a closed file
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"{name} cannot be read: {reason}.") from error
    if not data:
        raise PictureError(f"{name} is empty (zero bytes).")
    if len(data) > MAX_BYTES:
        raise PictureError(
            f"{name} is larger than {MAX_BYTES // 1_000_000} MB; use a smaller copy."
        )
    return data


def read_box(text: str) -> Box | None:
    """A box as people write it: four numbers, with commas or blanks between; None for nothing.

    Raises RetrievalError for anything else. Whether it lies in a picture: see ``check_box``.
    """
    if not text.strip():
        return None
    try:
        x1, y1, x2, y2 = map(float, text.replace(",", " ").split())
    except ValueError as error:
        raise RetrievalError(
            "A box is four numbers in pixels: left, top, right, bottom, as in 40, 20, 300, 260."
        ) from error
    return x1, y1, x2, y2


def check_box(box: Box, size: tuple[int, int]) -> Box:
    """The part of ``box`` inside a picture of ``size`` (width, height).

    Raises RetrievalError for a box that is inverted, empty, not finite or outside.
    """
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise RetrievalError("A box is four finite numbers: x1, y1, x2, y2 in pixels.")
    x1, y1, x2, y2 = (float(value) for value in box)
    if x2 <= x1 or y2 <= y1:
        raise RetrievalError(
            f"The box {x1:g}, {y1:g}, {x2:g}, {y2:g} is empty or inverted: "
            "x1 must be less than x2, and y1 less than y2."
        )
    width, height = size
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if inside[2] - inside[0] < MIN_SIDE or inside[3] - inside[1] < MIN_SIDE:
        raise RetrievalError(
            f"The box {x1:g}, {y1:g}, {x2:g}, {y2:g} covers less than {MIN_SIDE} × {MIN_SIDE} "
            f"pixels of this {width} × {height} picture."
        )
    return inside


def cut_out(box: Box | None, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What ``crop`` cuts out of a picture of ``size`` (width, height): x1, y1, x2, y2.

    Whole pixels; all of the picture where there is no box. Raises RetrievalError for a bad box.
    """
    x1, y1, x2, y2 = (0, 0, *size) if box is None else map(round, check_box(box, size))
    return x1, y1, x2, y2


def crop(picture: Image.Image, box: Box) -> Image.Image:
    """Cut ``box`` out of ``picture``, with its corners rounded to whole pixels."""
    return picture.crop(cut_out(box, picture.size))


def fit(
    picture: Image.Image, size: float, box: Box | None = None, enlarge: bool = False
) -> Image.Image:
    """Resize so that the longer side of the *full* picture is at most ``size``.

    enlarge: whether a smaller picture is brought up to ``size``, at most ``MOST_ENLARGED`` times.

    A box is cut out first and shrunk by the factor of the full picture, as in the reference
    evaluation of cirtorch: the query keeps the scale that it has in its photograph.
    """
    full = max(picture.size)
    if box is not None:
        picture = crop(picture, box)
        size = size * max(picture.size) / full
    if enlarge and max(picture.size) < size:
        factor = min(size / max(picture.size), MOST_ENLARGED)
        sides = [max(1, round(side * factor)) for side in picture.size]
        return picture.resize(sides, Image.Resampling.BICUBIC)
    if max(picture.size) <= size:
        return picture
    small = picture.copy()
    # A small box in a large photograph would vanish: Pillow divides by zero.
    small.thumbnail((max(size, 1), max(size, 1)), Image.Resampling.LANCZOS)
    return small


def _name_of(source: Source) -> str:
    # An open file may have no name, and a temporary one has a number.
    name = source if isinstance(source, str | Path) else getattr(source, "name", None)
    return Path(name).name if isinstance(name, str | Path) else "The picture"


def _bytes_of(source: Source) -> bytes:
    """At most one byte more than allowed, so that the size can be judged without reading it all."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | Path):
        if stat.S_ISFIFO(os.stat(source).st_mode):
            raise OSError("it is a pipe")  # which may never end
        with open(source, "rb") as file:
            return file.read(MAX_BYTES + 1)
    return source.read(MAX_BYTES + 1)


def _make_upright(picture: Image.Image) -> None:
    places = "exif", "Raw profile type exif"
    if any(len(picture.info.get(one) or b"") > picture_files.MAX_EXIF for one in places):
        return
    # Damaged EXIF says nothing about the pixels, which are already decoded.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(picture, in_place=True)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB. Transparent parts become white; 16-bit grey keeps its full range.

    Goes band by band, so that no second copy of a large picture is needed on the way.
    """
    mode, (width, height) = picture.mode, picture.size
    scale = None
    if mode.startswith("I") or mode == "F":
        # Pillow's own conversion clips 16-bit values at 255; 16-bit files use the upper bits.
        high = max(_brightest(band) for band in _bands(picture))
        if mode == "F":
            top = max(high, 1)
        else:
            top = next((top for top in (255, 65535) if high <= top), high)
        scale = 255 / top
    layered = mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info
    result = Image.new("RGB", (width, height), "white")
    row = 0
    for band in _bands(picture):
        if scale is not None:
            band = band.convert("F").point(lambda value: value * scale).convert("L")
        elif layered:
            band = band.convert("RGBA")
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        result.paste(band.convert("RGB"), (0, row))
        row += band.height
    return result


def _brightest(grey: Image.Image) -> float:
    value = grey.convert("F").getextrema()[1]
    assert isinstance(value, float)  # of one channel
    return value


def _bands(picture: Image.Image) -> Iterator[Image.Image]:
    """The picture from top to bottom, a few million pixels at a time."""
    width, height = picture.size
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield picture.crop((0, top, width, min(top + rows, height)))
