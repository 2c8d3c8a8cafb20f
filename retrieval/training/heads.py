"""Fit the heads of the embedded checkpoints on a collection, without any label.

- SIR's layer and the whitening of CNN-IRwNHA: learned from synthetic second views of each picture,
  so that what changes with crop, perspective and light counts less (``whitening.learn``).
- DELF: PCA of local descriptors to 40 dimensions (Noh et al., ICCV 2017), and the attention, from
  pictures that agree with each other (``attention.learn``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval import images, methods
from retrieval.errors import RetrievalError
from retrieval.index.store import file_digest, write_json
from retrieval.networks import checkpoints
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


def check(method: str, which: str | None = None) -> checkpoints.Checkpoint:
    """The checkpoint whose head is to be fitted. Raises RetrievalError where it has none."""
    checkpoint = checkpoints.find(method, which)
    if checkpoint.head is None:
        raise RetrievalError(f"Checkpoint {checkpoint.id} brings all its weights: nothing to fit.")
    return checkpoint


def fit(
    method: str,
    collection,
    progress: Callable[[int, int, str], None] | None = None,
    which: str | None = None,
) -> Path:
    """Fit the head of a checkpoint on the database pictures of a collection.

    which: a registered checkpoint that has a head of ours; by default the method's embedded one.
    Pictures that cannot be read are left out. progress(done, total, name): DELF sees them twice.
    Writes ``networks/heads/<checkpoint>.npz`` (half precision) and the record of how it was made.
    Indexes made with the former head are refused from then on.
    """
    if len(collection.names) < MIN_PICTURES:
        raise RetrievalError(f"Fitting needs at least {MIN_PICTURES} pictures.")
    checkpoint = check(method, which)
    one_scale = {"scales": [1.0]} if method == "cnn-irwnha" else {}
    bare = methods.load_record(replace(checkpoint, head=None), **one_scale)
    rng = np.random.default_rng(SEED)
    dimensions = DIMENSIONS[method]
    rows = []
    for picture in pictures_of(collection, progress):
        if bare.kind == "global":
            size = bare.settings["size"]
            several = [views.second_view(picture, rng, size) for _ in range(VIEWS)]
            rows.append(np.stack([bare.describe(view) for view in several]))
        else:
            descriptors = bare.describe(picture).descriptors
            rows.append(descriptors[rng.permutation(len(descriptors))[:LOCAL_SAMPLE]])
    if len(rows) < MIN_PICTURES:
        raise RetrievalError(f"Only {len(rows)} pictures can be read, and fitting needs more.")
    if bare.kind == "global":
        layer = whitening.learn(np.stack(rows), dimensions, SHRINKAGE)
        recipe = {"learned_from": f"{VIEWS} synthetic views a picture", "shrinkage": SHRINKAGE}
    else:
        sample = np.concatenate(rows)
        if len(sample) <= dimensions:
            raise RetrievalError(f"There are too few keypoints in {collection.title} to fit on.")
        layer = whitening.pca(sample, dimensions)
        recipe = {"learned_from": f"at most {LOCAL_SAMPLE} local descriptors a picture"}
    arrays = dict(zip(NAMES[method], layer, strict=True))
    if bare.kind == "local":
        layers, recipe["attention"] = _attention(bare, layer, collection, progress)
        arrays |= layers
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    if not all(np.isfinite(array).all() for array in halves.values()):
        raise RetrievalError(f"The pictures of {collection.title} vary too little to fit on.")
    path = checkpoints.HEADS / f"{checkpoint.head}.npz"
    record = {
        "command": f"python -m retrieval fit {collection.name} --method {method}"
        + (f" --checkpoint {which}" if which else ""),
        "collection": {"name": collection.name, "fingerprint": collection.fingerprint},
        "pictures": len(rows),
        "labels": "none",
        **recipe,
        "dimensions": dimensions,
        "seed": SEED,
        "settings": bare.settings,
        "trunk_sha256": checkpoint.file_sha256,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _put(path, halves, record)
    return path


def _put(path: Path, head: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """Write a head and its record, each put in place by a rename: the former stays whole."""
    new = path.with_name(f"{path.stem}.{os.getpid()}.new")
    try:
        path.parent.mkdir(exist_ok=True)
        with open(new, "wb") as file:
            np.savez(file, **head)
        record["head_sha256"] = file_digest(new)
        os.replace(new, path)
        write_json(new, record)
        os.replace(new, path.with_suffix(".json"))
    except OSError as error:
        reason = error.strerror or "the disk is full"
        raise RetrievalError(f"{path} cannot be written: {reason}.") from error
    finally:
        new.unlink(missing_ok=True)


def pictures_of(
    collection, progress: Callable[[int, int, str], None] | None, most: int | None = None
) -> Iterator[Image.Image]:
    """The database pictures that can be read; of more than ``most``, as many evenly spread."""
    names = collection.names
    if most is not None and len(names) > most:
        names = [names[position] for position in np.linspace(0, len(names) - 1, most, dtype=int)]
    for done, name in enumerate(names, 1):
        with contextlib.suppress(images.PictureError):
            yield images.read(collection.path(name))
        if progress:
            progress(done, len(names), name)


def _attention(bare, pca, collection, progress) -> tuple[dict[str, np.ndarray], Any]:
    """Layers of the attention, and the record of how they were learned."""
    import torch

    from retrieval.training import attention

    bare.pca = tuple(torch.from_numpy(array.astype(np.float32)) for array in pca)
    rng = np.random.default_rng(SEED)
    pictures = pictures_of(collection, progress, attention.PICTURES)
    learned = attention.learn([attention.look(bare, picture, rng) for picture in pictures])
    if learned is None:
        return {}, "the feature norm: too few pictures agree with each other to learn from them"
    return learned.layers, {
        "learned_from": "places that match where geometry puts them, in pictures that agree",
        "pairs": learned.pairs,
        "examples": learned.examples,
        "matchable": round(learned.matchable, 3),
        "auc_held_out": {
            name: None if np.isnan(value) else round(value, 3)
            for name, value in learned.auc.items()
        },
    }
