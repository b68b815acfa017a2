"""What a writer tells of the class of each cell."""

from __future__ import annotations

from typing import NamedTuple

from leukokit.cells import Cells


class CellLabel(NamedTuple):
    """The label of one cell.

    Attributes:
        name: its class, or ``unclassified``.
        likeliest: its most probable class, certain or not.
        probability: of the most probable class.
        review: whether that is too little for the cell to be classified.
    """

    name: str
    likeliest: str
    probability: float
    review: bool


def cell_labels(cells: Cells) -> list[CellLabel | None]:
    """One label per cell; None for a cell that no classifier has labelled."""
    labelling = cells.labelling
    if labelling is None:
        return [None] * len(cells)
    best = labelling.probabilities.argmax(axis=1).tolist()
    largest = labelling.probabilities.max(axis=1).tolist()
    rows = zip(labelling.labels, best, largest, labelling.review.tolist(), strict=True)
    return [
        CellLabel(name, labelling.classes[number], probability, review) if name else None
        for name, number, probability, review in rows
    ]
