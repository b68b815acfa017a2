"""Annotated leukocytes to train a classifier on, and what every recipe for that says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from leukokit.config import PluginChoice
from leukokit.crops.appearance import erythrocyte_density
from leukokit.crops.cut import REACH, CropUnit, crop_sides
from leukokit.crops.stain import mix_stain, nucleus_map
from leukokit.datasets.detected import CROP_PX, DetectedField, load_detected
from leukokit.datasets.fields import Selection, WeightsName, is_held_back, known_values
from leukokit.errors import ConfigError, DataError
from leukokit.graph_builders.base import GraphBuilder
from leukokit.registry import graph_builders
from leukokit.taxonomy import LEUKOCYTE_CLASSES, UNKNOWN
from leukokit.training.views import plain_view


class AnnotatedCellsRecipe(BaseModel):
    """Which annotated cells a classifier is trained on, how, and how its probabilities are calibrated."""

    model_config = ConfigDict(extra="forbid")
    name: WeightsName
    cells: list[Path] = Field(description="folders of 'leukokit data cells'")
    train: list[Selection] = Field(description="cells to train on")
    leave_out: list[str] = Field([], description="laboratories left out of the training")
    photographs: dict[str, Path] = Field(
        {}, description="data set to a file with one photograph per line: no others of it are trained on"
    )
    classes: list[str] = Field(list(LEUKOCYTE_CLASSES), description="classes, in the order of the outputs")
    held_back: float = Field(0.08, ge=0, lt=1, description="share of the photographs kept for calibration")
    target_accuracy: float = Field(
        0.98,
        gt=0,
        le=1,
        description="accuracy of the classified held-back cells that the review threshold is chosen for",
    )
    steps: int = Field(1000, ge=1, description="optimiser steps")
    batch: int = Field(32, ge=1, description="annotated cells per step")
    learning_rate: float = Field(
        1e-3, gt=0, description="peak, after a warm-up of 40 steps; cosine to 2% of it"
    )
    weight_decay: float = Field(0.02, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    balance: float = Field(0.5, description="power of the rarity of class and laboratory in the sampling")
    average: float = Field(0.99, ge=0, lt=1, description="decay of the running average of the weights")
    low_resolution: float = Field(
        0.3, ge=0, le=1, description="share of the crops that are reduced in resolution"
    )
    check_every: int = Field(200, ge=1, description="steps between checkpoints")
    seed: int = Field(0, ge=0)


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedCell:
    """An annotated leukocyte: its kept crop, its field, and its number among the field's cells."""

    field: DetectedField
    node: int
    label: int
    crop: npt.NDArray[np.uint8]

    def cover(self, cover: float, unit: CropUnit) -> float:
        """Side of the crop that a classifier gets, in longer sides of the cell's box (``crop_sides``)."""
        box = self.field.cells.boxes[self.node]
        (side,) = crop_sides(self.field.cells, np.array([self.node]), cover, unit)
        return float(side / max(float((box[2:] - box[:2]).max()), 1.0))

    @property
    def stain(self) -> npt.NDArray[np.float32]:
        """``nucleus_map`` of the cell, (3, 3) float32."""
        field = self.field
        red = erythrocyte_density(field.appearance, field.cells)
        return nucleus_map(np.asarray(self.crop), CROP_PX / REACH, red)


def annotated_cells(
    folders: Iterable[Path], classes: list[str], accepts: Callable[[DetectedField], bool]
) -> list[AnnotatedCell]:
    """Annotated cells of the fields that are wanted; a label that is none of the classes is -1."""
    cells = []
    for folder in folders:
        detected = load_detected(folder)
        for field in filter(accepts, detected.fields):
            for place, node in enumerate(field.annotated):
                name = field.labels[node]
                label = classes.index(name) if name in classes else -1
                cells.append(AnnotatedCell(field, int(node), label, detected.crops[field.first_crop + place]))
    return cells


def training_cells(recipe: AnnotatedCellsRecipe) -> tuple[list[AnnotatedCell], list[AnnotatedCell]]:
    """The recipe's cells to train on, and those of photographs held back for calibration.

    Raises:
        DataError: none is selected.  ConfigError: a list of photographs cannot be read.
    """
    listed = {dataset: _listed(path) for dataset, path in recipe.photographs.items()}

    def accepts(field: DetectedField) -> bool:
        source = field.source
        if source.lab in recipe.leave_out or source.photo not in listed.get(source.dataset, {source.photo}):
            return False
        return any(selection.accepts(source) for selection in recipe.train)

    cells = [cell for cell in annotated_cells(recipe.cells, recipe.classes, accepts) if cell.label >= 0]
    if not cells:
        known = known_values(
            field.source for folder in recipe.cells for field in load_detected(folder).fields
        )
        raise DataError(f"recipe '{recipe.name}': its 'train' selects no annotated leukocyte; {known}")
    held = [is_held_back(cell.field.source.photo, recipe.held_back) for cell in cells]
    return (
        [cell for cell, back in zip(cells, held, strict=True) if not back],
        [cell for cell, back in zip(cells, held, strict=True) if back],
    )


def _listed(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split("\n")) - {""}
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the photographs ({error.strerror})") from error


def builder_of(choice: PluginChoice) -> GraphBuilder:
    """The graph builder that a recipe names.

    Raises:
        PluginError, ConfigError: there is none of that name, or not with these parameters.
    """
    plugin = graph_builders.get(choice.name)
    builder: GraphBuilder = plugin(plugin.parse(choice.params))
    return builder


def rarity(cells: Sequence[AnnotatedCell], power: float) -> npt.NDArray[np.float64]:
    """(N,) chances of being drawn: cells of a laboratory and class by their number to ``-power``."""
    groups = [(cell.field.source.lab, cell.label) for cell in cells]
    counts = Counter(groups)
    weights = np.array([counts[group] ** -power for group in groups])
    return np.asarray(weights / weights.sum())


def absence_offsets(
    cells: Sequence[AnnotatedCell], classes: Sequence[str], weight: float
) -> npt.NDArray[np.float32]:
    """Return what is added to a cell's logits in the loss, (N, C) float32, where labels are partial.

    A class of which a laboratory shows no cell may not have been annotated there: its probability counts
    with ``weight`` in the loss of that laboratory's cells. The class ``unknown`` is nowhere annotated and
    counts in full.
    """
    present = {(cell.field.source.lab, cell.label) for cell in cells}
    rows = {
        lab: [
            0.0 if name == UNKNOWN or (lab, label) in present else math.log(weight)
            for label, name in enumerate(classes)
        ]
        for lab in {lab for lab, _ in present}
    }
    offsets = np.array([rows[cell.field.source.lab] for cell in cells], np.float32)
    return offsets.reshape(-1, len(classes))


def plain_views(
    cells: list[AnnotatedCell], px: int, cover: float, nucleus: bool, unit: CropUnit = "box"
) -> torch.Tensor:
    """(N, 3, px, px) uint8: the cells as a classifier sees them."""
    views = []
    for cell in cells:
        view = plain_view(np.asarray(cell.crop), px, cell.cover(cover, unit))
        views.append(mix_stain(view, cell.stain) if nucleus else view)
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
