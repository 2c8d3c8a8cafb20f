"""Kept runs that rest on more than their own index."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from retrieval import index
from retrieval.collections.ground_truth import Query
from retrieval.errors import RetrievalError
from retrieval.evaluation import runs


def test_a_kept_run_that_another_delf_index_verified(indexes, collection, tmp_path):
    """``geometry-delf`` verifies what a global method found with the DELF index beside it."""
    for name in ("sir", "delf"):
        shutil.copytree(indexes[name].path, tmp_path / name)
    sir, then = index.load(tmp_path / "sir"), ("geometry-delf",)
    asked = (Query(collection.names[0], labels={"ok": np.array([1])}),)
    labelled = replace(collection, queries=asked)
    ranks = np.arange(len(collection.names))[:, None]
    for chain in ((), then):
        runs.record_run(sir, labelled, ranks, {"search": np.ones(1)}, chain)
    assert runs.load_run(sir, labelled, then) is not None
    manifest = tmp_path / "delf" / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8") + "\n", "utf-8")  # another, by its SHA-256
    with pytest.raises(RetrievalError, match=r"earlier index.* --then geometry-delf"):
        runs.load_run(sir, labelled, then)
    assert runs.load_run(sir, labelled) is not None  # no DELF was asked
