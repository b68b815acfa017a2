r"""Do scores of outliers tell cells of classes that were never trained on from known cells?

Immature granulocytes and erythroblasts of pbc stand for abnormal cells: the first stage, which was trained on
pbc's five mature classes, measures a known laboratory, and a training without pbc an unseen one::

    python benchmarks/unknown_scores.py --config configs/hybrid.yaml --steps 400

Per score: AUROC of the unknown cells against pbc's known ones, and the share of the unknown ones caught at 5%
false alarms.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from laboratories import load_hybrid, softmax
from laboratories import test_cells as cells_of
from scipy.special import logsumexp
from scipy.stats import rankdata

from leukokit.taxonomy import LEUKOCYTE_CLASSES
from leukokit.training.cells import AnnotatedCell, builder_of, training_cells
from leukokit.training.hybrid import (
    FieldGraphs,
    HybridRecipe,
    JointNetwork,
    embeddings_of,
    fit_hybrid,
    head_logits,
    start_training,
)

LAB = "pbc"
BANK_EACH = 60
"""Training cells per laboratory and class that an embedding is compared with."""
RIDGE = 0.05
Array = npt.NDArray[np.float64]


def main() -> None:
    """Print a table per laboratory, known and unseen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    choice = parser.parse_args()
    values = yaml.safe_load(choice.config.read_text(encoding="utf-8"))
    recipe = HybridRecipe.model_validate({**values, "steps": choice.steps})
    assert recipe.start_from is not None
    tested = cells_of(recipe, LAB)
    known = load_hybrid(recipe.start_from)
    held = training_cells(recipe)[1]
    mature = [cell for cell in held if cell.field.source.lab == LAB and cell.label < len(LEUKOCYTE_CLASSES)]
    mature += [cell for cell in tested if cell.field.source.split == "val"]
    abnormal = [cell for cell in tested if cell.label >= len(LEUKOCYTE_CLASSES)]
    show("known laboratory", known, bank_of(training_cells(recipe)[0]), mature, abnormal, recipe)
    own = recipe.model_copy(update={"leave_out": [LAB], "start_from": None, "learning_rate": 1e-3})
    cells, _ = training_cells(own)
    graphs = FieldGraphs(cells, builder_of(own.graph))
    training = start_training(own, graphs)
    fit_hybrid(training, own, graphs, report=lambda line: print(line, flush=True))
    assert isinstance(training.average, JointNetwork)
    mature = [cell for cell in tested if cell.label < len(LEUKOCYTE_CLASSES)]
    show("unseen laboratory", training.average, bank_of(cells), mature, abnormal, recipe)


def bank_of(cells: Sequence[AnnotatedCell]) -> list[AnnotatedCell]:
    """Mature training cells, at most ``BANK_EACH`` per laboratory and class."""
    groups: dict[tuple[str, int], list[AnnotatedCell]] = defaultdict(list)
    for cell in cells:
        if cell.label < len(LEUKOCYTE_CLASSES):
            groups[cell.field.source.lab, cell.label].append(cell)
    rng = np.random.default_rng(0)
    return [group[i] for group in groups.values() for i in rng.permutation(len(group))[:BANK_EACH]]


def show(
    title: str,
    network: JointNetwork,
    bank: Sequence[AnnotatedCell],
    mature: Sequence[AnnotatedCell],
    abnormal: Sequence[AnnotatedCell],
    recipe: HybridRecipe,
) -> None:
    """Print the scores of one network."""
    of_bank = embeddings_of(network.cnn, bank, recipe)
    labels = np.array([cell.label for cell in bank])
    rows: dict[str, tuple[Array, Array]] = {}
    known, other = (
        embeddings_of(network.cnn, cells, recipe).astype(np.float64) for cells in (mature, abnormal)
    )
    scorers = scorers_of(of_bank.astype(np.float64), labels)
    logits = [head_logits(network.cnn, part.astype(np.float32)).astype(np.float64) for part in (known, other)]
    for name, scorer in scorers.items():
        rows[name] = (
            scorer(known.astype(np.float64), logits[0]),
            scorer(other.astype(np.float64), logits[1]),
        )
    print(f"{title}: {len(mature)} mature cells, {len(abnormal)} abnormal\n| score | AUROC | caught |")
    for name, (low, high) in rows.items():
        print(f"| {name} | {auroc(low, high):.2f} | {(high > np.quantile(low, 0.95)).mean():.2f} |")


def scorers_of(bank: Array, labels: npt.NDArray[np.int64]) -> dict[str, Callable[[Array, Array], Array]]:
    """Scores by name: of embeddings (N, E) and logits (N, C), larger for outliers."""
    means = np.stack([bank[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = bank - means[np.searchsorted(np.unique(labels), labels)]
    precision: Array = np.asarray(np.linalg.inv(_ridged(within.T @ within / len(within))), np.float64)
    centre = bank.mean(axis=0)
    total = _ridged(np.cov(bank.T))
    whole: Array = np.asarray(np.linalg.inv(total), np.float64)
    minor = np.linalg.eigh(total)[1][:, :-48]

    def distance(points: Array, centres: Array, metric: Array) -> Array:
        apart = points[:, None] - centres[None]
        return np.asarray(np.einsum("ncd,de,nce->nc", apart, metric, apart).min(axis=1))

    def nearest(points: Array) -> Array:
        one, two = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (points, bank))
        return np.asarray(np.sort(1 - one @ two.T, axis=1)[:, 4])

    return {
        "largest probability": lambda _, logits: 1 - softmax(logits).max(axis=1),
        "entropy": lambda _, logits: -(softmax(logits) * np.log(softmax(logits) + 1e-9)).sum(axis=1),
        "energy": lambda _, logits: -np.asarray(logsumexp(logits, axis=1)),
        "nearest cells": lambda points, _: nearest(points),
        "Mahalanobis": lambda points, _: distance(points, means, precision),
        "Mahalanobis, relative": lambda points, _: (
            distance(points, means, precision) - distance(points, centre[None], whole)
        ),
        "residual": lambda points, _: np.asarray(np.linalg.norm((points - centre) @ minor, axis=1)),
    }


def auroc(low: Array, high: Array) -> float:
    """Probability that a score of ``high`` is above one of ``low``."""
    ranks = rankdata(np.concatenate([low, high]))
    count = len(high)
    return float((ranks[len(low) :].sum() - count * (count + 1) / 2) / (len(low) * count))


def _ridged(matrix: Array) -> Array:
    return np.asarray(matrix + RIDGE * np.trace(matrix) / len(matrix) * np.eye(len(matrix)))


if __name__ == "__main__":
    main()
