"""Whether probabilities mean what they say; the temperature and the review threshold that make them do so.

Labels are positions in the columns of the probabilities; -1 is a cell of none of these classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from leukokit.errors import DataError

Probabilities = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]

BINS = 15
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0


@dataclass(frozen=True, slots=True)
class ReviewThreshold:
    """A limit on the top probability, and what held above it where it was chosen.

    Attributes:
        value: cells whose top probability is below it are unclassified.
        accuracy: of the cells at or above it.
        coverage: their share of all cells.
    """

    value: float
    accuracy: float
    coverage: float


def fit_temperature(logits: Probabilities, labels: Labels) -> float:
    """The temperature T for which softmax(logits / T) gives the labels the highest likelihood.

    Guo et al. 2017 (arXiv 1706.04599). Cells of none of the classes say nothing of it and are left out. T is
    sought between 0.05 and 20: where every cell is right by a wide margin, the fit ends near the lower end.

    Args:
        logits: (N, C) float.
        labels: (N,) int, positions in the columns; -1 for none of the classes.

    Raises:
        DataError: no cell of a known class.
        ValueError: shapes do not fit, or a logit is not finite.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    scores, truth = _checked(logits, labels)
    scores, truth = scores[truth >= 0], truth[truth >= 0]
    if not len(truth):
        raise DataError("no cell of a known class to fit the temperature on; give annotated validation cells")

    def loss(log_temperature: float) -> float:
        likelihoods = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(likelihoods[np.arange(len(truth)), truth].mean())

    bounds = (np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def choose_review_threshold(
    probabilities: Probabilities, labels: Labels, target: float = 0.99
) -> ReviewThreshold | None:
    """The lowest limit on the top probability above which at least ``target`` of the cells are right.

    It stands halfway between the last cell let go and the first one kept; 0 where all cells may be kept.

    Args:
        probabilities: (N, C) float.
        labels: (N,) int, positions in the columns; -1 for none of the classes.
        target: accuracy wanted, 0..1.

    Returns:
        None where no review threshold reaches the target, not even one that keeps the surest cells alone.

    Raises:
        DataError: no cell.
        ValueError: shapes do not fit.
    """
    chances, truth = _checked(probabilities, labels)
    if not len(truth):
        raise DataError("no cell to choose the review threshold on; give annotated validation cells")
    tops, right = chances.max(axis=1), chances.argmax(axis=1) == truth
    order = np.argsort(-tops, kind="stable")
    steps = -tops[order]
    # Equal tops stand or fall together: only the last of each may end the cells kept.
    ends = np.append(np.flatnonzero(np.diff(steps)), len(steps) - 1)
    accuracy = np.cumsum(right[order])[ends] / (ends + 1)
    reached = np.flatnonzero(accuracy >= target)
    if not len(reached):
        return None
    last = int(reached[-1])
    end = int(ends[last])
    value = 0.0 if end + 1 == len(steps) else -float(steps[end] + steps[end + 1]) / 2
    return ReviewThreshold(value, float(accuracy[last]), (end + 1) / len(steps))


def expected_calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """Mean distance of the top probability from the share right, over 15 bins of about equally many cells.

    Guo et al. 2017 (arXiv 1706.04599), whose bins are equally wide; equal mass does not leave bins of a sure
    classifier empty. Cells of one top probability share a bin. A cell of none of the classes is never right.

    Raises:
        ValueError: shapes do not fit, or no cell.
    """
    chances, truth = _some(probabilities, labels)
    tops, right = chances.max(axis=1), chances.argmax(axis=1) == truth
    ordered = np.sort(tops)
    edges = np.unique(ordered[np.arange(1, BINS) * len(ordered) // BINS])
    bins = np.searchsorted(edges, tops, side="right")
    gaps = np.bincount(bins, weights=tops - right)
    return float(np.abs(gaps).sum() / len(tops))


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 (best) to 2.

    Brier 1950 (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2). The truth of a cell of none of the
    classes is 0 in all of them.

    Raises:
        ValueError: shapes do not fit, or no cell.
    """
    chances, truth = _some(probabilities, labels)
    target = np.zeros_like(chances)
    known = truth >= 0
    target[known, truth[known]] = 1
    return float(((chances - target) ** 2).sum(axis=1).mean())


def negative_log_likelihood(probabilities: Probabilities, labels: Labels) -> float | None:
    """Mean of -ln of the probability of the true class, cells of known classes; None where there is none.

    A probability of 0 counts as the smallest step of float32, 1.2e-7, or one cell would make it infinite.

    Raises:
        ValueError: shapes do not fit.
    """
    chances, truth = _checked(probabilities, labels)
    chances, truth = chances[truth >= 0], truth[truth >= 0]
    if not len(truth):
        return None
    own = chances[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(own, np.finfo(np.float32).eps)).mean())


def _some(values: Probabilities, labels: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    if not len(labels):
        raise ValueError("no cell to measure calibration on")
    return _checked(values, labels)


def _checked(values: Probabilities, labels: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    table, truth = np.asarray(values, dtype=np.float64), np.asarray(labels)
    if table.ndim != 2 or truth.shape != (len(table),):
        raise ValueError(f"values {table.shape} and labels {truth.shape} must be (N, C) and (N,)")
    if not np.isfinite(table).all():
        raise ValueError("values must be finite")
    if len(truth) and (truth.dtype.kind not in "iu" or truth.min() < -1 or truth.max() >= table.shape[1]):
        raise ValueError(f"labels must be whole numbers from -1 to {table.shape[1] - 1}")
    return table, truth.astype(np.int64)
