"""How well leukocytes are named: a classifier's predictions for annotated cells, measured.

Everything is resampled by photograph, not by cell (``statistics.bootstrap_photos``). Cells of none of the
model's classes count as one class more, which no prediction meets: recall and F1 are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from leukokit.datasets.detected import DetectedField
from leukokit.errors import ConfigError, DataError
from leukokit.evaluation.predictions import OTHER, Predictions
from leukokit.metrics.bootstrap import Ints, accuracy_interval, balanced_accuracies, bootstrap_photos
from leukokit.metrics.calibration import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
)
from leukokit.metrics.confusion import ConfusionMatrix, count_confusion
from leukokit.metrics.intervals import (
    ConfidenceInterval,
    Floats,
    cell_interval,
    clopper_pearson,
    interval_of_draws,
    mean_interval,
    rare_classes,
    rare_classes_note,
)
from leukokit.pipeline import Pipeline
from leukokit.taxonomy import UNCLASSIFIED


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, numbers to six decimals; what is not known is None."""
        document: dict[str, Any] = _round_all(self.model_dump(mode="json"))
        return document


class ClassScores(_Document):
    """One class: its true ``cells`` and the ``photos`` they are in; a share of no cell is None."""

    name: str
    cells: int
    photos: int
    recall: float | None
    recall_interval: ConfidenceInterval | None
    precision: float | None
    f1: float | None
    specificity: float | None


class Scores(_Document):
    """Figures over some cells, each with a 95% interval; None if there is no cell.

    Attributes:
        accuracy_interval: Wilson's where every photograph gives one cell, else a bootstrap over photographs,
            within strata of class unless one has fewer than ten cells; Clopper and Pearson's with a
            photograph a trial where no draw differs, as when all predictions are right. Intervals of
            a recall are made likewise.
        accuracy_exact: Clopper and Pearson's, every cell a trial: too narrow where photographs give several.
        balanced_accuracy: mean recall over the classes that occur among the true ones.
        balanced_accuracy_interval: a bootstrap over photographs, within strata of class; where no draw
            differs, combined from the intervals of the recalls.
        macro_f1: mean F1 over the same classes; its interval is None if no draw differs.
    """

    cells: int
    photos: int
    accuracy: float | None
    accuracy_interval: ConfidenceInterval | None
    accuracy_exact: ConfidenceInterval | None
    balanced_accuracy: float | None
    balanced_accuracy_interval: ConfidenceInterval | None
    macro_f1: float | None
    macro_f1_interval: ConfidenceInterval | None
    classes: tuple[ClassScores, ...]


class Calibration(_Document):
    """Whether the probabilities mean what they say; see ``evaluation.calibration``."""

    expected_error: float
    brier: float
    negative_log_likelihood: float | None


class ClassificationReport(_Document):
    """What ``evaluate`` measured.

    Attributes:
        forced: every cell takes its most probable class.
        classified: only the cells that reach the review threshold, None without one; ``coverage`` is their
            share.
        groups: forced figures of each group, such as a laboratory; empty without groups.
        mean_balanced_accuracy: mean over groups of their balanced accuracies; None without groups.
        confusion: predictions: with a review threshold, a column of the unclassified.
        calibration: None where there is no cell.
        rare_classes: classes of fewer than ten cells, which make intervals of means over classes too narrow
            (``statistics.rare_classes``).
    """

    cells: int
    photos: int
    rare_classes: tuple[str, ...]
    review_threshold: float
    resamples: int
    seed: int
    forced: Scores
    classified: Scores | None
    coverage: float | None
    coverage_interval: ConfidenceInterval | None
    groups: dict[str, Scores]
    mean_balanced_accuracy: float | None
    mean_balanced_accuracy_interval: ConfidenceInterval | None
    confusion: ConfusionMatrix
    calibration: Calibration | None


def evaluate(predictions: Predictions, resamples: int = 1000, seed: int = 0) -> ClassificationReport:
    """Measure a classifier by its predictions. N may be 0; the same seed gives the same intervals."""
    every = np.ones(len(predictions), dtype=bool)
    kept = predictions.classified
    coverage, coverage_interval = _coverage(predictions, resamples, seed)
    groups = predictions.groups
    scores = {
        str(name): _scores(predictions, groups == name, resamples, seed)
        for name in (() if groups is None else np.unique(groups))
    }
    mean, limits = _over_groups(predictions, list(scores.values()), resamples, seed)
    return ClassificationReport(
        cells=len(predictions),
        photos=len(np.unique(predictions.photo_codes)),
        rare_classes=_few(predictions),
        review_threshold=predictions.review_threshold,
        resamples=resamples,
        seed=seed,
        forced=_scores(predictions, every, resamples, seed),
        classified=_scores(predictions, kept, resamples, seed) if predictions.review_threshold else None,
        coverage=coverage,
        coverage_interval=coverage_interval,
        groups=scores,
        mean_balanced_accuracy=mean,
        mean_balanced_accuracy_interval=limits,
        confusion=confusion_of(predictions),
        calibration=_calibration(predictions),
    )


def evaluate_classifier(
    pipeline: Pipeline,
    fields: Sequence[DetectedField],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[Predictions, ClassificationReport]:
    """Measure the pipeline's graph builder and classifier on annotated cells.

    Args:
        pipeline: what is measured.
        fields: fields of ``leukokit data cells``, see ``leukokit.datasets.detected.select_detected``.
        progress: called with the fields done and the fields in all.

    Returns:
        The predictions, and the figures over them.

    Raises:
        ConfigError: the pipeline has no classifier.  DataError: no annotated cell.
        ImageError, PluginError: a field cannot be read, or a plugin fails.
    """
    predictions = predict_detected(pipeline, fields, progress)
    return predictions, evaluate(predictions)


def predict_detected(
    pipeline: Pipeline,
    fields: Sequence[DetectedField],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Predictions:
    """Return what the pipeline's graph builder and classifier predict for the annotated cells of fields.

    Boxes are those that the detector found when the cells were prepared. A label that is none of the
    classifier's classes is always counted wrong.

    Raises:
        ConfigError: the pipeline has no classifier.  DataError: no annotated cell.
        ImageError, PluginError: a field cannot be read, or a plugin fails.
    """
    if pipeline.classifier is None:
        raise ConfigError("the configuration names no classifier; there is nothing to measure")
    classes = pipeline.classifier.classes
    truth, chances, photos, labs, names = [], [], [], [], []
    for number, field in enumerate(fields, 1):
        smear = pipeline.read(field.source.image)
        labelling = pipeline.label(smear, pipeline.build(field.cells)).labelling
        assert labelling is not None
        for node in field.annotated:
            label = field.labels[node]
            truth.append(classes.index(label) if label in classes else -1)
            chances.append(labelling.probabilities[node])
            photos.append(field.source.photo)
            labs.append(field.source.lab)
            names.append(f"{field.source.dataset}/{field.source.image.name}#{node}")
        progress(number, len(fields))
    if not truth:
        raise DataError("no annotated cell is of that data set, laboratory, split and slide")
    return Predictions(
        labels=np.array(truth),
        probabilities=np.stack(chances),
        classes=classes,
        photos=np.array(photos),
        groups=np.array(labs),
        review_threshold=pipeline.classifier.review_threshold,
        cells=np.array(names),
    )


def confusion_of(predictions: Predictions) -> ConfusionMatrix:
    """Counts of true classes and predictions.

    A row more where some cells are of none of the classes, a column more where there is a review threshold.
    """
    count = len(predictions.classes)
    rows = predictions.classes + ((OTHER,) if (predictions.labels < 0).any() else ())
    columns = predictions.classes + ((UNCLASSIFIED,) if predictions.review_threshold else ())
    truth = np.where(predictions.labels < 0, count, predictions.labels)
    given = predictions.classified | predictions.unknown
    predicted = np.where(given, predictions.predicted, count)
    return count_confusion(truth, predicted, rows, columns)


def card_figures(report: ClassificationReport) -> dict[str, Any]:
    """The figures for the weights' card: accuracies with their intervals, and recalls by class."""
    forced, sure = report.forced, report.classified
    figures = {
        "cells": report.cells,
        "photos": report.photos,
        "accuracy": forced.accuracy,
        "accuracy_interval": forced.accuracy_interval,
        "balanced_accuracy": forced.balanced_accuracy,
        "balanced_accuracy_interval": forced.balanced_accuracy_interval,
        "coverage": report.coverage,
        "accuracy_of_classified": sure and sure.accuracy,
        "calibration_error": report.calibration and report.calibration.expected_error,
        "recalls": {row.name: {"cells": row.cells, "recall": row.recall} for row in forced.classes},
    }
    return {name: _round_all(value, 4) for name, value in figures.items()}


def classification_note(report: ClassificationReport) -> str:
    """What to say under the table; may be empty."""
    return rare_classes_note(report.rare_classes)


def _scores(predictions: Predictions, chosen: npt.NDArray[np.bool_], resamples: int, seed: int) -> Scores:
    classes = predictions.classes
    count = len(classes)
    truth, predicted = predictions.labels[chosen], predictions.predicted[chosen]
    truth = np.where(truth < 0, count, truth)
    photos = predictions.photo_codes[chosen]
    values = _one_hot(truth, predicted, count)
    totals = values.sum(axis=0)
    figures = _drawn_figures(totals[None], count)[0]
    samples = (
        bootstrap_photos(values, photos, lambda drawn: _drawn_figures(drawn, count), truth, resamples, seed)
        if len(truth)
        else np.full((1, len(figures)), np.nan)
    )
    photo_count = len(np.unique(photos))
    rows = tuple(
        _class_scores(name, number, totals, count, photos[truth == number], figures, samples)
        for number, name in enumerate(classes)
    )
    hits = int((truth == predicted).sum())
    balanced_interval = interval_of_draws(samples[:, 1])
    if balanced_interval is None and len(truth):
        known = [(row.recall, row.recall_interval) for row in rows if row.recall is not None]
        # No prediction can meet a cell of none of the classes: its recall of 0 is certain.
        known += [(0.0, (0.0, 0.0))] * bool((truth == count).any())
        balanced_interval = mean_interval(
            [value for value, _ in known], [limits or (0, 1) for _, limits in known]
        )
    return Scores(
        cells=len(truth),
        photos=photo_count,
        accuracy=_none_if_nan(figures[0]),
        accuracy_interval=accuracy_interval(truth == predicted, truth, photos, resamples, seed),
        accuracy_exact=clopper_pearson(hits, len(truth)) if len(truth) else None,
        balanced_accuracy=_none_if_nan(figures[1]),
        balanced_accuracy_interval=balanced_interval,
        macro_f1=_none_if_nan(figures[2]),
        macro_f1_interval=interval_of_draws(samples[:, 2]),
        classes=rows,
    )


def _class_scores(
    name: str, number: int, totals: Floats, count: int, photos: Ints, figures: Floats, samples: Floats
) -> ClassScores:
    hits, true, given = (int(totals[start + number]) for start in (0, count, 2 * count + 1))
    cells = int(totals[count : 2 * count + 1].sum())
    photo_count = len(np.unique(photos))
    return ClassScores(
        name=name,
        cells=true,
        photos=photo_count,
        recall=_none_if_nan(figures[3 + number]),
        recall_interval=cell_interval(hits, true, photo_count, samples[:, 3 + number]),
        precision=hits / given if given else None,
        f1=2 * hits / (true + given) if true + given else None,
        specificity=(cells - true - given + hits) / (cells - true) if cells > true else None,
    )


def _one_hot(truth: Ints, predicted: Ints, count: int) -> Floats:
    """(N, 3C + 1): hits by class, true classes and none of them, predictions."""
    true = np.eye(count + 1)[truth]
    given = np.eye(count)[predicted]
    return np.concatenate([true[:, :count] * given, true, given], axis=1)


def _drawn_figures(totals: Floats, count: int) -> Floats:
    """(R, 3 + C): accuracy, balanced accuracy, macro F1, recalls; NaN where there is nothing to share."""
    hits = np.pad(totals[:, :count], ((0, 0), (0, 1)))
    true = totals[:, count : 2 * count + 1]
    given = np.pad(totals[:, 2 * count + 1 :], ((0, 0), (0, 1)))
    occurs = true > 0
    known = occurs.sum(axis=1)
    recalls, f1 = hits / np.maximum(true, 1), 2 * hits / np.maximum(true + given, 1)
    whole = [hits.sum(axis=1) / np.maximum(true.sum(axis=1), 1)]
    whole += [(part * occurs).sum(axis=1) / np.maximum(known, 1) for part in (recalls, f1)]
    means = np.where(known[:, None] > 0, np.stack(whole, axis=1), np.nan)
    return np.concatenate([means, np.where(occurs, recalls, np.nan)[:, :count]], axis=1)


def _coverage(
    predictions: Predictions, resamples: int, seed: int
) -> tuple[float | None, ConfidenceInterval | None]:
    if not predictions.review_threshold or not len(predictions):
        return None, None
    kept, photos = predictions.classified, predictions.photo_codes
    return float(kept.mean()), accuracy_interval(kept, predictions.labels + 1, photos, resamples, seed)


def _over_groups(
    predictions: Predictions, scores: list[Scores], resamples: int, seed: int
) -> tuple[float | None, ConfidenceInterval | None]:
    if not scores:
        return None, None
    correct = predictions.correct[:, None]
    values, samples = balanced_accuracies(
        correct, predictions.labels, predictions.photos, predictions.groups, resamples, seed
    )
    limits = interval_of_draws(samples[:, 0]) or mean_interval(
        [part.balanced_accuracy or 0.0 for part in scores],
        [part.balanced_accuracy_interval or (0.0, 1.0) for part in scores],
    )
    return float(values[0]), limits


def _calibration(predictions: Predictions) -> Calibration | None:
    if not len(predictions):
        return None
    known = (predictions.probabilities, predictions.labels)
    return Calibration(
        expected_error=expected_calibration_error(*known),
        brier=brier_score(*known),
        negative_log_likelihood=negative_log_likelihood(*known),
    )


def _few(predictions: Predictions) -> tuple[str, ...]:
    names = np.array([*predictions.classes, OTHER])[predictions.labels]
    groups = predictions.groups
    return rare_classes(names.tolist(), None if groups is None else groups.tolist())


def _none_if_nan(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _round_all(value: Any, digits: int = 6) -> Any:
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: _round_all(part, digits) for key, part in value.items()}
    return [_round_all(part, digits) for part in value] if isinstance(value, list | tuple) else value
