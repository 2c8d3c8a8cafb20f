"""Published descriptors as an index: real numbers of a strong network, without pictures.

The authors of the revisited benchmarks offer what their ResNet-101 with GeM, trained on
SfM-120k, gives for every database picture and query (Radenović et al., CVPR 2018).
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retrieval import files, rehearsal
from retrieval.collections import PRECOMPUTED, Collection, downloads, open_collection, transfer
from retrieval.errors import RetrievalError
from retrieval.evaluation import rank_descriptors, runs

if TYPE_CHECKING:
    from retrieval.index import Index

DIMENSIONS = 2048
MAX_VARIABLES = 100  # of a ``.mat``; two are read
TOLERANCE = 0.01  # points; the published figures have two decimals


@dataclass(frozen=True)
class Features:
    """published: protocol → (mAP, (mP@1, mP@5, mP@10)) in per cent, from the authors' table."""

    collection: str
    address: str
    published: dict[str, tuple[float, tuple[float, float, float]]] = field(hash=False)


_ADDRESS = "http://cmp.felk.cvut.cz/revisitop/data/features"
FEATURES = {
    "roxford5k-gem-features": Features(
        "roxford5k",
        f"{_ADDRESS}/roxford5k_resnet_rsfm120k_gem.mat",
        {
            "easy": (84.81, (97.06, 92.06, 86.49)),
            "medium": (64.67, (97.14, 90.67, 84.67)),
            "hard": (38.47, (81.43, 63.0, 53.0)),
        },
    ),
    "rparis6k-gem-features": Features(
        "rparis6k",
        f"{_ADDRESS}/rparis6k_resnet_rsfm120k_gem.mat",
        {
            "easy": (92.12, (100.0, 97.14, 96.14)),
            "medium": (77.2, (100.0, 98.86, 98.14)),
            "hard": (56.32, (94.29, 90.29, 89.14)),
        },
    ),
}
CHECKPOINT = "rsfm120k-resnet101-gem-features"


def download(
    name: str,
    progress: transfer.Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> runs.Run:
    """Fetch published descriptors, index them, score them; returns the run.

    The index goes to ``precomputed/<collection>/``, with the descriptors of the queries in
    ``queries.npy`` and the evaluation beside it.
    """
    features = FEATURES[name]
    say(f"{name} takes about 0.2 GB; no pictures are fetched.")
    # The lock is taken before the file is looked at, so two commands do not fetch it twice.
    with downloads.working_folder() as folder:
        downloads.ensure_ground_truth(features.collection, progress)
        collection = open_collection(features.collection)
        path = transfer.fetch(
            features.address, folder / f"{name}.mat", max_bytes=500_000_000, progress=progress
        )
        try:
            queries, database = read_mat(path, len(collection.queries), len(collection.names))
        except RetrievalError:
            path.unlink()  # or it would be used again
            raise
        index = save(path, features, collection, queries, database)
        # Ranked in full precision, as published; the index rounds to half.
        started = time.perf_counter()
        ranks = rank_descriptors(queries, database)
        seconds = (time.perf_counter() - started) / len(queries)
        path.unlink()
    return runs.record_run(
        index, collection, ranks.astype(np.int32), {"search": np.full(len(queries), seconds)}
    )


def read_mat(path: Path, queries: int, pictures: int) -> tuple[np.ndarray, np.ndarray]:
    """The descriptors in a ``.mat`` with Q (2048, queries) and X (2048, pictures).

    Returns rows: (queries, 2048) and (pictures, 2048) float32. Raises RetrievalError for a file
    that is damaged or has other contents.
    """
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import matfile_version

    expected = {"Q": (DIMENSIONS, queries), "X": (DIMENSIONS, pictures)}
    try:
        # In version 4 a variable may point back to where it begins: scipy lists it for ever.
        if matfile_version(path)[0] != 1:
            raise ValueError("another version than 5")
        _check_variables(path, 16 * DIMENSIONS * max(queries, pictures) + (1 << 20))
        rehearsal.rehearse(_load, path)
        # Of two with one name, scipy reads the first; and an item of a cell takes 150 bytes.
        stated = sorted(entry for entry in whosmat(path) if entry[0] in expected)
        numbers = all(kind in ("single", "double") for *_, kind in stated)
        valid = numbers and [(name, shape) for name, shape, _ in stated] == [*expected.items()]
        if valid:
            content = loadmat(path, variable_names=list(expected))
            arrays = [np.ascontiguousarray(content[name].T, np.float32) for name in expected]
    except RetrievalError:
        raise
    except Exception as error:  # scipy raises a dozen kinds on bad bytes
        raise RetrievalError(
            f"{path.name} is not a readable .mat file; run the same command again."
        ) from error
    if not valid:
        raise RetrievalError(
            f"{path.name} holds {stated!s:.1000} instead of {expected}; run the same command again."
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise RetrievalError(
            f"{path.name} holds descriptors that are not numbers; run the same command again."
        )
    return arrays[0], arrays[1]


def _load(path: Path) -> None:
    """Load the arrays of a ``.mat``, in a process of its own: a damaged file can crash scipy."""
    from scipy.io import loadmat

    try:
        loadmat(path, variable_names=["Q", "X"])
    except MemoryError:
        raise
    except Exception:
        return  # ``read_mat`` says what is wrong


def _check_variables(path: Path, max_bytes: int) -> None:
    """Raises ValueError where the variables of a ``.mat`` (version 5) hold more than ``max_bytes``
    unpacked, or are more than MAX_VARIABLES: scipy believes what they say of themselves, and 4 MB
    may become 4 GB. It lists all of them, and 500 MB have room for nine million, or for a name that
    takes 1.2 GB."""
    with open(path, "rb") as file:
        order: Literal["little", "big"] = "little" if file.read(128).endswith(b"IM") else "big"
        total = count = 0
        while tag := file.read(8):
            count += 1
            if count > MAX_VARIABLES:
                raise ValueError("it has more variables than it should")
            packed = int.from_bytes(tag[:4], order) == 15
            left = int.from_bytes(tag[4:], order)
            if not packed:
                total += left
                file.seek(left, os.SEEK_CUR)
                left = 0
            unpacker = zlib.decompressobj()
            while left and (data := file.read(min(left, 1 << 16))):
                left -= len(data)
                while data:
                    total += len(unpacker.decompress(data, 1 << 20))
                    data = unpacker.unconsumed_tail
                    if total > max_bytes:
                        raise ValueError("it unpacks to more than it should")
            if total > max_bytes:
                raise ValueError("it holds more than it should")


def save(
    path: Path,
    features: Features,
    collection: Collection,
    queries: np.ndarray,
    database: np.ndarray,
) -> Index:
    """Write the descriptors as an index below ``precomputed/``; returns it, loaded.

    path: of the file they came in. queries: (Q, D), database: (N, D), float32 of unit length.
    """
    from retrieval.index import load, saving
    from retrieval.index.content import Content

    out = PRECOMPUTED / features.collection / CHECKPOINT
    new = out.with_name(f"{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        np.save(new / "queries.npy", queries, allow_pickle=False)
        made_by = SimpleNamespace(
            kind="global",
            name="cnn-irwnha",
            checkpoint=SimpleNamespace(id=CHECKPOINT, sha256=files.digest(path)),
            settings={
                "source": features.address,
                "dimensions": DIMENSIONS,
                "queries_sha256": files.digest(new / "queries.npy"),
            },
        )
        # No picture is here: digests and sizes are unknown.
        records: list[dict[str, Any]] = [
            {"name": name, "sha256": "", "width": 0, "height": 0} for name in collection.names
        ]
        half = {"descriptors": database.astype(np.float16)}
        saving.save(new, out, made_by, collection, Content(records, half, []))
        saving.replace_folder(new, out)
    except OSError as error:
        raise RetrievalError(
            f"{out} cannot be written: {error.strerror or error}; choose another place."
        ) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return load(out)


def agreement(name: str, run: runs.Run) -> dict[str, tuple[float, float, bool]]:
    """protocol → (mAP found, mAP published, whether they agree), in per cent."""
    return {
        protocol: (
            100 * run.scores[protocol].map,
            published,
            abs(100 * run.scores[protocol].map - published) <= TOLERANCE,
        )
        for protocol, (published, _) in FEATURES[name].published.items()
    }
