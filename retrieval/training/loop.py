"""The loop that the three trainers share: epochs, validation, best epoch, early stop, resuming.

An epoch depends only on its number and the state before it. So a training that was killed and
resumed gives the same bytes, with the same number of threads on the same machine.
"""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import torch
from torch import nn

from retrieval.errors import RetrievalError
from retrieval.networks import trunks
from retrieval.training.journal import Journal, is_array

WARM_UP = 50  # steps in which the learning rate rises from zero
Progress = Callable[[int, int, str], None] | None  # done, total, and what is counted
Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """Settings of every training; each method adds its own.

    epochs: at most. rate: the highest learning rate; it falls to zero along half a cosine.
    patience: the training stops after this many epochs without a better validation. seed: of all
    random numbers.
    """

    epochs: int = 10
    rate: float = 1e-4
    optimiser: Literal["adamw", "sgd"] = "adamw"
    patience: int = 5
    seed: int = 0


class Stage(ABC):
    """One part of a training with a loss of its own: the trunk, a layer, the attention.

    name: for the curves and the state on disk. measure: what ``validate`` returns, in words.
    module: what is trained. steps: of an epoch.
    """

    name: str
    measure = "mAP, held-out landmarks"
    module: nn.Module
    steps: int

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters for torch's optimisers.

        'factor' in a group multiplies its learning rate; it is 1 by default.
        """

    @abstractmethod
    def begin(self, epoch: int) -> None:
        """Prepare an epoch (from 1): shuffle, and mine negatives where the loss needs them."""

    @abstractmethod
    def loss(self, step: int) -> torch.Tensor:
        """The mean loss, a scalar, of a step (from 0) of the epoch that ``begin`` prepared."""

    @abstractmethod
    def validate(self) -> float:
        """How good the module is on held-out data, 0 to 1; the higher, the better."""


def train_stage(
    stage: Stage,
    settings: Settings,
    journal: Journal,
    history: list[dict[str, Any]],
    progress: Progress = None,
    say: Say = lambda text: None,
) -> int:
    """Train a stage until its epochs are done or validation stops getting better.

    history: the epochs of the stages before; those of this stage are appended. progress(done,
    total, what) is called after each step, say(text) with a line about each epoch.

    Leaves the weights of the best epoch in the module and returns its number. Epoch 0 is the module
    before the training, so 0 means that no epoch was better. Raises RetrievalError where a loss or
    a weight becomes infinite or NaN; the state before that epoch is kept.
    """
    module, earlier = stage.module, list(history)
    optimiser = _optimiser(stage, settings)
    # The module twice, the last and the best; for each parameter an optimiser keeps one or two.
    tensors = module.state_dict().values()
    state = journal.load_state(stage.name, 4 * sum(tensor.nbytes for tensor in tensors))
    if state is None:
        epochs = [_epoch_row(stage, 0, 0.0, None, stage.validate(), 0.0)]
        best = copy.deepcopy(module.state_dict())
        _require_finite(epochs[0]["validation"], module, stage, 0, journal)
    else:
        try:
            epochs, best = state["rows"], state["best"]
            _check_rows(epochs, stage)
            for weights in (best, state["module"]):
                module.load_state_dict(weights)
            _check_optimiser(state["optimiser"]["state"], optimiser)
            # Groups of a stranger could have any settings; those of this training are known.
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({**state["optimiser"], "param_groups": groups})
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise journal.unfit() from error
    while len(epochs) <= settings.epochs and not _out_of_patience(epochs, settings.patience):
        epoch, started = len(epochs), time.monotonic()
        loss, rate = _train_epoch(stage, epoch, settings, optimiser, progress)
        if not math.isfinite(loss):
            _raise_diverged(stage, epoch, journal)
        validation = stage.validate()
        _require_finite(validation, module, stage, epoch, journal)
        seconds = time.monotonic() - started
        epochs.append(_epoch_row(stage, epoch, rate, loss, validation, seconds))
        if validation > max(row["validation"] for row in epochs[:-1]):
            best = copy.deepcopy(module.state_dict())
        journal.save_state(
            stage.name,
            {
                "module": module.state_dict(),
                "optimiser": optimiser.state_dict(),
                "rows": epochs,
                "best": best,
            },
        )
        journal.write_curves(earlier + epochs, stage.measure)
        say(
            f"{stage.name}, epoch {epoch} of {settings.epochs}: loss {loss:.4f}, "
            f"{stage.measure} {100 * validation:.2f} ({seconds:.0f} s)"
        )
    journal.write_curves(earlier + epochs, stage.measure)
    history += epochs
    module.load_state_dict(best)
    return _best_epoch(epochs)


def _train_epoch(
    stage: Stage,
    epoch: int,
    settings: Settings,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
) -> tuple[float, float]:
    """Train one epoch. Returns its mean loss, and the learning rate of its last step.

    It stops at a loss that is infinite or NaN, and returns that loss.
    """
    device = trunks.placement()[0].type
    stage.begin(epoch)
    total = 0.0
    for step in range(stage.steps):
        done = (epoch - 1) * stage.steps + step
        rate = _rate(settings, done, settings.epochs * stage.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        # bfloat16 has the range of float32, so gradients need no loss scaling.
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = stage.loss(step)
        value = float(loss.detach())
        if not math.isfinite(value):
            return value, rate
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += value
        if progress:
            progress(step + 1, stage.steps, f"{stage.name}, epoch {epoch}")
    return total / stage.steps, rate


def _optimiser(stage: Stage, settings: Settings) -> torch.optim.Optimizer:
    groups = [{"factor": 1.0, **group} for group in stage.parameter_groups()]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, settings.rate, momentum=0.9, weight_decay=1e-4)
    return torch.optim.AdamW(groups, settings.rate, weight_decay=1e-4)


def _rate(settings: Settings, done: int, total: int) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine.

    done: steps before it. total: steps of all epochs. Loshchilov and Hutter, ICLR 2017.
    """
    warm_up = min(1.0, (done + 1) / min(WARM_UP, total))
    return settings.rate * warm_up * 0.5 * (1 + math.cos(math.pi * done / total))


def _best_epoch(epochs: list[dict[str, Any]]) -> int:
    validations = [row["validation"] for row in epochs]
    return validations.index(max(validations))


def _out_of_patience(epochs: list[dict[str, Any]], patience: int) -> bool:
    return len(epochs) - 1 - _best_epoch(epochs) >= patience


def _require_finite(
    validation: float, module: nn.Module, stage: Stage, epoch: int, journal: Journal
) -> None:
    finite = all(torch.isfinite(value).all() for value in module.state_dict().values())
    if not finite or not math.isfinite(validation):
        _raise_diverged(stage, epoch, journal)


def _raise_diverged(stage: Stage, epoch: int, journal: Journal) -> NoReturn:
    kept = f"The state after epoch {epoch - 1} is kept in {journal.folder}. " if epoch > 1 else ""
    raise RetrievalError(
        f"Training of the {stage.name} stopped in epoch {epoch}: the loss or a weight became "
        f"infinite or NaN. {kept}Begin again with a lower --rate, from another checkpoint, or with "
        "--out elsewhere."
    )


def _check_rows(rows: Any, stage: Stage) -> None:
    """Raises ValueError, KeyError or TypeError for other rows than ``_epoch_row`` makes."""
    if not isinstance(rows, list) or not rows:
        raise ValueError("no epochs")
    for number, row in enumerate(rows):
        loss = row["loss"] if number else 0.0 if row["loss"] is None else None  # epoch 0 has none
        values = (row["rate"], loss, row["validation"], row["seconds"])
        finite = all(isinstance(value, float) and math.isfinite(value) for value in values)
        if (row["stage"], row["epoch"]) != (stage.name, number) or not finite:
            raise ValueError("another epoch")


def _check_optimiser(states: Any, optimiser: torch.optim.Optimizer) -> None:
    """Raises ValueError, LookupError, TypeError or AttributeError for what another one keeps."""
    parameters = [one for group in optimiser.param_groups for one in group["params"]]
    is_sgd = isinstance(optimiser, torch.optim.SGD)
    names = {"momentum_buffer"} if is_sgd else {"step", "exp_avg", "exp_avg_sq"}
    for number, kept in states.items():
        for name in names:
            shape = () if name == "step" else tuple(parameters[number].shape)
            if kept.keys() != names or not is_array(kept[name], torch.float32, *shape):
                raise ValueError("another optimiser")


def _epoch_row(
    stage: Stage, epoch: int, rate: float, loss: float | None, validation: float, seconds: float
) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "epoch": epoch,
        "rate": rate,
        "loss": loss,
        "validation": validation,
        "seconds": round(seconds, 1),
    }
