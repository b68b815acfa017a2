"""The figures of a comparison: shares with their intervals, tests against the baseline, time and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from leukokit.datasets.fields import AnnotatedField
from leukokit.evaluation.comparison.methods import Method, annotated_classes, field_key
from leukokit.evaluation.comparison.results import ResultStore
from leukokit.evaluation.end_to_end import MISSED
from leukokit.metrics.bootstrap import (
    balanced_accuracies,
    balanced_interval,
    bootstrap_photos,
    paired_bootstrap,
    photo_codes,
)
from leukokit.metrics.intervals import rare_classes, share_interval
from leukokit.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% interval; all None where there is nothing to share."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Tested:
    """A method on one test.

    Attributes:
        fields: that were answered.  photos: they come from.  cells: annotated leukocytes with a class.
        failed: fields without an result.
        rare_classes: classes of fewer than ten cells, which make intervals of ``balanced`` too narrow.
        found: annotated leukocytes found, of all; ``precise``: leukocytes found that are some, of all found.
        balanced: balanced accuracy over the classes, end to end: a missed leukocyte is wrong; the mean over
            laboratories.
        difference: of ``balanced`` to the baseline's, on the fields both answered, and its ``p``.
    """

    fields: int = 0
    photos: int = 0
    cells: int = 0
    failed: int = 0
    rare_classes: tuple[str, ...] = ()
    found: Estimate = Estimate()
    precise: Estimate = Estimate()
    balanced: Estimate = Estimate()
    difference: Estimate = Estimate()
    p: float | None = None


@dataclass(frozen=True, slots=True)
class MethodRow:
    """A method: its figures by test, median milliseconds, stored numbers and bytes of its weights."""

    name: str
    tests: dict[str, Tested] = field(default_factory=dict)
    detect_ms: float | None = None
    link_ms: float | None = None
    label_ms_a_cell: float | None = None
    values: int | None = None
    megabytes: float | None = None


def rows_of(
    methods: Sequence[Method],
    tests: Mapping[str, Sequence[AnnotatedField]],
    results: Mapping[str, ResultStore],
    pipelines: Mapping[str, Pipeline],
    baseline: str,
) -> list[MethodRow]:
    """A row for every method, in order."""
    rows = []
    for method in methods:
        own, pipeline = results[method.name], pipelines[method.name]
        tested = {
            name: _tested(fields, own, results[baseline], method.name == baseline)
            for name, fields in tests.items()
        }
        seconds = [result.seconds for result in own.known.values() if result.seconds]
        labelling = [
            result.seconds["label"] / result.cells
            for result in own.known.values()
            if result.cells and result.seconds and pipeline.classifier is not None
        ]
        learnt = [pipeline.detector, *([pipeline.classifier] if pipeline.classifier else [])]
        files = [path for plugin in learnt for path in plugin.weight_files]
        rows.append(
            MethodRow(
                method.name,
                tested,
                _ms([one["detect"] for one in seconds]),
                _ms([one["link"] for one in seconds]),
                _ms(labelling),
                stored_values(files),
                round(sum(path.stat().st_size for path in files) / 1e6, 2) if files else None,
            )
        )
    return rows


def stored_values(paths: Sequence[Path]) -> int | None:
    """How many numbers weight files hold, without the running statistics of normalisations.

    None where a file is no safetensors, and for no file.
    """
    from safetensors import SafetensorError, safe_open

    if not paths:
        return None
    total = 0
    for path in paths:
        try:
            with safe_open(path, "np") as stored:
                names = [name for name in stored.keys() if "running_" not in name]  # noqa: SIM118
                total += sum(int(np.prod(stored.get_slice(name).get_shape())) for name in names)
        except (OSError, SafetensorError):
            return None
    return total


def _tested(
    fields: Sequence[AnnotatedField], own: ResultStore, baseline: ResultStore, is_baseline: bool
) -> Tested:
    answered = [one for one in fields if field_key(one) in own.known]
    if not answered:
        return Tested(failed=len(fields))
    codes = photo_codes([one.photo for one in answered], [one.lab for one in answered])
    counts = []
    for one in answered:
        result = own.known[field_key(one)]
        real = len(result.forced)
        met = sum(label != MISSED for label in result.forced)
        counts.append((real, met, met + result.false))
    table = np.array(counts, dtype=np.float64)
    draws = bootstrap_photos(table, codes, _recall_and_precision)
    shares = _recall_and_precision(table.sum(axis=0)[None])[0]
    holding, finding = (len(np.unique(codes[table[:, column] > 0])) for column in (0, 2))
    found, precise = (_estimate(shares[k], n, draws[:, k]) for k, n in enumerate((holding, finding)))
    cells = _Cells.of(answered, own)
    balanced, difference, p = Estimate(), Estimate(), None
    if len(cells.truth) and cells.classified:
        right = cells.truth == cells.given
        known = (cells.labels, cells.photos, cells.labs)
        value, drawn = balanced_accuracies(right[:, None], *known)
        balanced = _rounded_estimate(value[0], *balanced_interval(drawn[:, 0], right, *known))
        both = [one for one in answered if field_key(one) in baseline.known]
        mine, theirs = _Cells.of(both, own), _Cells.of(both, baseline)
        if not is_baseline and len(mine.truth) and theirs.classified:
            pair = (mine.truth == mine.given, theirs.truth == theirs.given)
            apart = paired_bootstrap(*pair, mine.labels, mine.photos, mine.labs)
            difference, p = _rounded_estimate(apart.value, apart.low, apart.high), round(apart.p, 4)
    return Tested(
        fields=len(answered),
        failed=len(fields) - len(answered),
        photos=len(np.unique(codes)),
        cells=len(cells.truth),
        rare_classes=rare_classes(cells.truth.tolist(), cells.labs.tolist()),
        found=found,
        precise=precise,
        balanced=balanced,
        difference=difference,
        p=p,
    )


@dataclass(frozen=True, slots=True)
class _Cells:
    """Annotated leukocytes that have a class, and what a method calls them."""

    truth: Any
    given: Any
    labels: Any
    photos: Any
    labs: Any

    @classmethod
    def of(cls, fields: Sequence[AnnotatedField], results: ResultStore) -> _Cells:
        rows = [
            (truth, given, one.photo, one.lab)
            for one in fields
            for truth, given in zip(annotated_classes(one), results.known[field_key(one)].forced, strict=True)
            if truth
        ]
        truth, given, photos, labs = np.array(rows, dtype=str).reshape(-1, 4).T
        labels = np.unique(truth, return_inverse=True)[1]
        return cls(truth, given, labels, photo_codes(photos, labs), labs)

    @property
    def classified(self) -> bool:
        """Whether there is a classifier."""
        return bool(np.any((self.given != MISSED) & (self.given != "")))


def _recall_and_precision(totals: Any) -> Any:
    real, met, found = totals.T
    pairs = ((met, real), (met, found))
    return np.stack([np.where(n > 0, k / np.maximum(n, 1), np.nan) for k, n in pairs], axis=1)


def _estimate(value: float, photos: int, draws: Any) -> Estimate:
    return (
        _rounded_estimate(value, *share_interval(value, photos, draws)) if np.isfinite(value) else Estimate()
    )


def _rounded_estimate(*values: float) -> Estimate:
    return Estimate(*(round(float(value), 4) for value in values))


def _ms(seconds: Sequence[float]) -> float | None:
    return round(1e3 * median(seconds), 2) if seconds else None
