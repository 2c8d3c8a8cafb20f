"""The file that a training ends with: a network in cirtorch's form, and the record of its making.

``meta`` says method, architecture, pre-processing and settings, and ``trained`` how it was made;
``state_dict`` holds the tensors. A trunk that was left as it was is not in it: ``trunk`` names the
checkpoint that has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from retrieval.errors import RetrievalError
from retrieval.networks.checkpoints import Checkpoint
from retrieval.networks.records import PLAIN
from retrieval.training.loop import Settings
from retrieval.training.photographs import Photographs


def content(
    checkpoint: Checkpoint,
    tensors: Mapping[str, torch.Tensor],
    trained: Mapping[str, Any],
    **meta: Any,
) -> dict[str, Any]:
    """checkpoint: that training began with. tensors: matrices are kept in half precision.

    Raises RetrievalError where a number is too large for that, or is none.
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
            "The network is not written: a weight of it is no finite number in half precision. "
            "Begin again with a lower --rate and with --out elsewhere."
        )
    # Pickle notes which values are one object; those that were read again are not.
    return {"meta": json.loads(json.dumps(meta)), "state_dict": state}


def trunk(features: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Tensors of a trunk that learned, by their names in a file."""
    return {f"features.{name}": value for name, value in features.state_dict().items()}


def record(
    checkpoint: Checkpoint,
    photos: Photographs,
    labels: str,
    settings: Settings,
    rows: Sequence[Mapping[str, Any]],
    **more: Any,
) -> dict[str, Any]:
    """How a network was made. No clock: the same training gives the same bytes.

    labels: what was asked of them. settings: what differs from the defaults is in the command.
    """
    training, held_out = photos.split()
    chosen = asdict(settings)
    defaults = asdict(type(settings)())
    changed = [f"--{name} {value}" for name, value in chosen.items() if value != defaults[name]]
    start = [] if checkpoint.id == PLAIN else [f"--checkpoint {checkpoint.id}"]
    words = ["python -m retrieval train", checkpoint.method, photos.collection.name]
    return {
        "command": " ".join([*words, *start, *changed]),
        "collection": photos.collection.name,
        "fingerprint": photos.collection.fingerprint,
        "pictures": len(training),
        "held_out": len(held_out),
        "labels": labels,
        "from": checkpoint.id,
        "from_sha256": checkpoint.sha256,
        "settings": chosen,
        **more,
        "epochs": [{key: row[key] for key in row if key != "seconds"} for row in rows],
    }
