"""Training a YOLO detector from random weights on annotated, standardised fields.

The network, its loss and its target assignment are ultralytics'. Two things that its own trainer does not
offer are the point: kinds that a data set does not annotate take no part in the classification loss of its
fields, and every window is cut to one erythrocyte diameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.utils.data import Dataset

from leukokit.datasets.fields import (
    AnnotatedField,
    Selection,
    WeightsName,
    is_held_back,
    known_values,
    read_fields,
)
from leukokit.detectors.yolo.network import build_network
from leukokit.detectors.yolo.torch_network import write_detector_graph
from leukokit.errors import DataError
from leukokit.images.pixels import scale_image
from leukokit.images.standardize import standardize
from leukokit.smear import read_image
from leukokit.taxonomy import KINDS
from leukokit.training.augment import Window, cut, disturb, join, turn
from leukokit.training.cards import data_entries, write_graph
from leukokit.training.loop import Plan, Training, fit, warm_up_and_cosine
from leukokit.weights import DetectorCard, sha256_of, write_card
from leukokit.weights.files import load_weights, save_weights

DETECTOR_WARM_UP: Final = 200
"""Steps over which the learning rate rises."""
FIELD_DIAMETER_PX: Final = 80.0
"""Fields are kept in memory at no more than this erythrocyte diameter."""
SHORTEST_PART_PX: Final = 64
"""Shortest side of a part of a window that is filled from several fields."""

LoadedField = tuple[Window, float, tuple[str, ...]]
"""A standardised field, its erythrocyte diameter in its pixels, and the kinds annotated in it."""


class DetectorRecipe(BaseModel):
    """What ``leukokit train detector --config`` reads."""

    model_config = ConfigDict(extra="forbid")
    name: WeightsName
    fields: Path = Field(description="prepared fields (.jsonl)")
    train: list[Selection] = Field(description="fields to train on")
    start_from: Path | None = Field(
        None, description="safetensors weights to start from instead of random ones"
    )
    architecture: str = Field("yolo11n", description="an ultralytics detection architecture")
    window_px: int = Field(320, ge=32, description="side of a training window", multiple_of=32)
    cell_diameter_px: float = Field(
        44.0, description="erythrocyte diameter that windows are cut to, on average"
    )
    diameter_spread: float = Field(0.35, description="standard deviation of the log diameter around it")
    mixed_scales: float = Field(
        0.5, description="share of the fields that fill up a window at a diameter of their own"
    )
    visible: float = Field(
        0.25, description="smallest share of a cell, by area, that keeps its box at an edge"
    )
    steps: int = Field(4500, ge=1, description="optimiser steps")
    batch: int = Field(16, ge=1, description="windows per step")
    learning_rate: float = Field(
        1.5e-3, gt=0, description="peak, after a warm-up of 200 steps; cosine to 1% of it"
    )
    weight_decay: float = 5e-4
    held_back: float = Field(
        0.06, ge=0, lt=1, description="share of the photographs kept for choosing the checkpoint"
    )
    check_every: int = Field(500, ge=1, description="steps between checkpoints")
    confidence: float = Field(
        0.25, ge=0, le=1, description="default confidence threshold, stored in the card"
    )
    seed: int = Field(0, ge=0)
    workers: int = Field(2, ge=0, description="processes that cut windows")


class WindowDataset(Dataset[tuple[Window, tuple[str, ...]]]):
    """An endless, seeded supply of training windows: item ``i`` depends on the seed and ``i`` alone."""

    def __init__(self, fields: list[LoadedField], recipe: DetectorRecipe, length: int):
        self.fields, self.recipe, self.length = fields, recipe, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Window, tuple[str, ...]]:
        rng = np.random.default_rng([self.recipe.seed, index])
        side = self.recipe.window_px
        first = self.fields[rng.integers(len(self.fields))]
        window = turn(self._fill(first, self._diameter(rng), (side, side), rng), rng)
        return Window(disturb(window.image, rng), window.boxes, window.kinds), first[2]

    def _diameter(self, rng: np.random.Generator) -> float:
        spread = float(np.clip(rng.normal(0, self.recipe.diameter_spread), -1.0, 1.0))
        return self.recipe.cell_diameter_px * math.exp(spread)

    def _fill(
        self, field: LoadedField, diameter: float, size: tuple[int, int], rng: np.random.Generator
    ) -> Window:
        """A (height, width) window of ``field``; where it is too short, others of its kind fill the rest."""
        height, width = size
        scale = diameter / field[1]
        field_height, field_width = (round(side * scale) for side in field[0].image.shape[:2])
        for axis, (length, available) in enumerate(((height, field_height), (width, field_width))):
            if available < 0.85 * length and length >= 2 * SHORTEST_PART_PX:
                part = int(np.clip(available, SHORTEST_PART_PX, length - SHORTEST_PART_PX))
                near, far = (
                    ((part, width), (length - part, width))
                    if axis == 0
                    else ((height, part), (height, length - part))
                )
                # The parts are annotated alike, because the loss leaves out a kind for a whole window.
                other = field
                while (other := self.fields[rng.integers(len(self.fields))])[2] != field[2]:
                    pass
                other_diameter = self._diameter(rng) if rng.random() < self.recipe.mixed_scales else diameter
                parts = [self._fill(field, diameter, near, rng), self._fill(other, other_diameter, far, rng)]
                return join(parts, axis)
        return cut(field[0], scale, size, self.recipe.visible, rng)


def load_fields(fields: list[AnnotatedField]) -> list[LoadedField]:
    """Read, standardise and reduce fields to memory: see ``LoadedField``."""
    loaded = []
    for annotated in fields:
        diameter = annotated.cell_diameter_px()
        if diameter is None:
            continue
        image = standardize(read_image(annotated.image))
        boxes, kinds = annotated.box_array(), annotated.kind_array()
        keep = np.isin(kinds, [KINDS.index(kind) for kind in annotated.annotated_kinds])
        scale = min(1.0, FIELD_DIAMETER_PX / diameter)
        image = scale_image(image, scale)
        loaded.append(
            (
                Window(image, boxes[keep] * np.float32(scale), kinds[keep]),
                diameter * scale,
                annotated.annotated_kinds,
            )
        )
    return loaded


def collate(items: list[tuple[Window, tuple[str, ...]]]) -> dict[str, torch.Tensor]:
    """A batch as ultralytics' loss takes it, and ``class_weights`` (B, 1, kinds): 0 where not annotated."""
    side = items[0][0].image.shape[0]
    boxes = [torch.from_numpy(window.boxes) / side for window, _ in items]
    corners = torch.cat(boxes)
    return {
        "img": torch.from_numpy(np.stack([window.image for window, _ in items])).permute(0, 3, 1, 2),
        "bboxes": torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1),
        "cls": torch.cat([torch.from_numpy(window.kinds) for window, _ in items]).float()[:, None],
        "batch_idx": torch.cat([torch.full((len(b),), float(i)) for i, b in enumerate(boxes)]),
        "class_weights": torch.tensor(
            [[[float(kind in annotated) for kind in KINDS]] for _, annotated in items]
        ),
    }


def train_detector(
    recipe: DetectorRecipe,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[str], None] = print,
    command: str = "",
) -> Path:
    """Train a detector; returns the path of the best weights, with their card beside.

    The best checkpoint is the one whose averaged weights have the lowest loss on windows of the
    held-back photographs.

    Args:
        recipe: what is trained on what, and how.
        out: folder for checkpoints and weights.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        resume: continue from the last checkpoint in ``out``.
        report: called with each line of progress.
        command: what makes these weights again, for the card.

    Raises:
        DataError: no field is selected.  ConfigError: nothing to resume, or another recipe's.
    """
    torch.manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    known = list(read_fields(recipe.fields))
    chosen = [f for f in known if any(s.accepts(f) for s in recipe.train)]
    fields = load_fields([f for f in chosen if not is_held_back(f.photo, recipe.held_back)])
    held = load_fields([f for f in chosen if is_held_back(f.photo, recipe.held_back)])
    if not fields:
        raise DataError(
            f"{recipe.fields}: the recipe's 'train' selects no field with a cell; {known_values(known)}"
        )
    report(f"{len(fields)} fields to train on, {len(held)} held back to choose the checkpoint")
    network = new_network(recipe, device)
    loss = DetectionLoss(network, device)
    training = Training(network, recipe, detector_plan(recipe))
    if resume:
        training.load(out / "state.pt")
    checks, path = _held_back_batches(held, recipe), out / "best.safetensors"

    def check(running: float) -> None:
        held_loss = loss.mean(training.average, checks) if checks else running
        report(f"step {training.step}  held-back loss {held_loss:.4f}")
        if held_loss <= training.lowest:
            training.lowest = held_loss
            save_weights(training.average, path)

    supply = WindowDataset(fields, recipe, recipe.steps * recipe.batch)
    fit(training, supply, lambda batch: loss(network, batch), out / "state.pt", report, collate, check)
    _write_card(recipe, command, chosen, path)
    write_graph(lambda: write_detector_graph(path), report)
    return path


def detector_plan(recipe: DetectorRecipe) -> Plan:
    """Return how a recipe's network is optimised."""
    return Plan(
        steps=recipe.steps,
        batch=recipe.batch,
        check_every=recipe.check_every,
        learning_rate=recipe.learning_rate,
        schedule=warm_up_and_cosine(recipe.steps, DETECTOR_WARM_UP, floor=0.01, start=DETECTOR_WARM_UP),
        weight_decay=recipe.weight_decay,
        max_norm=10.0,
        # The first steps, from random weights, are forgotten soon: the decay rises to 0.998.
        average=lambda step: 0.998 * (1 - math.exp(-(step - 1) / 300)),
        workers=recipe.workers,
    )


def new_network(recipe: DetectorRecipe, device: str) -> Any:
    """Return the recipe's network with its first weights, in training mode."""
    network = build_network(recipe.architecture).to(device, memory_format=torch.channels_last)
    if recipe.start_from is not None:
        load_weights(network, recipe.start_from)
    # Gains of the three parts of the loss: ultralytics' own defaults.
    network.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    return network.train()


class DetectionLoss:
    """Ultralytics' detection loss, to which kinds that are not annotated in a window add nothing."""

    def __init__(self, network: Any, device: str) -> None:
        self.device = torch.device(device)
        self.criterion = network.init_criterion()

    def __call__(self, network: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean loss per window of a batch as ``collate`` makes it."""
        batch = {key: value.to(self.device) for key, value in batch.items()}
        pictures = batch["img"].contiguous(memory_format=torch.channels_last).float() / 255
        # Ultralytics weighs classes by this; a weight of 0 leaves a kind out of a window's loss.
        self.criterion.class_weights = batch["class_weights"]
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            predictions = network.predict(pictures)
        parts, _ = self.criterion(_to_float(predictions), batch)
        return parts.sum() / len(pictures)  # type: ignore[no-any-return]  # ultralytics is untyped

    @torch.no_grad()
    def mean(self, network: Any, batches: list[dict[str, torch.Tensor]]) -> float:
        """Return the mean over batches, without gradients."""
        return float(np.mean([float(self(network, batch)) for batch in batches]))


def _held_back_batches(held: list[LoadedField], recipe: DetectorRecipe) -> list[dict[str, torch.Tensor]]:
    windows = WindowDataset(held, recipe, 2 * len(held))
    items = [windows[number] for number in range(len(windows))]
    return [collate(items[start : start + recipe.batch]) for start in range(0, len(items), recipe.batch)]


def _write_card(recipe: DetectorRecipe, command: str, fields: list[AnnotatedField], path: Path) -> None:
    low = recipe.cell_diameter_px * math.exp(-1.0)
    card = DetectorCard(
        name=recipe.name,
        architecture=recipe.architecture,
        kinds=list(KINDS),
        cell_diameter_px=recipe.cell_diameter_px,
        diameter_range_px=(round(low, 1), round(recipe.cell_diameter_px * math.exp(1.0), 1)),
        confidence=recipe.confidence,
        sha256=sha256_of(path),
        command=command,
        recipe=recipe.model_dump(mode="json"),
        data=data_entries(fields, "fields"),
    )
    write_card(card, path)


def _to_float(predictions: Any) -> Any:
    if isinstance(predictions, torch.Tensor):
        return predictions.float()
    if isinstance(predictions, dict):
        return {key: _to_float(value) for key, value in predictions.items()}
    if isinstance(predictions, list | tuple):
        return type(predictions)(_to_float(value) for value in predictions)
    return predictions
