"""Figures of a classifier against hand-worked tables, the reference implementation and closed forms."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from leukokit.cli.tables import classification_table
from leukokit.evaluation.classification import (
    ClassificationReport,
    classification_note,
    confusion_of,
    evaluate,
)
from leukokit.evaluation.predictions import Predictions
from leukokit.metrics.bootstrap import bootstrap_photos, photo_codes
from leukokit.metrics.calibration import brier_score, expected_calibration_error
from leukokit.metrics.intervals import clopper_pearson, percentile_interval, wilson

CLASSES = ("neutrophil", "lymphocyte", "monocyte")


def answered(
    pairs: list[tuple[int, int]],
    photos: list[str] | None = None,
    groups: list[str] | None = None,
    tops: list[float] | None = None,
    review_threshold: float = 0.0,
) -> Predictions:
    """Predictions from pairs of truth and answer, of which the top probability is 0.9 or given."""
    top = np.array(tops or [0.9] * len(pairs))
    chances = np.repeat((1 - top)[:, None] / 2, 3, axis=1)
    chances[np.arange(len(pairs)), [answer for _, answer in pairs]] = top
    return Predictions(
        labels=np.array([truth for truth, _ in pairs], int),
        probabilities=chances.astype(np.float32),
        classes=CLASSES,
        photos=np.array(photos or [f"photo{number}" for number in range(len(pairs))], dtype=str),
        groups=None if groups is None else np.array(groups),
        review_threshold=review_threshold,
    )


HAND = [(0, 0)] * 8 + [(0, 1)] * 2 + [(1, 1)] * 3 + [(1, 2)] * 1 + [(2, 2)] * 2
"""Neutrophils 8 of 10, lymphocytes 3 of 4, monocytes 2 of 2."""


def test_figures_by_hand() -> None:
    report = evaluate(answered(HAND))
    scores = report.forced
    assert (report.cells, report.photos, scores.cells) == (16, 16, 16)
    assert scores.accuracy == pytest.approx(13 / 16)
    assert scores.accuracy_interval == pytest.approx(wilson(13, 16))
    assert scores.accuracy_exact == pytest.approx(clopper_pearson(13, 16))
    assert scores.balanced_accuracy == pytest.approx((0.8 + 0.75 + 1) / 3)
    neutrophil, lymphocyte, monocyte = scores.classes
    assert (neutrophil.cells, neutrophil.recall, neutrophil.precision) == pytest.approx((10, 0.8, 1.0))
    assert neutrophil.recall_interval == pytest.approx(wilson(8, 10))
    assert (lymphocyte.recall, lymphocyte.precision, lymphocyte.f1) == pytest.approx((0.75, 0.6, 2 / 3))
    assert lymphocyte.specificity == pytest.approx(10 / 12)
    assert (monocyte.f1, monocyte.specificity) == pytest.approx((0.8, 13 / 14))
    assert scores.macro_f1 == pytest.approx((16 / 18 + 2 / 3 + 0.8) / 3)
    assert report.confusion.counts == ((8, 2, 0), (0, 3, 1), (0, 0, 2))
    assert report.classified is None and report.coverage is None and report.groups == {}


def test_seventy_one_photographs() -> None:
    # 67 of 71, the figure of a published test.
    report = evaluate(answered([(0, 0)] * 67 + [(0, 1)] * 4))
    assert report.forced.accuracy == pytest.approx(0.943662)
    assert report.forced.accuracy_interval == pytest.approx((0.8639, 0.9779), abs=2e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_figures_agree_with_their_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    truth, answers = rng.integers(-1, 3, size=count), rng.integers(3, size=count)
    photos = [f"p{number}" for number in rng.integers(12, size=count)]
    report = evaluate(answered(list(zip(truth.tolist(), answers.tolist(), strict=True)), photos), 30)
    scores = report.forced
    assert scores.accuracy == pytest.approx(np.mean(truth == answers))
    recalls = [np.mean(answers[truth == number] == number) for number in np.unique(truth)]
    assert scores.balanced_accuracy == pytest.approx(np.mean(recalls))
    for number, row in enumerate(scores.classes):
        true, positive = truth == number, answers == number
        assert row.cells == true.sum() and row.photos == len(
            {p for p, t in zip(photos, true, strict=True) if t}
        )
        assert row.recall == (pytest.approx(positive[true].mean()) if true.any() else None)
        assert row.precision == (pytest.approx(true[positive].mean()) if positive.any() else None)
        assert row.specificity == (pytest.approx((~positive[~true]).mean()) if (~true).any() else None)
        if row.recall and row.precision:
            harmonic = 2 * row.recall * row.precision / (row.recall + row.precision)
            assert row.f1 == pytest.approx(harmonic)
        else:
            assert row.f1 == (0 if (true | positive).any() else None)
    f1 = [row.f1 for row in scores.classes if row.cells] + [0.0] * bool((truth < 0).any())
    assert scores.macro_f1 == pytest.approx(np.mean(np.array(f1, float)))
    assert np.sum(report.confusion.counts) == count
    json.dumps(report.to_json(), allow_nan=False)


def test_copies_of_a_photograph_widen_nothing_but_the_count() -> None:
    copies = 20
    pairs = [pair for pair in HAND for _ in range(copies)]
    photos = [f"p{number // copies}" for number in range(len(pairs))]
    once, copied = evaluate(answered(HAND)).forced, evaluate(answered(pairs, photos)).forced
    assert (copied.cells, copied.photos) == (320, 16)
    assert copied.accuracy_exact is not None and copied.accuracy_interval is not None
    assert copied.accuracy == once.accuracy
    assert copied.balanced_accuracy_interval == pytest.approx(once.balanced_accuracy_interval)
    width, exact = np.ptp(copied.accuracy_interval), np.ptp(copied.accuracy_exact)
    assert width > 2 * exact


@pytest.mark.parametrize("copies", [1, 5])
def test_all_right_is_not_certain(copies: int) -> None:
    pairs = [(number % 3, number % 3) for number in range(30) for _ in range(copies)]
    scores = evaluate(answered(pairs, [f"p{number // copies}" for number in range(len(pairs))])).forced
    assert scores.accuracy_interval == pytest.approx(clopper_pearson(30, 30))
    assert {row.recall_interval for row in scores.classes} == {clopper_pearson(10, 10)}
    assert scores.balanced_accuracy == 1 and scores.balanced_accuracy_interval is not None
    low, high = scores.balanced_accuracy_interval
    assert clopper_pearson(10, 10)[0] < low < 0.95 and high == 1
    assert scores.macro_f1 == 1 and scores.macro_f1_interval is None


def test_one_photograph_says_little() -> None:
    scores = evaluate(answered(HAND, ["p"] * len(HAND))).forced
    assert scores.accuracy_interval == pytest.approx(clopper_pearson(13 / 16, 1))
    assert scores.balanced_accuracy_interval is not None
    assert np.ptp(scores.balanced_accuracy_interval) > 0.3


def test_few_cells_of_a_class_are_said_and_do_not_narrow_the_accuracy() -> None:
    # Two fields of two or three cells of three classes: drawn within classes, a photograph stands for itself.
    truth = [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2]
    answers = [0, 1, 1, 0, 2, 0, 0, 0, 1, 2, 0]
    photos = [f"p{number}" for number in (0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5)]
    report = evaluate(answered(list(zip(truth, answers, strict=True)), photos, ["x"] * 6 + ["y"] * 5))
    assert report.rare_classes == tuple(sorted(CLASSES))
    right = np.equal(truth, answers)
    draws = bootstrap_photos(
        np.stack([right, np.ones(11)], axis=1),
        photo_codes(photos, ["x"] * 6 + ["y"] * 5),
        lambda totals: totals[:, 0] / totals[:, 1],
    )
    assert report.forced.accuracy_interval == pytest.approx(tuple(percentile_interval(draws)))
    assert classification_note(report) == (
        "fewer than ten cells of lymphocyte, monocyte, neutrophil: intervals are too narrow"
    )
    many = [(number % 3, number % 3) for number in range(30)]
    plenty = evaluate(answered(many, groups=["x"] * 27 + ["y"] * 3))
    assert plenty.rare_classes == (
        "lymphocyte of x", "lymphocyte of y", "monocyte of x", "monocyte of y", "neutrophil of x",
        "neutrophil of y",
    )  # fmt: skip
    assert evaluate(answered(many)).rare_classes == () and classification_note(evaluate(answered(many))) == ""


def test_limit_gives_coverage_and_a_column() -> None:
    tops = [0.9] * 8 + [0.5, 0.95] + [0.9, 0.9, 0.5] + [0.5] + [0.9, 0.5]
    report = evaluate(answered(HAND, tops=tops, review_threshold=0.6))
    assert report.forced.accuracy == pytest.approx(13 / 16)
    assert report.coverage == pytest.approx(12 / 16)
    assert report.coverage_interval == pytest.approx(wilson(12, 16))
    assert report.classified is not None
    assert report.classified.cells == 12 and report.classified.accuracy == pytest.approx(11 / 12)
    assert report.classified.balanced_accuracy == pytest.approx((8 / 9 + 1 + 1) / 3)
    assert report.confusion.columns == (*CLASSES, "unclassified")
    assert report.confusion.counts == ((8, 1, 0, 1), (0, 2, 0, 2), (0, 0, 1, 1))


def test_limit_that_no_cell_reaches() -> None:
    report = evaluate(answered(HAND, review_threshold=0.99))
    assert report.coverage == 0 and report.classified is not None
    assert report.classified.cells == 0 and report.classified.accuracy is None
    assert report.classified.balanced_accuracy_interval is None
    json.dumps(report.to_json(), allow_nan=False)


def test_cells_of_other_classes_count_as_wrong() -> None:
    report = evaluate(answered([*HAND, (-1, 1), (-1, 1)]))
    assert report.forced.accuracy == pytest.approx(13 / 18)
    assert report.forced.balanced_accuracy == pytest.approx((0.8 + 0.75 + 1 + 0) / 4)
    assert report.forced.classes[1].precision == pytest.approx(3 / 7)
    assert report.confusion.rows == (*CLASSES, "none of these")
    assert report.confusion.counts[-1] == (0, 2, 0)


def test_groups_are_measured_each_and_on_average() -> None:
    groups = ["x"] * 10 + ["y"] * 6
    # Equal names in two laboratories are two photographs.
    report = evaluate(answered(HAND, [f"p{number % 10}" for number in range(16)], groups))
    assert report.photos == 16
    assert {name: part.cells for name, part in report.groups.items()} == {"x": 10, "y": 6}
    assert report.groups["x"].balanced_accuracy == pytest.approx(0.8)
    assert report.groups["y"].balanced_accuracy == pytest.approx((0.75 + 1) / 2)
    assert report.mean_balanced_accuracy == pytest.approx((0.8 + 0.875) / 2)
    assert report.mean_balanced_accuracy_interval is not None
    low, high = report.mean_balanced_accuracy_interval
    assert 0.5 < low < 0.8375 < high <= 1


def test_limits_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    recalls, met = np.array([0.9, 0.8, 0.6]), 0
    for _ in range(150):
        truth = np.repeat([0, 1, 2], 40)
        answers = np.where(rng.random(120) < recalls[truth], truth, (truth + 1) % 3)
        scores = evaluate(answered(list(zip(truth.tolist(), answers.tolist(), strict=True))), 200).forced
        assert scores.balanced_accuracy_interval is not None
        met += scores.balanced_accuracy_interval[0] <= recalls.mean() <= scores.balanced_accuracy_interval[1]
    # Binomial(150, 0.95): fewer than 133 has a chance below 1 in 500.
    assert met >= 133


def test_calibration_is_that_of_the_probabilities() -> None:
    predictions = answered(HAND)
    calibration = evaluate(predictions).calibration
    assert calibration is not None
    assert calibration.expected_error == pytest.approx(0.9 - 13 / 16, abs=1e-6)
    known = predictions.probabilities, predictions.labels
    assert calibration.expected_error == expected_calibration_error(*known)
    assert calibration.brier == brier_score(*known)


def test_no_cell_at_all() -> None:
    report = evaluate(answered([], review_threshold=0.5))
    assert report.cells == report.photos == 0
    assert report.forced.accuracy is None and report.forced.accuracy_exact is None
    assert report.calibration is None and report.coverage is None
    assert np.sum(report.confusion.counts) == 0
    json.dumps(report.to_json(), allow_nan=False)
    Console(file=io.StringIO()).print(classification_table(report))


def test_report_is_json_and_back() -> None:
    predictions = answered(HAND, groups=["x", "y"] * 8, review_threshold=0.5)
    report = evaluate(predictions)
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["forced"]["balanced_accuracy"] == 0.85
    assert document["confusion"] == confusion_of(predictions).model_dump(mode="json")
    assert ClassificationReport.model_validate(document).to_json() == document
    assert evaluate(predictions).to_json() == document
    assert evaluate(predictions, seed=1).to_json() != document


def test_table_names_classes_groups_and_figures() -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(
        classification_table(evaluate(answered(HAND, groups=["[x]", "y"] * 8, review_threshold=0.5)))
    )
    printed = console.file.getvalue()  # type: ignore[attr-defined]  # StringIO
    for words in (*CLASSES, "balanced accuracy", "[x]", "mean over groups", "coverage", "calibration error"):
        assert words in printed
    assert f"0.812 ({wilson(13, 16)[0]:.3f}-{wilson(13, 16)[1]:.3f})" in printed


def test_thousands_of_cells_take_seconds() -> None:
    rng = np.random.default_rng(0)
    pairs = list(zip(rng.integers(3, size=3000).tolist(), rng.integers(3, size=3000).tolist(), strict=True))
    start = time.perf_counter()
    evaluate(answered(pairs, [f"p{number // 2}" for number in range(3000)], review_threshold=0.5))
    assert time.perf_counter() - start < 2
