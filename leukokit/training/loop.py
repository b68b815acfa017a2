"""A training as it goes: how it is kept for going on, and a classifier's own."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from leukokit.errors import ConfigError
from leukokit.training.cells import AnnotatedCellsRecipe

WARM_UP = 40
"""Steps over which the learning rate rises."""


class Resumable:
    """All that a run needs to go on after a stop, to a file and back.

    Attributes:
        recipe: what is trained; a run goes on with the same only.
        PARTS: attributes that have a ``state_dict``.
        NUMBERS: attributes that are kept as they are.
    """

    recipe: BaseModel
    PARTS: ClassVar[tuple[str, ...]] = ("network", "average", "optimizer")
    NUMBERS: ClassVar[tuple[str, ...]] = ("step",)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        numbers = {name: getattr(self, name) for name in self.NUMBERS}
        stored = parts | numbers | {"recipe": self.recipe.model_dump(mode="json")}
        torch.save(stored, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: there is none, or it is of another recipe; says what differs.
        """
        anew = "leave out --resume to start anew"
        if not path.exists():
            raise ConfigError(f"{path.parent}: nothing to resume; {anew}")
        stored = torch.load(path, weights_only=True, map_location="cpu")
        if "recipe" not in stored:
            raise ConfigError(f"{path}: an older version's, which does not say of which recipe; {anew}")
        before, now = stored["recipe"], self.recipe.model_dump(mode="json")
        apart = [
            f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
        if apart:
            raise ConfigError(f"{path}: of another recipe ({'; '.join(apart)}); set it back, or {anew}")
        for name in self.PARTS:
            getattr(self, name).load_state_dict(stored[name])
        for name in self.NUMBERS:
            setattr(self, name, stored[name])


class TrainingState(Resumable):
    """A classifier's; ``average`` is what is kept in the end.

    Args:
        network: with its first weights, on its device.
        recipe: learning rate, its course, and the decay of the average.
        frozen: parts of the network that keep their weights and statistics.
    """

    recipe: AnnotatedCellsRecipe

    def __init__(
        self, network: nn.Module, recipe: AnnotatedCellsRecipe, frozen: Sequence[nn.Module] = ()
    ) -> None:
        self.network, self.recipe, self.frozen = network, recipe, frozen
        self.average = copy.deepcopy(network).eval()
        pairs = zip(self.average.state_dict().values(), network.state_dict().values(), strict=True)
        # The numbers of batches seen, the one thing here that is whole, are of no use to what is kept.
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._kept = [pair[0] for pair in floats], [pair[1] for pair in floats]
        for part in frozen:
            part.requires_grad_(False)
        trained = [p for p in network.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
        self.cross_entropy = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.step = 0
        self._prepare()

    def advance(self, logits: torch.Tensor, labels: torch.Tensor) -> float:
        """One optimiser step on the network's answers (B, C) to labels (B,); returns the loss a cell."""
        loss: torch.Tensor = self.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._average()
        self._prepare()
        return loss.item()

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; see ``Resumable``."""
        super().load(path)
        self._prepare()

    def _prepare(self) -> None:
        """Training mode, frozen parts apart, and the learning rate of the step to come."""
        self.network.train()
        for part in self.frozen:
            part.eval()
        rise = min(1.0, (self.step + 1) / WARM_UP)
        fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(self.step / self.recipe.steps, 1.0)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * rise * fall

    @torch.no_grad()
    def _average(self) -> None:
        # The first steps, from a random head, are forgotten soon.
        decay = min(self.recipe.average, self.step / (self.step + 9))
        kept, current = self._kept
        get_ema_multi_avg_fn(decay)(kept, current, self.step)  # type: ignore[no-untyped-call]
