"""How large the cells of a field are, found by looking at reduced copies of it.

An erythrocyte is 7-8 um across on every smear, which makes it the ruler: the field is shown to the
detector at a few sizes until enough erythrocytes are seen, and their median diameter says at what
size the field is to be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leukokit.cells import LEUKOCYTE_TO_ERYTHROCYTE, MIN_ERYTHROCYTES, Cells
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE

GLIMPSE_SIDE = 640
"""Longest side, in pixels, of what is shown to the detector to estimate a scale."""
ENOUGH = 8
"""Erythrocytes whose median settles the scale."""


@dataclass(frozen=True, slots=True)
class Glimpse:
    """A region of a field (x1, y1, x2, y2, whole pixels) and the factor it is resized by."""

    region: tuple[int, int, int, int]
    scale: float


def glimpses(width: int, height: int, side: int = GLIMPSE_SIDE) -> Iterator[Glimpse]:
    """What to look at, in order: the whole field reduced, then its middle closer and closer, then coarser.

    Nothing shown to the detector is longer than ``side`` pixels.
    """
    whole = min(1.0, side / max(width, height))
    yield Glimpse((0, 0, width, height), whole)
    scale = whole
    while scale < 1.0:
        scale = min(1.0, scale * 2.5)
        yield Glimpse(_middle(width, height, round(side / scale)), scale)
    yield Glimpse((0, 0, width, height), whole / 2.5)
    yield Glimpse(_middle(width, height, side // 2), 2.0)


def diameter_of(cells: Cells, smallest: float, largest: float) -> tuple[float, int] | None:
    """Erythrocyte diameter in the pixels that ``cells`` are given in, and the number it rests on.

    Cells outside ``smallest``..``largest`` are not trusted: the detector was not trained on them.
    None where there is neither an erythrocyte nor a leukocyte to measure.
    """
    diameters = cells.diameters
    usable = (diameters >= smallest) & (diameters <= largest)
    erythrocytes = diameters[usable & (cells.kinds == ERYTHROCYTE)]
    if len(erythrocytes) >= MIN_ERYTHROCYTES:
        return float(np.median(erythrocytes)), len(erythrocytes)
    leukocytes = diameters[(cells.kinds == LEUKOCYTE) & (cells.scores >= 0.5)]
    if len(leukocytes):
        return float(np.median(leukocytes)) / LEUKOCYTE_TO_ERYTHROCYTE, len(erythrocytes)
    return None


def _middle(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    left, top = max(0, (width - side) // 2), max(0, (height - side) // 2)
    return left, top, min(width, left + side), min(height, top + side)
