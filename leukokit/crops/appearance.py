"""The appearance of cells in numbers: the colours of every node of a cell graph.

Measured on the standardised field, in optical density (natural log), where stain is additive
(Beer-Lambert), so that an erythrocyte's figures say how strongly *this* smear took the stain.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.cells import MIN_ERYTHROCYTES, Cells
from leukokit.crops.cut import optical_density
from leukokit.images.pixels import scale_image
from leukokit.smear import Smear
from leukokit.taxonomy import ERYTHROCYTE

APPEARANCE: Final = (
    *(f"density_{channel}" for channel in "rgb"),
    *(f"texture_{channel}" for channel in "rgb"),
    "nucleus_share",
    *(f"nucleus_density_{channel}" for channel in "rgb"),
    *(f"cytoplasm_density_{channel}" for channel in "rgb"),
)
"""Names of the figures: mean and standard deviation of the optical density within the cell, the share of
its pixels that is nucleus, and the mean densities of nucleus and of the rest (0 where there is none)."""

NUCLEUS_DENSITY: Final = 0.55
"""Optical density in red from which a pixel counts as nucleus: haematin absorbs green and blue, the azure
dye of the nucleus absorbs red as well."""
RULER_PX: Final = 24
PATCH_PX: Final = 16


def erythrocyte_density(figures: npt.NDArray[np.float32], cells: Cells) -> npt.NDArray[np.float32] | None:
    """Return the median optical density of a field's erythrocytes.

    Args:
        figures: (N, 13) float32, ``appearance`` of the cells.
        cells: the N cells.

    Returns:
        (3,) float32, red, green, blue; None with fewer than ``MIN_ERYTHROCYTES``.
    """
    found = figures[cells.kinds == ERYTHROCYTE, :3]
    return np.median(found, axis=0) if len(found) >= MIN_ERYTHROCYTES else None


def appearance(smear: Smear, cells: Cells) -> npt.NDArray[np.float32]:
    """Measure the colours of every cell.

    Args:
        smear: the field; standardised as it says.
        cells: N cells, boxes in pixels of the original image.

    Returns:
        (N, 13) float32, columns as in ``APPEARANCE``.
    """
    out = np.zeros((len(cells), len(APPEARANCE)), dtype=np.float32)
    if not len(cells):
        return out
    ruler = cells.ruler_px
    scale = min(1.0, RULER_PX / ruler) if ruler else 1.0
    picture = scale_image(smear.image, scale)
    if smear.standardization is not None:
        picture = smear.standardization.apply(picture)
    height, width = picture.shape[:2]
    size = np.array([width, height, width, height], dtype=np.float32)
    corners = cells.boxes / np.array([smear.width, smear.height] * 2, dtype=np.float32) * size
    low = np.clip(np.floor(corners[:, :2]), 0, size[:2] - 1).astype(int)
    high = np.clip(np.ceil(corners[:, 2:]), low + 1, size[:2]).astype(int)
    patches = np.empty((len(cells), PATCH_PX, PATCH_PX, 3), dtype=np.uint8)
    for number, ((x1, y1), (x2, y2)) in enumerate(zip(low, high, strict=True)):
        patches[number] = cv2.resize(
            picture[y1:y2, x1:x2], (PATCH_PX, PATCH_PX), interpolation=cv2.INTER_AREA
        )
    axis = (np.arange(PATCH_PX) + 0.5) / PATCH_PX * 2 - 1
    disc = (axis[:, None] ** 2 + axis[None, :] ** 2 <= 0.9).ravel()
    density = optical_density(patches).reshape(len(cells), -1, 3)[:, disc]
    nucleus = (density[..., :1] > NUCLEUS_DENSITY).astype(np.float32)
    inside, outside = nucleus.sum(axis=1), (1 - nucleus).sum(axis=1)
    out[:, 0:3] = density.mean(axis=1)
    out[:, 3:6] = density.std(axis=1)
    out[:, 6:7] = inside / density.shape[1]
    out[:, 7:10] = (density * nucleus).sum(axis=1) / np.maximum(inside, 1)
    out[:, 10:13] = (density * (1 - nucleus)).sum(axis=1) / np.maximum(outside, 1)
    return out
