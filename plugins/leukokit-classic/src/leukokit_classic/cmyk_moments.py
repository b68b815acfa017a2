"""Detector ``cmyk-moments``: CMYK colours and image moments, after Elhassan et al. (2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from leukokit import Cells, Detector, PluginParams, Smear
from pydantic import Field

from leukokit_classic.field import Floats, Nucleus, leukocytes, nucleus_stain, reduced, stain_threshold

Moments = npt.NDArray[np.float64]
"""(6,): m00, m10, m01, m20, m02 of a part's pixels about the picture's corner, and the sum of its stain."""

LEAST_PART = 0.0005
"""Least area of a stained part, as a share of the picture; what is smaller is noise."""
MOST_PARTS = 200
"""Largest number of parts that are used, the largest first; only noise has more."""


class CmykMomentsParams(PluginParams):
    """Parameters of the detector ``cmyk-moments``."""

    grow: float = Field(1.35, gt=0, le=4, description="side of a leukocyte's box in those of its nucleus")
    join: float = Field(1.0, gt=0, le=4, description="lobes are one nucleus where boxes, so grown, overlap")
    least_area: float = Field(
        0.001, gt=0, lt=1, description="least area of a nucleus, as a share of the picture"
    )
    most_area: float = Field(
        0.6, gt=0, le=1, description="largest area of a nucleus, as a share of the picture"
    )


class CmykMomentsDetector(Detector[CmykMomentsParams]):
    """Nuclei by a threshold on CMYK channels, centre and extent by moments (10.1109/ACCESS.2022.3149637)."""

    name = "cmyk-moments"
    version = "0.1"
    summary = "leukocytes by CMYK channels and image moments (after Elhassan et al. 2022)"
    api_version = "1.0"

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        """Leukocytes of each smear; see ``Detector.detect``."""
        return [self._one(smear) for smear in smears]

    def _one(self, smear: Smear) -> Cells:
        picture = reduced(smear)
        stain = np.asarray(cv2.GaussianBlur(nucleus_stain(picture), (0, 0), 1.5), dtype=np.float32)
        parts = joined(parts_of(stain, stain_threshold(stain)), self.params.join)
        least, most = self.params.least_area * stain.size, self.params.most_area * stain.size
        found = [
            Nucleus(extent(part, self.params.grow), float(part[0]), float(part[5] / part[0]))
            for part in parts
            if least <= part[0] <= most
        ]
        return leukocytes(found, (stain.shape[0], stain.shape[1]), smear)


def parts_of(stain: Floats, threshold: float) -> list[Moments]:
    """Moments of the connected parts of float32 (H, W) above a threshold, largest first."""
    mask = (stain > threshold).astype(np.uint8)
    count, labels, figures, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = figures[:, cv2.CC_STAT_AREA]
    order = sorted(range(1, count), key=lambda number: -int(areas[number]))[:MOST_PARTS]
    parts = []
    for number in order:
        if areas[number] < LEAST_PART * stain.size:
            break
        left, top, width, height = (int(value) for value in figures[number, :4])
        rows, columns = np.nonzero(labels[top : top + height, left : left + width] == number)
        # Middles of pixels, in a picture whose corner is 0, 0.
        x, y = columns + left + 0.5, rows + top + 0.5
        amount = float(stain[rows + top, columns + left].sum())
        parts.append(np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), amount]))
    return parts


def extent(part: Moments, grow: float) -> tuple[float, float, float, float]:
    """Box xyxy about a part's centroid; half sides are two standard deviations, an ellipse's half axes."""
    area, x, y = part[0], part[1] / part[0], part[2] / part[0]
    half_width = 2 * math.sqrt(max(part[3] / area - x * x, 0.0) + 1 / 12) * grow
    half_height = 2 * math.sqrt(max(part[4] / area - y * y, 0.0) + 1 / 12) * grow
    return float(x - half_width), float(y - half_height), float(x + half_width), float(y + half_height)


def joined(parts: Sequence[Moments], grow: float) -> list[Moments]:
    """Parts whose grown boxes overlap made one, until none do: moments of a union are the sums."""
    left = list(parts)
    number = 0
    while number < len(left):
        box = extent(left[number], grow)
        partner = next(
            (
                other
                for other in range(len(left))
                if other != number and _overlap(box, extent(left[other], grow))
            ),
            None,
        )
        if partner is None:
            number += 1
        else:
            left[min(number, partner)] = left[number] + left[partner]
            del left[max(number, partner)]
            # A grown part may now meet one that was passed.
            number = 0
    return left


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    across = min(one[2], other[2]) > max(one[0], other[0])
    return across and min(one[3], other[3]) > max(one[1], other[1])
