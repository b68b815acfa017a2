"""Training of the decoder of ``detr``, on the windows that the detector ``yolo`` is trained on.

The loss, with its matching of queries to cells, is that of ultralytics' RT-DETR; a leukocyte that is not
annotated would count against it, so only fields whose leukocytes all are take part.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from leukokit.datasets import is_held_back, read_fields
from leukokit.errors import DataError
from leukokit.taxonomy import LEUKOCYTE
from leukokit.training import (
    DetectorRecipe,
    Plan,
    Training,
    WindowDataset,
    collate,
    data_entries,
    fit,
    load_fields,
)
from leukokit.weights import DetectorCard, save_weights, sha256_of, write_card
from torch.optim.lr_scheduler import OneCycleLR

from leukokit_zoo.detr import build


def train_detr(
    recipe: DetectorRecipe,
    out: Path,
    resume: bool = False,
    report: Callable[[str], None] = print,
    command: str = "",
) -> Path:
    """Train the decoder on a CPU; returns the path of its weights, with their card beside.

    Args:
        recipe: what is trained on what, and how.
        out: folder for checkpoints and weights.
        resume: go on from the last checkpoint in ``out``.
        report: called with each line of progress.
        command: what makes these weights again, for the card.

    Raises:
        DataError: no field is selected.  ConfigError: nothing to resume.
    """
    torch.manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    chosen = [f for f in read_fields(recipe.fields) if any(s.accepts(f) for s in recipe.train)]
    chosen = [
        f for f in chosen if "leukocyte" in f.annotated_kinds and not is_held_back(f.photo, recipe.held_back)
    ]
    fields = load_fields(chosen)
    if not fields:
        raise DataError(
            f"{recipe.fields}: the recipe's 'train' selects no field whose leukocytes are annotated"
        )
    network, path = build(), out / "best.safetensors"
    training = Training(network, recipe, _plan(recipe), frozen=list(network.model[:-1]))
    if resume:
        training.load(out / "state.pt")

    def keep(_: float) -> None:
        decoder: Any = training.average.get_submodule(f"model.{len(network.model) - 1}")
        # The statistics of its normalisations are kept as they are, not averaged.
        for kept, current in zip(decoder.buffers(), network.model[-1].buffers(), strict=True):
            kept.copy_(current)
        save_weights(decoder, path)

    supply = WindowDataset(fields, recipe, recipe.steps * recipe.batch)

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = network.loss(_leukocytes(batch))[0]
        return loss

    fit(training, supply, loss_of, out / "state.pt", report, collate, keep)
    card = DetectorCard(
        name=recipe.name,
        architecture="rtdetr-decoder on smear-yolo11n",
        kinds=["leukocyte"],
        cell_diameter_px=recipe.cell_diameter_px,
        diameter_range_px=(recipe.cell_diameter_px / 2.72, recipe.cell_diameter_px * 2.72),
        confidence=recipe.confidence,
        sha256=sha256_of(path),
        command=command,
        recipe=recipe.model_dump(mode="json"),
        data=data_entries(chosen, "fields"),
    )
    write_card(card, path)
    return path


def _plan(recipe: DetectorRecipe) -> Plan:
    return Plan(
        steps=recipe.steps,
        batch=recipe.batch,
        check_every=recipe.check_every,
        learning_rate=recipe.learning_rate,
        # Smith & Topin 2019 (arXiv:1708.07120).
        schedule=lambda optimizer: OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.steps),
        weight_decay=recipe.weight_decay,
        decay_all=True,
        max_norm=1.0,
        average=lambda step: 0.995 if step > 1 else 0.0,
        workers=recipe.workers,
    )


def _leukocytes(batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The batch with its leukocytes alone, as class 0."""
    mine = batch["cls"][:, 0] == LEUKOCYTE
    return {
        "img": batch["img"].float() / 255,
        "cls": torch.zeros_like(batch["cls"][mine]),
        "bboxes": batch["bboxes"][mine],
        "batch_idx": batch["batch_idx"][mine],
    }
