"""A detector in one file: dark, purple spots of leukocyte size, found by a threshold.

    leukokit detect examples/smear.png --plugin examples/dark_spots.py --detector dark-spots

It is here to show the contract, not to be good: see leukokit/detectors/base.py.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from pydantic import Field

from leukokit import Cells, Detector, DetectorParams, Smear, register
from leukokit.images import standardize
from leukokit.taxonomy import LEUKOCYTE


class DarkSpotsParams(DetectorParams):
    red_below: int = Field(130, ge=0, le=255, description="a nucleus absorbs red: largest red value, 0-255")
    diameter_px: float = Field(60, gt=0, description="smallest side of a nucleus, in pixels")


@register
class DarkSpots(Detector[DarkSpotsParams]):
    name = "dark-spots"
    version = "1.0"
    summary = "nuclei by a threshold on the standardised red channel"

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        return [self._nuclei(smear) for smear in smears]

    def _nuclei(self, smear: Smear) -> Cells:
        dark = (standardize(smear.image)[..., 0] < self.params.red_below).astype(np.uint8)
        joined = cv2.morphologyEx(dark, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
        _, _, stats, _ = cv2.connectedComponentsWithStats(joined)
        x, y, width, height = stats[1:, :4].T
        boxes = np.stack([x, y, x + width, y + height], axis=1)[
            np.minimum(width, height) >= self.params.diameter_px
        ]
        count = len(boxes)
        return Cells(boxes, np.full(count, LEUKOCYTE), np.ones(count, dtype=np.float32))
