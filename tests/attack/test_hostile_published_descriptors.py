"""Files of published descriptors (.mat) that do harm."""

import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat
from stubs import refused

from retrieval.errors import RetrievalError
from retrieval.evaluation.published_descriptors import read_mat


def test_published_descriptors_that_unpack_to_more_than_they_should(tmp_path):
    path, sent = tmp_path / "a.mat", np.random.default_rng(0).normal(size=(2048, 5))
    savemat(path, {"Q": sent[:, :2], "X": sent[:, 2:]}, do_compression=True)
    np.testing.assert_allclose(read_mat(path, 2, 3)[1], sent[:, 2:].T, rtol=1e-6)

    size = 20_000_000  # stated for the numbers of Q, whose shape says 2048 × 2
    head = struct.pack("<IIIIIIii", 6, 8, 6, 0, 5, 8, 2048, 2) + struct.pack("<HH4s", 1, 1, b"Q")
    head += struct.pack("<II", 9, size)
    bomb = zlib.compress(struct.pack("<II", 14, len(head) + size) + head + bytes(size))
    data = path.read_bytes()
    path.write_bytes(data[:128] + struct.pack("<II", 15, len(bomb)) + bomb + data[128:])
    with pytest.raises(RetrievalError, match=r"a\.mat is not a readable") as caught:
        read_mat(path, 2, 3)
    assert "unpacks to more" in str(caught.value.__cause__)

    small = zlib.compress(bytes(400_000))  # each is small, and all of them would take minutes
    path.write_bytes(data + 10 * (struct.pack("<II", 15, len(small)) + small))
    with pytest.raises(RetrievalError, match=r"a\.mat is not a readable") as caught:
        read_mat(path, 2, 3)
    assert "unpacks to more" in str(caught.value.__cause__)


def test_published_descriptors_that_point_back(tmp_path, monkeypatch):
    """28 bytes of MATLAB version 4: -3 numbers, so that the next variable begins here again."""
    path = tmp_path / "a.mat"
    path.write_bytes(struct.pack("<5i", 0, -3, 1, 0, 4) + b"abc\0" + bytes(4))
    monkeypatch.setattr("scipy.io.whosmat", lambda *_: pytest.fail("it would never end"))
    with pytest.raises(RetrievalError, match=r"a\.mat is not a readable"):
        read_mat(path, 2, 3)


def test_published_descriptors_with_very_many_variables(tmp_path, monkeypatch):
    """scipy loads the two and stops, but lists all: 490 MB took 1.1 GB and 156 s."""
    path = tmp_path / "a.mat"
    savemat(path, {"Q": np.ones((2048, 2)), "X": np.ones((2048, 3))})
    savemat(empty := tmp_path / "b.mat", {"a": np.empty((0, 0))})
    path.write_bytes(path.read_bytes() + 99 * empty.read_bytes()[128:])
    monkeypatch.setattr("scipy.io.whosmat", lambda *_: pytest.fail("it would list all of them"))
    with pytest.raises(RetrievalError, match=r"a\.mat is not a readable") as caught:
        read_mat(path, 2, 3)
    assert "more variables" in str(caught.value.__cause__)


def test_published_descriptors_with_a_name_of_megabytes(tmp_path, monkeypatch):
    """One of 400 MB took 1.2 GB: only what was packed was counted."""
    path = tmp_path / "a.mat"
    savemat(path, {"Q": np.ones((2048, 2)), "X": np.ones((2048, 3))})
    savemat(named := tmp_path / "b.mat", {"a" * 31: np.ones(1)})
    data, length = named.read_bytes()[128:], 2_000_000
    start = data.index(b"a" * 31)
    sizes = struct.pack("<II", 14, len(data) - 40 + length), struct.pack("<I", length)
    name = sizes[0] + data[8 : start - 4] + sizes[1] + b"a" * length + data[start + 32 :]
    path.write_bytes(path.read_bytes() + name)
    monkeypatch.setattr("scipy.io.whosmat", lambda *_: pytest.fail("it would read the name"))
    with pytest.raises(RetrievalError, match=r"a\.mat is not a readable") as caught:
        read_mat(path, 2, 3)
    assert "holds more" in str(caught.value.__cause__)


def test_published_descriptors_with_a_type_that_does_not_exist(tmp_path):
    """scipy ended the process."""
    path = tmp_path / "a.mat"
    savemat(path, {"Q": np.ones((2048, 2), np.float32), "X": np.ones((2048, 3))})
    data = bytearray(path.read_bytes())
    data[173], data[176] = 15, 0
    path.write_bytes(data)
    refused("a.mat is refused", read_mat, path, 2, 3)


def test_published_descriptors_made_of_cells(tmp_path):
    """100 MB of those for RParis6k took 2.5 GB."""
    path, cells = tmp_path / "a.mat", np.full((2048, 3), None)
    cells[:] = [[np.zeros(1)] * 3] * 2048
    numbers = np.zeros((2048, 5))
    savemat(path, {"Q": numbers[:, :2], "X": cells})
    with pytest.raises(RetrievalError, match="'cell'"):
        read_mat(path, 2, 3)
    first = path.read_bytes()
    savemat(path, {"X": numbers[:, 2:]})
    path.write_bytes(first + path.read_bytes()[128:])  # scipy reads the cells and not these
    with pytest.raises(RetrievalError, match=r"'cell'.*'double'"):
        read_mat(path, 2, 3)
