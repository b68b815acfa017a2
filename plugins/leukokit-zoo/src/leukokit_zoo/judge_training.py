"""Training of the CNN of ``yolo-cnn``: does a crop show a leukocyte, in the middle and whole?"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from leukokit import Smear
from leukokit.crops import cut_crop
from leukokit.datasets import Selection, WeightsName, is_held_back, read_fields
from leukokit.errors import DataError
from leukokit.images import RGBImage
from leukokit.metrics import fit_temperature
from leukokit.taxonomy import KINDS, LEUKOCYTE
from leukokit.training import (
    LoadedField,
    Plan,
    Training,
    data_entries,
    disturb,
    fit,
    load_fields,
    warm_up_and_cosine,
)
from leukokit.weights import ClassifierCard, save_weights, sha256_of, write_card
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.utils.data import DataLoader, Dataset

from leukokit_zoo.wbcsnet import WbcsNet

CLASSES = ["leukocyte", "other"]
WARM_UP = 40
"""Steps over which the learning rate rises."""


class JudgeRecipe(BaseModel):
    """What ``python -m leukokit_zoo.train yolo-cnn --config`` reads."""

    model_config = ConfigDict(extra="forbid")
    name: WeightsName
    fields: Path = Field(description="prepared fields (.jsonl); those with all kinds annotated are used")
    train: list[Selection] = Field(description="fields to train on")
    crop_px: int = Field(48, description="side of a crop", ge=16)
    cover: float = Field(1.3, description="side of a crop in longer sides of the box", gt=0)
    held_back: float = Field(0.08, description="share of the photographs kept for calibration")
    steps: int = Field(1500, description="optimiser steps")
    batch: int = Field(64, description="crops per step")
    learning_rate: float = Field(1e-3, description="peak, after a warm-up of 40 steps; cosine to zero")
    weight_decay: float = 0.02
    check_every: int = Field(500, description="steps between checkpoints", ge=1)
    seed: int = 0


class JudgedCrops(Dataset[tuple[torch.Tensor, int]]):
    """An endless, seeded supply of crops: item ``i`` depends on the seed and ``i`` alone.

    Half show a leukocyte about its box. The others show, in equal parts, an erythrocyte or platelet, a
    leukocyte far out of the middle, and any place of a leukocyte's size that has none.
    """

    def __init__(self, fields: list[LoadedField], recipe: JudgeRecipe, length: int) -> None:
        self.recipe, self.length = recipe, length
        self.fields = [window for window, _, _ in fields if (window.kinds == LEUKOCYTE).any()]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        rng = np.random.default_rng([self.recipe.seed, index])
        field = self.fields[rng.integers(len(self.fields))]
        leukocytes = field.boxes[field.kinds == LEUKOCYTE]
        shown, label = leukocytes[rng.integers(len(leukocytes))], int(rng.random() < 0.5)
        if label == CLASSES.index("leukocyte"):
            shown = _moved(shown, rng.normal(0, 0.04, 2), rng)
        else:
            shown = _other(field.boxes[field.kinds != LEUKOCYTE], leukocytes, shown, field.image, rng)
        centre = (float(shown[0] + shown[2]) / 2, float(shown[1] + shown[3]) / 2)
        side = self.recipe.cover * max(float((shown[2:] - shown[:2]).max()), 1.0)
        # The field is standardised already.
        crop = cut_crop(Smear(field.image, None, ""), centre, side, self.recipe.crop_px)
        crop = np.rot90(crop, int(rng.integers(4)))
        crop = disturb(np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop), rng)
        return torch.from_numpy(crop).permute(2, 0, 1), label


def train_judge(
    recipe: JudgeRecipe,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[str], None] = print,
    command: str = "",
) -> Path:
    """Train the CNN; returns the path of the weights, with their card beside.

    Args:
        recipe: what is trained on what, and how.
        out: folder for checkpoints and weights.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        resume: go on from the last checkpoint in ``out``.
        report: called with each line of progress.
        command: what makes these weights again, for the card.

    Raises:
        DataError: no field with a leukocyte is selected.  ConfigError: nothing to resume.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    chosen = [f for f in read_fields(recipe.fields) if any(s.accepts(f) for s in recipe.train)]
    chosen = [field for field in chosen if set(field.annotated_kinds) == set(KINDS)]
    fields = load_fields([f for f in chosen if not is_held_back(f.photo, recipe.held_back)])
    held = load_fields([f for f in chosen if is_held_back(f.photo, recipe.held_back)])
    supply = JudgedCrops(fields, recipe, recipe.steps * recipe.batch)
    if not supply.fields:
        raise DataError(f"{recipe.fields}: the recipe's 'train' selects no field with a leukocyte")
    report(f"{len(fields)} fields to train on, {len(held)} held back to calibrate")
    network = WbcsNet(len(CLASSES)).to(device)
    training = Training(network, recipe, _plan(recipe))
    if resume:
        training.load(out / "state.pt")

    def loss_of(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        crops, labels = batch
        return nn.functional.cross_entropy(network(crops.to(device).float() / 255), labels.to(device))

    fit(training, supply, loss_of, out / "state.pt", report)
    network.eval()
    path = out / "best.safetensors"
    save_weights(network, path)
    card = ClassifierCard(
        name=recipe.name,
        architecture="wbcsnet",
        sha256=sha256_of(path),
        command=command,
        recipe=recipe.model_dump(mode="json"),
        data=data_entries(chosen, "fields"),
        classes=CLASSES,
        crop_px=recipe.crop_px,
        cover=recipe.cover,
        unit="box",
        nucleus=False,
        temperature=_temperature(network, JudgedCrops(held, recipe, 20 * len(held)), recipe, device, report),
        review_threshold=0.0,
    )
    write_card(card, path)
    return path


def _plan(recipe: JudgeRecipe) -> Plan:
    return Plan(
        steps=recipe.steps,
        batch=recipe.batch,
        check_every=recipe.check_every,
        learning_rate=recipe.learning_rate,
        schedule=warm_up_and_cosine(recipe.steps, WARM_UP),
        weight_decay=recipe.weight_decay,
        decay_all=True,
    )


@torch.inference_mode()
def _temperature(
    network: nn.Module, held: JudgedCrops, recipe: JudgeRecipe, device: str, report: Callable[[str], None]
) -> float:
    if not held.fields:
        return 1.0
    outputs = [
        (network(crops.to(device).float() / 255).cpu().numpy(), labels.numpy())
        for crops, labels in DataLoader(held, recipe.batch)
    ]
    logits, labels = (np.concatenate(part) for part in zip(*outputs, strict=True))
    right = float((logits.argmax(axis=1) == labels).mean())
    report(f"held back: {right:.3f} of {len(labels)} crops right")
    return round(float(fit_temperature(logits, labels)), 4)


def _other(
    others: npt.NDArray[np.float32],
    leukocytes: npt.NDArray[np.float32],
    like: npt.NDArray[np.float32],
    image: RGBImage,
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """A box with no leukocyte in its middle; ``like`` is a leukocyte's box, whose size it may take."""
    choice = rng.random()
    if choice < 1 / 3 and len(others):
        return _moved(others[rng.integers(len(others))], rng.normal(0, 0.1, 2), rng)
    height, width = image.shape[:2]
    sides = like[2:] - like[:2]
    for _ in range(20):
        if choice < 2 / 3:
            angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 1.0)
            box = _moved(like, distance * np.array([math.cos(angle), math.sin(angle)]), rng)
        else:
            corner = rng.uniform(0, 1, 2) * np.array([width, height]) - sides / 2
            box = np.concatenate([corner, corner + sides]).astype(np.float32)
        apart = np.abs((leukocytes[:, :2] + leukocytes[:, 2:] - box[:2] - box[2:]) / 2) / sides
        if (np.hypot(*apart.T) > 0.4).all():
            break
    return box


def _moved(
    box: npt.NDArray[np.float32], by: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """The box shifted by (x, y) of its sides and resized a little."""
    sides = box[2:] - box[:2]
    centre = (box[:2] + box[2:]) / 2 + by * sides
    half = sides / 2 * math.exp(rng.normal(0, 0.1))
    return np.concatenate([centre - half, centre + half]).astype(np.float32)
