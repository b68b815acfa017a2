"""The temperature and the review threshold of a classifier, from held-back cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from leukokit.metrics.calibration import choose_review_threshold, fit_temperature

FEWEST_HELD: Final = 30
"""Fewest held-back cells whose temperature and review threshold mean something."""
UNCALIBRATED: Final = (1.0, 0.0)
"""Temperature and limit where there are fewer: every leukocyte is named."""


def calibration_of(
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    target_accuracy: float,
    report: Callable[[str], None],
) -> tuple[float, float]:
    """Temperature of (N, C) logits, and the review threshold that gives the ``target_accuracy``.

    The review threshold is 1 where none does: all cells are then for review. Of too few cells the result is
    ``UNCALIBRATED``.

    Args:
        logits: (N, C) of the cells held back; N at least 1.
        labels: (N,), positions in the columns of the logits.
        target_accuracy: share of the cells above the review threshold that must be right, 0..1.
        report: called with a line about what was found.
    """
    if len(labels) < FEWEST_HELD:
        report(f"held back: {len(labels)} cells are too few to set temperature and review threshold on")
        return UNCALIBRATED
    temperature = fit_temperature(logits, labels)
    scaled = logits / temperature
    chances = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chosen = choose_review_threshold(chances, labels, target_accuracy)
    review_threshold = chosen.value if chosen else 1.0
    right = float((chances.argmax(axis=1) == labels).mean())
    report(
        f"held back: accuracy {right:.3f} of {len(labels)}, temperature {temperature:.2f}, "
        f"review threshold {review_threshold:.2f}"
    )
    if not chosen:
        report(
            f"held back: no review threshold gives an accuracy of {target_accuracy:g}: "
            "every leukocyte will be for review"
        )
    return temperature, review_threshold
