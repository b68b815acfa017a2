"""Training of the decoder of ``detr``, on the windows that the detector ``yolo`` is trained on.

The loss, with its matching of queries to cells, is that of ultralytics' RT-DETR; a leukocyte that is not
annotated would count against it, so only fields whose leukocytes all are take part.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from leukokit.datasets.catalogue import licence_of
from leukokit.datasets.fields import is_held_back, read_fields
from leukokit.errors import DataError
from leukokit.taxonomy import LEUKOCYTE
from leukokit.training.detector import DetectorRecipe, WindowDataset, collate, load_fields
from leukokit.weights import DetectorCard, sha256_of
from leukokit.weights.files import save_weights
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from leukokit_zoo.detr import build


def train_detr(
    recipe: DetectorRecipe, out: Path, report: Callable[[str], None] = print, command: str = ""
) -> Path:
    """Train the decoder; returns the path of its weights, with their card beside.

    Raises:
        DataError: no field is selected.
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
    network = build()
    decoder = network.model[-1]
    average = AveragedModel(decoder, multi_avg_fn=get_ema_multi_avg_fn(0.995))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(
        decoder.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.steps)
    supply = WindowDataset(fields, recipe, recipe.steps * recipe.batch)
    started, running = time.monotonic(), 0.0
    loader = DataLoader(supply, recipe.batch, num_workers=recipe.workers, collate_fn=collate)
    for step, batch in enumerate(loader, 1):
        network.train()
        for layer in network.model[:-1]:
            layer.eval()
        loss, _ = network.loss(_leukocytes(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        course.step()
        average.update_parameters(decoder)
        running += (loss.item() - running) / min(step, 50)
        if step % 50 == 0:
            pace = (time.monotonic() - started) / step
            report(f"step {step}/{recipe.steps}  loss {running:.3f}  {pace:.2f} s each")
            if step % recipe.check_every == 0:
                save_weights(average.module, out / "best.safetensors")
    path = out / "best.safetensors"
    save_weights(average.module, path)
    used = Counter((f.dataset, f.lab) for f in chosen)
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
        data=[
            {"dataset": dataset, "lab": lab, "fields": count, "licence": licence_of(dataset)}
            for (dataset, lab), count in sorted(used.items())
        ],
    )
    path.with_suffix(".json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return path


def _leukocytes(batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The batch with its leukocytes alone, as class 0."""
    mine = batch["cls"][:, 0] == LEUKOCYTE
    return {
        "img": batch["img"].float() / 255,
        "cls": torch.zeros_like(batch["cls"][mine]),
        "bboxes": batch["bboxes"][mine],
        "batch_idx": batch["batch_idx"][mine],
    }
