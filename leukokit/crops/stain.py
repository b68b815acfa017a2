"""Nuclei brought to one stain: the second anchor that leukocytes need, beside the erythrocytes'.

``standardize`` makes background and erythrocytes of all laboratories alike. The dye of nuclei still runs
from blue to pink. Two colours of every leukocyte's surroundings are known without knowing its class: that
of its nucleus and that of the erythrocytes. A linear map of optical densities, the smallest that takes
both to fixed references, undoes the rest. It follows the idea of stain vectors (Ruifrok & Johnston 2001;
Macenko et al. 2009, doi:10.1109/ISBI.2009.5193250) with vectors read off known cells.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.crops.cut import optical_density
from leukokit.images.pixels import RGBImage
from leukokit.images.standardize import ANCHOR_DENSITY, WHITE

NUCLEUS_REFERENCE: Final = np.array([0.75, 1.40, 0.50], dtype=np.float32)
"""Direction, in optical density (red, green, blue), to which nuclei are turned; their length stays."""
NUCLEUS_QUANTILE: Final = 0.6
"""Share of a leukocyte's pixels that lie below its nucleus in red optical density."""
RIDGE: Final = 0.04
"""Penalty on any change, in squared lengths of the nucleus's density."""


def nucleus_map(
    crop: RGBImage, cell_px: float, erythrocyte: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """The map of optical densities that brings a leukocyte's nucleus and erythrocytes to the references.

    Args:
        crop: standardised RGB uint8 (S, S, 3), the leukocyte in the middle.
        cell_px: longer side of the leukocyte's box in pixels of the crop.
        erythrocyte: (3,) median optical density of the field's erythrocytes; None where there are none.

    Returns:
        (3, 3) float32.
    """
    side = crop.shape[0]
    axis = np.arange(side) - (side - 1) / 2
    disc = axis[:, None] ** 2 + axis[None, :] ** 2 < (0.45 * cell_px) ** 2
    density = optical_density(crop[disc])
    red = density[:, 0]
    nucleus = np.median(density[red >= np.quantile(red, NUCLEUS_QUANTILE)], axis=0)
    wanted = NUCLEUS_REFERENCE * (np.linalg.norm(nucleus) / np.linalg.norm(NUCLEUS_REFERENCE))
    found = np.stack([nucleus, ANCHOR_DENSITY if erythrocyte is None else erythrocyte], axis=1)
    target = np.stack([wanted, ANCHOR_DENSITY], axis=1)
    ridge = (RIDGE * float(nucleus @ nucleus) + 1e-4) * np.eye(3)
    solved = np.linalg.solve(found @ found.T + ridge, found @ target.T + ridge)
    return np.asarray(solved.T, dtype=np.float32)


def mix_stain(picture: RGBImage, matrix: npt.NDArray[np.float32]) -> RGBImage:
    """A standardised RGB uint8 picture with its optical densities mixed by a (3, 3) matrix."""
    density = cv2.transform(optical_density(picture), matrix)
    return np.asarray(np.clip(WHITE * np.exp(-density), 0, 255), dtype=np.uint8)
