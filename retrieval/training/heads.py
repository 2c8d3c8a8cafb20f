"""Fit the heads of the embedded checkpoints on a collection, without any label.

- SIR's layer and the whitening of CNN-IRwNHA: learned from synthetic second views of each picture,
  so that what changes with crop, perspective and light counts less (``whitening.learn``).
- DELF: PCA of local descriptors to 40 dimensions (Noh et al., ICCV 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from retrieval import checkpoints, images, methods
from retrieval.errors import RetrievalError
from retrieval.index.store import file_digest, write_json
from retrieval.training import views, whitening

SEED = 0
VIEWS = 5  # second views of each picture
SHRINKAGE = 0.5
LOCAL_SAMPLE = 200  # local descriptors of each picture that the PCA sees
MIN_PICTURES = 20

DIMENSIONS = {"sir": 1024, "delf": 40, "cnn-irwnha": 512}
# What the methods call weight and bias of their head.
NAMES = {
    "sir": ("weight", "bias"),
    "delf": ("pca.components", "pca.bias"),
    "cnn-irwnha": ("whiten.weight", "whiten.bias"),
}


def fit(
    method: str,
    collection,
    progress: Callable[[int, int, str], None] | None = None,
    which: str | None = None,
) -> Path:
    """Fit the head of a checkpoint on the database pictures of a collection.

    which: a registered checkpoint that has a head of ours; by default the method's embedded one.
    Writes ``retrieval/heads/<checkpoint>.npz`` (half precision) and the record of how it was made.
    Indexes made with the former head are refused from then on.
    """
    if len(collection.names) < MIN_PICTURES:
        raise RetrievalError(f"Fitting needs at least {MIN_PICTURES} pictures.")
    checkpoint = checkpoints.find(method, which)
    if checkpoint.head is None:
        raise RetrievalError(f"Checkpoint {checkpoint.id} brings all its weights: nothing to fit.")
    one_scale = {"scales": [1.0]} if method == "cnn-irwnha" else {}
    bare = methods.load_record(replace(checkpoint, head=None), **one_scale)
    rng = np.random.default_rng(SEED)
    rows = []
    for done, name in enumerate(collection.names, 1):
        picture = images.read(collection.path(name))
        if bare.kind == "global":
            size = bare.settings["size"]
            several = [views.second_view(picture, rng, size) for _ in range(VIEWS)]
            rows.append(np.stack([bare.describe(view) for view in several]))
        else:
            descriptors = bare.describe(picture).descriptors
            rows.append(descriptors[rng.permutation(len(descriptors))[:LOCAL_SAMPLE]])
        if progress:
            progress(done, len(collection.names), name)

    dimensions = DIMENSIONS[method]
    if bare.kind == "global":
        layer = whitening.learn(np.stack(rows), dimensions, SHRINKAGE)
        recipe = {"learned_from": f"{VIEWS} synthetic views a picture", "shrinkage": SHRINKAGE}
    else:
        layer = whitening.pca(np.concatenate(rows), dimensions)
        recipe = {"learned_from": f"at most {LOCAL_SAMPLE} local descriptors a picture"}
    path = checkpoints.HEADS / f"{checkpoint.head}.npz"
    path.parent.mkdir(exist_ok=True)
    halves = [array.astype(np.float16) for array in layer]
    np.savez(path, **dict(zip(NAMES[method], halves, strict=True)))
    record = {
        "command": f"python -m retrieval fit {collection.name} --method {method}"
        + (f" --checkpoint {which}" if which else ""),
        "collection": {"name": collection.name, "fingerprint": collection.fingerprint},
        "pictures": len(collection.names),
        "labels": "none",
        **recipe,
        "dimensions": dimensions,
        "seed": SEED,
        "settings": bare.settings,
        "trunk_sha256": checkpoint.file_sha256,
        "head_sha256": file_digest(path),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(path.with_suffix(".json"), record)
    return path
