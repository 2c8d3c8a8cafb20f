"""What several test files ask of an index in Milvus."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from retrieval import images, index
from retrieval.collections import Collection
from retrieval.collections.ground_truth import Query
from retrieval.index import milvus_client

ROOT = Path(__file__).parents[2]


def cli(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "retrieval", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def client(server):
    return milvus_client.library().MilvusClient(f"http://127.0.0.1:{server.port}")


def picture(root, name):
    return images.read(root / name)


def same_ranking(a, b):
    assert a.names == b.names
    np.testing.assert_array_equal(a.positions, b.positions)
    np.testing.assert_array_equal(a.scores, b.scores)


def labelled(pictures, exported, count=3):
    queries = tuple(
        Query(name, None, f"landmark {n}", {"ok": np.array([n, n + 9]), "junk": np.array([20])})
        for n, name in enumerate(exported.names[:count])
    )
    return Collection(pictures.name, "Pictures", pictures, exported.names, queries)


def content(address):
    """Everything that a reader can see of a store: names, descriptors, digests, sizes."""
    part = index.load(str(address)).first(10**4)
    return (
        part.names,
        part.digests,
        part.sizes.tolist(),
        part.arrays["descriptors"].tobytes(),
    )


def wanted(exported):
    return (
        exported.names,
        exported.digests,
        exported.sizes.tolist(),
        exported.arrays["descriptors"].tobytes(),
    )


def collections_of(milvus, alias):
    return [one for one in client(milvus).list_collections() if one.startswith(f"{alias}_")]
