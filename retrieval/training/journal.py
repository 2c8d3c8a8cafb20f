"""What a training keeps on disk: its state, so that it can be stopped at any moment, and curves.

For ``--out net.pth`` the folder ``net.pth.training`` holds what was prepared once and the state
after the last epoch. ``net.csv`` and ``net.png`` show the epochs so far; ``net.json`` says in the
end how the network was made. Files are written beside their places and put there by one rename;
those of the state begin with a SHA-256, which is checked when they are read.
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

from retrieval import files
from retrieval.errors import RetrievalError

COLUMNS = ("stage", "epoch", "rate", "loss", "validation", "seconds")


class Journal:
    """The files of one training.

    identity: plain values that the result depends on. A state of another identity is refused.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]):
        if not out.parent.is_dir():
            raise RetrievalError(f"There is no folder {out.parent} to write to.")
        if out.is_dir() or not out.name:
            raise RetrievalError(f"{out} is a folder; name a file to write to.")
        self.out = out
        self.folder = out.with_name(f"{out.name}.training")
        try:
            self.folder.mkdir(exist_ok=True)
            beside = out.parent.glob(f"{glob.escape(out.stem)}.*.[0-9]*.new")
            for left in (*self.folder.glob("*.new"), *beside):  # by a kill
                left.unlink()
        except OSError as error:
            raise RetrievalError(f"{self.folder} cannot be written: {error.strerror}.") from error
        kept = self._read("identity")
        begun = any(path.name != "identity" for path in self.folder.iterdir())
        if kept is None or not begun:
            self._write("identity", dict(identity))
        elif kept != dict(identity):
            changed = sorted(k for k in {*kept, *identity} if kept.get(k) != identity.get(k))
            raise RetrievalError(
                f"{self.folder} is the state of another training: {', '.join(changed)} differ. "
                "Repeat its command, or delete the folder to begin again."
            )

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """What ``compute`` gives (tensors in plain containers), computed the first time only."""
        kept = self._read(name)
        if kept is None:
            kept = compute()
            self._write(name, kept)
        return kept

    def state(self, stage: str) -> dict[str, Any] | None:
        """What ``keep`` kept of a stage last."""
        return self._read(f"{stage}.state")

    def keep(self, stage: str, state: Mapping[str, Any]) -> None:
        self._write(f"{stage}.state", dict(state))

    def draw(self, rows: Sequence[Mapping[str, Any]], measure: str) -> None:
        """Write the curves of all epochs so far. measure: what 'validation' is."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        self._put(self.out.with_suffix(".csv"), text.getvalue().encode())
        self._put(self.out.with_suffix(".png"), _plot(rows, measure))

    def finish(self, content: Mapping[str, Any]) -> Path:
        """Write the network, and the record of its making as JSON.

        The state stays, with the weights of the last epoch.
        """
        made = json.dumps(content["meta"]["trained"], indent=1, ensure_ascii=False)
        self._put(self.out.with_suffix(".json"), f"{made}\n".encode("utf-8", "backslashreplace"))
        self._put(self.out, _bytes(content))
        return self.out

    def _read(self, name: str) -> Any:
        path = self.folder / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RetrievalError(f"{path} cannot be read: {error.strerror}.") from error
        digest, content = data[:32], data[32:]
        try:
            if hashlib.sha256(content).digest() != digest:
                raise ValueError("another checksum")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds on bytes that it did not write
            raise RetrievalError(
                f"{path} is damaged; delete {self.folder} to begin again."
            ) from error

    def _write(self, name: str, content: Any) -> None:
        data = _bytes(content)
        self._put(self.folder / name, hashlib.sha256(data).digest() + data)

    @staticmethod
    def _put(path: Path, data: bytes) -> None:
        try:
            with files.replacing(path) as file:
                file.write(data)
        except OSError as error:
            reason = error.strerror or "the disk is full"
            raise RetrievalError(f"{path} cannot be written: {reason}.") from error


def _bytes(content: Any) -> bytes:
    """The same content gives the same bytes: torch puts the name of a file into it, no clock."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _plot(rows: Sequence[Mapping[str, Any]], measure: str) -> bytes:
    """Loss and validation of each stage by epoch, as PNG."""
    from matplotlib.figure import Figure

    stages = list(dict.fromkeys(row["stage"] for row in rows))
    figure = Figure(figsize=(4.2 * max(len(stages), 1), 4.8), layout="constrained")
    axes = figure.subplots(2, max(len(stages), 1), squeeze=False, sharex="col")
    for column, stage in enumerate(stages):
        own = [row for row in rows if row["stage"] == stage]
        for axis, key in zip(axes[:, column], ("loss", "validation"), strict=True):
            drawn = [row for row in own if row[key] is not None]
            axis.plot(
                [row["epoch"] for row in drawn], [row[key] for row in drawn], "o-", color="#0072B2"
            )
            axis.set_ylabel("loss" if key == "loss" else measure)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(stage)
        axes[1, column].set_xlabel("epoch")
        axes[1, column].xaxis.get_major_locator().set_params(integer=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
