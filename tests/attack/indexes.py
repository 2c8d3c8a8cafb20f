"""Indexes that a stranger made: edited, with every checksum recomputed so that it matches."""

import contextlib
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

JUNK = (
    None, True, -1, 0, 3, 2**31, 10**30, 1e308, "", "x", "../../x", "/etc/passwd", "a\0b",
    "\x1b[2J", "\udcff", "é" * 300, [], [[]], [1, "a", None], {}, {"name": 3}, {"id": []},
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 63, 64, 127, -128, 2**31 - 1, 2**62, -(2**63), 2**63, 2**64 - 1)


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
    if (path / "evaluation.json").is_file():
        digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
        edit(path / "evaluation.json", lambda e: e["provenance"].update(index_sha256=digest))


def edited(path: Path, change: Callable) -> Path:
    """The index at ``path`` with its manifest changed and its checksums matching."""
    edit(path / "manifest.json", change)
    forge(path)
    return path


def mutate(path: Path, chance: random.Random) -> str:
    """Change one thing in one file of an index, and its checksums with it; says what."""
    file = chance.choice(sorted(path.glob("*.json")) + sorted(path.glob("*.npy")))
    said = _array(file, chance) if file.suffix == ".npy" else _json(file, chance)
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError, OSError):
        forge(path)  # unless there is no list of files any more
    return f"{file.name}: {said}"


def _json(file: Path, chance: random.Random) -> str:
    data = json.loads(file.read_text("utf-8"))
    place, where = data, []
    while True:
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        where.append(key)
        deeper = isinstance(place[key], dict | list) and place[key]
        if not deeper or chance.random() < 0.3:
            break
        place = place[key]
    if chance.random() < 0.2:
        del place[key]
        value = "deleted"
    else:
        value = place[key] = chance.choice(JUNK)
    file.write_text(json.dumps(data), "utf-8")
    return f"{where} = {value!r}"


def _array(file: Path, chance: random.Random) -> str:
    array = np.load(file).copy()
    kind = chance.choice(("value", "value", "value", "shape", "type", "rows"))
    if kind == "value" and array.size:
        value = chance.choice(NUMBERS) if array.dtype.kind in "iu" else chance.choice(
            (0, -1, 1e4, 65504, np.nan, np.inf, -np.inf, 1e-8)
        )  # fmt: skip
        place = chance.randrange(array.size)
        with np.errstate(all="ignore"):
            array.flat[place] = np.array(value).astype(array.dtype)
        said = f"[{place}] = {value}"
    elif kind == "shape":
        array = chance.choice((array.T, array[None], array.reshape(-1), array[..., :0], array[:0]))
        said = f"shape {array.shape}"
    elif kind == "type":
        array = array.astype(chance.choice(("f2", "f4", "f8", "i1", "i8", "u8", "S4", "c8", "?")))
        said = f"type {array.dtype}"
    else:
        rows = [chance.randrange(len(array)) for _ in range(len(array) + chance.choice((-1, 0, 1)))]
        array = array[rows] if len(array) else array
        said = f"rows {rows[:9]}"
    np.save(file, array)
    return said
