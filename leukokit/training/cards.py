"""The card that training writes beside the weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from leukokit.datasets.catalogue import licence_of
from leukokit.training.cells import AnnotatedCell, AnnotatedCellsRecipe
from leukokit.weights import ClassifierCard, sha256_of


def write_card(
    recipe: AnnotatedCellsRecipe,
    path: Path,
    command: str,
    cells: list[AnnotatedCell],
    calibration: tuple[float, float],
    **particulars: Any,
) -> None:
    """Write the card beside the weights at ``path``; ``particulars`` are the network's own entries."""
    used = Counter((cell.field.source.dataset, cell.field.source.lab) for cell in cells)
    temperature, review_threshold = calibration
    card = ClassifierCard(
        name=recipe.name,
        sha256=sha256_of(path),
        command=command,
        recipe=recipe.model_dump(mode="json"),
        data=[
            {"dataset": dataset, "lab": lab, "leukocytes": count, "licence": licence_of(dataset)}
            for (dataset, lab), count in sorted(used.items())
        ],
        classes=recipe.classes,
        temperature=round(temperature, 4),
        review_threshold=round(review_threshold, 4),
        **particulars,
    )
    path.with_suffix(".json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
