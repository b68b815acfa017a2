"""What both detectors begin and end with: a reduced field, the stain of its nuclei, boxes from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from leukokit import Cells, Smear
from leukokit.images import WHITE, RGBImage, estimate_standardization, scale_image
from leukokit.taxonomy import LEUKOCYTE
from skimage.filters import threshold_otsu

Floats = npt.NDArray[np.float32]

LONGER_SIDE: Final = 512
"""Longer side, in pixels, of the reduced copy of a field."""
LOWEST_STAIN: Final = 0.2
"""Least stain of a nucleus; Otsu's threshold of a field without leukocytes parts cells from background."""
LEAST_AREA_RATIO: Final = 0.25
"""Least area of a nucleus in those of the field's largest; what is smaller is a platelet or debris."""
CERTAIN_STAIN: Final = 0.6
"""Mean stain from which the score is 1."""


@dataclass(frozen=True, slots=True)
class Nucleus:
    """A nucleus on some reduced copy: xyxy box of the whole leukocyte in its pixels, area, mean stain."""

    box: tuple[float, float, float, float]
    area: float
    stain: float


def reduced(smear: Smear, longer_side: int = LONGER_SIDE) -> RGBImage:
    """The smear at no more than ``longer_side`` pixels, RGB uint8, its light and stain evened out."""
    small = scale_image(smear.image, min(1.0, longer_side / max(smear.height, smear.width)))
    measured = smear.standardization or estimate_standardization(small)
    return measured.apply(small)


def cmyk(image: RGBImage) -> tuple[Floats, Floats, Floats, Floats]:
    """Cyan, magenta, yellow and black, float32 (H, W) in 0..1 each, of standardised RGB uint8 (H, W, 3)."""
    light = np.minimum(image.astype(np.float32) / np.float32(WHITE), 1.0)
    brightest = light.max(axis=2)
    # Black has no colour; dividing by nothing would give it one.
    part = np.maximum(brightest, 1e-3)
    cyan, magenta, yellow = ((brightest - light[..., channel]) / part for channel in range(3))
    return cyan, magenta, yellow, 1 - brightest


def nucleus_stain(image: RGBImage) -> Floats:
    """Half of cyan and magenta less yellow, float32 (H, W) in 0..1: high in nuclei alone.

    Erythrocytes have as much yellow as the cyan and magenta they have; the dye of nuclei, blue to pink by the
    laboratory, has hardly any.
    """
    cyan, magenta, yellow, _ = cmyk(image)
    return np.asarray(np.clip((cyan + magenta - yellow) / 2, 0, 1), dtype=np.float32)


def stain_threshold(stain: Floats) -> float:
    """Otsu's threshold (1979, doi:10.1109/TSMC.1979.4310076), but no less than ``LOWEST_STAIN``."""
    if float(np.ptp(stain)) < 1e-6:
        return LOWEST_STAIN
    return max(LOWEST_STAIN, float(threshold_otsu(stain)))


def leukocytes(found: Sequence[Nucleus], size: tuple[int, int], smear: Smear) -> Cells:
    """The nuclei that are no debris as cells of the smear.

    Args:
        found: nuclei on a copy of the smear.
        size: that copy's height and width.
        smear: the field of view.

    Returns:
        Leukocytes, the largest first, with boxes inside the smear, in its pixels.
    """
    largest = max((nucleus.area for nucleus in found), default=0.0)
    kept = sorted(
        (nucleus for nucleus in found if nucleus.area >= LEAST_AREA_RATIO * largest),
        key=lambda nucleus: -nucleus.area,
    )
    if not kept:
        return Cells.empty()
    height, width = size
    factors = np.array([smear.width / width, smear.height / height] * 2)
    edges = np.array([smear.width, smear.height] * 2)
    boxes = np.clip(np.array([nucleus.box for nucleus in kept]) * factors, 0, edges)
    scores = np.clip(np.array([nucleus.stain for nucleus in kept]) / CERTAIN_STAIN, 0, 1)
    return Cells(boxes.astype(np.float32), np.full(len(kept), LEUKOCYTE, np.int64), scores.astype(np.float32))
