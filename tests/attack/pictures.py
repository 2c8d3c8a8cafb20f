"""Small files that want a lot of memory or time from whoever decodes them."""

import io
import re
import struct
import zlib

from PIL import Image


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def plain_webp(side: int) -> bytes:
    """A few dozen bytes that are a transparent square of ``side`` pixels."""
    return encode(Image.new("RGBA", (side, side)), "WEBP", lossless=True, quality=0, method=0)


def many_scans(count: int, side: int = 1000) -> bytes:
    """A progressive JPEG with one of its scans written many times over."""
    data = encode(Image.new("L", (side, side)), "JPEG", progressive=True)
    starts = [found.start() for found in re.finditer(b"\xff\xda", data)]
    scan = data[starts[3] : starts[4]].partition(b"\xff\xc4")[0]
    return data[: starts[3]] + scan * count + b"\xff\xd9"


def many_comments(count: int) -> bytes:
    """A JPEG with empty comments before its picture."""
    data = encode(Image.new("L", (16, 16)), "JPEG")
    return data[:2] + b"\xff\xfe\0\2" * count + data[2:]


def many_chunks(count: int) -> bytes:
    """A PNG with empty chunks that mean nothing."""
    data = encode(Image.new("L", (16, 16)), "PNG")
    chunk = struct.pack(">I4sI", 0, b"abCd", zlib.crc32(b"abCd"))
    return data[:33] + chunk * count + data[33:]
