"""The files of a training: its state, so that it can be stopped and resumed, and its curves.

For ``--out net.pth`` the folder ``net.pth.training`` holds what is computed once and the state
after the last epoch. ``net.csv`` and ``net.png`` show the epochs so far; ``net.json`` says at the
end how the network was made. Each file is written under another name and then renamed, so no file
is ever half written. A file of the state begins with a SHA-256 over its content, its name and the
training. It is checked on reading: a file of another training may have the same shapes.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from retrieval import files
from retrieval.errors import RetrievalError
from retrieval.networks import torch_files, weights

BESIDE = 10_000_000  # bytes of a file beside the numbers of its tensors; ours have up to 0.6 MB
COLUMNS = ("stage", "epoch", "rate", "loss", "validation", "seconds")


class Journal:
    """The files of one training. All its methods raise RetrievalError where files cannot be used.

    out: the network's file. identity: plain values that the result depends on; a state with another
    identity is refused. As long as this object lives, no other process can use the files.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]):
        if not out.parent.is_dir():
            raise RetrievalError(f"There is no folder {out.parent} to write to; make it first.")
        if out.is_dir() or not out.name:
            raise RetrievalError(f"{out} is a folder; name a file to write to.")
        beside = [out.with_suffix(suffix) for suffix in (".csv", ".png", ".json")]
        if out in beside:
            raise RetrievalError(f"{out} is where curves are written; end the name with .pth.")
        self.out = out
        self.folder = out.with_name(f"{out.name}.training")
        if not self.folder.exists():  # so no training wrote these
            for path in (out, *beside):
                if path.exists():
                    raise RetrievalError(
                        f"{path} would be replaced; move it, or choose another --out."
                    )
        self._lock_folder(beside)
        self._training = b""  # digest of the identity, once that is stored
        self._keep_identity(dict(identity))

    def _lock_folder(self, beside: Sequence[Path]) -> None:
        """Make the folder, lock it, and delete unfinished files, also of those beside ``out``."""
        # The folder may have come with a stranger's network, and we write and delete files in it:
        # through a link that would happen elsewhere.
        unlike = f"{self.folder} is a link or holds more than plain files; delete it."
        if self.folder.is_symlink():
            raise RetrievalError(unlike)
        try:
            self.folder.mkdir(exist_ok=True)
            # A singleton: a notebook keeps an interrupted training, with its lock, in a traceback.
            # The next training in that thread gets the same lock.
            self._lock = FileLock(self.folder / "lock", timeout=0, is_singleton=True)
            self._lock.acquire()
            if any(path.is_symlink() or not path.is_file() for path in self.folder.iterdir()):
                raise RetrievalError(unlike)
            unfinished = [*self.folder.glob("*.new")]  # of a training that was killed
            for path in (self.out, *beside):
                unfinished += path.parent.glob(f"{glob.escape(path.name)}.[0-9]*.new")
            for path in unfinished:
                path.unlink()
        except Timeout as error:
            raise RetrievalError(
                f"Another training is writing to {self.out}; wait for it or choose another --out."
            ) from error
        except OSError as error:
            raise RetrievalError(
                f"{self.folder} cannot be written: {error.strerror}; choose another --out."
            ) from error

    def _keep_identity(self, identity: dict[str, Any]) -> None:
        """Store the identity, or check that the state in the folder has the same."""
        identity = json.loads(json.dumps(identity))  # tuples are read as lists
        stored = self._read("identity", 0)
        has_state = any(path.name not in ("identity", "lock") for path in self.folder.iterdir())
        if stored is None or not has_state:
            self._write("identity", identity)
        elif changed := _changed(stored, identity):
            raise RetrievalError(
                f"{self.folder} is the state of another training: {', '.join(changed)} differ. "
                "Repeat its command, or choose another --out to begin again."
            )
        self._training = (self.folder / "identity").read_bytes()[:32]

    def computed_once(
        self, name: str, compute: Callable[[], Any], fits: Callable[[Any], bool], max_bytes: int
    ) -> Any:
        """The result of ``compute``, tensors in plain containers. It is stored under ``name``, so
        that a resumed training does not compute it again.

        fits: whether a stored value, which may be a stranger's, is such a result. max_bytes: of its
        tensors.
        """
        stored = self._read(name, max_bytes)
        if stored is None:
            stored = compute()
            self._write(name, stored)
        elif not fits(stored):
            raise self.unfit()
        return stored

    def unfit(self) -> RetrievalError:
        """The error for a state that is not one of this training."""
        return RetrievalError(
            f"{self.folder} does not fit this training; choose another --out to begin again."
        )

    def load_state(self, stage: str, max_bytes: int) -> dict[str, Any] | None:
        """The state of a stage that was saved last; None where there is none.

        max_bytes: of its tensors.
        """
        return self._read(f"{stage}.state", max_bytes)

    def save_state(self, stage: str, state: Mapping[str, Any]) -> None:
        """Store the state of a stage (tensors in plain containers) in place of the former one."""
        self._write(f"{stage}.state", dict(state))

    def write_curves(self, history: Sequence[Mapping[str, Any]], measure: str) -> None:
        """Write CSV and PNG of all epochs so far. measure: what ``validate`` returns, in words."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(history)
        self._write_file(self.out.with_suffix(".csv"), text.getvalue().encode())
        self._write_file(self.out.with_suffix(".png"), _curves_png(history, measure))

    def write_network(self, content: Mapping[str, Any]) -> Path:
        """Write the network, and beside it a JSON of how it was made. Returns the network's file.

        content: from ``result.file_content``. The state stays, with the weights of the last epoch.
        """
        record = json.dumps(content["meta"]["trained"], indent=1, ensure_ascii=False)
        self._write_file(
            self.out.with_suffix(".json"), f"{record}\n".encode("utf-8", "backslashreplace")
        )
        self._write_file(self.out, _bytes(content))
        return self.out

    def _read(self, name: str, max_bytes: int) -> Any:
        """What is stored under a name; None where there is nothing. max_bytes: of its tensors."""
        path = self.folder / name
        try:
            # Of zeros, a gigabyte packs into a megabyte, and what is read here is copied twice.
            data = files.read(path, max_bytes + BESIDE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RetrievalError(
                f"{path} cannot be read: {error.strerror}; choose another --out to begin again."
            ) from error
        digest, content = data[:32], data[32:]
        try:
            if self._digest(name, content) != digest:
                raise ValueError("another checksum")
            # Not torch.load: of 30 MB of brackets it makes 2.8 GB, and it unpacks what is packed.
            content_and_numbers = torch_files.read_zip(io.BytesIO(content), len(content))
            return weights.with_tensors(*content_and_numbers)
        except Exception as error:  # hostile bytes raise many kinds
            raise RetrievalError(
                f"{path} is of another training or damaged; choose another --out to begin again."
            ) from error

    def _write(self, name: str, content: Any) -> None:
        data = _bytes(content)
        self._write_file(self.folder / name, self._digest(name, data) + data)

    def _digest(self, name: str, data: bytes) -> bytes:
        return hashlib.sha256(self._training + name.encode() + data).digest()

    @staticmethod
    def _write_file(path: Path, data: bytes) -> None:
        try:
            with files.replacing(path) as file:
                file.write(data)
        except OSError as error:
            reason = error.strerror or "the disk is full"
            raise RetrievalError(
                f"{path} cannot be written: {reason}; when it can, the same command goes on."
            ) from error


def _changed(stored: Any, identity: Mapping[str, Any]) -> list[str]:
    """Names of the entries of an identity that are others in a stored one, perhaps a stranger's."""
    known = stored if isinstance(stored, dict) else {}
    try:
        changed = sorted(key for key in identity if known.get(key) != identity[key])
    except (RuntimeError, ValueError):  # of tensors and arrays, which no identity has
        return ["settings"]
    return changed or ([] if known.keys() == identity.keys() else ["settings"])


def is_array(value: Any, kind: torch.dtype, *shape: int) -> bool:
    """Whether a value of a stranger is a tensor of this type and shape whose numbers are finite.

    shape: -1 for a side of any length.
    """
    return (
        isinstance(value, torch.Tensor)
        and value.dtype == kind
        and value.ndim == len(shape)
        and all(side in (-1, length) for side, length in zip(shape, value.shape, strict=True))
        and weights.is_plain_tensor(value)
        and bool(torch.isfinite(value).all())
    )


def _bytes(content: Any) -> bytes:
    """``content`` as torch saves it. In memory, as torch writes a file's name into the file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _curves_png(history: Sequence[Mapping[str, Any]], measure: str) -> bytes:
    """Loss and validation of each stage by epoch."""
    from matplotlib.figure import Figure

    stages = list(dict.fromkeys(row["stage"] for row in history))
    figure = Figure(figsize=(4.2 * max(len(stages), 1), 4.8), layout="constrained")
    axes = figure.subplots(2, max(len(stages), 1), squeeze=False, sharex="col")
    for column, stage in enumerate(stages):
        epochs = [row for row in history if row["stage"] == stage]
        for axis, key in zip(axes[:, column], ("loss", "validation"), strict=True):
            known = [row for row in epochs if row[key] is not None]  # epoch 0 has no loss
            axis.plot(
                [row["epoch"] for row in known], [row[key] for row in known], "o-", color="#0072B2"
            )
            axis.set_ylabel("loss" if key == "loss" else measure)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(stage)
        axes[1, column].set_xlabel("epoch")
        axes[1, column].xaxis.get_major_locator().set_params(integer=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
