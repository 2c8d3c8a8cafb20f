"""Checks of picture files before they are decoded.

A small file can make a decoder work for hours or take gigabytes. The checks count what the decoder
would have to do (scans, strips, pixels, copies of metadata) and raise PictureError where it is far
more than true pictures need. In each of them ``data`` is the whole file, ``name`` is what an error
calls it, and ``max_pixels`` is the number of pixels that a picture may have.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
from collections.abc import Iterator

from PIL import Image

from retrieval.errors import RetrievalError

MAX_SCANS = 32  # of a progressive JPEG, each of which touches every pixel; encoders write ten
MAX_SEGMENTS = 10_000  # of a JPEG
MAX_PIECES = 500_000  # strips or tiles of a TIFF: 120 megapixels in tiles of 16 × 16
MAX_SHARED = 10  # bytes of all pieces of a TIFF for each byte of it; up to 1 where none share bytes
MAX_EXIF = 4_000_000  # bytes; cameras write 64 kB. Pillow can make 230 bytes in memory of each 8
MAX_BOXES = 1000  # at the top of a HEIC; true ones have three
MAX_META = 1_000_000  # bytes that say what is in a HEIC; telephones write 10 kB
MAX_TOUCHED = 6  # pixels that a HEIC makes decoders compute for each pixel allowed; true ones: 4
MAX_DEPTH = 50  # levels of pictures made of pictures, in a HEIC; true ones have two
MAX_COPIES = 500_000_000  # bytes of metadata and colour profiles of all pictures in a HEIC

TILE_WIDTH, TILE_HEIGHT = 322, 323  # tags of TIFF
PIECE_BYTES = (279, 325)  # of strips, of tiles: how many each takes in the file
CHANGES = (b"irot", b"imir", b"clap")  # properties of a HEIC: turned, mirrored, cut out
BITS, PLANES = 258, 284  # tags of TIFF: bits of each colour; 2: one colour behind the other
RAW = (1, 2, 7)  # kinds of values in TIFF that stay bytes

# Any number of FF may precede a marker. Only the last is matched: the time stays linear. After 01
# and D0 to D8 comes no length: to read one would skip bytes that a decoder reads.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")


class PictureError(RetrievalError):
    """A file that is no picture, or that would take too long or too much memory to decode."""


def too_many_pixels(subject: str, max_pixels: int) -> PictureError:
    """The error for a picture that is too large. subject: the sentence up to "more than"."""
    return PictureError(
        f"{subject} more than the {max_pixels // 1_000_000} megapixels allowed; use a smaller copy."
    )


def check_jpeg(data: bytes, name: str) -> bool:
    """Refuse a JPEG with very many scans or segments: each scan costs as much as the picture.

    Returns whether a decoder has to hold the whole picture at full size, which it does for a
    progressive JPEG and for one with a scan for each colour. False for other kinds of files.
    """
    if not data.startswith(b"\xff\xd8"):
        return False
    position = 2
    scans = segments = exif = 0
    components, whole = b"", False
    while marker := _MARKER.search(data, position):
        kind, end = marker[1], marker.end()
        length = int.from_bytes(data[end : end + 2], "big")  # counts these two bytes too
        if kind == b"\xd9":
            break
        if kind in b"\xc0\xc1\xc9":  # the frame of a JPEG that is not progressive
            components = data[end + 7 : end + 8]
        if kind == b"\xda":
            scans += 1
            whole |= data[end + 2 : end + 3] != components
        if kind == b"\xe1" and data.startswith(b"Exif", end + 2):
            exif += length
        segments += 1
        if scans > MAX_SCANS or segments > MAX_SEGMENTS or exif > MAX_EXIF:
            raise PictureError(
                f"{name} has an unusual number of parts and would take long to read; "
                "save it as a plain JPEG."
            )
        # The pixels that follow a scan have no length: they are searched for the next marker.
        position = end + length
    return whole


def check_tiff(data: bytes, name: str) -> None:
    """Refuse a TIFF with very many strips, tiles or other numbers: Pillow makes objects of them."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return
    big = data[2:4] in (b"+\0", b"\0+")  # BigTIFF, with 64-bit numbers
    offset, count, entry = ("Q", "Q", "HHQ8s") if big else ("L", "H", "HHL4s")
    with contextlib.suppress(struct.error):  # cut off: for Pillow to say
        (start,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count, data, start)
        start += struct.calcsize(order + count)
        for number in range(entries):
            place = start + number * struct.calcsize(order + entry)
            _, kind, pieces, _ = struct.unpack_from(order + entry, data, place)
            if kind not in RAW and pieces > MAX_PIECES:
                raise PictureError(
                    f"{name} is cut into an unusual number of pieces; save it as a plain JPEG."
                )


def check_heic(data: bytes, name: str, max_pixels: int) -> None:
    """Refuse a HEIC in which many pictures may have the same metadata: each is given a copy.

    Nor may it be made of many large pictures, or of one that is turned many times: the size that
    it states is that of the part which is cut out in the end.
    """
    if data[4:8] != b"ftyp":
        return
    visible = boxes = described = stated = 0
    touched = 0.0
    for kind, start, end in _boxes(data, 0, len(data)):
        boxes += 1
        described += end - start if kind == b"meta" else 0
        if boxes > MAX_BOXES or described > MAX_META:
            break
        if kind == b"moov":  # of so many frames, for each of which the decoder makes an object
            raise PictureError(f"{name} holds a film as well; save it as a plain JPEG.")
        if kind == b"meta":
            stated += sum(
                _stated_in_heic(data, at, stop)
                for inner, at, stop in _boxes(data, start + 4, end)
                if inner == b"iloc"
            )
            # Items, of which the tiles of a picture are marked as hidden.
            items = re.finditer(rb"infe...(.)", data[start:end], re.DOTALL)
            visible += sum(not item[1][0] & 1 for item in items)
            largest, pixels = _pixels_of_heic(data, start, end)
            touched = max(touched, pixels)
            if largest > max_pixels:
                raise too_many_pixels(f"A picture in {name} has", max_pixels)
            if re.search(rb"infe.{8,10}iovl", data[start:end], re.DOTALL):
                # An overlay: its size is in its own data, and it is made before that is checked.
                raise PictureError(f"{name} is laid out of several; save it as a plain JPEG.")
    if (
        boxes > MAX_BOXES
        or described > MAX_META
        or visible * max(stated, len(data)) > MAX_COPIES
        or touched > MAX_TOUCHED * max_pixels
    ):
        raise PictureError(
            f"{name} holds an unusual number of pictures and would take a lot of memory; save it "
            "as a plain JPEG."
        )


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of a HEIC between two bytes: kind, start and end of the content of each."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">L4s", data, start)
        content = start + 8
        if size == 1:
            content += 8
            size = int.from_bytes(data[start + 8 : content], "big")
        start += max(size, 8) if size else end - start  # 0: up to the end
        yield kind, content, min(start, end)


def _stated_in_heic(data: bytes, start: int, end: int) -> int:
    """Bytes that the items of a HEIC have together; many may be made of the same part of the file.

    start, end: of the content of a box "iloc".
    """
    head = data[start : start + 6].ljust(6, b"\0")
    version, wide = head[0], 4 if head[0] == 2 else 2
    offset, length, base, index = head[4] >> 4, head[4] & 15, head[5] >> 4, head[5] & 15
    index = index if version else 0
    step = index + offset + length
    if {offset, length, base, index} - {0, 4, 8} or not step:
        return MAX_COPIES + 1  # nobody writes such numbers
    total, place = 0, start + 6 + wide
    while place < end:
        place += wide + (4 if version else 2) + base
        stop = place + 2 + step * int.from_bytes(data[place : place + 2], "big")
        for at in range(place + 2, min(stop, end), step):
            total += int.from_bytes(data[at + index + offset : at + step], "big")
        place = stop
    return total


def _pixels_of_heic(data: bytes, start: int, end: int) -> tuple[int, float]:
    """Pixels of the largest picture in a HEIC, and most pixels to decode for one picture of it.

    The latter counts all pictures that it is made of, and each pixel once more for each time that
    it is turned, mirrored or cut out. start, end: of the content of its box "meta".
    """
    boxes = list(_boxes(data, start + 4, end))
    inside = [box for kind, *place in boxes if kind == b"iprp" for box in _boxes(data, *place)]
    properties = [
        (kind, math.prod(struct.unpack(">LL", data[at + 4 : at + 12].ljust(8, b"\0"))))
        for outer, *place in inside
        if outer == b"ipco"
        for kind, at, _ in _boxes(data, *place)
    ]
    largest = max((size for kind, size in properties if kind == b"ispe"), default=0)
    own: dict[int, int] = {}  # number of a picture → the pixels that it states
    changes: dict[int, int] = {}  # → how often it is turned, mirrored or cut out
    for outer, at, stop in inside:
        if outer != b"ipma":
            continue
        # Of each picture: its number, and how many properties it has, and which, from 1.
        long, wide = 4 if data[at] else 2, 1 + (data[at + 3] & 1)
        at += 8
        while at < stop:
            item = int.from_bytes(data[at : at + long], "big")
            at += long
            of_it = data[at + 1 : at + 1 + wide * data[at]]
            at += 1 + len(of_it)
            for place in range(0, len(of_it), wide):
                number = int.from_bytes(of_it[place : place + wide], "big") % (1 << 8 * wide - 1)
                kind, size = properties[number - 1] if 0 < number <= len(properties) else (b"", 0)
                if kind == b"ispe":
                    own[item] = own.get(item, 0) + size
                changes[item] = changes.get(item, 0) + (kind in CHANGES)
    parts = _parts_in_heic(data, [(at, stop) for kind, at, stop in boxes if kind == b"iref"])
    whole: dict[int, float] = {}

    def touched_by(item: int, depth: int = 0) -> float:
        if depth > MAX_DEPTH:
            return math.inf
        if item not in whole:
            pixels = sum(touched_by(part, depth + 1) for part in parts.get(item, ()))
            whole[item] = (1 + changes.get(item, 0)) * (own.get(item, largest) + pixels)
        return whole[item]

    # One of them is decoded, with all that it is made of.
    return largest, max(map(touched_by, {*own, *changes, *parts}), default=0)


def _parts_in_heic(data: bytes, places: list[tuple[int, int]]) -> dict[int, list[int]]:
    """Number of each picture in a HEIC that is made of others → their numbers, as often as used.

    places: start and end of the content of each box "iref".
    """
    parts: dict[int, list[int]] = {}
    for start, end in places:
        long = 4 if data[start] else 2
        for kind, at, stop in _boxes(data, start + 4, end):
            item, *made_of = (
                int.from_bytes(data[place : place + long], "big")
                for place in (at, *range(at + long + 2, stop, long))
            )
            if kind == b"dimg":
                parts.setdefault(item, []).extend(made_of)
    return parts


def check_pieces(picture: Image.Image, size: int, name: str, max_pixels: int) -> None:
    """Refuse a TIFF in a file of ``size`` bytes whose pieces are more to read than a picture is.

    Tiles are unpacked as a whole, and may be 16 pixels wide and a million high. Any number of
    pieces may be the same megabyte of the file, of which each gets a copy.
    """
    tags = getattr(picture, "tag_v2", {})
    width, height = tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0)
    if width * height > max_pixels:
        raise too_many_pixels(f"A tile of {name} has {width} × {height} pixels,", max_pixels)
    across, down = (
        -(-side // of) if of else 0 for side, of in zip(picture.size, (width, height), strict=True)
    )
    if (
        across * down * width * height > 2 * max_pixels
        or sum(sum(tags.get(tag, ())) for tag in PIECE_BYTES) > MAX_SHARED * size
    ):
        raise PictureError(
            f"{name} is cut into pieces that would take long to read; save it as a plain JPEG."
        )


def check_planes(picture: Image.Image, name: str) -> None:
    """Refuse a plain TIFF of 16 bits with one colour behind the other: Pillow gives wrong pixels.

    It takes each half of a number for a pixel. Packed files of this kind are read as they are.
    """
    tags = getattr(picture, "tag_v2", {})
    if (
        tags.get(PLANES) == 2
        and len(picture.getbands()) > 1
        and max(tags.get(BITS, (8,))) > 8
        and any(tile[0] == "raw" for tile in getattr(picture, "tile", ()))
    ):
        raise PictureError(
            f"{name} has 16 bits and one colour behind the other, which cannot be read; save it "
            "as a plain JPEG."
        )
