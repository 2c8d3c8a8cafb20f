"""The loop that the three trainers share: epochs, validation, the best one, early stop, resuming.

Every epoch is a function of the state before it and of its number, so a training that was killed
and goes on ends in the same bytes (with the same number of threads on the same machine).
"""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from retrieval.errors import RetrievalError
from retrieval.networks import trunks
from retrieval.training.journal import Journal

WARM_UP = 50  # steps in which the rate rises from nothing
Progress = Callable[[int, int, str], None] | None
Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What every training can be told; each method adds its own.

    epochs: at most. rate: the highest; it falls to nothing along a half cosine over all epochs.
    patience: epochs without a better validation after which it stops.
    """

    epochs: int = 10
    rate: float = 1e-4
    optimiser: Literal["adamw", "sgd"] = "adamw"
    patience: int = 5
    seed: int = 0


class Stage(ABC):
    """What is trained in one go: the trunk, a layer, the attention.

    name: for the curves. module: what is trained; its best state is what is left in it.
    groups: parameters with factors of the rate, as the optimisers take them. steps: of an epoch.
    """

    name: str
    measure = "mAP, held-out landmarks"
    module: nn.Module
    steps: int

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]: ...

    @abstractmethod
    def begin(self, epoch: int) -> None:
        """Before the steps of an epoch: shuffle, mine."""

    @abstractmethod
    def loss(self, epoch: int, step: int) -> torch.Tensor:
        """The mean loss of one step, to be differentiated."""

    @abstractmethod
    def validate(self) -> float:
        """The higher the better."""


def run(
    stage: Stage,
    settings: Settings,
    journal: Journal,
    rows: list[dict[str, Any]],
    progress: Progress = None,
    say: Say = lambda text: None,
) -> int:
    """Train until the epochs are done or validation stops getting better; leaves the best.

    Returns its number, 0 where nothing was better than the beginning.

    rows: of the stages before; those of this one are appended. Validation before the first epoch
    is epoch 0, which may be the best. Raises RetrievalError where a loss or a weight is no finite
    number; the state before that epoch is kept.
    """
    module, before = stage.module, list(rows)
    device = trunks.placement()[0].type
    optimiser = _optimiser(stage, settings)
    state = journal.state(stage.name)
    if state is None:
        own = [_row(stage, 0, 0.0, None, stage.validate(), 0.0)]
        best = copy.deepcopy(module.state_dict())
        _check(own[0]["validation"], module, stage, 0, journal)
    else:
        try:
            module.load_state_dict(state["module"])
            optimiser.load_state_dict(state["optimiser"])
            own, best = state["rows"], state["best"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RetrievalError(
                f"{journal.folder} does not fit this training; delete it to begin again."
            ) from error
    rates = [group["factor"] for group in optimiser.param_groups]
    while len(own) <= settings.epochs and not _is_over(own, settings.patience):
        epoch, started = len(own), time.monotonic()
        stage.begin(epoch)
        total = 0.0
        for step in range(stage.steps):
            done = (epoch - 1) * stage.steps + step
            rate = _rate(settings, done, settings.epochs * stage.steps)
            for group, factor in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            # bfloat16 has the range of float32: no loss needs to be scaled for it.
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = stage.loss(epoch, step)
            value = float(loss.detach())
            if not math.isfinite(value):
                _stop(stage, epoch, journal)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += value
            if progress:
                progress(step + 1, stage.steps, f"{stage.name}, epoch {epoch}")
        validation = stage.validate()
        _check(validation, module, stage, epoch, journal)
        seconds = time.monotonic() - started
        own.append(_row(stage, epoch, rate, total / stage.steps, validation, seconds))
        if validation > max(row["validation"] for row in own[:-1]):
            best = copy.deepcopy(module.state_dict())
        journal.keep(
            stage.name,
            {
                "module": module.state_dict(),
                "optimiser": optimiser.state_dict(),
                "rows": own,
                "best": best,
            },
        )
        journal.draw(before + own, stage.measure)
        say(
            f"{stage.name}, epoch {epoch} of {settings.epochs}: loss {own[-1]['loss']:.4f}, "
            f"{stage.measure} {100 * validation:.2f} ({seconds:.0f} s)"
        )
    journal.draw(before + own, stage.measure)
    rows += own
    module.load_state_dict(best)
    values = [row["validation"] for row in own]
    return values.index(max(values))


def _optimiser(stage: Stage, settings: Settings) -> torch.optim.Optimizer:
    groups = [{"factor": 1.0, **group} for group in stage.groups()]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, settings.rate, momentum=0.9, weight_decay=1e-4)
    return torch.optim.AdamW(groups, settings.rate, weight_decay=1e-4)


def _rate(settings: Settings, done: int, total: int) -> float:
    """Linear warm-up, then half a cosine (Loshchilov and Hutter, ICLR 2017)."""
    warm = min(1.0, (done + 1) / min(WARM_UP, total))
    return settings.rate * warm * 0.5 * (1 + math.cos(math.pi * done / total))


def _is_over(rows: list[dict[str, Any]], patience: int) -> bool:
    values = [row["validation"] for row in rows]
    return len(values) - 1 - values.index(max(values)) >= patience


def _check(validation: float, module: nn.Module, stage: Stage, epoch: int, journal) -> None:
    finite = all(torch.isfinite(value).all() for value in module.state_dict().values())
    if not finite or not math.isfinite(validation):
        _stop(stage, epoch, journal)


def _stop(stage: Stage, epoch: int, journal: Journal):
    kept = f"The state after epoch {epoch - 1} is kept in {journal.folder}. " if epoch > 1 else ""
    raise RetrievalError(
        f"Training of the {stage.name} stopped in epoch {epoch}: the loss or a weight is no finite "
        f"number any more. {kept}Begin again with a lower --rate, from another checkpoint, or with "
        "--out elsewhere."
    )


def _row(stage: Stage, epoch: int, rate: float, loss, validation: float, seconds: float) -> dict:
    return {
        "stage": stage.name,
        "epoch": epoch,
        "rate": rate,
        "loss": loss,
        "validation": validation,
        "seconds": round(seconds, 1),
    }
