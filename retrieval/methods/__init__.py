"""The three methods. Naming one is free; ``load`` imports torch and takes seconds."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from retrieval import checkpoints
from retrieval.errors import RetrievalError
from retrieval.methods.base import Method


class Entry(NamedTuple):
    """What can be said of a method without loading it."""

    name: str
    title: str
    kind: str
    summary: str
    paper: str
    module: str
    class_name: str

    @property
    def default(self) -> str:
        """The id of the checkpoint used unless another is named."""
        return checkpoints.of_method(self.name)[0].id


METHODS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "sir",
            "SIR",
            "global",
            "One vector a picture: frozen ImageNet features, a 1024-unit layer, cosine.",
            "Babenko et al., Neural Codes for Image Retrieval, ECCV 2014",
            "sir",
            "SIR",
        ),
        Entry(
            "delf",
            "DELF",
            "local",
            "Hundreds of local features a picture, matched one by one and checked by geometry.",
            "Noh et al., Large-Scale Image Retrieval with Attentive Deep Local Features, ICCV 2017",
            "delf",
            "DELF",
        ),
        Entry(
            "cnn-irwnha",
            "CNN-IRwNHA",
            "global",
            "One vector a picture: convolutional features, GeM pooling, whitening, three scales.",
            "Radenović et al., Fine-Tuning CNN Image Retrieval with No Human Annotation, "
            "TPAMI 2018",
            "gem",
            "GeM",
        ),
    )
}


def load(method: str, checkpoint: str | Path | None = None, **settings) -> Method:
    """A method with its weights, ready to describe pictures.

    method: 'sir', 'delf' or 'cnn-irwnha'. checkpoint: a registered id, a file, or the default.
    settings: override those of the checkpoint (``size``, ``scales``, …).
    """
    if method not in METHODS:
        raise RetrievalError(f"Unknown method {method!r}; there are: {', '.join(METHODS)}.")
    return load_record(checkpoints.find(method, checkpoint), **settings)


def load_record(record: checkpoints.Checkpoint, **settings) -> Method:
    """The method of a checkpoint record, with its weights."""
    entry = METHODS[record.method]
    if record.format == "saved-model":
        from retrieval.methods.tfhub import HubDELF

        return HubDELF(record, **settings)
    cls = getattr(import_module(f"retrieval.methods.{entry.module}"), entry.class_name)
    return cls(record, **settings)


def for_index(index, checkpoint: str | Path | None = None) -> Method:
    """The method that made an index. checkpoint: its file, where it is not a registered one."""
    return load(index.method, checkpoint or index.checkpoint, **index.settings)
