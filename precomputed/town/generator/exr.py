"""Read the multi-layer OpenEXR files that Blender writes (scan lines, ZIP or none)."""

import struct
import zlib
from pathlib import Path

import numpy as np

TYPES = {0: ("<u4", 4), 1: ("<f2", 2), 2: ("<f4", 4)}


def read(path):
    """Return {channel name: (height, width) array}."""
    data = Path(path).read_bytes()
    assert data[:4] == b"\x76\x2f\x31\x01", "not an OpenEXR file"
    pos, head = 8, {}
    while data[pos]:
        end = data.index(0, pos)
        name = data[pos:end].decode()
        end2 = data.index(0, end + 1)
        size = struct.unpack_from("<i", data, end2 + 1)[0]
        head[name] = data[end2 + 5 : end2 + 5 + size]
        pos = end2 + 5 + size
    pos += 1
    channels, raw, at = [], head["channels"], 0
    while raw[at]:
        end = raw.index(0, at)
        channels.append((raw[at:end].decode(), struct.unpack_from("<i", raw, end + 1)[0]))
        at = end + 17
    x0, y0, x1, y1 = struct.unpack("<4i", head["dataWindow"])
    width, height = x1 - x0 + 1, y1 - y0 + 1
    rows = {0: 1, 2: 1, 3: 16}[head["compression"][0]]
    line = sum(TYPES[kind][1] for _, kind in channels) * width
    out = {name: np.zeros((height, width), TYPES[kind][0]) for name, kind in channels}
    for k in range((height + rows - 1) // rows):
        offset = struct.unpack_from("<Q", data, pos + 8 * k)[0]
        y, size = struct.unpack_from("<ii", data, offset)
        block = data[offset + 8 : offset + 8 + size]
        count = min(rows, height - (y - y0))
        if size < line * count:  # compressed: undo zip, delta and interleave
            packed = np.frombuffer(zlib.decompress(block), np.uint8).astype(np.int64)
            packed[1:] -= 128
            packed = np.cumsum(packed).astype(np.uint8)
            half = (len(packed) + 1) // 2
            plain = np.empty(len(packed), np.uint8)
            plain[0::2], plain[1::2] = packed[:half], packed[half:]
            block = plain.tobytes()
        at = 0
        for row in range(count):
            for name, kind in channels:
                dtype, bytes_each = TYPES[kind]
                out[name][y - y0 + row] = np.frombuffer(block, dtype, width, at)
                at += width * bytes_each
    return out
