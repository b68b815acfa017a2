"""Cells of one laboratory in the stain of another.

A class that a single laboratory shows must not be learnt as that laboratory's look. In optical density stain
is additive (Beer-Lambert), so a linear map without an offset changes the stain and leaves the background
white. The map used is the optimal transport between two centred normal distributions with the second moments
of two laboratories' pixels (Pitié & Kokaram 2007, doi:10.1049/cp:20070055), class by class, so that the
classes' different shares in two laboratories do not count as stain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from leukokit.crops.cut import REACH, optical_density
from leukokit.datasets.detected import CROP_PX
from leukokit.training.cells import AnnotatedCell

MAX_CELLS: Final = 60
"""Cells per laboratory and class whose pixels are measured."""
MIN_CELLS: Final = 8
MIN_DENSITY: Final = 0.3
"""Sum of the three optical densities from which a pixel belongs to a cell."""
STRENGTH: Final = (0.3, 1.1)
"""Range of the part of the map that is applied; 1 is the stain of the other laboratory."""

Matrix = npt.NDArray[np.float64]


class StainTransfer:
    """Random maps from the stain of a cell's laboratory to another's.

    Args:
        cells: annotated cells; groups of fewer than eight are not measured.

    Attributes:
        moments: (3, 3) second moment of the optical densities of cell pixels, by laboratory and label.
    """

    def __init__(self, cells: Sequence[AnnotatedCell]) -> None:
        groups: dict[tuple[str, int], list[AnnotatedCell]] = defaultdict(list)
        for cell in cells:
            groups[cell.field.source.lab, cell.label].append(cell)
        rng = np.random.default_rng(0)
        self.moments: dict[tuple[str, int], Matrix] = {
            key: _second_moment([members[i].crop for i in rng.permutation(len(members))[:MAX_CELLS]])
            for key, members in sorted(groups.items())
            if len(members) >= MIN_CELLS
        }
        self._labs = sorted({lab for lab, _ in self.moments})

    def matrix(self, lab: str, label: int, rng: np.random.Generator) -> npt.NDArray[np.float32] | None:
        """Draw a (3, 3) float32 map for ``crops.stain.mix_stain``; None where no other laboratory fits.

        A class that the other laboratory does not show takes the map of one that both show.
        """
        others = [other for other in self._labs if other != lab]
        if not others:
            return None
        other = others[rng.integers(len(others))]
        shared = sorted(k for name, k in self.moments if name == lab and (other, k) in self.moments)
        if not shared:
            return None
        chosen = label if label in shared else shared[rng.integers(len(shared))]
        full = optimal_map(self.moments[lab, chosen], self.moments[other, chosen])
        strength = rng.uniform(*STRENGTH)
        return ((1 - strength) * np.eye(3) + strength * full).astype(np.float32)


def optimal_map(source: Matrix, target: Matrix) -> Matrix:
    """Return the symmetric (3, 3) matrix that takes the second moment ``source`` to ``target``."""
    root, inverse = _power(source, 0.5), _power(source, -0.5)
    return np.asarray(inverse @ _power(root @ target @ root, 0.5) @ inverse)


def _power(matrix: Matrix, exponent: float) -> Matrix:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 1e-6) ** exponent) @ vectors.T)


def _second_moment(crops: Sequence[npt.NDArray[np.uint8]]) -> Matrix:
    axis = np.arange(0, CROP_PX, 2) - (CROP_PX - 1) / 2
    disc = axis[:, None] ** 2 + axis[None, :] ** 2 < (0.42 * CROP_PX / REACH) ** 2
    pixels = np.stack([np.asarray(crop)[::2, ::2][disc] for crop in crops])
    density = optical_density(pixels).reshape(-1, 3).astype(np.float64)
    density = density[density.sum(axis=1) > MIN_DENSITY]
    return np.asarray(density.T @ density / max(len(density), 1) + 1e-6 * np.eye(3))
