"""Small or hollow archives that make a lot of work."""

import gzip
import io
import struct
import tarfile


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
