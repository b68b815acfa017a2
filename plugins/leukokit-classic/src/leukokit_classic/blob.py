"""Detector ``blob``: blobs of the nuclei's stain, after Di Ruberto, Loddo & Puglisi (2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from leukokit import Cells, Detector, PluginParams, Smear
from pydantic import Field
from skimage.feature import blob_log

from leukokit_classic.field import Floats, Nucleus, leukocytes, nucleus_stain, reduced, stain_threshold

SCALES = 8
"""Number of blob sizes between the smallest and the largest."""
REACH = 1.3
"""Radius about a blob's centre, in its own, within which stained pixels are its nucleus."""
LEAST_FILLED = 0.2
"""Least share of a blob's disc that is stained."""
SHARED = 0.3
"""Share of a nucleus's pixels from which it is one that has been found already."""


class BlobParams(PluginParams):
    """Parameters of the detector ``blob``."""

    side_px: int = Field(
        224, ge=64, le=512, description="longer side of the picture that blobs are sought in"
    )
    smallest: float = Field(
        0.02, gt=0.005, lt=0.5, description="radius of the smallest nucleus, in longer sides of the picture"
    )
    largest: float = Field(
        0.2, gt=0.005, lt=0.5, description="radius of the largest nucleus, in longer sides of the picture"
    )
    contrast: float = Field(0.06, gt=0, lt=1, description="smallest response of the Laplacian to a blob")
    grow: float = Field(1.45, gt=0, le=4, description="side of a leukocyte's box in those of its nucleus")


class BlobDetector(Detector[BlobParams]):
    """Nuclei as blobs, by the Laplacian of Gaussians (doi:10.3390/app10031176)."""

    name = "blob"
    version = "0.1"
    summary = "leukocytes as blobs of the nuclei's stain (after Di Ruberto et al. 2020)"
    api_version = "1.0"

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        """Leukocytes of each smear; see ``Detector.detect``."""
        return [self._one(smear) for smear in smears]

    def _one(self, smear: Smear) -> Cells:
        # At 512 px first: nuclei are found by colour, before they are blurred.
        stain = nucleus_stain(reduced(smear))
        height, width = stain.shape
        factor = min(1.0, self.params.side_px / max(height, width))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        small = np.asarray(cv2.resize(stain, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
        return leukocytes(self._nuclei(small), (small.shape[0], small.shape[1]), smear)

    def _nuclei(self, stain: Floats) -> list[Nucleus]:
        longer = max(stain.shape)
        least, most = sorted((self.params.smallest * longer, self.params.largest * longer))
        blobs = blob_log(
            stain,
            # A disc of radius r responds most at the standard deviation r / sqrt(2).
            min_sigma=least / math.sqrt(2),
            max_sigma=most / math.sqrt(2),
            num_sigma=SCALES,
            threshold=self.params.contrast,
            overlap=SHARED,
            log_scale=True,
            exclude_border=False,
        )
        stained = stain > stain_threshold(stain)
        masks = [_nucleus(stained, y, x, sigma * math.sqrt(2)) for y, x, sigma in blobs]
        taken = np.zeros_like(stained)
        found = []
        for mask in sorted((mask for mask in masks if mask is not None), key=lambda mask: -int(mask.sum())):
            if (mask & taken).sum() > SHARED * mask.sum():
                continue
            taken |= mask
            found.append(_measured(mask, stain, self.params.grow))
        return found


def _nucleus(
    stained: npt.NDArray[np.bool_], y: float, x: float, radius: float
) -> npt.NDArray[np.bool_] | None:
    """The stained pixels of a blob; None where there are too few."""
    rows, columns = np.ogrid[: stained.shape[0], : stained.shape[1]]
    mask = stained & ((rows - y) ** 2 + (columns - x) ** 2 < (REACH * radius) ** 2)
    return mask if mask.sum() >= max(LEAST_FILLED * math.pi * radius**2, 1) else None


def _measured(mask: npt.NDArray[np.bool_], stain: Floats, grow: float) -> Nucleus:
    rows, columns = np.nonzero(mask)
    # Not the outermost pixels: a neighbour's edge within reach would decide the box.
    left, top = float(np.percentile(columns, 1)), float(np.percentile(rows, 1))
    right, bottom = float(np.percentile(columns, 99)) + 1, float(np.percentile(rows, 99)) + 1
    x, y = (left + right) / 2, (top + bottom) / 2
    wide, high = grow * (right - left) / 2, grow * (bottom - top) / 2
    return Nucleus((x - wide, y - high, x + wide, y + high), float(mask.sum()), float(stain[mask].mean()))
