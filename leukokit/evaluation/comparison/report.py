"""The files of a comparison: JSON, CSV, Markdown and HTML."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leukokit._files import write_atomically
from leukokit._text import escape_formula
from leukokit.evaluation.comparison.figures import Estimate, MethodRow
from leukokit.metrics.intervals import rare_classes_note

NO_VALUE = "-"


HEAD = ("detector + graph + classifier",)
TESTED = ("leukocytes found", "of the found", "balanced accuracy", "minus baseline", "p")
COST = ("detect, ms per field", "link, ms", "classify, ms per cell", "stored values", "MB")


def texts_of(rows: Sequence[MethodRow]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the table for people."""
    tests = list(rows[0].tests) if rows else []
    titles = [*HEAD, *(f"{test}: {title}" for test in tests for title in TESTED), *COST]
    lines = []
    for row in rows:
        line = [row.name]
        for test in tests:
            figures = row.tests[test]
            shares = (figures.found, figures.precise, figures.balanced)
            line += [
                *map(_estimate_text, shares),
                _estimate_text(figures.difference, signed=True),
                number_text(figures.p, 3),
            ]
        line += [
            number_text(row.detect_ms, 1),
            number_text(row.link_ms, 1),
            number_text(row.label_ms_a_cell, 1),
        ]
        line += [NO_VALUE if row.values is None else f"{row.values:,}", number_text(row.megabytes, 1)]
        lines.append(line)
    return titles, lines


def comparison_note(rows: Sequence[MethodRow], test: str) -> str:
    """What to say under a test's table; may be empty."""
    return rare_classes_note(rows[0].tests[test].rare_classes)


def write_all(
    out: Path, rows: Sequence[MethodRow], baseline: str, provenance: Mapping[str, Any]
) -> list[Path]:
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


def _csv(rows: Sequence[MethodRow]) -> str:
    """One row per method and test."""
    stream = io.StringIO()
    table = csv.writer(stream)
    shares = ("found", "precise", "balanced", "difference")
    columns = [f"{share}{end}" for share in shares for end in ("", "_low_95", "_high_95")]
    plain = ("fields", "photos", "cells", "failed")
    cost = ("detect_ms", "link_ms", "label_ms_a_cell", "values", "megabytes")
    table.writerow(["method", "test", *plain, *columns, "p", *cost])
    for row in rows:
        for test, figures in row.tests.items():
            numbers = [getattr(getattr(figures, s), end) for s in shares for end in ("value", "low", "high")]
            values = [*(getattr(figures, name) for name in plain), *numbers, figures.p]
            values += [getattr(row, name) for name in cost]
            table.writerow(
                [escape_formula(row.name), escape_formula(test), *("" if v is None else v for v in values)]
            )
    return stream.getvalue()


def _markdown(rows: Sequence[MethodRow]) -> str:
    """One table per test, and one of what the methods cost."""
    _, lines = texts_of(rows)
    parts, width = [], len(TESTED)
    for number, (test, figures) in enumerate(rows[0].tests.items() if rows else ()):
        first = 1 + number * width
        chosen = [0, *range(first, first + width)]
        parts.append(
            f"{test}: {figures.fields} fields of {figures.photos} photographs, {figures.cells} leukocytes\n\n"
            + _pipes([*HEAD, *TESTED], [[line[column] for column in chosen] for line in lines])
            + (f"\n{note}\n" if (note := rare_classes_note(figures.rare_classes)) else "")
        )
    cost = [[line[0], *line[-len(COST) :]] for line in lines]
    return "\n".join([*parts, _pipes([*HEAD, *COST], cost)])


def _pipes(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    table = [titles, ["---", *["---:"] * (len(titles) - 1)], *lines]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in table)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _html(
    titles: Sequence[str], lines: Sequence[Sequence[str]], rows: Sequence[MethodRow], baseline: str
) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        Path(__file__).with_name("compare.html.j2").read_text(encoding="utf-8")
    )
    tests = rows[0].tests if rows else {}
    notes = {test: comparison_note(rows, test) for test in tests}
    return template.render(titles=titles, lines=lines, tests=tests, notes=notes, baseline=baseline)


def _estimate_text(share: Estimate, signed: bool = False) -> str:
    if share.value is None or share.low is None or share.high is None:
        return NO_VALUE
    value, low, high = (f"{v:{'+' if signed else ''}.3f}" for v in (share.value, share.low, share.high))
    return f"{value} ({low} to {high})" if signed else f"{value} ({low}-{high})"


def number_text(value: float | None, digits: int) -> str:
    """Return a number for people, ``NO_VALUE`` for None."""
    return NO_VALUE if value is None else f"{value:.{digits}f}"
