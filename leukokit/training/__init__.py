"""Training of detectors and classifiers. Nothing here is needed to run one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.training.augment import disturb as disturb
    from leukokit.training.calibration import UNCALIBRATED as UNCALIBRATED
    from leukokit.training.calibration import calibration_of as calibration_of
    from leukokit.training.cards import data_entries as data_entries
    from leukokit.training.cards import write_classifier_card as write_classifier_card
    from leukokit.training.cells import AnnotatedCell as AnnotatedCell
    from leukokit.training.cells import AnnotatedCellsRecipe as AnnotatedCellsRecipe
    from leukokit.training.cells import plain_views as plain_views
    from leukokit.training.cells import rarity as rarity
    from leukokit.training.cells import training_cells as training_cells
    from leukokit.training.classifier import ClassifierRecipe as ClassifierRecipe
    from leukokit.training.detector import DetectorRecipe as DetectorRecipe
    from leukokit.training.detector import LoadedField as LoadedField
    from leukokit.training.detector import WindowDataset as WindowDataset
    from leukokit.training.detector import collate as collate
    from leukokit.training.detector import load_fields as load_fields
    from leukokit.training.loop import Plan as Plan
    from leukokit.training.loop import Training as Training
    from leukokit.training.loop import fit as fit
    from leukokit.training.loop import warm_up_and_cosine as warm_up_and_cosine

_MODULES = {
    "AnnotatedCell": "cells",
    "AnnotatedCellsRecipe": "cells",
    "ClassifierRecipe": "classifier",
    "DetectorRecipe": "detector",
    "LoadedField": "detector",
    "Plan": "loop",
    "Training": "loop",
    "UNCALIBRATED": "calibration",
    "WindowDataset": "detector",
    "calibration_of": "calibration",
    "collate": "detector",
    "data_entries": "cards",
    "disturb": "augment",
    "fit": "loop",
    "load_fields": "detector",
    "plain_views": "cells",
    "rarity": "cells",
    "training_cells": "cells",
    "warm_up_and_cosine": "loop",
    "write_classifier_card": "cards",
}
__all__ = ["load_classifier_recipe", "load_detector_recipe", "train", *_MODULES]
__getattr__, __dir__ = lazy_names(__name__, _MODULES)


def train(
    recipe: DetectorRecipe | ClassifierRecipe,
    out: Path = Path("runs"),
    device: str = "auto",
    resume: bool = False,
    report: Callable[[str], None] = print,
    command: str = "",
) -> Path:
    """Train the weights that a recipe describes.

    Args:
        recipe: of a detector or a classifier, see ``load_detector_recipe`` and ``load_classifier_recipe``.
        out: folder of all trainings; this one writes to the folder of the recipe's name in it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        resume: continue from the last checkpoint.
        report: called with each line of progress.
        command: what makes these weights again, for the card.

    Returns:
        The path of the weights, ``best.safetensors``; their card lies beside.

    Raises:
        DataError: the recipe selects nothing to train on.
        ConfigError: nothing to resume, no such device, or a setting that the network does not take.
        WeightsError: weights to start from are missing.
        OutputError: ``out`` cannot be written.
    """
    from leukokit._files import make_folder
    from leukokit.pipeline import resolve_device
    from leukokit.training.classifier import ClassifierRecipe, train_classifier
    from leukokit.training.detector import train_detector
    from leukokit.training.hybrid import HybridRecipe, train_hybrid

    folder, device = out / recipe.name, resolve_device(device)
    make_folder(folder)
    if isinstance(recipe, HybridRecipe):
        return train_hybrid(recipe, folder, device, resume, report, command)
    if isinstance(recipe, ClassifierRecipe):
        return train_classifier(recipe, folder, device, resume, report, command)
    return train_detector(recipe, folder, device, resume, report, command)


def load_detector_recipe(path: Path, settings: Sequence[str] = ()) -> DetectorRecipe:
    """Read the recipe of a detector from a YAML file, then ``KEY=VALUE`` settings.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or wrong; names it.
    """
    from leukokit.config import load_settings
    from leukokit.training.detector import DetectorRecipe

    return load_settings(DetectorRecipe, path, settings)


def load_classifier_recipe(path: Path, settings: Sequence[str] = ()) -> ClassifierRecipe:
    """Read the recipe of a classifier, whose key ``classifier`` decides what else the recipe may say.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or wrong; names it.
    """
    from leukokit.config import load_settings
    from leukokit.training.classifier import ClassifierRecipe, NamedClassifier
    from leukokit.training.hybrid import HybridRecipe

    is_hybrid = load_settings(NamedClassifier, path, settings).classifier == "hybrid"
    return load_settings(HybridRecipe if is_hybrid else ClassifierRecipe, path, settings)
