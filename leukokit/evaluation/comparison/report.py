"""The tables of a comparison: figures with limits, tests against the baseline, time and size."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from leukokit._files import write_atomically
from leukokit._text import escape_formula
from leukokit.datasets.fields import AnnotatedField
from leukokit.evaluation.comparison.methods import Answers, Method, field_key, stored_values, truth_of
from leukokit.evaluation.confusion import plain_table
from leukokit.evaluation.end_to_end import MISSED
from leukokit.metrics.bootstrap import (
    balanced_accuracies,
    balanced_interval,
    bootstrap_photos,
    paired_bootstrap,
    photo_codes,
)
from leukokit.metrics.intervals import rare_classes, rare_classes_note, share_interval
from leukokit.pipeline import Pipeline

if TYPE_CHECKING:
    from rich.table import Table

NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95% limits; all None where there is nothing to share."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Tested:
    """A method on one test.

    Attributes:
        fields: that were answered.  photos: they come from.  cells: annotated leukocytes with a class.
        failed: fields without an answer.
        rare_classes: classes of fewer than ten cells, which make limits of ``balanced`` too narrow.
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
    found: Share = Share()
    precise: Share = Share()
    balanced: Share = Share()
    difference: Share = Share()
    p: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
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
    answers: Mapping[str, Answers],
    pipelines: Mapping[str, Pipeline],
    baseline: str,
) -> list[Row]:
    """A row for every method, in order."""
    rows = []
    for method in methods:
        own, pipeline = answers[method.name], pipelines[method.name]
        tested = {
            name: _tested(fields, own, answers[baseline], method.name == baseline)
            for name, fields in tests.items()
        }
        seconds = [answer.seconds for answer in own.known.values() if answer.seconds]
        labelling = [
            answer.seconds["label"] / answer.cells
            for answer in own.known.values()
            if answer.cells and answer.seconds and pipeline.classifier is not None
        ]
        learnt = [pipeline.detector, *([pipeline.classifier] if pipeline.classifier else [])]
        files = [path for plugin in learnt for path in plugin.weight_files]
        rows.append(
            Row(
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


def _tested(fields: Sequence[AnnotatedField], own: Answers, baseline: Answers, is_baseline: bool) -> Tested:
    answered = [one for one in fields if field_key(one) in own.known]
    if not answered:
        return Tested(failed=len(fields))
    codes = photo_codes([one.photo for one in answered], [one.lab for one in answered])
    counts = []
    for one in answered:
        answer = own.known[field_key(one)]
        real = len(answer.forced)
        met = sum(label != MISSED for label in answer.forced)
        counts.append((real, met, met + answer.false))
    table = np.array(counts, dtype=np.float64)
    draws = bootstrap_photos(table, codes, _recall_and_precision)
    shares = _recall_and_precision(table.sum(axis=0)[None])[0]
    holding, finding = (len(np.unique(codes[table[:, column] > 0])) for column in (0, 2))
    found, precise = (_share(shares[k], n, draws[:, k]) for k, n in enumerate((holding, finding)))
    cells = _Cells.of(answered, own)
    balanced, difference, p = Share(), Share(), None
    if len(cells.truth) and cells.classified:
        right = cells.truth == cells.given
        known = (cells.labels, cells.photos, cells.labs)
        value, drawn = balanced_accuracies(right[:, None], *known)
        balanced = _rounded(value[0], *balanced_interval(drawn[:, 0], right, *known))
        both = [one for one in answered if field_key(one) in baseline.known]
        mine, theirs = _Cells.of(both, own), _Cells.of(both, baseline)
        if not is_baseline and len(mine.truth) and theirs.classified:
            pair = (mine.truth == mine.given, theirs.truth == theirs.given)
            apart = paired_bootstrap(*pair, mine.labels, mine.photos, mine.labs)
            difference, p = _rounded(apart.value, apart.low, apart.high), round(apart.p, 4)
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
    def of(cls, fields: Sequence[AnnotatedField], answers: Answers) -> _Cells:
        rows = [
            (truth, given, one.photo, one.lab)
            for one in fields
            for truth, given in zip(truth_of(one), answers.known[field_key(one)].forced, strict=True)
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


def _share(value: float, photos: int, draws: Any) -> Share:
    return _rounded(value, *share_interval(value, photos, draws)) if np.isfinite(value) else Share()


def _rounded(*values: float) -> Share:
    return Share(*(round(float(value), 4) for value in values))


def _ms(seconds: Sequence[float]) -> float | None:
    return round(1e3 * median(seconds), 2) if seconds else None


HEAD = ("detector + graph + classifier",)
TESTED = ("leukocytes found", "of the found", "balanced accuracy", "minus baseline", "p")
COST = ("detect, ms per field", "link, ms", "classify, ms per cell", "stored values", "MB")


def texts_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the table for people."""
    tests = list(rows[0].tests) if rows else []
    titles = [*HEAD, *(f"{test}: {title}" for test in tests for title in TESTED), *COST]
    lines = []
    for row in rows:
        line = [row.name]
        for test in tests:
            told = row.tests[test]
            shares = (told.found, told.precise, told.balanced)
            line += [*map(_shown, shares), _shown(told.difference, signed=True), _number(told.p, 3)]
        line += [_number(row.detect_ms, 1), _number(row.link_ms, 1), _number(row.label_ms_a_cell, 1)]
        line += [NOTHING if row.values is None else f"{row.values:,}", _number(row.megabytes, 1)]
        lines.append(line)
    return titles, lines


def table_of(rows: Sequence[Row], test: str) -> Table:
    """One test for a terminal."""
    from rich.text import Text

    told = rows[0].tests[test]
    title = f"{test}: {told.fields} fields of {told.photos} photographs, {told.cells} leukocytes"
    columns = ("method", "found", "precise", "balanced", "95% limits", "- baseline", "p")
    table = plain_table(title, *columns)
    for row in rows:
        own = row.tests[test]
        shares = [_number(share.value, 3) for share in (own.found, own.precise, own.balanced)]
        limits = NOTHING if own.balanced.low is None else f"{own.balanced.low:.3f}-{own.balanced.high:.3f}"
        apart = NOTHING if own.difference.value is None else f"{own.difference.value:+.3f}"
        table.add_row(Text(row.name), *shares, limits, apart, _number(own.p, 3))
    return table


def note_of(rows: Sequence[Row], test: str) -> str:
    """What to say under a test's table; may be empty."""
    return rare_classes_note(rows[0].tests[test].rare_classes)


def write_all(out: Path, rows: Sequence[Row], baseline: str, provenance: Mapping[str, Any]) -> list[Path]:
    """Write ``compare.json``, ``.csv``, ``.md`` and ``.html``.

    Raises:
        OutputError: one cannot be written.
    """
    titles, lines = texts_of(rows)
    document = {
        "schema": 1,
        "use": "Research use only; not a medical device.",
        "baseline": baseline,
        "methods": [asdict(row) for row in rows],
        "provenance": provenance,
    }
    contents = {
        "compare.json": json.dumps(document, indent=1, allow_nan=False, default=str) + "\n",
        "compare.csv": _csv(rows),
        "compare.md": _markdown(rows),
        "compare.html": _html(titles, lines, rows, baseline),
    }
    for name, text in contents.items():
        write_atomically(out / name, text)
    return [out / name for name in contents]


def _csv(rows: Sequence[Row]) -> str:
    """A row a method and test, numbers unrounded by people's needs."""
    stream = io.StringIO()
    table = csv.writer(stream)
    shares = ("found", "precise", "balanced", "difference")
    columns = [f"{share}{end}" for share in shares for end in ("", "_low_95", "_high_95")]
    plain = ("fields", "photos", "cells", "failed")
    cost = ("detect_ms", "link_ms", "label_ms_a_cell", "values", "megabytes")
    table.writerow(["method", "test", *plain, *columns, "p", *cost])
    for row in rows:
        for test, told in row.tests.items():
            numbers = [getattr(getattr(told, s), end) for s in shares for end in ("value", "low", "high")]
            values = [*(getattr(told, name) for name in plain), *numbers, told.p]
            values += [getattr(row, name) for name in cost]
            table.writerow(
                [escape_formula(row.name), escape_formula(test), *("" if v is None else v for v in values)]
            )
    return stream.getvalue()


def _markdown(rows: Sequence[Row]) -> str:
    """A table a test, and one of what the methods cost."""
    _, lines = texts_of(rows)
    parts, width = [], len(TESTED)
    for number, (test, told) in enumerate(rows[0].tests.items() if rows else ()):
        first = 1 + number * width
        chosen = [0, *range(first, first + width)]
        parts.append(
            f"{test}: {told.fields} fields of {told.photos} photographs, {told.cells} leukocytes\n\n"
            + _pipes([*HEAD, *TESTED], [[line[column] for column in chosen] for line in lines])
            + (f"\n{note}\n" if (note := rare_classes_note(told.rare_classes)) else "")
        )
    cost = [[line[0], *line[-len(COST) :]] for line in lines]
    return "\n".join([*parts, _pipes([*HEAD, *COST], cost)])


def _pipes(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    table = [titles, ["---", *["---:"] * (len(titles) - 1)], *lines]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in table)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _html(titles: Sequence[str], lines: Sequence[Sequence[str]], rows: Sequence[Row], baseline: str) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        Path(__file__).with_name("compare.html.j2").read_text(encoding="utf-8")
    )
    tests = rows[0].tests if rows else {}
    notes = {test: note_of(rows, test) for test in tests}
    return template.render(titles=titles, lines=lines, tests=tests, notes=notes, baseline=baseline)


def _shown(share: Share, signed: bool = False) -> str:
    if share.value is None or share.low is None or share.high is None:
        return NOTHING
    value, low, high = (f"{v:{'+' if signed else ''}.3f}" for v in (share.value, share.low, share.high))
    return f"{value} ({low} to {high})" if signed else f"{value} ({low}-{high})"


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"
