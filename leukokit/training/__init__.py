"""Training of detectors and classifiers. Nothing here is needed to run one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leukokit.training.classifier import ClassifierRecipe
    from leukokit.training.detector import DetectorRecipe

__all__ = ["load_classifier_recipe", "load_detector_recipe", "train"]


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
        resume: go on from the last checkpoint.
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
