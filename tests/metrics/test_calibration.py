"""Temperature, limit and calibration figures on probabilities whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leukokit.errors import DataError
from leukokit.metrics.calibration import (
    ReviewThreshold,
    brier_score,
    choose_review_threshold,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def drawn(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels that come as often as the probabilities say."""
    return np.asarray((probabilities.cumsum(axis=1) < rng.random(len(probabilities))[:, None]).sum(axis=1))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_found_again(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (6000, 5)) * temperature
    labels = drawn(softmax(logits / temperature), rng)
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.06)
    before, after = (negative_log_likelihood(softmax(logits / t), labels) for t in (1.0, fitted))
    assert before is not None and after is not None and after <= before + 1e-9


def test_temperature_of_two_classes_by_hand() -> None:
    # Three of four right at a margin of 2: the likeliest chance is 3/4 = 1 / (1 + exp(-2 / T)).
    logits = np.array([[2.0, 0.0]] * 4)
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(2 / np.log(3), rel=1e-4)


def test_temperature_stays_within_its_bounds() -> None:
    logits = np.array([[0.5, 0.0], [0.0, 0.5]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(20, rel=1e-3)


def test_cells_of_other_classes_do_not_heat() -> None:
    logits = np.array([[2.0, 0.0]] * 4)
    labels = np.array([0, 0, 0, 1])
    more = fit_temperature(np.vstack([logits, logits]), np.append(labels, [-1] * 4))
    assert more == pytest.approx(fit_temperature(logits, labels))
    with pytest.raises(DataError, match="no cell of a known class"):
        fit_temperature(logits, np.full(4, -1))


def rows(*tops: float) -> np.ndarray:
    """Two classes, the first on top."""
    return np.array([[top, 1 - top] for top in tops])


def test_limit_by_hand() -> None:
    chances, labels = rows(0.95, 0.9, 0.8, 0.7, 0.6), np.array([0, 0, 0, 1, 0])
    review_threshold = choose_review_threshold(chances, labels, 0.99)
    assert review_threshold is not None
    assert (review_threshold.value, review_threshold.accuracy, review_threshold.coverage) == pytest.approx(
        (0.75, 1.0, 0.6)
    )
    # Four of five right: nothing need be let go.
    assert choose_review_threshold(chances, labels, 0.8) == ReviewThreshold(0.0, 0.8, 1.0)


def test_limit_is_the_lowest_although_a_higher_one_fails() -> None:
    review_threshold = choose_review_threshold(
        rows(0.99, 0.9, 0.8, 0.7, 0.6), np.array([1, 0, 0, 0, 1]), 0.75
    )
    assert review_threshold is not None
    assert (review_threshold.value, review_threshold.coverage) == pytest.approx((0.65, 0.8))


def test_limit_that_nothing_reaches() -> None:
    assert choose_review_threshold(rows(0.9, 0.8), np.array([1, 0]), 0.9) is None
    assert choose_review_threshold(rows(0.9, 0.8), np.array([-1, 0]), 0.9) is None
    with pytest.raises(DataError, match="no cell"):
        choose_review_threshold(np.empty((0, 2)), np.empty(0, int))


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 1.0))
def test_limit_keeps_its_promise_and_no_lower_one_would(seed: int, target: float) -> None:
    rng = np.random.default_rng(seed)
    chances = softmax(rng.normal(0, 2, (int(rng.integers(1, 30)), 3))).round(1 + int(rng.integers(3)))
    labels = rng.integers(-1, 3, size=len(chances))
    tops, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    reached = [top for top in np.unique(tops) if right[tops >= top].mean() >= target]
    review_threshold = choose_review_threshold(chances, labels, target)
    if not reached:
        assert review_threshold is None
        return
    assert review_threshold is not None
    kept = tops >= review_threshold.value
    assert np.array_equal(kept, tops >= min(reached))
    assert review_threshold.accuracy == pytest.approx(right[kept].mean())
    assert review_threshold.coverage == pytest.approx(kept.mean())


def test_calibration_error_by_hand() -> None:
    # All of one top probability, 0.8, of which 3 in 5 are right.
    assert expected_calibration_error(rows(*[0.8] * 5), np.array([0, 0, 0, 1, 1])) == pytest.approx(0.2)
    # Two cells, two bins: |0.9 - 1| and |0.6 - 0|, halved.
    assert expected_calibration_error(rows(0.9, 0.6), np.array([0, 1])) == pytest.approx(0.35)


def test_bins_hold_as_many_cells_wherever_these_lie() -> None:
    # Fifteen cells, a bin each, although all would fall into the last of fifteen equally wide ones.
    tops, right = np.linspace(0.94, 0.999, 15), np.arange(15) % 2 == 0
    error = expected_calibration_error(rows(*tops), np.where(right, 0, 1))
    assert error == pytest.approx(np.abs(tops - right).mean())
    # Of thirty, neighbours share one: of every two, one is right.
    tops = np.linspace(0.94, 0.999, 30)
    error = expected_calibration_error(rows(*tops), np.arange(30) % 2)
    assert error == pytest.approx(tops.mean() - 0.5)


def test_calibrated_answers_have_a_small_error_and_sharpened_ones_a_large() -> None:
    rng = np.random.default_rng(0)
    chances = softmax(rng.normal(0, 2, (20000, 5)))
    labels = drawn(chances, rng)
    assert expected_calibration_error(chances, labels) < 0.015
    sharp = chances**3 / (chances**3).sum(axis=1, keepdims=True)
    assert expected_calibration_error(sharp, labels) > 0.1


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1))
def test_order_of_the_cells_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chances = softmax(rng.normal(0, 2, (int(rng.integers(1, 60)), 3))).round(1)
    labels = rng.integers(-1, 3, size=len(chances))
    order = rng.permutation(len(labels))
    for figure in (expected_calibration_error, brier_score, negative_log_likelihood):
        value = figure(chances, labels)
        assert value is None or value >= 0
        assert figure(chances[order], labels[order]) == pytest.approx(value)
    assert expected_calibration_error(chances, labels) <= 1 and brier_score(chances, labels) <= 2


def test_brier_and_likelihood_by_hand() -> None:
    chances = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert brier_score(chances, np.array([0, 1])) == pytest.approx((0.09 + 0.04 + 0.01) / 2)
    assert brier_score(chances, np.array([0, 0])) == pytest.approx((0.14 + 2) / 2)
    assert brier_score(chances, np.array([-1, 1])) == pytest.approx((0.49 + 0.04 + 0.01) / 2)
    assert negative_log_likelihood(chances, np.array([0, 1])) == pytest.approx(-np.log(0.7) / 2)
    assert negative_log_likelihood(chances, np.array([0, -1])) == pytest.approx(-np.log(0.7))
    assert negative_log_likelihood(chances, np.array([-1, 0])) == pytest.approx(23 * np.log(2))
    assert negative_log_likelihood(chances, np.array([-1, -1])) is None


@pytest.mark.parametrize(
    ("chances", "labels", "words"),
    [
        (np.ones((2, 1)), np.zeros(3, int), "must be"),
        (np.ones(2), np.zeros(2, int), "must be"),
        (np.array([[np.nan, 1]]), np.zeros(1, int), "finite"),
        (np.ones((1, 2)), np.array([2]), "whole numbers"),
        (np.ones((1, 2)), np.array([0.0]), "whole numbers"),
    ],
)
def test_what_does_not_fit_is_refused(chances: np.ndarray, labels: np.ndarray, words: str) -> None:
    for figure in (
        expected_calibration_error,
        brier_score,
        negative_log_likelihood,
        choose_review_threshold,
        fit_temperature,
    ):
        with pytest.raises(ValueError, match=words):
            figure(chances, labels)


def test_calibration_of_no_cell_is_refused() -> None:
    for figure in (expected_calibration_error, brier_score):
        with pytest.raises(ValueError, match="no cell"):
            figure(np.empty((0, 3)), np.empty(0, int))
