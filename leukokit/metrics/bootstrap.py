"""ConfidenceInterval and tests for figures over cells that come in photographs.

Cells of one photograph share its light, stain and patient: they are not independent, and copies of one
photograph are no new evidence. What is resampled is therefore the photograph, with all its cells.
Intervals are at 95%.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from leukokit.metrics.intervals import (
    FEWEST,
    ConfidenceInterval,
    Floats,
    cell_interval,
    clopper_pearson,
    interval_of_draws,
    mean_interval,
    percentile_interval,
)

Ints = npt.NDArray[np.int64]

BLOCK: Final = 1_000_000
"""Photographs drawn at once; bounds memory, whatever the number of resamples."""


class McNemar(NamedTuple):
    """Cells that only the first, or only the second, answered rightly, and the two-sided p."""

    only_a: int
    only_b: int
    p: float


class Difference(NamedTuple):
    """A difference, first minus second, with its 95% interval and two-sided p."""

    value: float
    low: float
    high: float
    p: float


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> McNemar:
    """Exact two-sided test of two classifiers on the same cells (McNemar 1947, doi:10.1007/BF02295996).

    It takes cells for independent: where photographs hold several, ``paired_bootstrap`` is the test.

    Args:
        correct_a: (N,) bool, whether the first was right on each cell.
        correct_b: (N,) bool, whether the second was.

    Raises:
        ValueError: not two rows of N truth values.
    """
    first, second = np.asarray(correct_a), np.asarray(correct_b)
    if first.ndim != 1 or first.shape != second.shape or {first.dtype.kind, second.dtype.kind} - {"b"}:
        raise ValueError("the McNemar test takes two rows of as many truth values")
    from scipy.special import bdtr

    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    p = 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, min(p, 1.0))


def photo_codes(photos: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Ints:
    """(N,) int64: one number per photograph; equal names in two groups are two photographs."""
    numbers = np.unique(np.asarray(photos), return_inverse=True)[1].reshape(-1)
    if groups is not None:
        names, group = np.unique(np.asarray(groups), return_inverse=True)
        numbers = np.unique(numbers * len(names) + group.reshape(-1), return_inverse=True)[1]
    return numbers.astype(np.int64)


def photo_draws(strata: npt.ArrayLike, resamples: int, seed: int = 0) -> Iterator[Ints]:
    """Draw photographs with replacement, as many from each stratum as it has.

    Args:
        strata: (P,) the stratum of each photograph.
        resamples: number of draws.
        seed: of the draws.

    Yields:
        (B, P) int64, positions of the photographs drawn, one row per draw; ``resamples`` rows in all.
    """
    of_photo = np.asarray(strata)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(of_photo == stratum) for stratum in np.unique(of_photo)]
    block = max(1, BLOCK // max(1, len(of_photo)))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = [own[rng.integers(len(own), size=(rows, len(own)))] for own in members]
        yield np.concatenate(drawn, axis=1).astype(np.int64)


def bootstrap_photos(
    values: npt.ArrayLike,
    photos: npt.ArrayLike,
    statistic: Callable[[Floats], Floats],
    strata: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Floats:
    """Figures of resampled photographs (Efron 1979, doi:10.1214/aos/1176344552).

    Args:
        values: (N, K) what each cell adds to K totals.
        photos: (N,) the photograph of each cell.
        statistic: from totals (R, K) to figures (R, ...).
        strata: (N,) whole numbers from 0, such as the class of each cell. A photograph stands with the
            rarest (in photographs) that it holds, and strata keep their size, so that a rare class does not
            vanish from a draw. It still may where its cells come with a rarer one's: ``statistic`` must bear
            a total of 0. A stratum of one photograph does not vary: intervals are then too narrow.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        (resamples, ...) float64.

    Raises:
        ValueError: no cell, or arrays that do not fit.
    """
    table, names = np.asarray(values, dtype=np.float64), np.asarray(photos)
    if table.ndim != 2 or names.shape != (len(table),) or not len(table):
        raise ValueError(
            f"values {table.shape} and photos {names.shape} must be (N, K) and (N,), N at least 1"
        )
    codes = photo_codes(names)
    sums = np.stack([np.bincount(codes, weights=column) for column in table.T], axis=1)
    of_photo = np.zeros(len(sums), np.int64) if strata is None else _rarest(codes, np.asarray(strata))
    figures = []
    for block in photo_draws(of_photo, resamples, seed):
        cells = block + np.arange(len(block))[:, None] * len(sums)
        times = np.bincount(cells.ravel(), minlength=block.size).reshape(block.shape)
        figures.append(statistic(times.astype(np.float64) @ sums))
    return np.concatenate(figures)


def strata_of(labels: npt.ArrayLike) -> Ints:
    """(N,) strata to draw photographs in for a share of all cells: their classes (N,), whole numbers.

    None, all 0, where a class has fewer than ``FEWEST`` cells: such a stratum hardly varies.
    """
    classes = np.asarray(labels)
    counts = np.unique(classes, return_counts=True)[1]
    return np.asarray(classes * int(counts.min(initial=FEWEST) >= FEWEST), dtype=np.int64)


def accuracy_interval(
    correct: npt.ArrayLike, labels: npt.ArrayLike, photos: npt.ArrayLike, resamples: int = 1000, seed: int = 0
) -> ConfidenceInterval | None:
    """``cell_interval`` of the share of all cells that is right, drawn within ``strata_of`` the classes.

    Args:
        correct: (N,) truth values; N may be 0.
        labels: (N,) whole numbers from 0.
        photos: (N,) the photograph of each cell.
        resamples: number of draws.
        seed: of the draws.
    """
    right = np.asarray(correct, dtype=np.float64)
    if not len(right):
        return None
    values, strata = np.stack([right, np.ones(len(right))], axis=1), strata_of(labels)
    samples = bootstrap_photos(
        values, photos, lambda drawn: drawn[:, 0] / drawn[:, 1], strata, resamples, seed
    )
    return cell_interval(int(right.sum()), len(right), len(np.unique(photos)), samples)


def balanced_interval(
    samples: npt.ArrayLike,
    correct: npt.ArrayLike,
    labels: npt.ArrayLike,
    photos: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
) -> ConfidenceInterval:
    """Interval of a balanced accuracy from its draws (R,), or from the recalls' where no draw differs.

    Args:
        samples: draws of ``balanced_accuracies``.
        correct: (N,) truth values; N at least 1.
        labels: (N,) whole numbers; every number that occurs is a class.
        photos: (N,) the photograph of each cell.
        groups: (N,) such as laboratories.
    """
    if (found := interval_of_draws(samples)) is not None:
        return found
    right, classes, codes = np.asarray(correct), np.asarray(labels), photo_codes(photos, groups)
    names = np.zeros(len(right), np.int64) if groups is None else np.asarray(groups)
    means = []
    for name in np.unique(names):
        parts = [(names == name) & (classes == number) for number in np.unique(classes[names == name])]
        recalls = [float(right[part].mean()) for part in parts]
        counts = [len(np.unique(codes[part])) for part in parts]
        exact = [clopper_pearson(share * n, n) for share, n in zip(recalls, counts, strict=True)]
        means.append((math.fsum(recalls) / len(recalls), mean_interval(recalls, exact)))
    return mean_interval([mean for mean, _ in means], [limits for _, limits in means])


def balanced_accuracies(
    correct: npt.ArrayLike,
    labels: npt.ArrayLike,
    photos: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Balanced accuracy of M classifiers on the same cells, and of the same draws of photographs.

    With groups, the mean over groups of the balanced accuracy within each. Photographs are drawn within the
    strata of class and group (see ``bootstrap_photos``).

    Args:
        correct: (N, M) truth values, or shares of runs that were right.
        labels: (N,) whole numbers; every number that occurs is a class.
        photos: (N,) the photograph of each cell.
        groups: (N,) such as laboratories.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        (M,) and (resamples, M) float64.

    Raises:
        ValueError: no cell, or arrays that do not fit.
    """
    right, classes = np.asarray(correct, dtype=np.float64), np.asarray(labels)
    names = np.zeros(len(right), np.int64) if groups is None else np.asarray(groups)
    if right.ndim != 2 or not (right.shape[:1] == classes.shape == names.shape == np.shape(photos)):
        raise ValueError("correct must be (N, M), and labels, photos and groups (N,)")
    keys = photo_codes(classes, names)
    count, models = int(keys.max(initial=-1)) + 1, right.shape[1]
    of_cell = np.eye(count)[keys]
    first = np.unique(keys, return_index=True)[1]
    of_key = names[first][:, None] == np.unique(names)[None, :]

    def figures(totals: Floats) -> Floats:
        parts = totals.reshape(-1, models + 1, count)
        cells = parts[:, -1:]
        recalls = parts[:, :-1] / np.maximum(cells, 1)
        known = (cells > 0) @ of_key.astype(np.float64)
        return np.asarray(((recalls @ of_key) / np.maximum(known, 1)).mean(axis=2))

    values = np.concatenate([*(of_cell * column[:, None] for column in right.T), of_cell], axis=1)
    samples = bootstrap_photos(values, photo_codes(photos, groups), figures, keys, resamples, seed)
    return figures(values.sum(axis=0)[None])[0], samples


def paired_bootstrap(
    correct_a: npt.ArrayLike,
    correct_b: npt.ArrayLike,
    labels: npt.ArrayLike,
    photos: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Balanced accuracy of the first classifier minus the second's, both on the same draws of photographs.

    Args:
        correct_a: (N,) truth values, or the share of runs (seeds) that were right, of the first.
        correct_b: the same of the second.
        labels: (N,) true classes as whole numbers.
        photos: (N,) the photograph of each cell.
        groups: (N,) such as laboratories: the difference is then that of the means over groups.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        The percentile interval, and p as twice the smaller share of draws on one side of 0, the sample itself
        counted as a draw: never below 2 / (resamples + 1).

    Raises:
        ValueError: no cell, or arrays that do not fit.
    """
    correct = np.stack([np.asarray(correct_a, np.float64), np.asarray(correct_b, np.float64)], axis=-1)
    values, samples = balanced_accuracies(correct, labels, photos, groups, resamples, seed)
    # Both sums are rounded: what is equal must count for both sides.
    drawn = np.round(samples[:, 0] - samples[:, 1], 12)
    low, high = percentile_interval(drawn)
    rarer = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(2 * (rarer + 1) / (resamples + 1), 1.0)
    return Difference(float(values[0] - values[1]), float(low), float(high), p)


def _rarest(codes: Ints, keys: npt.NDArray[np.integer]) -> Ints:
    """(P,) the key of each photograph that the fewest photographs hold."""
    width = int(keys.max()) + 1
    pairs = np.unique(codes * width + keys)
    photos, held = np.divmod(pairs, width)
    rank = np.bincount(held, minlength=width)[held] * width + held
    lowest = np.full(int(codes.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, photos, rank)
    return np.asarray(lowest % width)
