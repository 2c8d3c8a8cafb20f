"""A few kilobytes of pickle that want gigabytes: the same object, copied again and again."""

import pickle
import struct


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def copied_text(size: int, times: int) -> bytes:
    """One long text, encoded ``times`` times."""
    once = b"c_codecs\nencode\n" + b"h\0" + text("latin1") + b"\x86R"
    return b"\x80\2" + text("x" * size) + b"q\0" + b"0" + b"(" + once * times + b"l."


def copied_set(size: int, times: int) -> bytes:
    """One long list, made into ``times`` sets."""
    numbers = b"(" + b"K\0" * size + b"l" + b"q\0" + b"0"
    return b"\x80\2" + numbers + b"(" + b"cbuiltins\nset\nh\0\x85R" * times + b"l."


def many_lists(count: int) -> bytes:
    """One byte a list."""
    return b"\x80\2(" + b"]" * count + b"l."


def long_names(size: int, times: int) -> bytes:
    """Ground truth with one long name, again and again."""
    name = "x" * size
    return pickle.dumps({"imlist": [name] * times, "qimlist": [], "gnd": []}, 2)


def shared_labels(labels: int, queries: int, kind: str = "gnd") -> bytes:
    """Ground truth whose queries have the same labels: counted, nested, by name, or letters."""
    if kind in ("named", "text"):
        entry = {"image": "a", "easy": ["a"] * labels if kind == "named" else "a" * labels}
        return pickle.dumps({"database": ["a"], "queries": [entry] * queries}, 2)
    shared = [0] * labels
    easy = [shared] * labels if kind == "nested" else shared
    entry = {"easy": easy, "bbx": easy if kind == "box" else None}
    if kind == "box":
        entry["easy"] = []
    return pickle.dumps({"imlist": ["a"], "qimlist": ["a"] * queries, "gnd": [entry] * queries}, 2)


def shaped_array(shape: bytes) -> bytes:
    """An array of eight bytes, whose shape is what these instructions make."""
    kind = b"cnumpy\ndtype\n" + text("u1") + b"\x85R"
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R"
    raw = b"c_codecs\nencode\n" + text("A" * 8) + text("latin1") + b"\x86R"
    return b"\x80\2" + array + b"(K\1" + shape + kind + b"\x89" + raw + b"tb."


def shared_tuples(depth: int) -> bytes:
    """A tuple that holds one three times, which holds another three times…"""
    return text("x" * 100) + b"q\1" + b"h\1h\1\x87q\1" * depth


def nested_by_parts(depth: int) -> bytes:
    """A list that holds lists in lists, in parts of ten, each of which holds the part before it.

    ``depth`` is a multiple of ten. The last part, number ``depth`` of the memo, stands first.
    """
    parts = b""
    for number in range(10, depth + 1, 10):
        place = struct.pack("<I", number)
        parts += b"\x85" * 10 + b"r" + place + b"0h\0j" + place + b"a0j" + place
    return b"]q\0]" + parts + b"0"
