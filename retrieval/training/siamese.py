"""CNN-IRwNHA's own training: a siamese network, contrastive loss, no human annotation.

Radenović, Tolias and Chum, TPAMI 2018: tuples of a query, a picture that matches it and five that
do not; the non-matching ones are the hardest of the moment, each of another group of pictures. The
pairs come from geometry (``training.pairs``). Batch norms stay as they are; the trunk and GeM's
exponent are trained. Then a whitening layer is learned for the new features, and all of it is
written as a network file of cirtorch's form.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from retrieval import methods
from retrieval.errors import RetrievalError
from retrieval.methods import pooling
from retrieval.networks import checkpoints, trunks
from retrieval.networks.weights import read_tensors
from retrieval.training import views, whitening
from retrieval.training.heads import MIN_PICTURES, SHRINKAGE, VIEWS, pictures_of
from retrieval.training.losses import contrastive
from retrieval.training.pairs import LEAST_INLIERS, Pair, agreeing, clusters, matching

EPOCHS = 4
TUPLES = 400  # of an epoch, at most
NEGATIVES = 5  # of a tuple
BATCH = 5  # tuples whose gradients are added up
MARGIN = 0.85
RATE, DECAY, SLOWING = 2e-5, 1e-4, 0.05  # Adam; the rate falls by e^-SLOWING an epoch
SIZE = 362  # pixels of the longer side, at most, as in the paper
PICTURES = 3000  # of a collection, at most: they are kept in memory, small
GROUPED = 12  # inliers from which two pictures are never negatives of each other
DIMENSIONS = 512
LEAST_TUPLES = 20
SEED = 0

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Epoch:
    """loss: mean of a tuple. p: GeM's exponent. hard: mean cosine of the negatives when mined."""

    loss: float
    p: float
    hard: float


class Network(nn.Module):
    """Trunk → GeM → L2, all of which can be trained."""

    def __init__(self, checkpoint: checkpoints.Checkpoint):
        super().__init__()
        weights = checkpoints.load(checkpoint)
        meta = weights.meta
        if meta.get("pooling", "gem") != "gem" or meta.get("regional"):
            raise RetrievalError(f"{checkpoint.id} does not pool by GeM over the whole picture.")
        self.features = trunks.unfolded(checkpoint.trunk, "final", weights.trunk)
        self.p = nn.Parameter(torch.tensor(weights.head.get("pool.p", np.float32([3.0]))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, C) of unit length."""
        x = self.features(x).clamp(min=1e-6).pow(self.p).mean(dim=(-2, -1)).pow(1 / self.p)
        return pooling.l2(x)


def train(
    collection,
    out: Path,
    which: str | None = None,
    epochs: int = EPOCHS,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Train a network on the database pictures of a collection and write it to ``out``.

    which: the checkpoint to start from; by default the embedded one as ImageNet made it. progress
    (done, total, what) is called after each picture and each tuple. say is told what was found.
    After every epoch the state is kept beside ``out``; the same command goes on from there.
    Raises RetrievalError where the pictures have too little in common.
    """
    checkpoint = checkpoints.find("cnn-irwnha", which or "gem-lite0-imagenet")
    size = min(SIZE, checkpoint.settings.get("size", SIZE))
    method = methods.load_record(checkpoint, size=size, scales=[1.0])

    def prepare(picture: Image.Image) -> torch.Tensor:
        return method._input(picture, None)

    network = Network(checkpoint).to(trunks.placement()[0])
    _check_place(out)
    state = _State(out, collection, checkpoint)
    pictures, pairs = _pairs(collection, size, state, progress)
    positives = [(pair.a, pair.b) for pair in matching(pairs)]
    groups = clusters([pair for pair in pairs if pair.inliers >= GROUPED], len(pictures))
    say(
        f"{len(positives)} matching pairs of {len(pictures)} pictures, in {len(set(groups))} groups"
    )
    if len(positives) < LEAST_TUPLES or len(set(groups)) <= NEGATIVES:
        raise RetrievalError(
            f"Too few pictures of {collection.title} match to train on: {len(positives)} pairs in "
            f"{len(set(groups))} groups, and {LEAST_TUPLES} in {NEGATIVES + 1} are the least."
        )
    optimiser = torch.optim.Adam(
        [
            {"params": network.features.parameters(), "weight_decay": DECAY},
            {"params": [network.p]},
        ],
        lr=RATE,
    )
    log = state.restore(network, optimiser)
    for number in range(len(log), epochs):
        log.append(
            run_epoch(
                network, optimiser, pictures, prepare, positives, groups, size, number, progress
            )
        )
        state.keep(network, optimiser, log)
        last = log[-1]
        say(
            f"epoch {number + 1} of {epochs}: loss {last.loss:.3f}, p {last.p:.3f}, cosine of the "
            f"negatives {last.hard:.3f}"
        )
    layer = _whitening(network, pictures, prepare, size, progress)
    record = {
        "command": f"python -m retrieval train {collection.name} --epochs {epochs}"
        + (f" --checkpoint {which}" if which else ""),
        "collection": collection.name,
        "fingerprint": collection.fingerprint,
        "labels": "none",
        "pictures": len(pictures),
        "pairs": len(positives),
        "groups": len(set(groups)),
        "size": size,
        "margin": MARGIN,
        "from": checkpoint.id,
        "from_sha256": checkpoint.sha256,
        "epochs": [asdict(one) for one in log],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write(out, network, layer, checkpoint, record)
    state.path.unlink(missing_ok=True)
    return out


def run_epoch(
    network: Network,
    optimiser: torch.optim.Optimizer,
    pictures: Sequence[Image.Image],
    prepare: Callable[[Image.Image], torch.Tensor],
    positives: Sequence[tuple[int, int]],
    groups: np.ndarray,
    size: int,
    number: int,
    progress: Progress | None = None,
) -> Epoch:
    """Mine negatives and train in place on one epoch's tuples.

    prepare: picture → input (1, 3, H, W). positives: numbers of pictures that match. groups (n,):
    pictures of one group are never negatives of each other. size: pixels of the longer side.
    number: of the epoch, from 0.
    """
    rng = np.random.default_rng([SEED, number])
    device = network.p.device
    for group in optimiser.param_groups:
        group["lr"] = RATE * math.exp(-SLOWING * number)
    with torch.inference_mode():
        known = torch.cat([network(prepare(picture).to(device)) for picture in pictures]).cpu()
    labels = torch.tensor([-1.0, 1.0] + [0.0] * NEGATIVES, device=device)
    losses, hard = [], []
    chosen = rng.permutation(len(positives))[:TUPLES]
    for step, row in enumerate(chosen, 1):
        query, positive = positives[row]
        negatives = hardest(known, query, groups)
        hard.append(float((known[negatives] @ known[query]).mean()))
        vectors = torch.cat(
            [
                network(prepare(views.second_view(pictures[one], rng, size)).to(device))
                for one in (query, positive, *negatives)
            ]
        )
        loss = contrastive(vectors, labels, MARGIN)
        loss.backward()
        losses.append(float(loss.detach()))
        if step % BATCH == 0 or step == len(chosen):
            optimiser.step()
            optimiser.zero_grad()
        if progress:
            progress(step, len(chosen), f"epoch {number + 1}")
    return Epoch(float(np.mean(losses)), float(network.p.detach().mean()), float(np.mean(hard)))


def hardest(known: torch.Tensor, query: int, groups: np.ndarray) -> list[int]:
    """The pictures most like the query of other groups than its own, one of each group."""
    found, used = [], {groups[query]}
    for number in (-(known @ known[query])).argsort().tolist():
        if groups[number] not in used:
            found.append(number)
            used.add(groups[number])
            if len(found) == NEGATIVES:
                break
    return found


def _pairs(
    collection, size: int, state: _State, progress: Progress | None
) -> tuple[list[Image.Image], list[Pair]]:
    """The pictures, small, and what geometry finds in common between them."""
    delf = None if state.pairs else methods.load("delf")
    pictures, features, sizes = [], [], []
    for picture in pictures_of(collection, progress, PICTURES):
        if delf is not None:
            features.append(delf.describe(picture))
            sizes.append(picture.size)
        # Enough for a view that takes a part of it.
        picture.thumbnail((2 * size, 2 * size))
        pictures.append(picture)
    if len(pictures) < MIN_PICTURES:
        raise RetrievalError(f"Training needs at least {MIN_PICTURES} pictures that can be read.")
    if delf is not None:
        state.pairs = agreeing(features, sizes)
    return pictures, state.pairs


def _whitening(network, pictures, prepare, size: int, progress: Progress | None):
    """Weight and bias of a whitening learned from synthetic views, as ``fit`` does it."""
    rng = np.random.default_rng(SEED)
    rows = []
    with torch.inference_mode():
        for done, picture in enumerate(pictures, 1):
            several = [views.second_view(picture, rng, size) for _ in range(VIEWS)]
            vectors = [network(prepare(view).to(network.p.device))[0].cpu() for view in several]
            rows.append(torch.stack(vectors).numpy())
            if progress:
                progress(done, len(pictures), "whitening")
    rows = np.stack(rows)
    return whitening.learn(rows, min(DIMENSIONS, rows.shape[2]), SHRINKAGE)


class _State:
    """What is kept beside ``out`` while it is being trained: pairs, weights, optimiser, log."""

    def __init__(self, out: Path, collection, checkpoint: checkpoints.Checkpoint):
        self.path = out.with_name(f"{out.name}.training")
        self.identity = {
            "fingerprint": collection.fingerprint,
            "checkpoint": checkpoint.sha256,
            "inliers": LEAST_INLIERS,
        }
        self.pairs: list[Pair] = []
        self.kept: dict[str, Any] = {}
        if self.path.is_file():
            with contextlib.suppress(RetrievalError, KeyError, TypeError, ValueError):
                kept = read_tensors(self.path)
                if kept["identity"] == self.identity:
                    rows = kept["pairs"].tolist()
                    self.pairs = [Pair(a, b, np.eye(2, 3), inliers) for a, b, inliers in rows]
                    self.kept = kept

    def restore(self, network: Network, optimiser: torch.optim.Optimizer) -> list[Epoch]:
        """Go on where the last epoch ended; the log of those that are done."""
        if not self.kept:
            return []
        try:
            network.load_state_dict(self.kept["network"])
            optimiser.load_state_dict(self.kept["optimiser"])
            return [Epoch(**one) for one in self.kept["log"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RetrievalError(f"{self.path} is damaged; delete it to begin again.") from error

    def keep(self, network: Network, optimiser: torch.optim.Optimizer, log: list[Epoch]) -> None:
        rows = [(pair.a, pair.b, pair.inliers) for pair in self.pairs]
        content = {
            "identity": self.identity,
            "pairs": torch.tensor(rows),
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "log": [asdict(one) for one in log],
        }
        _save(self.path, content)


def _write(out: Path, network: Network, layer, checkpoint, record: dict[str, Any]) -> None:
    """The network as a file of cirtorch's form; weights in half precision, norms in single."""
    weight, bias = (torch.from_numpy(array.astype(np.float32)) for array in layer)
    state = {f"features.{key}": value for key, value in network.features.state_dict().items()}
    state |= {"pool.p": network.p.detach(), "whiten.weight": weight, "whiten.bias": bias}
    meta = {
        "architecture": checkpoint.trunk,
        "pooling": "gem",
        "local_whitening": False,
        "regional": False,
        "whitening": True,
        "outputdim": len(bias),
        "mean": list(checkpoint.mean),
        "std": list(checkpoint.std),
        # Not cirtorch's, which ignores them.
        "settings": {"size": record["size"], "scales": [1.0, 2**0.5, 2**-0.5]},
        "trained": record,
    }
    halves = {
        key: value.cpu().half() if value.ndim > 1 else value.cpu() for key, value in state.items()
    }
    _save(out, {"meta": meta, "state_dict": halves})


def _check_place(out: Path) -> None:
    """Before hours are spent: whether the file can be written at all."""
    if not out.parent.is_dir():
        raise RetrievalError(f"There is no folder {out.parent} to write to.")
    if out.is_dir():
        raise RetrievalError(f"{out} is a folder; name a file to write to.")


def _save(path: Path, content: dict[str, Any]) -> None:
    """Write and put in place by a rename."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        torch.save(content, new)
        os.replace(new, path)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError for a full disk
        reason = getattr(error, "strerror", None) or "the disk is full"
        raise RetrievalError(f"{path} cannot be written: {reason}.") from error
    finally:
        new.unlink(missing_ok=True)
