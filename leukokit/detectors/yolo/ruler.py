"""The ruler of a field: its erythrocyte diameter in pixels, measured before detection.

An erythrocyte is 7-8 um across on every smear. The network is shown parts of the field at a few sizes until
it finds enough erythrocytes; their median diameter then decides the size at which the field is processed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from leukokit.cells import LEUKOCYTE_TO_ERYTHROCYTE, MIN_ERYTHROCYTES, Cells
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE

PROBE_SIDE = 640
"""Longest side, in pixels, of what the network is shown to measure the ruler."""
ENOUGH_ERYTHROCYTES = 8
"""Number of erythrocytes whose median diameter ends the search."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A region of a field (x1, y1, x2, y2, whole pixels) and the factor by which it is resized."""

    region: tuple[int, int, int, int]
    scale: float


def probes(width: int, height: int, side: int = PROBE_SIDE) -> Iterator[Probe]:
    """Yield the parts of a field to measure, in order.

    First comes the whole field reduced, then its middle at higher and higher magnification, then the whole
    field reduced further. No probe is longer than ``side`` pixels.
    """
    whole = min(1.0, side / max(width, height))
    yield Probe((0, 0, width, height), whole)
    scale = whole
    while scale < 1.0:
        scale = min(1.0, scale * 2.5)
        yield Probe(_middle(width, height, round(side / scale)), scale)
    yield Probe((0, 0, width, height), whole / 2.5)
    yield Probe(_middle(width, height, side // 2), 2.0)


def measure_diameter(cells: Cells, smallest: float, largest: float) -> tuple[float, int] | None:
    """Measure the erythrocyte diameter, or estimate it from the leukocytes.

    Args:
        cells: what was found in one probe, in pixels of the field.
        smallest: diameter in pixels below which an erythrocyte is not trusted.
        largest: diameter in pixels above which an erythrocyte is not trusted: the network was trained on
            diameters between the two.

    Returns:
        The diameter in pixels and the number of erythrocytes within the range; None where there is neither
        an erythrocyte nor a leukocyte to measure.
    """
    diameters = cells.diameters
    in_range = (diameters >= smallest) & (diameters <= largest)
    erythrocytes = diameters[in_range & (cells.kinds == ERYTHROCYTE)]
    if len(erythrocytes) >= MIN_ERYTHROCYTES:
        return float(np.median(erythrocytes)), len(erythrocytes)
    leukocytes = diameters[(cells.kinds == LEUKOCYTE) & (cells.scores >= 0.5)]
    if len(leukocytes):
        return float(np.median(leukocytes)) / LEUKOCYTE_TO_ERYTHROCYTE, len(erythrocytes)
    return None


def _middle(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    left, top = max(0, (width - side) // 2), max(0, (height - side) // 2)
    return left, top, min(width, left + side), min(height, top + side)
