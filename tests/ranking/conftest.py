"""An index of vectors in groups, shared by the tests of re-rankers."""

import pytest
from made_up import save, scene


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    vectors, query = scene(1)
    return save(tmp_path_factory.mktemp("groups") / "index", vectors), query
