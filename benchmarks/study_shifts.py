"""Test fields of benchmarks/study.py made larger, smaller, or stained otherwise, and detected anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from leukokit.config import PipelineConfig, PluginChoice
from leukokit.crops.stain import mix_stain
from leukokit.datasets.detected import detect_fields
from leukokit.datasets.fields import AnnotatedField, read_fields
from leukokit.images.pixels import RGBImage
from leukokit.pipeline import Pipeline
from leukokit.smear import read_smear

SHIFTS: Final[dict[str, tuple[float, tuple[float, float, float]]]] = {
    "as they are": (1.0, (1, 1, 1)),
    "half the size": (0.5, (1, 1, 1)),
    "0.7 of the size": (0.7, (1, 1, 1)),
    "1.4 times the size": (1.4, (1, 1, 1)),
    "twice the size": (2.0, (1, 1, 1)),
    "stained 1.4 times as strongly": (1.0, (1.4, 1.4, 1.4)),
    "stained 0.7 times as strongly": (1.0, (0.7, 0.7, 0.7)),
    "redder": (1.0, (0.7, 1.15, 1.15)),
    "bluer": (1.0, (1.3, 1.0, 0.7)),
}
"""Factor on the size, and on the optical density of red, green and blue."""


def shifted_cells(fields: Path, detector: Path, out: Path) -> None:
    """A folder of annotated cells for each of ``SHIFTS``: the validation fields of two laboratories.

    The detector processes the changed image, so that its errors are part of what is measured.
    """
    chosen = [
        field
        for field in read_fields(fields)
        if (field.dataset, field.split) == ("txl-pbc", "val") and field.lab in ("pbc", "raabin")
    ]
    choice = PluginChoice(name="yolo", params={"weights": str(detector)})
    pipeline = Pipeline.from_config(PipelineConfig(detector=choice, classifier=None), "cpu")
    for name, (size, stain) in SHIFTS.items():
        folder = out / name
        if (folder / "fields.jsonl").exists():
            continue
        (folder / "images").mkdir(parents=True, exist_ok=True)
        changed = [_changed(field, size, stain, folder / "images") for field in chosen]
        detect_fields(changed, pipeline, folder)


def _changed(
    field: AnnotatedField, size: float, stain: tuple[float, float, float], folder: Path
) -> AnnotatedField:
    picture: RGBImage = read_smear(field.image).image
    if stain != (1, 1, 1):
        picture = mix_stain(picture, np.diag(np.asarray(stain, np.float32)))
    if size != 1:
        way = cv2.INTER_AREA if size < 1 else cv2.INTER_CUBIC
        picture = np.asarray(cv2.resize(picture, None, fx=size, fy=size, interpolation=way), np.uint8)
    path = folder / f"{field.image.stem}.png"
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    boxes = [[side * size for side in box] for box in field.boxes]
    return replace(field, image=path, boxes=boxes)
