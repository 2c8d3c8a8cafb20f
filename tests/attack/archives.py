"""Small or hollow archives that make a lot of work."""

import gzip
import io
import struct
import tarfile
import zipfile


def many_files(count: int) -> bytes:
    """A zip that lists ``count`` empty files, all of them the same bytes."""
    local = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 5, 0) + b"a.jpg"
    fields = (20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0)
    listed = b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", *fields) + b"a.jpg"
    end = struct.pack("<HHHHIIH", 0, 0, count & 65535, count & 65535, len(listed) * count,
                      len(local), 0)  # fmt: skip
    return local + listed * count + b"PK\5\6" + end


def extended_tar(records: list[bytes]) -> bytes:
    """A tar.gz of empty pictures, each with an extended header of these bytes."""
    out = io.BytesIO()
    for number, record in enumerate(records):
        header = tarfile.TarInfo("extended")
        header.type, header.size = tarfile.XHDTYPE, len(record)
        picture = tarfile.TarInfo(f"{number}.jpg").tobuf(tarfile.USTAR_FORMAT)
        out.write(header.tobuf(tarfile.USTAR_FORMAT) + record + b"\0" * (-len(record) % 512))
        out.write(picture)
    out.write(b"\0" * 1024)
    return gzip.compress(out.getvalue())


def empty_members(size: int) -> bytes:
    """A gzip file of ``size`` bytes, made of members that hold nothing."""
    member = gzip.compress(b"")
    return member * (size // len(member))


def empty_blocks(size: int, name: str = "a.jpg") -> bytes:
    """A zip whose one file is deflated blocks that hold nothing, each with codes of its own."""
    numbers = [(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)]  # not the last; dynamic codes; how many
    numbers += [(int(place in (2, 17)), 3) for place in range(18)]  # lengths of code 18 and code 1
    numbers += [(1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1)]  # 256 zeros, then two ones
    numbers += [(0, 1)]  # the end of the block
    bits = "".join(f"{number:0{length}b}"[::-1] for number, length in numbers)
    blocks = int((bits * 4)[::-1], 2).to_bytes(len(bits) // 2, "little")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, blocks * (size // len(blocks)))
    data = bytearray(out.getvalue())
    for at in (8, data.rindex(b"PK\1\2") + 10):  # where both headers name the method
        data[at : at + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
    return bytes(data)
