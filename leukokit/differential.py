"""The differential count: the share of each class among the classified leukocytes, with exact limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from leukokit.metrics.statistics import clopper_pearson
from leukokit.taxonomy import ERYTHROBLAST, UNCLASSIFIED

FEWEST: Final = 100
"""Leukocytes that a differential count wants at least; of fewer, its limits are wide."""


@dataclass(frozen=True, slots=True)
class Share:
    """One class of a differential count.

    Attributes:
        count: leukocytes of the class.
        percent: of all classified leukocytes; None where there is none.
        low: lower 95% limit of it, in percent.
        high: upper 95% limit of it, in percent.
    """

    count: int
    percent: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Differential:
    """A differential count.

    Attributes:
        shares: by class, in the classifier's order.
        unclassified: leukocytes of no certain class; they are in no percentage.
        erythroblasts: found among the leukocytes, but none of them; None where they are not looked for.
    """

    shares: dict[str, Share]
    unclassified: int
    erythroblasts: int | None

    @property
    def n(self) -> int:
        """Classified leukocytes: what the percentages are of."""
        return sum(share.count for share in self.shares.values())

    @property
    def few(self) -> bool:
        """Whether fewer leukocytes are classified than a differential count wants."""
        return self.n < FEWEST

    @property
    def erythroblasts_per_100(self) -> float | None:
        """Erythroblasts per 100 classified leukocytes; None where that is not known."""
        return None if self.erythroblasts is None or not self.n else 100 * self.erythroblasts / self.n

    def to_json(self) -> dict[str, Any]:
        """Plain values: counts, and percentages to two decimals; what is not known is None."""
        per_100 = self.erythroblasts_per_100
        return {
            "n": self.n,
            "few": self.few,
            "classes": {
                name: {
                    "count": share.count,
                    "percent": None if share.percent is None else round(share.percent, 2),
                    "limits": [round(share.low, 2), round(share.high, 2)],
                }
                for name, share in self.shares.items()
            },
            "unclassified": self.unclassified,
            "erythroblasts": self.erythroblasts,
            "erythroblasts_per_100": None if per_100 is None else round(per_100, 2),
        }


def differential(class_counts: Mapping[str, int]) -> Differential:
    """The differential count of cells counted by class, such as ``Cells.class_counts`` or sums of them.

    Unclassified cells and erythroblasts are no part of the percentages, whose limits are those of Rümke's
    table: cells are taken as drawn independently from the blood.

    Raises:
        ValueError: a count is below zero.
    """
    counts = dict(class_counts)
    if any(count < 0 for count in counts.values()):
        raise ValueError("a count of cells cannot be below zero")
    unclassified = counts.pop(UNCLASSIFIED, 0)
    erythroblasts = counts.pop(ERYTHROBLAST, None)
    n = sum(counts.values())
    shares = {}
    for name, count in counts.items():
        low, high = clopper_pearson(count, n)
        shares[name] = Share(count, 100 * count / n if n else None, 100 * low, 100 * high)
    return Differential(shares, unclassified, erythroblasts)
