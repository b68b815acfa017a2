"""Fields of one slide that show the same cells: found by the constellation of their cells.

Whoever photographs a slide by hand returns to places already taken, and stage scans overlap on purpose. A
leukocyte on two fields would be counted twice. The camera and the magnification of a slide stay the same, so
that one field shows the other's cells moved by a shift. A shift is tried for each two leukocytes of like
size, and accepted where the erythrocytes around them agree as they never do by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from leukokit.cells import Cells
from leukokit.taxonomy import ERYTHROCYTE, LEUKOCYTE

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

PLACE_TOLERANCE: Final = 0.2
"""Largest distance, in erythrocyte diameters, of a cell on one field from the same cell on the other."""
SIZE_RATIO: Final = 1.3
"""Largest ratio of the diameters that one cell has on two fields."""
ERYTHROCYTES_AROUND: Final = 8
"""Erythrocytes nearest to a leukocyte by which most shifts are ruled out at once."""
LEAST_NEIGHBOURS: Final = 3
"""Smallest number of these that both fields show; the field's edge may cut off the others."""
LEAST_AGREEMENT: Final = 0.5
"""Smallest share of the erythrocytes of the common part that both fields show."""
LEAST_COMMON: Final = 6
"""Smallest number of erythrocytes that both fields show."""
CHANCE: Final = 1e-9
"""Largest probability that so many erythrocytes agree by chance, for one shift."""


class Constellation:
    """The leukocytes and erythrocytes of a field, ready to be compared with those of others.

    Args:
        cells: the cells of the field, boxes in its pixels.
        size: width and height of the field, pixels.
    """

    def __init__(self, cells: Cells, size: tuple[int, int]) -> None:
        self.size = np.array(size, float)
        self.ruler = cells.erythrocyte_diameter_px
        self.leukocytes = np.flatnonzero(cells.kinds == LEUKOCYTE)
        self.places = cells.centres[self.leukocytes]
        self.diameters = cells.diameters[self.leukocytes]
        self.erythrocytes = cells.centres[cells.kinds == ERYTHROCYTE]

    @cached_property
    def tree(self) -> cKDTree:
        """The erythrocytes' centres, searchable."""
        from scipy.spatial import cKDTree

        return cKDTree(self.erythrocytes)

    @cached_property
    def around(self) -> npt.NDArray[np.float64]:
        """(L, K, 2): from each leukocyte to the erythrocytes nearest to it."""
        count = min(ERYTHROCYTES_AROUND, len(self.erythrocytes))
        _, nearest = self.tree.query(self.places, k=list(range(1, count + 1)))
        return np.asarray(self.erythrocytes[nearest] - self.places[:, None])

    @property
    def is_comparable(self) -> bool:
        """Whether there are cells enough to recognise it by."""
        return self.ruler is not None and len(self.leukocytes) > 0 and len(self.erythrocytes) >= LEAST_COMMON


@dataclass(frozen=True, slots=True)
class Overlap:
    """The common part of two fields.

    Attributes:
        shift: x, y in pixels from a place on the second field to the same place on the first.
        leukocytes: (M, 2) int64, numbers of the leukocytes on both: on the first field, on the second.
        erythrocytes: number of erythrocytes that both fields show.
    """

    shift: tuple[float, float]
    leukocytes: npt.NDArray[np.int64]
    erythrocytes: int


def find_overlap(first: Constellation, second: Constellation) -> Overlap | None:
    """Find the common part of two fields of one slide, taken with one camera at one magnification.

    Returns:
        The overlap with the most erythrocytes in common; None where no two leukocytes are the same cell, as
        far as the erythrocytes around them tell.

    Examples:
        >>> from leukokit.synthetic.smear import draw_smear
        >>> drawn = draw_smear(seed=1, width=900, height=600, leukocytes=4, erythrocyte_diameter_px=40)
        >>> kinds = np.array([("leukocyte", "erythrocyte", "platelet").index(kind) for kind in drawn.kinds])
        >>> whole = Cells(drawn.boxes, kinds, np.ones(len(kinds)))
        >>> right = whole[whole.boxes[:, 0] >= 200]
        >>> moved = Cells(right.boxes - np.float32([200, 0, 200, 0]), right.kinds, right.scores)
        >>> overlap = find_overlap(Constellation(whole, (900, 600)), Constellation(moved, (700, 600)))
        >>> overlap.shift
        (200.0, 0.0)
    """
    if not first.is_comparable or not second.is_comparable:
        return None
    rulers = first.ruler or 1.0, second.ruler or 1.0
    if not 1 / SIZE_RATIO < rulers[0] / rulers[1] < SIZE_RATIO:
        return None
    ruler = sum(rulers) / 2
    reach = PLACE_TOLERANCE * ruler
    # From either side: an erythrocyte that one field lacks is missed among the neighbours on the other.
    shifts = [*_possible_shifts(first, second, reach), *-_possible_shifts(second, first, reach)]
    found = [overlap for shift in shifts if (overlap := _overlap_at(shift, first, second, ruler)) is not None]
    return max(found, key=lambda overlap: overlap.erythrocytes, default=None)


def _possible_shifts(first: Constellation, second: Constellation, reach: float) -> npt.NDArray[np.float64]:
    """(S, 2): shifts that bring a leukocyte and some of its neighbours onto those of the first field."""
    ratios = first.diameters[:, None] / np.maximum(second.diameters[None], 1e-6)
    one, other = np.nonzero((ratios < SIZE_RATIO) & (ratios > 1 / SIZE_RATIO))
    if not len(one):
        return np.empty((0, 2))
    # The leukocytes' own boxes differ by some pixels, and so do the shifts that they give.
    apart, _ = first.tree.query(first.places[one][:, None] + second.around[other])
    agree = (apart <= 2 * reach).sum(axis=1) >= LEAST_NEIGHBOURS
    return np.asarray((first.places[one] - second.places[other])[agree])


def _overlap_at(
    shift: npt.NDArray[np.float64], first: Constellation, second: Constellation, ruler: float
) -> Overlap | None:
    """The overlap at a shift, refined by the erythrocytes; None where these do not agree."""
    reach, edge = PLACE_TOLERANCE * ruler, ruler / 2
    for width in (2 * reach, reach):
        moved = second.erythrocytes + shift
        moved = moved[_lies_within(moved, edge, first.size - edge)]
        apart, nearest = first.tree.query(moved)
        same = apart <= width
        if same.sum() < LEAST_COMMON:
            return None
        shift = shift + np.median(first.erythrocytes[nearest[same]] - moved[same], axis=0)
    moved = second.erythrocytes + shift
    moved = moved[_lies_within(moved, edge, first.size - edge)]
    common = int((first.tree.query(moved)[0] <= reach).sum())
    visible = _lies_within(first.erythrocytes, shift + edge, shift + second.size - edge).sum()
    most = max(len(moved), int(visible))
    area = float(np.prod(np.minimum(first.size, shift + second.size) - np.maximum(shift, 0)))
    if common < max(LEAST_COMMON, LEAST_AGREEMENT * most) or _chance(common, most, reach, area) > CHANCE:
        return None
    return Overlap((float(shift[0]), float(shift[1])), _same_leukocytes(shift, first, second, reach), common)


def _chance(common: int, most: int, reach: float, area: float) -> float:
    """Probability that so many of ``most`` cells lie by chance where the other field has one."""
    from scipy.stats import binom

    each = min(1.0, most * np.pi * reach**2 / max(area, 1.0))
    return float(binom.sf(common - 1, most, each))


def _lies_within(
    places: npt.NDArray[np.float64], low: npt.NDArray[np.float64] | float, high: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    return np.asarray(((places >= low) & (places <= high)).all(axis=1), np.bool_)


def _same_leukocytes(
    shift: npt.NDArray[np.float64], first: Constellation, second: Constellation, reach: float
) -> npt.NDArray[np.int64]:
    between = first.places[:, None] - (second.places[None] + shift)
    apart = np.hypot(between[..., 0], between[..., 1])
    pairs = [
        (int(first.leukocytes[i]), int(second.leukocytes[j]))
        for i, j in zip(*np.nonzero(apart <= 2 * reach), strict=True)
        if apart[i, j] == apart[i].min() == apart[:, j].min()
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)
