"""The only way in for pixels: decode, limits, orientation, colour, crop and resize.

Everything behind this module sees an upright 8-bit RGB picture. A box is
``(x1, y1, x2, y2)`` in pixels of that upright picture, x to the right, y down, with x2 and y2
exclusive: a box of the whole picture is ``(0, 0, width, height)``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import re
import stat
from collections import deque
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from retrieval import memory, picture_files, workers
from retrieval.decoding import MIN_SIDE, Decoder
from retrieval.errors import RetrievalError
from retrieval.picture_files import PictureError as PictureError  # callers know it by this module

memory.configure()

# phones write HEIC; the decoder is a separate wheel
HEIC = frozenset({".heic", ".heif"} if importlib.util.find_spec("pillow_heif") else ())

Box = tuple[float, float, float, float]
Source = str | Path | bytes | BinaryIO  # a path, the bytes of a file, or an open binary file

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}) | HEIC
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", *(("HEIF",) if HEIC else ()))

MAX_PIXELS = 120_000_000  # a 108-megapixel telephone passes; Pillow keeps 4 bytes a pixel
MEGAPIXELS = "RETRIEVAL_MEGAPIXELS"  # environment variable: most that a visitor's picture has
MAX_BYTES = 200_000_000
# A picture is refused after SECONDS of computing, and one more for each PIXELS_A_SECOND that it may
# have: 3.7 s for a visitor's, where true ones of 25 megapixels take 0.3 to 2 s.
SECONDS, PIXELS_A_SECOND = 2.0, 15_000_000
QUICK_SECONDS = 1.0  # HEICs of telephones take 0.4 to 0.8
MAX_ENLARGED = 4.0

# Decoders of pictures of visitors, of pictures of collections, and of pictures that take long or
# belong to slow searches: for the latter only other such pictures wait.
_visitors, _collections, _slow = Decoder(), Decoder(), Decoder()
# Hashes of pictures that took long: one that is shown and then searched with is not tried again in
# a quick decoder.
_took_long: deque[int] = deque(maxlen=1000)


def visitors_limit() -> int:
    """Most pixels of a picture that a visitor brings: $RETRIEVAL_MEGAPIXELS millions, or 25."""
    text = os.environ.get(MEGAPIXELS, "25")
    if not re.fullmatch(r"[1-9]\d{0,2}", text):
        raise RetrievalError(f"{MEGAPIXELS} is a whole number from 1 to 999, not {text!r}.")
    return min(int(text) * 1_000_000, MAX_PIXELS)


def read(
    source: Source,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    of_visitor: bool = False,
) -> Image.Image:
    """Decode one picture into upright 8-bit RGB.

    name: what to call it in an error; by default the path's or the file's own name.
    max_pixels: pixels it may have. of_visitor: whether a visitor brought it.
    Raises PictureError for anything that is not a whole, reasonably sized picture.
    """
    return _decode(source, name, max_pixels, of_visitor)[0]


def thumbnail(
    source: Source,
    side: int,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    of_visitor: bool = False,
) -> tuple[Image.Image, tuple[int, int]]:
    """A picture to look at: its longer side at most ``side``; and its true (width, height).

    A JPEG is decoded at a reduced size, and ``max_pixels`` limits the pixels that are decoded. A
    progressive one is decoded as a whole, so all its pixels count. of_visitor: as of ``read``.
    """
    picture, size = _decode(source, name, max_pixels, of_visitor, side)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture, size


def as_jpeg(
    source: Source,
    side: int,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    of_visitor: bool = False,
) -> tuple[bytes, tuple[int, int]]:
    """A picture to be shown ``side`` pixels large, as JPEG; and its true (width, height).

    A file that is such a JPEG already is returned as it is: encoding takes 15 ms a picture.
    """
    name = name or _name_of(source)
    data = read_bytes(source, name)
    # A file of 200 MB may hold a small picture.
    small = len(data) <= 4 * side * side
    if small and (size := _plain_jpeg(data, name)) and max(size) <= 1.5 * side:
        return data, size
    picture, size = thumbnail(data, side, name, max_pixels, of_visitor)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), size


def _plain_jpeg(data: bytes, name: str) -> tuple[int, int] | None:
    """Size (width, height) of a whole JPEG in RGB with no metadata; None for any other file."""
    if not data.startswith(b"\xff\xd8") or not data.endswith(b"\xff\xd9"):
        return None
    # For each part of the metadata Pillow copies all of it again: left to the decoder's process.
    if b"Exif\0\0" in data:
        return None
    picture_files.check_jpeg(data, name)
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return picture.size if picture.mode == "RGB" and not picture.getexif() else None
    return None


def _decode(
    source: Source, name: str | None, max_pixels: int, of_visitor: bool, side: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """An upright RGB picture and the size that the file states, upright too.

    side: where given, a picture about twice as large is enough.
    """
    name = name or _name_of(source)
    data = read_bytes(source, name)
    request = {"name": name, "max_pixels": max_pixels, "side": side, "formats": FORMATS}
    seconds = SECONDS + max_pixels / PIXELS_A_SECOND
    if hash(data) not in _took_long and not workers.in_slow_workers():
        quick = _visitors if of_visitor else _collections
        with contextlib.suppress(TimeoutError):
            return quick.decode(data, min(QUICK_SECONDS, seconds), request)
        _took_long.append(hash(data))
    workers.move_to_slow_workers()
    try:
        return _slow.decode(data, seconds, request)
    except TimeoutError as error:
        raise PictureError(
            f"{name} takes more than {seconds:.2g} s to read; save it as a plain JPEG."
        ) from error


def read_bytes(source: Source, name: str) -> bytes:
    """The bytes of one picture file. Raises PictureError where there are none, or too many."""
    try:
        data = _bytes_of(source)
    except IsADirectoryError as error:
        raise PictureError(
            f"{name} cannot be read: it is a folder; name the pictures in it."
        ) from error
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

    enlarge: whether a smaller picture is brought up to ``size``, at most ``MAX_ENLARGED`` times.

    A box is cut out first and shrunk by the factor of the full picture, as in the reference
    evaluation of cirtorch: the query keeps the scale that it has in its photograph.
    """
    full = max(picture.size)
    if box is not None:
        picture = crop(picture, box)
        size = size * max(picture.size) / full
    if enlarge and max(picture.size) < size:
        factor = min(size / max(picture.size), MAX_ENLARGED)
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
        mode = os.stat(source).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError("it is a pipe or a device")  # which may never end
        with open(source, "rb") as file:
            return file.read(MAX_BYTES + 1)
    return source.read(MAX_BYTES + 1)
