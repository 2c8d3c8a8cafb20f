import contextlib
import os
import pickle
import random
import subprocess
import tracemalloc

import numpy as np
import pytest
from attack import pickled

from retrieval.collections.pickles import read_pickle
from retrieval.errors import RetrievalError

MARKER = "PICKLE_RAN"
DTYPE = b"cnumpy\ndtype\n"


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "gnd.pkl"
        path.write_bytes(data)
        return read_pickle(path)

    return read


PLAIN = {
    "imlist": ["a", "é"],
    "gnd": [{"bbx": [1, 2.5, -3, 2**40], "easy": [], "x": None, "y": True, "z": b"bytes"}],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_in_every_protocol(protocol, read):
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN
    assert read(pickle.dumps({"a": [(1, (2, 3), (4, 5, 6, 7), ()), {8}]}, protocol)) == {
        "a": [[1, [2, 3], [4, 5, 6, 7], []], [8]]
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.array([], int),
        np.array(["a", "bb"]),
        np.array([1.5], ">f4"),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True]),
        np.array(3),
        np.float32(3),
        np.array([b"ab", b"c"]),
    ],
)
def test_arrays_in_every_protocol(protocol, array, read):
    found = read(pickle.dumps({"a": [array, array]}, protocol))["a"][1]
    assert np.array_equal(found, array)
    assert np.asarray(found).dtype.kind == np.asarray(array).dtype.kind


@pytest.mark.parametrize("text", [np.array(["a", "b"]), np.str_("b")])
def test_text_with_a_character_that_there_is_none_of(text, read):
    data = pickle.dumps(text, 2)
    assert b"b\0\0\0" in data
    with pytest.raises(RetrievalError, match="not a readable pickle"):
        read(data.replace(b"b\0\0\0", b"b\0\0\x7f"))


def test_arrays_written_by_python_2(read):
    # numpy.array([1, 2], 'i4') under Python 2: raw data as a byte string with GLOBAL opcodes
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(S'i4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00'\ntb."
    )
    assert read(data).tolist() == [1, 2]


class Calls:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class Plain:
    pass


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "evil",
    [
        Calls(os.system, (f"touch {MARKER}",)),
        Calls(subprocess.check_call, (["touch", MARKER],)),
        Calls(eval, (f"open('{MARKER}', 'w')",)),
        Calls(len, ("hello",)),
        Calls(np.ndarray, ((10**13,),)),
        Calls(np.load, (MARKER,)),
        Calls(np.frombuffer, (b"12345678",)),
        Calls(bytearray, (10**12,)),
        Plain(),
        Plain,
        os.system,
        np.ndarray,
        range(3),
        1j,
        np.array([{}, []], object),
        np.array([(1, 2)], "i4,i4"),
        np.array(["2020"], "datetime64[D]"),
    ],
)
def test_nothing_is_called_and_no_other_object_is_made(evil, protocol, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RetrievalError, match=r"refused|not a readable pickle"):
        read(pickle.dumps({"imlist": [evil]}, protocol))
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch PICKLE_RAN'\ntR.",  # GLOBAL, REDUCE
        b"(S'touch PICKLE_RAN'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch PICKLE_RAN'\no.",  # OBJ
        b"\x80\x02cos\nsystem\n\x8c\x10touch PICKLE_RAN\x85\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x10touch PICKLE_RAN\x85R.",  # STACK_GLOBAL
        b"cnumpy\ndtype\n(S'O8'\ntR.",
        b"]}S'__class__'\ncos\nsystem\nsb.",  # BUILD on a list
        b"P1\n.",
        b"\x80\x02\x82\x01.",  # persistent id, extension registry
    ],
)
def test_handmade_attacks(data, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RetrievalError, match="refused"):
        read(data)
    assert not (tmp_path / MARKER).exists()


def test_object_dtype_cannot_be_smuggled_in_by_its_state(read):
    # A dtype whose state claims other flags would make numpy take raw bytes for pointers.
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I1\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'AAAAAAAA'\ntb."
    )
    with pytest.raises(RetrievalError, match="refused"):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"]",
        b"]a.",
        b"hello",
        b"<html>",
        b"\x80\x05",
        b"(",
        b"((t",
        b"0.",
        b"h\x05.",
        b"u.",
        b"I" + b"9" * 10000 + b"\n.",
        b"\x8e" + (10**15).to_bytes(8, "little") + b".",  # a string of a petabyte
        b"\x96" + (10**15).to_bytes(8, "little") + b".",  # a bytearray of a petabyte
        b"]r\xff\xff\xff\x7fh\x01.",  # a memo index of two thousand million
        pickle.dumps(PLAIN)[:-5],
    ],
)
def test_broken_pickles_are_refused(data, read):
    with pytest.raises(RetrievalError, match="not a readable pickle"):
        read(data)


def test_huge_memo_index_costs_nothing(read):
    assert read(b"]r\xff\xff\xff\x7f.") == []
    # Multiples of this have one hash: with 300,000 of them a dictionary takes minutes.
    with pytest.raises(RetrievalError, match="refused"):
        read(b"]p%d\n." % (2**61 - 1))


@pytest.mark.parametrize(
    "data",
    [
        b"]" * 500_000 + b"a" * 499_999 + b".",  # lists in lists
        b")" + b"\x85" * 500_000 + b".",  # tuples in tuples
        b"}" + b")" + b"\x85" * 500_000 + b"Ns.",  # and as a key, which would be hashed
        b"]\x940h\x00h\x00a.",  # a list that holds itself
        pickled.nested_by_parts(1000) + b"0h\x00.",  # parts of ten, first met at the top
    ],
)
def test_very_deep(data, read):
    with pytest.raises(RetrievalError, match=r"nested more than|not text"):
        read(data)


def test_shared_lists_stay_shared(read):
    """A hundred million entries that fit in 40 kB must not be written out; here a million."""
    inner = list(range(1000))
    found = read(pickle.dumps([inner] * 1000))
    assert found[0] is found[-1]


@pytest.mark.parametrize("depth", [12, 100_000])
@pytest.mark.parametrize(
    ("before", "after"), [(b"", pickled.text("a") + b"\x93."), (DTYPE, b"\x85R.")]
)
def test_what_stands_for_a_name_is_never_written_out(depth, before, after, read):
    """Three to the power of ``depth`` lists as text: a kilobyte took all memory."""
    tracemalloc.start()
    try:
        with pytest.raises(RetrievalError, match="not a readable pickle"):
            read(b"\x80\4" + before + pickled.shared_tuples(depth) + after)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_too_large(tmp_path):
    path = tmp_path / "gnd.pkl"
    with open(path, "wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(RetrievalError, match="more than 128 MB"):
        read_pickle(path)
    with pytest.raises(RetrievalError, match="cannot be read"):
        read_pickle(tmp_path / "missing.pkl")


def test_flipped_bytes_are_read_or_refused(read):
    data = pickle.dumps({"imlist": ["abc", "def"], "gnd": [{"ok": np.arange(5), "n": 3}]})
    random_ = random.Random(0)
    times_read = 0
    for _ in range(1000):
        broken = bytearray(data)
        for _ in range(random_.randint(1, 3)):
            broken[random_.randrange(len(broken))] = random_.randrange(256)
        with contextlib.suppress(RetrievalError):
            read(bytes(broken))
            times_read += 1
    assert 0 < times_read < 1000
