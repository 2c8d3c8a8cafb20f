"""Indexes of made-up vectors, without pictures."""

from types import SimpleNamespace

import numpy as np

from retrieval import index
from retrieval.index import saving
from retrieval.index.content import Content


def save(folder, vectors):
    """An index of given vectors (N, D), without pictures."""
    folder.mkdir(parents=True)
    names = [f"{i:03}.jpg" for i in range(len(vectors))]
    records = [{"name": name, "sha256": "", "width": 0, "height": 0} for name in names]
    method = SimpleNamespace(
        kind="global", name="sir", settings={}, checkpoint=SimpleNamespace(id="stub", sha256="a")
    )
    collection = SimpleNamespace(name="vectors", fingerprint="f", root=None)
    arrays = {"descriptors": vectors.astype(np.float16)}
    saving.save(folder, folder, method, collection, Content(records, arrays, []))
    return index.load(folder)


def scene(seed, count=60, dimensions=24, things=6):
    """Vectors that lie in groups, as pictures of a few things do, and a query of the first."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(things, dimensions))
    vectors = centres[np.arange(count) % things] + rng.normal(size=(count, dimensions)) * 0.7
    query = centres[0] + rng.normal(size=dimensions) * 0.7
    return unit(vectors), unit(query).astype(np.float32)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def exact(opened):
    """The vectors as the index has them, in double precision."""
    return opened.arrays["descriptors"].astype(np.float64)
