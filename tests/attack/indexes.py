"""Indexes that a stranger made: edited, with every checksum recomputed so that it matches."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path


def edit(path: Path, change: Callable) -> None:
    """Change a JSON file with a function of its content, which may return another content."""
    data = json.loads(path.read_text("utf-8"))
    new = change(data)
    path.write_text(json.dumps(data if new is None else new), "utf-8")


def forge(path: Path) -> None:
    """Recompute every checksum of an index, as somebody would who means to deceive."""
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    for name, stated in manifest["files"].items():
        data = (path / name).read_bytes()
        stated |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.pop("sha256", None)
    text = json.dumps(manifest, sort_keys=True)
    manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def edited(path: Path, change: Callable) -> Path:
    """The index at ``path`` with its manifest changed and its checksums matching."""
    edit(path / "manifest.json", change)
    forge(path)
    return path
