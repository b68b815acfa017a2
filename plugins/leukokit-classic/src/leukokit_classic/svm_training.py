"""Training of the support vector machine of ``svm-features``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from leukokit.crops import REACH
from leukokit.training import (
    UNCALIBRATED,
    AnnotatedCell,
    AnnotatedCellsRecipe,
    calibration_of,
    plain_views,
    rarity,
    training_cells,
    write_classifier_card,
)
from pydantic import Field

from leukokit_classic.features import features
from leukokit_classic.svm import SupportVectorMachine


class SvmRecipe(AnnotatedCellsRecipe):
    """What the training of ``svm-features`` reads.

    Of what it shares with the networks' recipes it uses ``name``, ``cells``, ``train``, ``leave_out``,
    ``classes``, ``held_back``, ``target_accuracy`` and ``balance``.
    """

    crop_px: int = Field(96, ge=32, description="side of a crop")
    cover: float = Field(1.3, gt=1, le=REACH, description="side of a crop in longer sides of the cell's box")
    penalty: float = Field(10.0, gt=0, description="C of the support vector machine")
    width: float = Field(1.0, gt=0, description="gamma times the number of features")


def train_svm(recipe: SvmRecipe, out: Path, report: Callable[[str], None] = print, command: str = "") -> Path:
    """Train; returns the path of the weights in ``out``, with their card beside.

    Raises:
        DataError: no cell is selected.
    """
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    out.mkdir(parents=True, exist_ok=True)
    cells, held = training_cells(recipe)
    report(f"{len(cells)} cells to train on, {len(held)} held back to calibrate")
    figures, labels = figures_of(cells, recipe), np.array([cell.label for cell in cells])
    scaler = StandardScaler().fit(figures)
    machine = SVC(C=recipe.penalty, gamma=recipe.width / figures.shape[1], decision_function_shape="ovr")
    chances = rarity(cells, recipe.balance) * len(cells)
    machine.fit(scaler.transform(figures), labels, sample_weight=chances)
    stored = SupportVectorMachine.of(scaler, machine)
    report(f"{len(stored.vectors)} support vectors of {figures.shape[1]} features")
    path = out / "best.safetensors"
    stored.save(path)
    calibration = UNCALIBRATED
    if held:
        logits = stored.decision(figures_of(held, recipe)).astype(np.float32)
        calibration = calibration_of(
            logits, np.array([c.label for c in held]), recipe.target_accuracy, report
        )
    write_classifier_card(
        recipe,
        path,
        command,
        cells + held,
        calibration,
        architecture="svm-rbf",
        crop_px=recipe.crop_px,
        cover=recipe.cover,
        nucleus=False,
    )
    return path


def figures_of(cells: list[AnnotatedCell], recipe: SvmRecipe) -> npt.NDArray[np.float64]:
    """Features (N, 80) of the cells as the classifier sees them."""
    views = plain_views(cells, recipe.crop_px, recipe.cover, nucleus=False).permute(0, 2, 3, 1).numpy()
    return np.stack([features(np.ascontiguousarray(view), recipe.cover) for view in views])
