"""Indexes in folders: built, stopped, and compared."""

from pathlib import Path

import numpy as np
from stubs import Thumbnail

from retrieval import index
from retrieval.collections import open_collection


def build(folder, out, method=None, **options):
    return index.build(open_collection(folder), method or Thumbnail(), out, **options)


class Stopped(Exception):
    pass


class Stopping(Thumbnail):
    """Stops before its third picture."""

    def describe(self, picture, box=None):
        if len(self.described) == 2:
            raise Stopped
        return super().describe(picture, box)


def snapshot(path):
    return {str(file): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}


def same(a, b):
    """Two indexes hold the same features for the same pictures."""
    assert a.names == b.names
    np.testing.assert_array_equal(a.sizes, b.sizes)
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name])
