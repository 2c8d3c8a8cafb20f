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


def metadata_as_text(exif: bytes) -> bytes:
    """A PNG with metadata as old programs wrote them, in hexadecimal digits."""
    data = encode(Image.new("RGB", (64, 32)), "PNG")
    text = f"\nexif\n{len(exif)}\n{exif.hex()}".encode()
    content = b"tEXtRaw profile type exif\0" + text
    chunk = struct.pack(">L", len(content) - 4) + content + struct.pack(">L", zlib.crc32(content))
    return data[:33] + chunk + data[33:]


def markers_without_length(data: bytes) -> bytes:
    """The same JPEG with a marker before each scan but the first, after which comes no length.

    Who takes the two bytes after it for one does not see the scan.
    """
    first, *scans = data.split(b"\xff\xda")
    start, scans = scans[0], scans[1:]
    hidden = [b"\xff\1" + struct.pack(">H", len(one) + 4) + b"\xff\xda" + one for one in scans]
    return first + b"\xff\xda" + start + b"".join(hidden)


def _tiff(pieces: bytes, width: int, height: int, **sides: int) -> bytes:
    """A grey TIFF in tiles (``sides``: tile_width, tile_height), all with the same deflated data.

    pieces: the list of offsets, each of which must be 8, where the data is.
    """
    data = zlib.compress(b"\x80" * sides["tile_width"] * sides["tile_height"], 9)
    body = data + b"\0" * (len(data) % 2)
    count = len(pieces) // 4
    sizes = struct.pack("<L", len(data)) * count
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: sides["tile_width"], 323: sides["tile_height"]}
    entries = [struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items()]
    for tag, values in ((324, pieces), (325, sizes)):
        value = values if count == 1 else struct.pack("<L", 8 + len(body))
        entries.append(struct.pack("<HHL", tag, 4, count) + value)
        body += b"" if count == 1 else values
    head = b"II*\0" + struct.pack("<L", 8 + len(body))
    return head + body + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4


def many_tiles(width: int, height: int) -> bytes:
    """A TIFF in tiles of one pixel."""
    pieces = struct.pack("<L", 8) * (width * height)
    return _tiff(pieces, width, height, tile_width=1, tile_height=1)


def large_tile(side: int) -> bytes:
    """A TIFF of 64 × 64 pixels in one tile of ``side`` pixels, which is unpacked as a whole."""
    return _tiff(struct.pack("<L", 8), 64, 64, tile_width=side, tile_height=side)


def tall_tiles(count: int, height: int) -> bytes:
    """A TIFF 8 pixels high in tiles of 16 pixels by so many, each of which is unpacked."""
    pieces = struct.pack("<L", 8) * count
    return _tiff(pieces, 16 * count, 8, tile_width=16, tile_height=height)


def one_piece_of_a_file(count: int, size: int) -> bytes:
    """A TIFF of ``count`` tiles, each of which is the same ``size`` bytes of the file."""
    data = _tiff(struct.pack("<L", 8) * count, 16 * count, 16, tile_width=16, tile_height=16)
    packed = zlib.compress(b"\x80" * 256, 9)
    sizes = struct.pack("<L", len(packed)) * count
    assert data.count(sizes) == 1
    return data.replace(sizes, struct.pack("<L", size) * count).ljust(size + 8, b"z")


def one_colour_first(side: int) -> bytes:
    """A JPEG that is not progressive and whose only scan has one of its three colours."""
    data = encode(Image.new("RGB", (side, side)), "JPEG")
    grey = encode(Image.new("L", (side, side)), "JPEG")
    frame, scan = data.index(b"\xff\xc0"), grey.index(b"\xff\xda")
    return data[: frame + 19] + grey[grey.index(b"\xff\xc4") : scan] + grey[scan:]


def shared_metadata(count: int, size: int) -> bytes:
    """A HEIC of ``count`` small pictures, all with the same metadata of ``size`` bytes."""
    import pillow_heif

    exif = b"Exif\0\0II*\0" + struct.pack("<L", 8) + bytes(6)
    file = pillow_heif.HeifFile()
    for shade in range(count):
        picture = Image.new("RGB", (64, 64), (shade, 0, 0))
        picture.info["exif"] = exif + bytes(1000)
        file.add_from_pillow(picture)
    buffer = io.BytesIO()
    file.save(buffer, quality=10)
    data = bytearray(buffer.getvalue())
    place = data.index(b"iloc") + 12  # version 0: offsets, lengths and bases have four bytes
    end = len(data) + 8
    for item in range(int.from_bytes(data[place - 2 : place], "big")):
        base, extents, _, length = struct.unpack_from(">LHLL", data, place + 18 * item + 4)
        assert extents == 1
        if 1000 < length < 1100:
            struct.pack_into(">LL", data, place + 18 * item + 10, end - base, size)
    block = struct.pack(">L", 6) + exif
    return bytes(data) + struct.pack(">L4s", 8 + size, b"free") + block.ljust(size, b"z")


def overlapping_values(count: int, size: int) -> bytes:
    """Metadata of so many tags, and a TIFF: all have the same ``size`` bytes for their value."""
    tags = [(0x0112, 3, 1, 6), *((0x2000 + n, 7, size, 8) for n in range(count))]
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(size + 8, b"z")


def box(kind, *content):
    """A box of a HEIC."""
    return struct.pack(">L4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def _coded(side: int) -> tuple[bytes, bytes]:
    """A square as the boxes of a HEIC have it: what its decoder has to know, and its pixels."""
    import pillow_heif

    buffer = io.BytesIO()
    picture = pillow_heif.from_pillow(Image.new("RGB", (side, side)))
    picture.save(buffer, quality=10, enc_params={"preset": "ultrafast"})
    plain = buffer.getvalue()

    def found(kind):
        at = plain.index(kind) - 4
        return plain[at : at + int.from_bytes(plain[at : at + 4], "big")]

    return found(b"hvcC"), found(b"mdat")[8:]


def heic(side: int, changes: list[bytes], copies: int = 0) -> bytes:
    """A HEIC of one picture, changed by these properties, and copied so many times, one by one."""
    codec, pixels = _coded(side)
    numbers = range(1, copies + 2)
    size = box(b"ispe", bytes(4), struct.pack(">LL", side, side))
    used = [2, *range(3, 3 + len(changes))]
    uses = [
        struct.pack(">HB", n, len(used) + (n == 1)) + bytes([1][n > 1 :] + used) for n in numbers
    ]
    head = box(b"ftyp", b"heic", bytes(4), b"mif1heic")

    def meta(start):
        place = struct.pack(">HHHLL", 1, 0, 1, start, len(pixels))
        kinds = [b"hvc1" if n == 1 else b"iden" for n in numbers]
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), struct.pack(">H", copies + 1)),
            box(b"iloc", bytes(4), b"\x44\0\0\1", place),
            box(b"iinf", struct.pack(">LH", 0, copies + 1), *(
                box(b"infe", b"\2\0\0\0", struct.pack(">HH4sB", n, 0, kind, 0))
                for n, kind in zip(numbers, kinds, strict=True)
            )),
            box(b"iref", bytes(4), *(
                box(b"dimg", struct.pack(">3H", n, 1, n - 1)) for n in numbers[1:]
            )),
            box(
                b"iprp",
                box(b"ipco", codec, size, *changes),
                box(b"ipma", struct.pack(">LL", 0, copies + 1), *uses),
            ),
        )  # fmt: skip

    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", pixels)


def heic_of_two(side: int, kind: bytes, content: bytes, uses: int = 1, times: int = 1) -> bytes:
    """A HEIC of a square, and something of this kind made of it or belonging to it.

    uses: how often that is made of the square. times: how often it holds its ``content``, which
    stands once in the file.
    """
    codec, pixels = _coded(side)
    size = box(b"ispe", bytes(4), struct.pack(">LL", side, side))
    head = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    link, shown = (b"cdsc", 1) if kind == b"Exif" else (b"dimg", 2)

    def meta(start):
        first = struct.pack(">HHHLL", 1, 0, 1, start, len(pixels))
        second = struct.pack(">3H", 2, 0, times)
        second += struct.pack(">LL", start + len(pixels), len(content)) * times
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), struct.pack(">H", shown)),
            box(b"iloc", bytes(4), b"\x44\0\0\2", first, second),
            box(b"iinf", struct.pack(">LH", 0, 2), *(
                box(b"infe", b"\2\0\0\0", struct.pack(">HH4sB", n, 0, one, 0))
                for n, one in ((1, b"hvc1"), (2, kind))
            )),
            box(b"iref", bytes(4), box(link, struct.pack(f">{2 + uses}H", 2, uses, *[1] * uses))),
            box(
                b"iprp",
                box(b"ipco", codec, size),
                box(b"ipma", struct.pack(">LL", 0, 2), b"\0\1\2\x81\2", b"\0\2\1\2"),
            ),
        )  # fmt: skip

    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", pixels, content)


def film(frames: int) -> bytes:
    """What a film of a still says of its frames: their number, and nothing of each."""
    codec, _ = _coded(64)
    turn = struct.pack(">9L", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    times = struct.pack(">4L", 0, 0, 1000, frames)
    entry = box(b"hvc1", bytes(7), b"\1", bytes(16), b"\0\x40\0\x40", bytes(50), codec)
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">2L", 0, 1), entry),
        box(b"stts", struct.pack(">4L", 0, 1, frames, 1)),
        box(b"stsc", struct.pack(">5L", 0, 1, 1, frames, 1)),
        box(b"stsz", struct.pack(">3L", 0, 1, frames)),
        box(b"stco", struct.pack(">3L", 0, 1, 100)),
    )
    media = box(
        b"mdia",
        box(b"mdhd", bytes(4), times, bytes(4)),
        box(b"hdlr", bytes(8), b"pict", bytes(13)),
        box(b"minf", box(b"vmhd", bytes(12)), table),
    )
    place = struct.pack(">L", 7) + struct.pack(">5L", 0, 0, 1, 0, frames)
    track = box(b"trak", box(b"tkhd", place, bytes(16), turn, bytes(8)), media)
    return box(b"moov", box(b"mvhd", bytes(4), times, bytes(16), turn, bytes(28)), track)
