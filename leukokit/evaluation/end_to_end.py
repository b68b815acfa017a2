"""How well the whole pipeline does: leukocytes found and given their class, against annotated boxes.

A leukocyte counts as found where a detection overlaps its box by ``detection.IOU``, and as named where that
detection is given its class: what the detector misses is lost to the classifier, and what it finds where no
leukocyte is still gets a class. 95% intervals are those of a bootstrap over photographs (Efron 1979,
doi:10.1214/aos/1176344552); those of the classes are made as ``classification`` makes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from leukokit.cells import Cells
from leukokit.datasets.detected import is_whole_picture
from leukokit.datasets.fields import AnnotatedField
from leukokit.datasets.photographs import image_size
from leukokit.differential import differential
from leukokit.errors import ConfigError, DataError, LeukokitError
from leukokit.metrics.bootstrap import (
    accuracy_interval,
    balanced_accuracies,
    balanced_interval,
    bootstrap_photos,
    photo_codes,
)
from leukokit.metrics.confusion import ConfusionMatrix
from leukokit.metrics.intervals import (
    ConfidenceInterval,
    Floats,
    rare_classes,
    rare_classes_note,
    share_interval,
)
from leukokit.metrics.matching import partners
from leukokit.pipeline import Pipeline
from leukokit.taxonomy import LEUKOCYTE, UNCLASSIFIED

MISSED = "missed"
"""The prediction for an annotated leukocyte that was not found."""
NO_CELL = "no cell there"
"""What is true of a detection that met no annotated leukocyte."""
MODES = ("forced", "with_threshold")
"""Ways to count an unclassified leukocyte."""

Names = npt.NDArray[np.str_]


class CellOutcome(NamedTuple):
    """One annotated leukocyte, or one detection that met none.

    Attributes:
        truth: its annotated class, empty where it has none, or ``NO_CELL``.
        forced: its most probable class, or ``MISSED``.
        given: the same, or ``UNCLASSIFIED`` where that class is below the review threshold.
    """

    truth: str
    forced: str
    given: str


def evaluate_pipeline(
    pipeline: Pipeline,
    fields: Sequence[AnnotatedField],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Run the pipeline on the fields whose leukocytes are all annotated, and measure its results.

    Args:
        pipeline: what is measured; it has a classifier.
        fields: annotated fields.
        progress: called with the fields done and the fields in all.

    Returns:
        A JSON document; shares and their intervals are None if there is nothing to count.
        ``fields_left_out`` are those with leukocytes that nobody annotated, ``rare_classes`` the classes of
        fewer than ten cells, which make the interval of ``balanced_recall`` too narrow.

        - ``detection``: leukocytes ``annotated``, ``found``, ``missed``, and ``false`` detections.
        - ``forced``, every detection taking its most probable class, and ``with_threshold``, where an
          unclassified one is given none; None without a review threshold. Of the annotated leukocytes:
          ``recall`` of a class, the share found and given it; ``precision``, the share of the
          detections given it that met one; their mean over the classes that occur,
          ``balanced_recall``; and ``accuracy``, the share of the found that are given their class.
          A class unknown to the classifier has a recall of 0.
        - ``confusion``: annotated classes and ``NO_CELL`` by predictions, ``UNCLASSIFIED`` and ``MISSED``.
        - ``differential``: percent of each class in all fields, as annotated and by the pipeline at its
          threshold, and the mean absolute difference over the classes that occur in either.
        Detections that met an annotated leukocyte without a class count for the detection alone.

    Raises:
        ConfigError: the pipeline has no classifier.
        DataError: a field's box is its whole picture, or no leukocyte with a class could be processed.
    """
    if pipeline.classifier is None:
        raise ConfigError("the configuration names no classifier; 'leukokit evaluate detector' needs none")
    complete = _complete(fields)
    processed: list[tuple[AnnotatedField, list[CellOutcome]]] = []
    failures: list[str] = []
    for number, annotated in enumerate(complete, 1):
        try:
            processed.append((annotated, outcomes_of(annotated, pipeline.run(annotated.image).cells)))
        except LeukokitError as error:
            failures.append(str(error))
        progress(number, len(complete))
    if not any(any(_leukocytes(each)[1]) for each, _ in processed):
        raise DataError(f"every field with an annotated leukocyte failed; the first failure: {failures[0]}")
    measured = [annotated for annotated, _ in processed]
    photos = photo_codes([each.photo for each in measured], [each.lab for each in measured])
    review_threshold = float(pipeline.classifier.review_threshold)
    head = {
        "fields": len(measured),
        "fields_left_out": len(fields) - len(complete),
        "photos": len(np.unique(photos)),
        "review_threshold": round(review_threshold, 4),
    }
    figures = figures_of([outcomes for _, outcomes in processed], photos, tuple(pipeline.classifier.classes))
    if not review_threshold:
        figures["with_threshold"] = None
    return head | figures | {"failures": failures, "provenance": pipeline.provenance}


def outcomes_of(annotated: AnnotatedField, cells: Cells) -> list[CellOutcome]:
    """What became of every annotated leukocyte of a field, and every leukocyte found where none is."""
    boxes, labels = _leukocytes(annotated)
    found = cells[cells.kinds == LEUKOCYTE]
    assert found.labelling is not None
    met = partners(found.boxes, found.scores, boxes)
    truth = [labels[number] if number >= 0 else NO_CELL for number in met]
    forced, given = replace(found.labelling, review_threshold=0.0).labels, found.labelling.labels
    missed = np.setdiff1d(np.arange(len(labels)), met)
    return [
        *(CellOutcome(*names) for names in zip(truth, forced, given, strict=True)),
        *(CellOutcome(labels[number], MISSED, MISSED) for number in missed),
    ]


def figures_of(
    outcomes: Sequence[Sequence[CellOutcome]], photos: npt.NDArray[np.int64], classes: tuple[str, ...]
) -> dict[str, Any]:
    """The figures of F fields: their outcomes, the photograph (F,) of each, the classifier's classes.

    At least one outcome must be that of an annotated leukocyte.
    """
    counts = [len(of_field) for of_field in outcomes]
    every = [outcome for of_field in outcomes for outcome in of_field]
    truth, *predictions = np.array(every, dtype=str).T
    real, found = truth != NO_CELL, predictions[0] != MISSED
    annotated = real & (truth != "")
    right = np.stack([truth == names for names in predictions], axis=1) & annotated[:, None]
    columns = np.column_stack([real, real & found, found])
    # A photograph where nothing is and nothing is found is drawn as any other.
    values = np.concatenate([columns, np.zeros((len(counts), columns.shape[1]))])
    of_cell = np.repeat(photos, counts)
    samples = bootstrap_photos(values, np.concatenate([of_cell, photos]), _shares)
    recall, precision = _shares(columns.sum(axis=0, dtype=np.float64)[None])[0]
    # In the classifier's order, as in 'classification', so that the draws are the same.
    order = (*classes, *sorted(set(truth) - set(classes)))
    codes = np.array([order.index(name) for name in truth])
    balanced, drawn = balanced_accuracies(right[annotated], codes[annotated], of_cell[annotated])
    tables = [_confusion(truth, names, classes) for names in predictions]
    classified = annotated & found
    modes = {
        mode: {
            "balanced_recall": _rounded_share(balanced[number]),
            "balanced_recall_interval": _rounded_interval(
                balanced_interval(
                    drawn[:, number], right[annotated, number], codes[annotated], of_cell[annotated]
                )
            ),
            "accuracy": _rounded_share(float(right[classified, number].mean())) if classified.any() else None,
            "accuracy_interval": _rounded_interval(
                accuracy_interval(right[classified, number], codes[classified], of_cell[classified])
            ),
            "classes": _class_figures(tables[number]),
        }
        for number, mode in enumerate(MODES)
    }
    return {
        "cells": int(annotated.sum()),
        "rare_classes": list(rare_classes(truth[annotated].tolist())),
        "cells_found": int((annotated & found).sum()),
        "detection": {
            "annotated": int(real.sum()),
            "found": int((real & found).sum()),
            "missed": int((~found).sum()),
            "false": int((~real).sum()),
            "recall": _rounded_share(recall),
            "recall_interval": _photo_interval(recall, of_cell[real], samples[:, 0]),
            "precision": _rounded_share(precision),
            "precision_interval": _photo_interval(precision, of_cell[found], samples[:, 1]),
        },
        **modes,
        "confusion": tables[-1].model_dump(mode="json"),
        "differential": _differentials(tables[-1]),
    }


def end_to_end_note(figures: dict[str, Any]) -> str:
    """What to say under the tables; may be empty."""
    return rare_classes_note(figures["rare_classes"])


def _leukocytes(annotated: AnnotatedField) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Boxes (M, 4) and labels of the annotated leukocytes."""
    chosen = annotated.kind_array() == LEUKOCYTE
    labels = annotated.labels or [""] * len(chosen)
    return annotated.box_array()[chosen], [labels[number] for number in np.flatnonzero(chosen)]


def _complete(fields: Sequence[AnnotatedField]) -> list[AnnotatedField]:
    """The fields whose leukocytes are all annotated.

    Raises:
        DataError: a field's box is its whole picture, or no leukocyte of these fields has a class.
    """
    _refuse_whole_pictures(fields)
    complete = [annotated for annotated in fields if "leukocyte" in annotated.annotated_kinds]
    if not any(any(_leukocytes(annotated)[1]) for annotated in complete):
        raise DataError(
            "no leukocyte has a class in those fields whose leukocytes are all annotated "
            f"({len(complete)} of {len(fields)}); choose others"
        )
    return complete


def _refuse_whole_pictures(fields: Sequence[AnnotatedField]) -> None:
    whole = set()
    for annotated in fields:
        if len(annotated.boxes) == 1 and annotated.dataset not in whole:
            # What has no header fails in the run, as a field that cannot be read.
            with contextlib.suppress(DataError):
                if is_whole_picture(annotated.box_array()[0], image_size(annotated.image)):
                    whole.add(annotated.dataset)
    if whole:
        raise DataError(
            f"{', '.join(sorted(whole))}: pictures whose one box is the whole picture, which no detection "
            "can meet; use 'leukokit evaluate classifier' for them, or leave them out with --dataset"
        )


def _shares(totals: Floats) -> Floats:
    """(R, 2) recall and precision of the detection; NaN where there is nothing to share."""
    real, met, found = totals.T
    pairs = ((met, real), (met, found))
    return np.stack([np.where(n > 0, k / np.maximum(n, 1), np.nan) for k, n in pairs], axis=1)


def _confusion(truth: Names, predictions: Names, classes: tuple[str, ...]) -> ConfusionMatrix:
    unknown = set(truth) - {"", NO_CELL, *classes}
    rows, columns = (*classes, *sorted(unknown), NO_CELL), (*classes, UNCLASSIFIED, MISSED)
    counts = ((truth == row)[None] & (predictions == np.array(columns)[:, None]) for row in rows)
    return ConfusionMatrix(
        rows=rows, columns=columns, counts=tuple(tuple(c.sum(axis=1).tolist()) for c in counts)
    )


def _class_figures(matrix: ConfusionMatrix) -> dict[str, dict[str, Any]]:
    counts, figures = matrix.array(), {}
    for number, name in enumerate(matrix.rows[:-1]):
        known = name in matrix.columns
        cells, given = int(counts[number].sum()), int(counts[:, number].sum()) if known else 0
        hits = int(counts[number, number]) if known else 0
        figures[name] = {
            "cells": cells,
            "given": given,
            "recall": _rounded_share(hits / cells) if cells else None,
            "precision": _rounded_share(hits / given) if given else None,
            "f1": _rounded_share(2 * hits / (cells + given)) if cells + given else None,
        }
    return figures


def _differentials(matrix: ConfusionMatrix) -> dict[str, Any]:
    counts, names = matrix.array(), matrix.rows[:-1]
    given = dict(zip(matrix.columns, counts.sum(axis=0).tolist(), strict=True))
    annotated = differential(dict(zip(names, counts.sum(axis=1).tolist(), strict=False)))
    classified = differential({name: given.get(name, 0) for name in names})
    classes = {
        name: {
            "annotated": _rounded_share(share.percent),
            "pipeline": _rounded_share(classified.shares[name].percent),
        }
        for name, share in annotated.shares.items()
        if share.count or classified.shares[name].count
    }
    apart = [abs((row["annotated"] or 0.0) - (row["pipeline"] or 0.0)) for row in classes.values()]
    return {
        "annotated": annotated.n,
        "pipeline": classified.n,
        "mean_difference": _rounded_share(float(np.mean(apart))) if annotated.n and classified.n else None,
        "classes": classes,
    }


def _photo_interval(share: float, photos: npt.NDArray[np.int64], samples: Floats) -> list[float] | None:
    """Interval of a share of cells (N,) of these photographs; None of no cell."""
    return _rounded_interval(share_interval(share, len(np.unique(photos)), samples)) if len(photos) else None


def _rounded_interval(limits: ConfidenceInterval | None) -> list[float] | None:
    return None if limits is None else [round(value, 4) for value in limits]


def _rounded_share(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 4)
