"""The three methods. Naming one is free; ``load`` imports torch and takes seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retrieval.errors import RetrievalError
from retrieval.methods.base import Method
from retrieval.networks import checkpoints
from retrieval.networks.records import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = ["METHODS", "XFEAT", "Entry", "Method", "custom", "for_index", "load", "load_record"]


class Entry(NamedTuple):
    """The description of a method, which needs no network.

    kind: 'global', 'local' or 'keypoints', see ``index.layout``. summary, paper: for the pages.
    module, class_name: where its class is, below ``retrieval.methods``.
    """

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
            "Simple image retrieval. One descriptor a picture: features of a network for ImageNet, "
            "averaged, then a trained layer of 1024 units.",
            "Babenko et al., Neural Codes for Image Retrieval, ECCV 2014",
            "sir",
            "SIR",
        ),
        Entry(
            "delf",
            "DELF",
            "local",
            "Deep local features. Hundreds of them a picture, matched one by one and checked by "
            "geometry.",
            "Noh et al., Large-Scale Image Retrieval with Attentive Deep Local Features, ICCV 2017",
            "delf",
            "DELF",
        ),
        Entry(
            "cnn-irwnha",
            "CNN-IRwNHA",
            "global",
            "CNN image retrieval with no human annotation. One descriptor a picture: "
            "convolutional features, GeM pooling, whitening, three scales.",
            "Radenović et al., Fine-Tuning CNN Image Retrieval with No Human Annotation, "
            "TPAMI 2018",
            "gem",
            "GeM",
        ),
    )
}

# XFeat checks the results of other methods by geometry. Its indexes are not searched.
XFEAT = Entry(
    "xfeat",
    "XFeat",
    "keypoints",
    "Up to 1024 keypoints a picture, to see whether two pictures show the same thing.",
    "Potje et al., XFeat: Accelerated Features for Lightweight Image Matching, CVPR 2024",
    "xfeat",
    "XFeat",
)


def load(method: str, checkpoint: str | Path | None = None, /, **settings) -> Method:
    """A method with its weights, ready to describe pictures.

    method: 'sir', 'delf' or 'cnn-irwnha'. checkpoint: a registered id, a file, or the default.
    settings: override those of the checkpoint (``size``, ``scales``, …).
    """
    if method not in METHODS:
        raise RetrievalError(f"Unknown method {method!r}; there are: {', '.join(METHODS)}.")
    return load_record(checkpoints.find(method, checkpoint), **settings)


def load_record(record: checkpoints.Checkpoint, /, **settings) -> Method:
    """The method of a checkpoint record, with its weights."""
    entry = XFEAT if record.method == XFEAT.name else METHODS[record.method]
    module, name = entry.module, entry.class_name
    if record.format == "saved-model":
        module, name = "tfhub", "HubDELF"
    cls = getattr(import_module(f"retrieval.methods.{module}"), name)
    # Settings may come out of a file: before they are passed on as arguments.
    if unknown := {**record.settings, **settings}.keys() - cls.defaults.keys():
        raise RetrievalError(
            f"{cls.title} has no setting {', '.join(sorted(map(str, unknown)))}; "
            f"it has: {', '.join(cls.defaults)}."
        )
    return cls(record, **settings)


def custom(
    name: str,
    model: torch.nn.Module,
    transform: Callable[[Image.Image], torch.Tensor] | None = None,
    *,
    method: str = "cnn-irwnha",
    pooling: str = "gem",
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    **settings,
) -> Method:
    """A network of your own as a checkpoint of SIR or CNN-IRwNHA, to index and search with.

    name: its id in manifests; give another one when you change ``transform``.
    model: a classifier of torchvision or timm, which is cut before its pooling, or any module from
    (1, 3, H, W) to a feature map (1, C, H, W) or a vector (1, D).
    transform: from an upright RGB picture, or the crop of it, to (3, H, W); by default it is
    brought to ``size``, 0 to 1, and normalised with ``mean`` and ``std``.
    pooling: 'gem', 'mac', 'spoc' or 'rmac', for CNN-IRwNHA; SIR averages. Vectors want 'spoc'.
    settings: ``size`` (1024, SIR 320), ``enlarge`` (False; True: smaller pictures are enlarged to
    that size) and, for CNN-IRwNHA, ``scales``.
    """
    if method not in ("sir", "cnn-irwnha"):
        raise RetrievalError("A network of your own can be used with sir and cnn-irwnha.")
    if name in checkpoints.REGISTRY:
        raise RetrievalError(f"{name} is a registered checkpoint; choose another name.")
    import torch

    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        # As bytes: numpy has no bfloat16.
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    record = checkpoints.Checkpoint(
        id=name,
        method=method,
        title=f"{type(model).__name__}, {'average' if method == 'sir' else pooling} pooling",
        trunk=type(model).__name__,
        trained_on="not stated",
        licence="not stated",
        source="brought by the user",
        weights_sha256=digest.hexdigest(),
        mean=mean,
        std=std,
        overlap="not stated",
        network=model,
        transform=transform,
        pooling=pooling,
    )
    return load_record(record, **settings)


def for_index(index, checkpoint: str | Path | None = None) -> Method:
    """The method that made an index.

    The index may be a stranger's, so the checkpoint that it names is looked up among the registered
    ones and never opened as a path. checkpoint: the user's own file, where it was made with one.
    Raises RetrievalError, before any weights are loaded, where they are not those of the index, and
    where its settings are of an earlier version: a query would be described in another way.
    """
    if checkpoint is None:
        record = checkpoints.registered(index.method, index.checkpoint)
    else:
        record = checkpoints.find(index.method, checkpoint)
    index.check_checkpoint(record)
    method = load_record(record, **index.settings)
    index.check_method(method)
    return method
