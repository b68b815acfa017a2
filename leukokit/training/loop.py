"""The training loop of every network: optimiser, learning rate, running average, checkpoints, progress.

What differs between networks is given to it: the schedule of the learning rate, the decay of the average, a
supply of examples, and a function from a batch to its loss.
"""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from pydantic import BaseModel
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Subset

from leukokit.errors import ConfigError

REPORT_EVERY: Final = 50
"""Steps between two lines of progress, and over which the loss of a line is averaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a network is optimised: AdamW (Loshchilov & Hutter 2019), and a running average of the weights.

    Attributes:
        steps: optimiser steps.
        batch: examples per step.
        check_every: steps between checkpoints; the last step has one as well.
        learning_rate: peak.
        schedule: the course of the learning rate, made for the optimiser, see ``warm_up_and_cosine``.
        weight_decay: of matrices and kernels.
        decay_all: apply it to biases and to the parameters of normalisations, too.
        max_norm: gradients longer than this are shortened to it.
        average: decay of the running average at a step, counted from 1; 0 takes the weights as they are.
        workers: processes that make examples.
    """

    steps: int
    batch: int
    check_every: int
    learning_rate: float
    schedule: Callable[[Optimizer], LRScheduler]
    weight_decay: float
    decay_all: bool = False
    max_norm: float = math.inf
    average: Callable[[int], float] = lambda _: 0.0
    workers: int = 0


def warm_up_and_cosine(
    steps: int, warm_up: int, floor: float = 0.0, start: int = 0
) -> Callable[[Optimizer], LRScheduler]:
    """Return a schedule: a linear rise over ``warm_up`` steps, times a cosine from ``start`` to the end.

    Args:
        steps: steps in all.
        warm_up: steps of the rise.
        floor: share of the peak that is left at the end.
        start: step at which the cosine begins to fall.
    """

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / warm_up)
        along = min(1.0, max(0, step - start) / max(1, steps - start))
        return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along)))

    return lambda optimizer: LambdaLR(optimizer, factor)


class Training:
    """A network in training; all that it needs to resume goes to a file and back.

    Args:
        network: with its first weights, on its device.
        recipe: what is trained; only a run of the same recipe is resumed.
        plan: how.
        frozen: parts of the network that keep their weights and statistics.

    Attributes:
        average: copy of the network with the running average of its weights: what is kept in the end.
        step: steps taken.
        lowest: lowest loss on held-back examples so far, for those who choose a checkpoint by it.
    """

    PARTS: ClassVar[tuple[str, ...]] = ("network", "average", "optimizer", "schedule")
    NUMBERS: ClassVar[tuple[str, ...]] = ("step", "lowest")

    def __init__(
        self, network: nn.Module, recipe: BaseModel, plan: Plan, frozen: Sequence[nn.Module] = ()
    ) -> None:
        self.network, self.recipe, self.plan, self.frozen = network, recipe, plan, frozen
        self.average = copy.deepcopy(network).eval()
        pairs = zip(self.average.state_dict().values(), network.state_dict().values(), strict=True)
        # The counts of batches, the only whole numbers here, are of no use to what is kept.
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averaged = [pair[0] for pair in floats], [pair[1] for pair in floats]
        for part in frozen:
            part.requires_grad_(False)
        trained = [p for p in network.parameters() if p.requires_grad]
        vectors_decay = plan.weight_decay if plan.decay_all else 0.0
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": plan.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": vectors_decay},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate)
        self.schedule = plan.schedule(self.optimizer)
        self.step, self.lowest = 0, math.inf
        self._set_modes()

    def advance(self, loss: torch.Tensor) -> float:
        """Take one optimiser step on a batch's loss; returns the loss."""
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.step += 1
        self._update_average()
        self._set_modes()
        return loss.item()

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        numbers = {name: getattr(self, name) for name in self.NUMBERS}
        stored = parts | numbers | {"recipe": self.recipe.model_dump(mode="json")}
        torch.save(stored, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Resume from a checkpoint.

        Raises:
            ConfigError: there is none, it is damaged, or it is of another recipe; says what differs.
        """
        anew = "leave out --resume to start anew"
        if not path.exists():
            raise ConfigError(f"{path.parent}: nothing to resume; {anew}")
        try:
            stored = torch.load(path, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise ConfigError(f"{path}: a damaged checkpoint; {anew}") from error
        if not {"recipe", *self.PARTS, *self.NUMBERS} <= set(stored):
            raise ConfigError(f"{path}: a checkpoint of an older version; {anew}")
        if differences := _differences(stored["recipe"], self.recipe.model_dump(mode="json")):
            raise ConfigError(f"{path}: of another recipe ({differences}); set it back, or {anew}")
        for name in self.PARTS:
            getattr(self, name).load_state_dict(stored[name])
        for name in self.NUMBERS:
            setattr(self, name, stored[name])
        self._set_modes()

    def _set_modes(self) -> None:
        self.network.train()
        for part in self.frozen:
            part.eval()

    @torch.no_grad()
    def _update_average(self) -> None:
        kept, current = self._averaged
        get_ema_multi_avg_fn(self.plan.average(self.step))(kept, current, self.step)  # type: ignore[no-untyped-call]


def fit(
    training: Training,
    supply: Dataset[Any],
    loss_of: Callable[[Any], torch.Tensor],
    checkpoint: Path | None = None,
    report: Callable[[str], None] = print,
    collate: Callable[[list[Any]], Any] | None = None,
    check: Callable[[float], None] = lambda _: None,
) -> None:
    """Take the steps that are left.

    Args:
        training: the network in training, fresh or resumed.
        supply: ``steps * batch`` examples in order; an example depends on its number alone.
        loss_of: the loss of a batch, the mean over its examples.
        checkpoint: file to resume from; None to write none.
        report: called with each line of progress.
        collate: makes a batch of examples; by default torch's.
        check: called before each checkpoint with the loss as reported.
    """
    plan = training.plan
    rest = Subset(supply, range(training.step * plan.batch, plan.steps * plan.batch))
    loader = DataLoader(rest, plan.batch, num_workers=plan.workers, collate_fn=collate)
    for loss in _losses(training, loader, loss_of, report):
        if training.step % plan.check_every == 0 or training.step == plan.steps:
            check(loss)
            if checkpoint is not None:
                training.save(checkpoint)


def _losses(
    training: Training,
    batches: DataLoader[Any],
    loss_of: Callable[[Any], torch.Tensor],
    report: Callable[[str], None],
) -> Iterator[float]:
    """Take a step per batch, reporting; yields the loss, averaged over the latest steps."""
    steps, first, started, running = training.plan.steps, training.step, time.monotonic(), 0.0
    for batch in batches:
        loss = training.advance(loss_of(batch))
        running += (loss - running) / min(training.step - first, REPORT_EVERY)
        if training.step % REPORT_EVERY == 0:
            pace = (time.monotonic() - started) / (training.step - first)
            left = pace * (steps - training.step) / 60
            report(f"step {training.step}/{steps}  loss {running:.3f}  {pace:.2f} s each, {left:.0f} min")
        yield running


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    return "; ".join(
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    )
