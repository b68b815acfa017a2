"""The differential count: the percentage of each class among the classified leukocytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from leukokit.metrics.intervals import clopper_pearson
from leukokit.taxonomy import ERYTHROBLAST, UNCLASSIFIED, UNKNOWN

MIN_LEUKOCYTES: Final = 100
"""Smallest number of classified leukocytes for a differential count; with fewer, its intervals are wide."""

MAX_UNKNOWN: Final = 0.05
"""Largest share of ``unknown`` leukocytes in a normal smear, as far as the classifier can tell."""


@dataclass(frozen=True, slots=True)
class Share:
    """One class of a differential count.

    Attributes:
        count: leukocytes of the class.
        percent: percentage of all classified leukocytes; None where there are none.
        low: lower end of its 95% confidence interval, in percent.
        high: upper end of its 95% confidence interval, in percent.
    """

    count: int
    percent: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Differential:
    """A differential count.

    Attributes:
        shares: by class, in the classifier's order; empty where no classifier named the cells.
        unclassified: leukocytes below the review threshold; no percentage includes them.
        erythroblasts: found as leukocytes, but counted apart; None where the classifier has no such class.
        unknown: cells that resemble no class; no percentage includes them. None where the classifier has no
            such answer.
    """

    shares: dict[str, Share]
    unclassified: int
    erythroblasts: int | None
    unknown: int | None = None

    @property
    def n(self) -> int:
        """Number of classified leukocytes: the denominator of the percentages."""
        return sum(share.count for share in self.shares.values())

    @property
    def below_minimum(self) -> bool:
        """Whether fewer leukocytes are classified than a differential count needs."""
        return self.n < MIN_LEUKOCYTES

    @property
    def unknown_share(self) -> float:
        """Share of ``unknown`` among all cells that the detector found as leukocytes; 0 of none."""
        unknown = self.unknown or 0
        total = self.n + self.unclassified + (self.erythroblasts or 0) + unknown
        return unknown / total if total else 0.0

    @property
    def warning(self) -> str | None:
        """One sentence where more than 5% of the leukocytes are ``unknown``, else None."""
        if self.unknown_share <= MAX_UNKNOWN:
            return None
        return (
            f"{self.unknown_share:.0%} of the leukocytes are unknown ({self.unknown}): "
            "abnormal cells or an unknown stain: a person must look"
        )

    @property
    def erythroblasts_per_100(self) -> float | None:
        """Erythroblasts per 100 classified leukocytes; None where that is not known."""
        return None if self.erythroblasts is None or not self.n else 100 * self.erythroblasts / self.n

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: counts, and percentages with two decimals; what is not known is None."""
        per_100 = self.erythroblasts_per_100
        return {
            "n": self.n,
            "below_minimum": self.below_minimum,
            "classes": {
                name: {
                    "count": share.count,
                    "percent": None if share.percent is None else round(share.percent, 2),
                    "interval": [round(share.low, 2), round(share.high, 2)],
                }
                for name, share in self.shares.items()
            },
            "unclassified": self.unclassified,
            "unknown": self.unknown,
            "warning": self.warning,
            "erythroblasts": self.erythroblasts,
            "erythroblasts_per_100": None if per_100 is None else round(per_100, 2),
        }


def differential(class_counts: Mapping[str, int]) -> Differential:
    """Compute the differential count of leukocytes counted by class.

    Unclassified cells, unknown cells and erythroblasts are in no percentage. The intervals are Clopper and
    Pearson's, those of Rümke's table: cells are taken as drawn independently from the blood.

    Args:
        class_counts: number of leukocytes by class, such as ``Cells.class_counts`` or sums of them.

    Raises:
        ValueError: a count is negative.

    Examples:
        >>> count = differential({"neutrophil": 60, "lymphocyte": 40, "unclassified": 5})
        >>> count.n, count.shares["lymphocyte"].percent, count.unclassified
        (100, 40.0, 5)
        >>> f"{count.shares['lymphocyte'].low:.1f} to {count.shares['lymphocyte'].high:.1f}"
        '30.3 to 50.3'
    """
    counts = dict(class_counts)
    if any(count < 0 for count in counts.values()):
        raise ValueError("a count of cells cannot be negative")
    unclassified = counts.pop(UNCLASSIFIED, 0)
    erythroblasts = counts.pop(ERYTHROBLAST, None)
    unknown = counts.pop(UNKNOWN, None)
    n = sum(counts.values())
    shares = {}
    for name, count in counts.items():
        low, high = clopper_pearson(count, n)
        shares[name] = Share(count, 100 * count / n if n else None, 100 * low, 100 * high)
    return Differential(shares, unclassified, erythroblasts, unknown)
