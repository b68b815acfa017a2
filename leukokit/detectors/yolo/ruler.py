"""The ruler of a field: its erythrocyte diameter in pixels, measured before detection.

An erythrocyte is 7-8 um across on every smear. The network processes parts of the field at a few sizes until
it finds enough erythrocytes; their median diameter then decides the size at which the field is processed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.cells import LEUKOCYTE_TO_ERYTHROCYTE, MIN_ERYTHROCYTES, Cells
from leukokit.images.pixels import scale_image
from leukokit.smear import Smear
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE

PROBE_SIDE = 640
"""Longest side, in pixels, of what the network processes to measure the ruler."""
ENOUGH_ERYTHROCYTES = 8
"""Number of erythrocytes whose median diameter ends the search."""

GUESS_SIDE = 320
"""Longest side, in pixels, of the copy on which the diameter is guessed."""
GUESS_BIAS = 0.87
"""Median ratio of twice the largest distance within a cell to the side of its box."""
PALEST = 215
"""Standardised green value of the palest cell."""
WIDEST_SPREAD = 2.2
"""Largest ratio of the upper to the lower quartile of the radii, by area, of a field that is guessed."""
ROUND = 2.0
"""Largest ratio of the area of a cell's pale centre to that of the largest disc within it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A region of a field (x1, y1, x2, y2, whole pixels) and the factor by which it is resized."""

    region: tuple[int, int, int, int]
    scale: float


def probes(
    width: int, height: int, side: int = PROBE_SIDE, centre: tuple[float, float] | None = None
) -> Iterator[Probe]:
    """Yield the parts of a field to measure, in order.

    First comes the whole field reduced, then a part of it at higher and higher magnification, then the whole
    field reduced further. No probe is longer than ``side`` pixels.

    Args:
        width: of the field, pixels.
        height: of the field, pixels.
        side: longest side of what the network is shown, pixels.
        centre: x, y of the middle of the magnified parts, pixels; by default the field's middle.
    """
    centre = (width / 2, height / 2) if centre is None else centre
    whole = min(1.0, side / max(width, height))
    yield Probe((0, 0, width, height), whole)
    scale = whole
    while scale < 1.0:
        scale = min(1.0, scale * 2.5)
        yield Probe(_around(width, height, centre, round(side / scale)), scale)
    yield Probe((0, 0, width, height), whole / 2.5)
    yield Probe(_around(width, height, centre, side // 2), 2.0)


def predict_diameter(smear: Smear) -> float | None:
    """Guess the erythrocyte diameter of a field without a network, in a few milliseconds.

    Cells are darker than the background in green light (Otsu 1979); their centres are the places that are
    farthest from it (a distance transform), and most of the area of a field's cells is its erythrocytes'. The
    network checks each guess by the erythrocytes that it finds.

    Returns:
        The diameter in pixels of the field; None if there are too few cells.
    """
    scale = min(1.0, GUESS_SIDE / max(smear.width, smear.height))
    reduced = scale_image(smear.image, scale)
    if smear.standardization is not None:
        reduced = smear.standardization.apply(reduced)
    green = cv2.GaussianBlur(reduced[..., 1], (3, 3), 0)
    cut, dark = cv2.threshold(green, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    mask = np.asarray(dark, np.uint8)
    if cut > PALEST:
        mask = (green < PALEST).astype(np.uint8)
    if mask.all() or not mask.any():
        return None
    filled = _without_pallor(mask)
    if filled.all():
        return None
    distance = cv2.distanceTransform(filled, cv2.DIST_L2, 3)
    is_centre = (distance > 2) & (distance == cv2.dilate(distance, np.ones((5, 5), np.uint8)))
    radii = np.sort(distance[is_centre])
    if len(radii) < ENOUGH_ERYTHROCYTES:
        return None
    areas = np.cumsum(radii**2)
    quarter, median, three_quarters = radii[np.searchsorted(areas, areas[-1] * np.array([0.25, 0.5, 0.75]))]
    if three_quarters > WIDEST_SPREAD * quarter:
        # Clumps of touching cells, as a rule, of which nothing can be said.
        return None
    return float(2 * median / GUESS_BIAS / scale)


def _without_pallor(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Fill the pale centres of cells: round holes. Background between touching cells is not round."""
    count, parts, figures, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    depth = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    order = np.argsort(parts, axis=None, kind="stable")
    starts = np.searchsorted(parts.ravel()[order], np.arange(count))
    deepest = np.maximum.reduceat(depth.ravel()[order], starts)
    areas = figures[:, cv2.CC_STAT_AREA]
    fill = (areas < ROUND * np.pi * np.maximum(deepest, 0.7) ** 2) | (areas < 30)
    # Nothing at the border is a hole, and part 0 is the cells.
    fill[np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])] = False
    fill[0] = False
    return np.where(fill[parts], np.uint8(1), mask)


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


def densest_point(smear: Smear) -> tuple[float, float] | None:
    """Return x, y of where most of a field's cells lie together, in pixels; None where it has none.

    In a field with few cells, all in one clump, the middle may hold none of them.
    """
    scale = min(1.0, GUESS_SIDE / max(smear.width, smear.height))
    reduced = scale_image(smear.image, scale)
    if smear.standardization is not None:
        reduced = smear.standardization.apply(reduced)
    mask = (reduced[..., 1] < PALEST).astype(np.float32)
    if not mask.any():
        return None
    window = max(3, min(mask.shape) // 4)
    crowd = cv2.blur(mask, (window, window), borderType=cv2.BORDER_CONSTANT)
    row, column = np.unravel_index(int(crowd.argmax()), crowd.shape)
    return float(column) / scale, float(row) / scale


def _around(width: int, height: int, centre: tuple[float, float], side: int) -> tuple[int, int, int, int]:
    left = min(max(0, math.floor(centre[0] - side / 2)), max(0, width - side))
    top = min(max(0, math.floor(centre[1] - side / 2)), max(0, height - side))
    return left, top, min(width, left + side), min(height, top + side)
