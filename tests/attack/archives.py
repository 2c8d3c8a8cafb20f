"""Small or hollow archives that make a lot of work."""

import struct


def many_files(count: int) -> bytes:
    """A zip that lists ``count`` empty files, all of them the same bytes."""
    local = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 5, 0) + b"a.jpg"
    fields = (20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0)
    listed = b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", *fields) + b"a.jpg"
    end = struct.pack("<HHHHIIH", 0, 0, count & 65535, count & 65535, len(listed) * count,
                      len(local), 0)  # fmt: skip
    return local + listed * count + b"PK\5\6" + end
