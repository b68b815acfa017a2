r"""What a laboratory outside the training may expect, and the review threshold that follows from it.

Each laboratory is left out once: a hybrid trained without it names its leukocytes. One temperature and one
review threshold are then fitted to these predictions, an equal number of cells from each laboratory, and can
be written into the cards of weights that were trained on all laboratories::

    python benchmarks/laboratories.py --config configs/hybrid.yaml --out laboratories \
        --trained runs/leukocyte-hybrid/best.safetensors --card leukokit/weights

A second call uses the predictions that are there. A laboratory that the recipe's first stage was trained on
starts from ImageNet weights instead, at a learning rate of 1e-3.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import yaml

from leukokit.classifiers.hybrid import find_cnn
from leukokit.classifiers.networks.context_network import ContextNetwork
from leukokit.classifiers.networks.crop_network import CropNetwork
from leukokit.datasets.detected import DetectedField
from leukokit.metrics.bootstrap import balanced_accuracies, balanced_interval
from leukokit.metrics.calibration import choose_review_threshold, fit_temperature
from leukokit.metrics.intervals import wilson
from leukokit.taxonomy import ERYTHROBLAST, IMMATURE_GRANULOCYTE, LEUKOCYTE_CLASSES, UNKNOWN
from leukokit.training.cells import AnnotatedCell, annotated_cells, builder_of, training_cells
from leukokit.training.hybrid import (
    FieldGraphs,
    HybridRecipe,
    JointNetwork,
    context_logits,
    embeddings_of,
    fit_hybrid,
    head_logits,
    start_training,
)
from leukokit.weights import ClassifierCard, read_card
from leukokit.weights.files import load_weights

LABORATORIES = ("chula", "bionet", "pbc", "raabin", "tecom", "bccd")
SLIDES = {"bionet": ("stain-2", "stain-4", "stain-5")}
"""Slides that are measured; most eosinophils of the others are neutrophils by eye."""
CELLS_EACH = 240
"""Cells per laboratory, at most, that temperature and review threshold are fitted to."""
ABNORMAL = (IMMATURE_GRANULOCYTE, ERYTHROBLAST)


@dataclass(frozen=True)
class Predictions:
    """Cells of a laboratory that was left out: logits of hybrid and CNN (N, C), labels (N,), photographs."""

    hybrid: npt.NDArray[np.float32]
    cnn: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    photos: npt.NDArray[np.str_]

    def __getitem__(self, chosen: npt.NDArray[np.generic]) -> Predictions:
        return Predictions(self.hybrid[chosen], self.cnn[chosen], self.labels[chosen], self.photos[chosen])


def main() -> None:
    """Run all folds that are missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labs", nargs="*", default=LABORATORIES)
    parser.add_argument(
        "--trained", type=Path, help="weights trained without the laboratories that they name"
    )
    parser.add_argument("--card", type=Path, help="folder of weights whose cards take the calibration")
    choice = parser.parse_args()
    values = yaml.safe_load(choice.config.read_text(encoding="utf-8"))
    recipe = HybridRecipe.model_validate({**values, "steps": choice.steps, "seed": choice.seed})
    choice.out.mkdir(parents=True, exist_ok=True)
    found = {lab: left_out(recipe, lab, choice.out, choice.trained) for lab in choice.labs}
    found_by = ("hybrid", "cnn")
    calibrations = {name: calibrate(found, name, recipe) for name in found_by}
    text = "\n\n".join(table(found, name, recipe, *calibrations[name]) for name in found_by)
    if choice.trained:
        held = predict(load_hybrid(choice.trained), training_cells(recipe)[1], recipe)
        text += "\n\n" + "\n".join(held_back(held, name, *calibrations[name]) for name in found_by)
    print(text)
    (choice.out / "table.md").write_text(text + "\n", encoding="utf-8")
    if choice.card:
        cards = {"hybrid": choice.card / f"{recipe.name}.json", "cnn": choice.card / f"{recipe.cnn}.json"}
        for name, path in cards.items():
            write_calibration(path, calibrations[name])


def left_out(recipe: HybridRecipe, lab: str, out: Path, trained: Path | None = None) -> Predictions:
    """Predictions for all annotated cells of a laboratory, by a training without it or by such weights."""
    path = out / f"{lab}-{recipe.seed}.npz"
    if not path.exists() and trained and lab not in labs_of(trained):
        save(predict(load_hybrid(trained), test_cells(recipe, lab), recipe), path)
    elif not path.exists():
        changes: dict[str, object] = {"leave_out": [lab], "held_back": 0.0}
        if recipe.start_from and lab in labs_of(recipe.start_from):
            changes |= {"start_from": None, "learning_rate": 1e-3}
        own = recipe.model_copy(update=changes)
        cells, _ = training_cells(own)
        scenes = FieldGraphs(cells, builder_of(own.graph))
        state = start_training(own, scenes)
        print(f"{lab} left out: {len(cells)} cells to train on", flush=True)
        fit_hybrid(state, own, scenes, report=lambda line: print(line, flush=True))
        assert isinstance(state.average, JointNetwork)
        save(predict(state.average, test_cells(recipe, lab), own), path)
    stored = np.load(path, allow_pickle=False)
    return Predictions(stored["hybrid"], stored["cnn"], stored["labels"], stored["photos"])


def labs_of(path: Path) -> set[str]:
    """Laboratories that weights were trained on, by their card."""
    return {str(row["lab"]) for row in read_card(path, ClassifierCard).data}


def load_hybrid(path: Path) -> JointNetwork:
    """A trained hybrid and its CNN, in evaluation mode."""
    card = read_card(path, ClassifierCard)
    network = JointNetwork(CropNetwork(len(card.classes)), ContextNetwork(len(card.classes)))
    load_weights(network.cnn, find_cnn(path, card.cnn))
    load_weights(network.context, path)
    return network.to(memory_format=torch.channels_last).eval()


def test_cells(recipe: HybridRecipe, lab: str) -> list[AnnotatedCell]:
    """Annotated cells of a laboratory, a photograph that several sets hold once."""

    def accepts(field: DetectedField) -> bool:
        slides = SLIDES.get(lab)
        return field.source.lab == lab and (slides is None or field.source.slide in slides)

    cells = annotated_cells(recipe.cells, recipe.classes, accepts)
    seen: dict[str, str] = {}
    return [
        cell
        for cell in cells
        if cell.label >= 0
        and seen.setdefault(cell.field.source.photo, cell.field.source.dataset) == cell.field.source.dataset
    ]


def predict(network: JointNetwork, cells: Sequence[AnnotatedCell], recipe: HybridRecipe) -> Predictions:
    """Logits of both networks for some cells."""
    embeddings = embeddings_of(network.cnn, cells, recipe)
    return Predictions(
        context_logits(network.context, FieldGraphs(cells, builder_of(recipe.graph)), embeddings),
        head_logits(network.cnn, embeddings),
        np.array([cell.label for cell in cells]),
        np.array([cell.field.source.photo for cell in cells]),
    )


def save(found: Predictions, path: Path) -> None:
    """Write predictions as ``.npz``."""
    np.savez(path, hybrid=found.hybrid, cnn=found.cnn, labels=found.labels, photos=found.photos)


def calibrate(found: dict[str, Predictions], name: str, recipe: HybridRecipe) -> tuple[float, float]:
    """Temperature and review threshold from mature leukocytes, equally many of each laboratory."""
    parts = []
    for predictions in found.values():
        mature = np.flatnonzero(predictions.labels < len(LEUKOCYTE_CLASSES))
        parts.append(predictions[np.random.default_rng(0).permutation(mature)[:CELLS_EACH]])
    logits = np.concatenate([getattr(part, name) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    temperature = fit_temperature(logits, labels)
    probabilities = softmax(logits / temperature)
    # An unknown cell is not classified, whatever the threshold.
    known = probabilities.argmax(axis=1) != recipe.classes.index(UNKNOWN)
    chosen = choose_review_threshold(probabilities[known], labels[known], recipe.target_accuracy)
    return round(temperature, 4), round(chosen.value if chosen else 1.0, 4)


def table(
    found: dict[str, Predictions], name: str, recipe: HybridRecipe, temperature: float, threshold: float
) -> str:
    """One row per laboratory, Markdown."""
    lines = [
        f"`{name}`: temperature {temperature}, review threshold {threshold}",
        "",
        "| left out | n | balanced accuracy, all classes | classes of 10+ | accuracy of the classified "
        "| not classified | of these unknown | mature cells called immature or erythroblast "
        "| abnormal cells given a mature class |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    everywhere, common = [], []
    for lab, predictions in found.items():
        row, balanced, of_ten = _row(lab, predictions, name, recipe, temperature, threshold)
        lines.append(row)
        everywhere.append(balanced)
        common.append(of_ten)
    lines.append(f"| mean | | {np.mean(everywhere):.3f} | {np.mean(common):.3f} | | | | | |")
    return "\n".join(lines)


def held_back(found: Predictions, name: str, temperature: float, threshold: float) -> str:
    """What becomes of the abnormal cells among those held back from training, in one line."""
    probabilities = softmax(getattr(found, name) / temperature)
    given, classified = probabilities.argmax(axis=1), probabilities.max(axis=1) >= threshold
    abnormal = found.labels >= len(LEUKOCYTE_CLASSES)
    mature = int((abnormal & classified & (given < len(LEUKOCYTE_CLASSES))).sum())
    right = int((abnormal & classified & (given == found.labels)).sum())
    return (
        f"`{name}`, held back: of {int(abnormal.sum())} abnormal cells {mature} get a mature class above the "
        f"threshold, {right} their own"
    )


def _row(
    lab: str, found: Predictions, name: str, recipe: HybridRecipe, temperature: float, threshold: float
) -> tuple[str, float, float]:
    probabilities = softmax(getattr(found, name) / temperature)
    given, best = probabilities.argmax(axis=1), probabilities.max(axis=1)
    unknown = given == recipe.classes.index(UNKNOWN)
    sure = (best >= threshold) & ~unknown
    mature = found.labels < len(LEUKOCYTE_CLASSES)
    labels = found.labels[mature]
    recalls = {k: float((given[mature][labels == k] == k).mean()) for k in np.unique(labels)}
    frequent = [recall for k, recall in recalls.items() if (labels == k).sum() >= 10]
    balanced, of_ten = float(np.mean(list(recalls.values()))), float(np.mean(frequent))
    correct, photos = given[mature] == labels, found.photos[mature]
    _, draws = balanced_accuracies(correct[:, None], labels, photos)
    low, high = balanced_interval(draws, correct, labels, photos)
    right = int((given == found.labels)[mature & sure].sum())
    false = mature & sure & np.isin(given, [recipe.classes.index(kind) for kind in ABNORMAL])
    abnormal = ~mature
    named = abnormal & sure & (given < len(LEUKOCYTE_CLASSES))
    row = (
        f"| {lab} | {mature.sum()} | {balanced:.3f} ({low:.3f}-{high:.3f}) | {of_ten:.3f} "
        f"| {_share(right, int((mature & sure).sum()))} "
        f"| {_share(int((mature & ~sure).sum()), int(mature.sum()))} | {int((mature & unknown).sum())} "
        f"| {_share(int(false.sum()), int(mature.sum()))} "
        f"| {_share(int(named.sum()), int(abnormal.sum())) if abnormal.any() else ''} |"
    )
    return row, balanced, of_ten


def _share(hits: int, total: int) -> str:
    if not total:
        return ""
    low, high = wilson(hits, total)
    return f"{hits / total:.3f} ({low:.3f}-{high:.3f})"


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) of logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def write_calibration(path: Path, calibration: tuple[float, float]) -> None:
    """Put temperature and review threshold into a card."""
    card = json.loads(path.read_text(encoding="utf-8"))
    card["temperature"], card["review_threshold"] = calibration
    path.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
