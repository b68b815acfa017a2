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

MAX_WITHOUT_CLASS: Final = 0.2
"""Largest share of leukocytes without a class for which percentages are given. In sharp photographs of known
laboratories ``hybrid`` leaves 2% to 5% unclassified, in those of an unseen one 41%."""


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
    def without_class(self) -> int:
        """Leukocytes that may belong to any class: the unclassified and the unknown."""
        return self.unclassified + (self.unknown or 0)

    @property
    def is_withheld(self) -> bool:
        """Whether so many leukocytes have no class that the percentages of the others would mislead."""
        return self.without_class > MAX_WITHOUT_CLASS * (self.n + self.without_class)

    def bounds(self, name: str) -> tuple[float, float]:
        """Return the smallest and the largest percentage of a class that the cells allow.

        All leukocytes without a class are taken to be of other classes, and then all of this one.

        Raises:
            KeyError: no such class.
        """
        count, total = self.shares[name].count, self.n + self.without_class
        if not total:
            return 0.0, 100.0
        return 100 * count / total, 100 * (count + self.without_class) / total

    @property
    def withheld_reason(self) -> str | None:
        """One sentence where percentages are withheld, else None."""
        if not self.is_withheld:
            return None
        total = self.n + self.without_class
        have = "has" if self.without_class == 1 else "have"
        return (
            f"{self.without_class:,} of {total:,} leukocytes {have} no class: percentages are withheld; "
            "stain, camera or focus may be new to the classifier; name these cells by eye before use"
        )

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
            "abnormal cells or an unknown stain; a person must check them"
        )

    @property
    def erythroblasts_per_100(self) -> float | None:
        """Erythroblasts per 100 classified leukocytes; None where that is not known."""
        return None if self.erythroblasts is None or not self.n else 100 * self.erythroblasts / self.n

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: counts, and percentages with two decimals; None where unknown or withheld."""
        per_100 = self.erythroblasts_per_100
        return {
            "n": self.n,
            "below_minimum": self.below_minimum,
            "withheld": self.is_withheld,
            "classes": {name: self._class_json(name) for name in self.shares},
            "unclassified": self.unclassified,
            "unknown": self.unknown,
            "warning": self.warning,
            "erythroblasts": self.erythroblasts,
            "erythroblasts_per_100": None if per_100 is None else round(per_100, 2),
        }

    def _class_json(self, name: str) -> dict[str, Any]:
        share, bounds = self.shares[name], self.bounds(name)
        percent = None if self.is_withheld else share.percent
        return {
            "count": share.count,
            "percent": None if percent is None else round(percent, 2),
            "interval": None if self.is_withheld else [round(share.low, 2), round(share.high, 2)],
            "bounds": [round(bound, 2) for bound in bounds],
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
