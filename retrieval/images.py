"""The only way in for pixels: decode, limits, orientation, colour, crop and resize.

Everything behind this module sees an upright 8-bit RGB picture. A box is
``(x1, y1, x2, y2)`` in pixels of that upright picture, x to the right, y down, with x2 and y2
exclusive: a box of the whole picture is ``(0, 0, width, height)``.
"""

from __future__ import annotations

import io
import math
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

from retrieval.errors import RetrievalError

try:  # phones write HEIC; the decoder is a separate wheel
    from pillow_heif import register_heif_opener
except ImportError:
    HEIC = frozenset()
else:
    register_heif_opener(thumbnails=False)
    HEIC = frozenset({".heic", ".heif"})

Box = tuple[float, float, float, float]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}) | HEIC
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", *(("HEIF",) if HEIC else ()))

MAX_PIXELS = 120_000_000  # a 108-megapixel telephone passes; as RGB that is 0.36 GB
MAX_BYTES = 200_000_000
MOST_ENLARGED = 4.0
MIN_SIDE = 8  # below that no network of ours has a feature map worth the name
MAX_SIDE = 65_000  # keypoints are stored as float16, which ends at 65 504


class PictureError(RetrievalError):
    """A file that is no picture, or one that we will not decode."""


def read(source: str | Path | bytes | BinaryIO, name: str | None = None) -> Image.Image:
    """Decode one picture into upright 8-bit RGB.

    source: a path, the bytes of a file, or an open binary file.
    name: what to call it in an error; by default the path's or the file's own name.
    Raises PictureError for anything that is not a whole, reasonably sized picture.
    """
    name = name or _name_of(source)
    data = read_bytes(source, name)
    try:
        with warnings.catch_warnings():
            # Our own limit below speaks instead of Pillow's warning.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise PictureError(
                        f"{name} has {width} × {height} pixels, more than the "
                        f"{MAX_PIXELS // 1_000_000} megapixels allowed; use a smaller copy."
                    )
                if max(width, height) > MAX_SIDE:
                    raise PictureError(
                        f"{name} has {width} × {height} pixels; a side may have {MAX_SIDE}."
                    )
                if min(width, height) < MIN_SIDE:
                    raise PictureError(
                        f"{name} has only {width} × {height} pixels; "
                        f"at least {MIN_SIDE} × {MIN_SIDE} are needed."
                    )
                picture.load()
                return _to_rgb(_upright(picture))
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"{name} has more than the {MAX_PIXELS // 1_000_000} megapixels allowed; "
            "use a smaller copy."
        ) from error
    except Exception as error:  # decoders raise whatever they like on hostile bytes
        raise PictureError(
            f"{name} is not a picture that can be read (damaged, cut off, or another kind of file)."
        ) from error


def read_bytes(source: str | Path | bytes | BinaryIO, name: str) -> bytes:
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


def crop(picture: Image.Image, box: Box) -> Image.Image:
    """Cut ``box`` out of ``picture``, with its corners rounded to whole pixels."""
    return picture.crop(tuple(round(value) for value in check_box(box, picture.size)))


def fit(
    picture: Image.Image, size: int, box: Box | None = None, enlarge: bool = False
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


def _name_of(source) -> str:
    if not isinstance(source, str | Path):
        source = getattr(source, "name", None)  # of a temporary file it is a number
    return Path(source).name if isinstance(source, str | Path) else "The picture"


def _bytes_of(source) -> bytes:
    """At most one byte more than allowed, so that the size can be judged without reading it all."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | Path):
        if stat.S_ISFIFO(os.stat(source).st_mode):
            raise OSError("it is a pipe")  # which may never end
        with open(source, "rb") as file:
            return file.read(MAX_BYTES + 1)
    return source.read(MAX_BYTES + 1)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF says nothing about the pixels, which are already decoded
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB. Transparent parts become white; 16-bit grey keeps its full range."""
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        # Pillow's own conversion clips 16-bit values at 255; 16-bit files use the upper bits.
        picture = picture.convert("F")
        _, high = picture.getextrema()
        if mode == "F":
            top = max(high, 1)
        else:
            top = next((top for top in (255, 65535) if high <= top), high)
        scale = 255 / top
        return picture.point(lambda value: value * scale).convert("L").convert("RGB")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layers = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return picture.copy() if mode == "RGB" else picture.convert("RGB")
