"""The training loop against one written out by hand, and what a checkpoint keeps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from torch import nn
from torch.utils.data import TensorDataset

from leukokit.errors import ConfigError
from leukokit.training.classifier import ClassifierRecipe, classifier_plan
from leukokit.training.detector import DetectorRecipe, detector_plan
from leukokit.training.loop import Plan, Training, fit, warm_up_and_cosine

STEPS, BATCH = 60, 4


class Recipe(BaseModel):
    seed: int = 0


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def examples() -> TensorDataset:
    torch.manual_seed(1)
    return TensorDataset(torch.randn(STEPS * BATCH, 6), torch.randint(0, 3, (STEPS * BATCH,)))


def loss_with(trained: nn.Module) -> Callable[[list[torch.Tensor]], torch.Tensor]:
    return lambda batch: nn.functional.cross_entropy(trained(batch[0]), batch[1])


CELLS = {"name": "x", "cells": [], "train": [], "steps": STEPS, "batch": BATCH, "check_every": 25}


def of_classifier() -> tuple[Plan, Callable[[int], float], Callable[[int], float], float]:
    recipe = ClassifierRecipe.model_validate(CELLS | {"classifier": "cnn"})

    def rate(step: int) -> float:
        rise = min(1.0, (step + 1) / 40)
        return 1e-3 * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(step / STEPS, 1.0))))

    return classifier_plan(recipe), rate, lambda step: min(0.99, step / (step + 9)), 5.0


def of_detector() -> tuple[Plan, Callable[[int], float], Callable[[int], float], float]:
    recipe = DetectorRecipe.model_validate(
        {"name": "x", "fields": "x", "train": [], "steps": STEPS, "batch": BATCH, "workers": 0}
    )

    def rate(step: int) -> float:
        # Sixty steps are all warm-up.
        return 1.5e-3 * (step + 1) / 200

    def decay(step: int) -> float:
        return 0.998 * (1 - math.exp(-(step - 1) / 300)) if step > 1 else 0.0

    return detector_plan(recipe), rate, decay, 10.0


@pytest.mark.parametrize("of", [of_classifier, of_detector])
def test_the_loop_is_one_written_out_by_hand(
    of: Callable[[], tuple[Plan, Callable[[int], float], Callable[[int], float], float]],
) -> None:
    plan, rate, decay, norm = of()
    training = Training(network(), Recipe(), plan)
    fit(training, examples(), loss_with(training.network), report=lambda _: None)

    by_hand = network()
    average = copy.deepcopy(by_hand)
    layers = list(by_hand.parameters())
    groups = [
        {"params": [p for p in layers if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in layers if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    crops, labels = examples().tensors
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        chosen = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        nn.functional.cross_entropy(by_hand(crops[chosen]), labels[chosen]).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), norm)
        optimizer.step()
        for kept, current in zip(average.state_dict().values(), by_hand.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(current.detach(), 1 - decay(step + 1))
    for mine, theirs in ((training.network, by_hand), (training.average, average)):
        for name, value in theirs.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-6, atol=1e-7)


def plan(**changes: object) -> Plan:
    values: dict[str, object] = {
        "steps": STEPS, "batch": BATCH, "check_every": 25, "learning_rate": 1e-2,
        "schedule": warm_up_and_cosine(STEPS, 10), "weight_decay": 0.01,
    }  # fmt: skip
    return Plan(**(values | changes))  # type: ignore[arg-type]


def test_the_learning_rate_rises_and_falls_to_its_floor() -> None:
    training = Training(network(), Recipe(), plan(schedule=warm_up_and_cosine(STEPS, 10, 0.1, start=10)))
    rates = []
    loss_of = loss_with(training.network)

    def noted(batch: list[torch.Tensor]) -> torch.Tensor:
        rates.append(training.optimizer.param_groups[0]["lr"])
        return loss_of(batch)

    fit(training, examples(), noted, report=lambda _: None)
    assert rates[:10] == pytest.approx([1e-3 * step for step in range(1, 11)])
    assert rates[10] == 1e-2 and rates == [*rates[:11], *sorted(rates[11:], reverse=True)]
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_frozen_parts_keep_weights_and_statistics() -> None:
    own = network()
    before = copy.deepcopy(own.state_dict())
    training = Training(own, Recipe(), plan(), frozen=[own[0], own[1]])
    fit(training, examples(), loss_with(own), report=lambda _: None)
    for name, value in own.state_dict().items():
        assert torch.equal(value, before[name]) == (name[0] in "01"), name


def test_checks_and_checkpoints_come_when_planned(tmp_path: Path) -> None:
    training, checked, lines = Training(network(), Recipe(), plan()), list[int](), list[str]()
    fit(
        training, examples(), loss_with(training.network), tmp_path / "state.pt", lines.append,
        check=lambda loss: checked.append(training.step),
    )  # fmt: skip
    assert checked == [25, 50, 60]
    assert len(lines) == 1 and lines[0].startswith("step 50/60  loss ")
    again = Training(network(), Recipe(), plan())
    again.load(tmp_path / "state.pt")
    assert again.step == 60
    for part in ("network", "average"):
        for name, value in getattr(training, part).state_dict().items():
            assert torch.equal(getattr(again, part).state_dict()[name], value)


def test_a_resumed_training_ends_where_a_whole_one_does(tmp_path: Path) -> None:
    whole = Training(network(), Recipe(), plan())
    fit(whole, examples(), loss_with(whole.network), report=lambda _: None)
    stopped = Training(network(), Recipe(), plan())
    loss_of = loss_with(stopped.network)

    def stops(batch: list[torch.Tensor]) -> torch.Tensor:
        if stopped.step == 40:
            raise KeyboardInterrupt
        return loss_of(batch)

    with pytest.raises(KeyboardInterrupt):
        fit(stopped, examples(), stops, tmp_path / "state.pt", lambda _: None)
    resumed = Training(network(), Recipe(), plan())
    resumed.load(tmp_path / "state.pt")
    assert resumed.step == 25
    fit(resumed, examples(), loss_with(resumed.network), report=lambda _: None)
    for name, value in whole.average.state_dict().items():
        assert torch.equal(resumed.average.state_dict()[name], value)


def test_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    training = Training(network(), Recipe(), plan())
    training.save(tmp_path / "state.pt")
    with pytest.raises(ConfigError, match="seed was 0, is 1"):
        Training(network(), Recipe(seed=1), plan()).load(tmp_path / "state.pt")
