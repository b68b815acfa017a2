"""95% confidence intervals of shares and of their means. Numbers in, numbers out.

An interval is a pair ``(low, high)``. What the draws of a bootstrap are made of is decided in
``leukokit.metrics.bootstrap``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

ConfidenceInterval = tuple[float, float]
"""Lower and upper end of a 95% interval."""
Floats = npt.NDArray[np.float64]

ALPHA: Final = 0.05
"""One minus the level of every interval here."""
SHOWN: Final = 5e-4
"""Draws closer than this do not differ in any digit that tables show."""
FEWEST: Final = 10
"""Cells of a class from which on the photographs drawn in its place say how far its recall may vary."""


def wilson(k: float, n: float) -> ConfidenceInterval:
    """Score interval of the share k/n (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    ``k`` need not be whole, for a mean over ``n`` independent photographs. Of n = 0 nothing is known: 0 to 1.

    Raises:
        ValueError: not 0 <= k <= n.
    """
    _check_share(k, n)
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - ALPHA / 2)
    share, shrink = k / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * math.sqrt(max(share * (1 - share), 0.0) / n + z * z / (4 * n * n)) / shrink
    # At the ends the limit is the end itself, which rounding would miss by a hair.
    return 0.0 if k == 0 else centre - half, 1.0 if k == n else min(centre + half, 1.0)


def clopper_pearson(k: float, n: int) -> ConfidenceInterval:
    """Exact interval of the share k/n (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404).

    They are those of Rümke's table for differential counts. ``k`` need not be whole, as in ``wilson``. Of
    n = 0 nothing is known: 0 to 1.

    Raises:
        ValueError: not 0 <= k <= n.
    """
    _check_share(k, n)
    low = 0.0 if k == 0 else beta_quantile(k, n - k + 1, ALPHA / 2)
    high = 1.0 if k == n else beta_quantile(k + 1, n - k, 1 - ALPHA / 2)
    return low, high


def beta_quantile(a: float, b: float, share: float) -> float:
    """Quantile of the beta distribution, by bisection.

    scipy has it too, but its import takes longer than ``leukokit detect`` needs for all else of an image.

    Args:
        a: first parameter, above 0.
        b: second parameter, above 0.
        share: 0 to 1.
    """
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if _beta_share(a, b, middle) < share:
            low = middle
        else:
            high = middle
    return high


def _beta_share(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function, for x inside 0 to 1 (DLMF 8.17.22, by Lentz's method)."""
    if x > (a + 1) / (a + b + 2):
        # The continued fraction converges fast on the other side only.
        return 1 - _beta_share(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    above, below = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    fraction = below
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = fraction
        for term in (even, odd):
            above = _nonzero(1 + term / above)
            below = 1 / _nonzero(1 + term * below)
            fraction *= above * below
        if abs(fraction - before) <= 1e-15 * abs(fraction):
            break
    return math.exp(log_front) * fraction / a


def _nonzero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300


def mean_interval(values: Sequence[float], limits: Sequence[ConfidenceInterval]) -> ConfidenceInterval:
    """Interval of the mean of independent estimates from the interval of each.

    Zou & Donner 2008 (doi:10.1002/sim.3095). Unlike a bootstrap it stays honest where every estimate is 1.

    Raises:
        ValueError: no estimate, or another number of intervals.
    """
    if not values:
        raise ValueError("no estimate to average")
    mean, count = math.fsum(values) / len(values), len(values)
    pairs = list(zip(values, limits, strict=True))
    below = math.sqrt(math.fsum((value - low) ** 2 for value, (low, _) in pairs)) / count
    above = math.sqrt(math.fsum((high - value) ** 2 for value, (_, high) in pairs)) / count
    return max(mean - below, 0.0), min(mean + above, 1.0)


def percentile_interval(samples: npt.ArrayLike) -> Floats:
    """(2, ...) lower and upper end of the percentile interval of draws (R, ...), whose NaN are skipped."""
    return np.asarray(np.nanquantile(np.asarray(samples), [ALPHA / 2, 1 - ALPHA / 2], axis=0))


def interval_of_draws(samples: npt.ArrayLike) -> ConfidenceInterval | None:
    """Percentile interval of draws (R,), or None if they do not differ by a digit that is shown."""
    known = np.asarray(samples)[np.isfinite(samples)]
    if not len(known) or np.ptp(known) < SHOWN:
        return None
    low, high = percentile_interval(known)
    return float(low), float(high)


def share_interval(share: float, photos: int, samples: npt.ArrayLike) -> ConfidenceInterval:
    """Interval of a share from its draws (R,), which ``photos`` photographs have a part in.

    If no draw differs, as when all are right, that is not certainty: Clopper and Pearson's interval then,
    a photograph a trial.
    """
    return interval_of_draws(samples) or clopper_pearson(share * photos, photos)


def cell_interval(hits: int, cells: int, photos: int, samples: npt.ArrayLike) -> ConfidenceInterval | None:
    """Interval of a share of cells: Wilson's where every photograph gives one, else ``share_interval``.

    All or none right are exact there, too. None of no cell.
    """
    if not cells:
        return None
    if cells == photos and 0 < hits < cells:
        return wilson(hits, cells)
    return share_interval(hits / cells, photos, samples)


def rare_classes(names: Sequence[str], groups: Sequence[str] | None = None) -> tuple[str, ...]:
    """Classes of fewer than ``FEWEST`` of the N cells; "NAME of GROUP" where only a group has so few.

    Intervals of a mean over classes with one of them are too narrow: its few photographs hardly vary.
    """
    few = sorted(name for name, count in Counter(names).items() if count < FEWEST)
    inside = Counter(zip(names, groups, strict=True)) if groups is not None else Counter()
    parts = sorted(pair for pair, count in inside.items() if count < FEWEST and pair[0] not in few)
    return (*few, *(f"{name} of {group}" for name, group in parts))


def rare_classes_note(few: Sequence[str]) -> str:
    """The line under a table for people; empty where no class has too few cells."""
    return f"fewer than ten cells of {', '.join(few)}: intervals are too narrow" if few else ""


def _check_share(k: float, n: float) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
