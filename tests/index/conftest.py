"""Pictures and where to index them; an index to put into a store."""

import pytest
from index_folders import Stopped, Stopping, build
from stubs import Thumbnail, paint

from retrieval import index
from retrieval.collections import open_collection
from retrieval.index.export import export

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


@pytest.fixture
def photos(tmp_path):
    """Five pictures of different sizes."""
    root = tmp_path / "my pictures"
    for seed, name in enumerate(("a.png", "b b.png", "ç.png", "sub/d.png", "sub/e 日本.png")):
        paint(root / name, seed, (40 + seed, 30))
    return root


@pytest.fixture
def out(tmp_path):
    return tmp_path / "indexes" / "one"


@pytest.fixture
def unfinished(photos, out):
    """The working folder of a build that was stopped after two pictures."""
    with pytest.raises(Stopped):
        build(photos, out, Stopping())
    assert not out.exists()
    (work,) = out.parent.iterdir()
    return work


@pytest.fixture(scope="session")
def metadata(exported):
    return {
        name: {"landmark": "chapel" if n % 3 == 0 else "mill", "year": 1900 + n}
        for n, name in enumerate(exported.names)
    }


@pytest.fixture(scope="session")
def address(milvus, exported, metadata):
    """Where ``exported`` is, with its metadata."""
    one = milvus.address("pictures")
    assert export(exported, one, metadata) == len(exported)
    return one


@pytest.fixture
def opened(milvus, address):
    return index.load(str(address))
