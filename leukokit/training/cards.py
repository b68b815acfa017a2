"""The cards that training writes beside the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from leukokit.datasets.catalogue import licence_of
from leukokit.datasets.fields import AnnotatedField
from leukokit.errors import WeightsError
from leukokit.training.cells import AnnotatedCell, AnnotatedCellsRecipe
from leukokit.weights import ClassifierCard, sha256_of, write_card


def data_entries(sources: Iterable[AnnotatedField], counted: str) -> list[dict[str, Any]]:
    """Return what a card says of its training data: a row for each data set and laboratory.

    Args:
        sources: the field of each example.
        counted: what the examples are, such as ``leukocytes``.
    """
    used = Counter((source.dataset, source.lab) for source in sources)
    return [
        {"dataset": dataset, "lab": lab, counted: count, "licence": licence_of(dataset)}
        for (dataset, lab), count in sorted(used.items())
    ]


def write_graph(write: Callable[[], None], report: Callable[[str], None]) -> None:
    """Write an ONNX graph beside weights, without which they run on torch alone; report why there is none."""
    try:
        write()
    except WeightsError as error:
        report(f"no ONNX graph is written, so that these weights run on torch only: {error}")


def write_classifier_card(
    recipe: AnnotatedCellsRecipe,
    path: Path,
    command: str,
    cells: list[AnnotatedCell],
    calibration: tuple[float, float],
    **particulars: Any,
) -> None:
    """Write the card beside the weights at ``path``; ``particulars`` are the network's own entries.

    Raises:
        OutputError: it cannot be written.
    """
    temperature, review_threshold = calibration
    card = ClassifierCard(
        name=recipe.name,
        sha256=sha256_of(path),
        command=command,
        recipe=recipe.model_dump(mode="json"),
        data=data_entries((cell.field.source for cell in cells), "leukocytes"),
        classes=recipe.classes,
        temperature=round(temperature, 4),
        review_threshold=round(review_threshold, 4),
        **particulars,
    )
    write_card(card, path)
