"""The network file that a training writes, in cirtorch's form.

``meta`` says method, architecture, pre-processing and settings; its ``trained`` how it was made;
``state_dict`` holds the tensors. A trunk that was not trained is not in the file: ``trunk`` names
the checkpoint that has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from retrieval.errors import RetrievalError
from retrieval.networks.checkpoints import Checkpoint
from retrieval.networks.records import IMAGENET_TRUNK
from retrieval.training.loop import Settings
from retrieval.training.photographs import Photographs


def file_content(
    checkpoint: Checkpoint,
    tensors: Mapping[str, torch.Tensor],
    trained: Mapping[str, Any],
    **meta: Any,
) -> dict[str, Any]:
    """What ``torch.save`` writes: a dictionary of ``meta`` and ``state_dict``.

    checkpoint: the training started from it. tensors: by name; matrices become half precision.
    trained: from ``training_record``. meta: further entries of ``meta``.
    Raises RetrievalError where a number is infinite or NaN in half precision.
    """
    if not any(name.startswith("features.") for name in tensors):
        meta["trunk"] = {"checkpoint": checkpoint.id, "sha256": checkpoint.sha256}
    meta |= {
        "method": checkpoint.method,
        "architecture": checkpoint.trunk,
        "mean": checkpoint.mean,
        "std": checkpoint.std,
        "settings": checkpoint.settings,  # not cirtorch's, which ignores them
        "trained": trained,
    }
    state = {
        name: value.detach().cpu().half() if value.ndim > 1 else value.detach().cpu()
        for name, value in tensors.items()
    }
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise RetrievalError(
            "The network is not written: a weight is infinite or NaN in half precision. "
            "Begin again with a lower --rate and with --out elsewhere."
        )
    # Pickle writes an object that occurs twice once. Copies make the bytes depend on values only.
    return {"meta": json.loads(json.dumps(meta)), "state_dict": state}


def trunk_tensors(features: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a trunk that was trained, by their names in a file."""
    return {f"features.{name}": value for name, value in features.state_dict().items()}


def training_record(
    checkpoint: Checkpoint,
    photos: Photographs,
    labels: str,
    settings: Settings,
    history: Sequence[Mapping[str, Any]],
    matches: int | None = None,
) -> dict[str, Any]:
    """How a network was made, as plain values for JSON.

    checkpoint: the training started from it. labels: which labels it used. history: all epochs.
    matches: number of matching pairs, where the method learns from pairs. Times are left out, so
    that the same training gives the same bytes.
    """
    training, held_out = photos.split()
    values = asdict(settings)
    defaults = asdict(type(settings)())
    options = [f"--{name} {value}" for name, value in values.items() if value != defaults[name]]
    start = [] if checkpoint.id == IMAGENET_TRUNK else [f"--checkpoint {checkpoint.id}"]
    command = ["python -m retrieval train", checkpoint.method, photos.collection.name]
    return {
        "command": " ".join([*command, *start, *options]),
        "collection": photos.collection.name,
        "fingerprint": photos.collection.fingerprint,
        "pictures": len(training),
        "held_out": len(held_out),
        "labels": labels,
        "from": checkpoint.id,
        "from_sha256": checkpoint.sha256,
        "settings": values,
        **({} if matches is None else {"matches": matches}),
        "epochs": [{key: row[key] for key in row if key != "seconds"} for row in history],
    }
