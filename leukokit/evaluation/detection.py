"""How well a detector finds cells: average precision, precision and recall, and errors of the counts.

A kind is measured only on the fields where it is annotated completely. Average precision is COCO's
(101 recall points; faster-coco-eval), without its limit on the number of detections. 95% intervals are a
percentile bootstrap over photographs (Efron 1979, doi:10.1214/aos/1176344552): cells of one photograph
are not independent. Where no draw differs, as when all is right, they are exact ones with a photograph a
trial.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from leukokit.cells import Cells
from leukokit.datasets.fields import AnnotatedField
from leukokit.errors import DataError, LeukokitError
from leukokit.metrics.bootstrap import photo_draws
from leukokit.metrics.intervals import share_interval
from leukokit.metrics.matching import average_precision, match
from leukokit.pipeline import Pipeline
from leukokit.taxonomy import KINDS

LOWEST_SCORE = 0.01
"""Detections down to this score enter average precision."""
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Matches:
    """Detections of one kind on one field, best first: scores (N,), whether each met a cell (N,), cells."""

    photo: str
    scores: npt.NDArray[np.float32]
    hits: npt.NDArray[np.bool_]
    truth: int


@dataclass(slots=True)
class _Tally:
    matches: list[Matches] = field(default_factory=list)
    truths: list[dict[str, Any]] = field(default_factory=list)
    detections: list[dict[str, Any]] = field(default_factory=list)


def evaluate_detector(
    pipeline: Pipeline,
    fields: Sequence[AnnotatedField],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Run the pipeline's detector on the fields and measure it.

    Args:
        pipeline: whose detector is measured.
        fields: annotated fields; a kind is measured on those where it is annotated completely.
        progress: called with the fields done and the fields in all.

    Returns:
        A JSON document: per kind ``ap50``, ``ap50_95``, ``precision``, ``recall`` (at the detector's own
        threshold, intersection over union 0.5) and ``count_error`` (mean absolute error per field), with n
        and 95% intervals; ``map50`` and ``map50_95`` are means over the kinds measured. ``fields`` and
        ``photos`` are those that were read; the others' errors are ``failures``.

    Raises:
        DataError: every field failed.
    """
    threshold = float(getattr(pipeline.detector, "confidence", 0.0))
    lenient = _lenient(pipeline)
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    failures: list[str] = []
    photos: set[str] = set()
    for number, annotated in enumerate(fields, 1):
        progress(number - 1, len(fields))
        try:
            cells = lenient.detect(lenient.read(annotated.image))
        except LeukokitError as error:
            failures.append(str(error))
            continue
        photos.add(annotated.photo)
        for kind in annotated.annotated_kinds:
            _add(tallies[kind], number, annotated, cells, KINDS.index(kind))
    progress(len(fields), len(fields))
    if failures and not photos:
        raise DataError(f"every field failed; the first failure: {failures[0]}")
    kinds = {kind: _kind_figures(tallies[kind], threshold) for kind in KINDS if tallies[kind].truths}
    return {
        "fields": len(fields) - len(failures),
        "photos": len(photos),
        "threshold": round(threshold, 4),
        "map50": _mean([figures["ap50"] for figures in kinds.values()]),
        "map50_95": _mean([figures["ap50_95"] for figures in kinds.values()]),
        "kinds": kinds,
        "failures": failures,
        "provenance": pipeline.provenance,
    }


def _lenient(pipeline: Pipeline) -> Pipeline:
    if "confidence" not in type(pipeline.detector).Params.model_fields:
        return pipeline
    choice = pipeline.config.detector
    params = choice.params | {"confidence": LOWEST_SCORE}
    lenient = {"detector": choice.model_copy(update={"params": params}), "classifier": None}
    config = pipeline.config.model_copy(update=lenient)
    return Pipeline.from_config(config, pipeline.device)


def _add(tally: _Tally, number: int, annotated: AnnotatedField, cells: Cells, kind: int) -> None:
    found = cells[cells.kinds == kind]
    truth = annotated.box_array()[annotated.kind_array() == kind]
    scores, hits = match(found.boxes, found.scores, truth)
    tally.matches.append(Matches(annotated.photo, scores, hits, len(truth)))
    tally.truths += [_coco(number, box) | {"iscrowd": 0} for box in truth]
    tally.detections += [
        _coco(number, box) | {"score": float(score)}
        for box, score in zip(found.boxes, found.scores, strict=True)
    ]


def _coco(image: int, box: npt.NDArray[np.float32]) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(side) for side in box)
    return {
        "image_id": image,
        "category_id": 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
    }


def _kind_figures(tally: _Tally, threshold: float) -> dict[str, Any]:
    by_photo: dict[str, list[Matches]] = defaultdict(list)
    for matches in tally.matches:
        by_photo[matches.photo].append(matches)
    photos = list(by_photo.values())
    samples = np.array(
        [
            _summary([m for index in drawn for m in photos[index]], threshold)
            for block in photo_draws(np.zeros(len(photos)), RESAMPLES)
            for drawn in block
        ]
    )
    ap50, precision, recall = figures = np.nan_to_num(_summary(tally.matches, threshold)).tolist()
    holding = sum(any(m.truth for m in own) for own in photos)
    finding = sum(any((m.scores >= threshold).any() for m in own) for own in photos)
    limits = [
        np.round(share_interval(figures[k], trials, samples[:, k]), 4).tolist()
        for k, trials in enumerate((holding, finding, holding))
    ]
    errors = [abs(int((m.scores >= threshold).sum()) - m.truth) for m in tally.matches]
    return {
        "fields": len(tally.matches),
        "photos": len(photos),
        "cells": sum(m.truth for m in tally.matches),
        "ap50": round(ap50, 4),
        "ap50_interval": limits[0],
        "ap50_95": _coco_map(tally),
        "precision": round(precision, 4),
        "precision_interval": limits[1],
        "recall": round(recall, 4),
        "recall_interval": limits[2],
        "count_error": round(float(np.mean(errors)), 3),
    }


def _summary(matches: Sequence[Matches], threshold: float) -> tuple[float, float, float]:
    """AP50, precision and recall; NaN of no cell, and the precision of no detection."""
    scores = np.concatenate([m.scores for m in matches])
    hits = np.concatenate([m.hits for m in matches])
    truth = sum(m.truth for m in matches)
    kept = scores >= threshold
    met, made = int(hits[kept].sum()), int(kept.sum())
    return (
        average_precision(scores, hits, truth) if truth else math.nan,
        met / made if made else math.nan,
        met / truth if truth else math.nan,
    )


def _coco_map(tally: _Tally) -> float:
    """AP50-95 by the reference implementation."""
    import contextlib
    import io

    from faster_coco_eval import COCO, COCOeval_faster

    if not tally.detections:
        return 0.0
    images = [
        {"id": number} for number in sorted({row["image_id"] for row in tally.truths + tally.detections})
    ]
    truths = [row | {"id": number} for number, row in enumerate(tally.truths, 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO({"images": images, "annotations": truths, "categories": [{"id": 1, "name": "cell"}]})
        run = COCOeval_faster(
            ground, ground.loadRes(tally.detections), iouType="bbox", print_function=lambda _: None
        )
        run.params.maxDets = [1, 10, max(len(tally.detections), 100)]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, 0, 0, -1]
    return round(float(precision[precision > -1].mean()), 4)


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0
