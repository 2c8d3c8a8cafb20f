"""An index to put into a store."""

import pytest
from stubs import Thumbnail, paint

from retrieval import index
from retrieval.collections import open_collection

# Names that a filter or a table might stumble over.
ODD = ("a.png", 'b "b".png', "c\\c.png", "sub/d 日本.png", "sub/e'.png", "{f}.png")
COUNT = 30


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of COUNT small pictures; two are the same."""
    root = tmp_path_factory.mktemp("pictures of a store")
    names = [*ODD, *(f"{number:02}.png" for number in range(COUNT - len(ODD)))]
    for seed, name in enumerate(names):
        paint(root / name, min(seed, COUNT - 2))
    return root


@pytest.fixture(scope="session")
def exported(tmp_path_factory, pictures):
    """The index of ``pictures``, in a folder."""
    out = tmp_path_factory.mktemp("indexes") / "thumbnails"
    return index.build(open_collection(pictures), Thumbnail(), out)
