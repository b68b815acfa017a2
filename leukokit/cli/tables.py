"""Figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from leukokit.evaluation.comparison.report import NO_VALUE, number_text
from leukokit.evaluation.confusion import share_text
from leukokit.evaluation.end_to_end import MODES

if TYPE_CHECKING:
    from leukokit.evaluation.classification import ClassificationReport
    from leukokit.evaluation.comparison.figures import MethodRow
    from leukokit.metrics.confusion import ConfusionMatrix


def print_tables(console: Console, *parts: Table | str) -> None:
    """Print tables and the notes below them; an empty note is left out."""
    for part in filter(None, parts):
        console.print(part, markup=False)


def plain_table(title: str, *columns: str | Text) -> Table:
    """A table for people: the first column to the left, figures to the right; folded, never cut."""
    table = Table(
        title=title or None,
        box=None,
        header_style="bold",
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
    )
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def confusion_table(matrix: ConfusionMatrix) -> Table:
    """The matrix as a table for people: count and row percent, right answers in bold."""
    # Names are text: a bracket in one is no markup.
    table = plain_table("", "true \\ predicted", *map(Text, matrix.columns), "cells")
    for name, counts, shares in zip(matrix.rows, matrix.array(), matrix.shares(), strict=True):
        entries = [
            Text(share_text(int(count), float(share)), style="bold" if column == name else "")
            for column, count, share in zip(matrix.columns, counts, shares, strict=True)
        ]
        table.add_row(Text(name), *entries, str(counts.sum()))
    return table


def detection_table(figures: dict[str, Any]) -> Table:
    """The figures as a table for people."""
    title = f"{figures['fields']} fields of {figures['photos']} photographs, threshold {figures['threshold']}"
    columns = ("kind", "cells", "AP50 (95% interval)", "AP50-95", "precision", "recall", "count error")
    table = plain_table(title, *columns)
    for kind, row in figures["kinds"].items():
        table.add_row(
            kind,
            str(row["cells"]),
            _figure_text(row["ap50"], row["ap50_interval"]),
            f"{row['ap50_95']:.3f}",
            _figure_text(row["precision"], row["precision_interval"]),
            _figure_text(row["recall"], row["recall_interval"]),
            f"{row['count_error']:.2f}",
        )
    table.add_row("mean", "", f"{figures['map50']:.3f}", f"{figures['map50_95']:.3f}", "", "", "")
    return table


def classification_table(report: ClassificationReport) -> Table:
    """The figures by class as a table for people; below it, those over all classes."""
    title = f"{report.cells} leukocytes of {report.photos} photographs"
    table = plain_table(title, "class", "cells", "recall (95% interval)", "precision", "F1", "specificity")
    for row in report.forced.classes:
        shares = (_figure_text(value) for value in (row.precision, row.f1, row.specificity))
        table.add_row(Text(row.name), str(row.cells), _figure_text(row.recall, row.recall_interval), *shares)
    parts = {"": report.forced} | ({"classified: ": report.classified} if report.classified else {})
    for prefix, part in parts.items():
        figures = {
            "accuracy": (part.accuracy, part.accuracy_interval),
            "balanced accuracy": (part.balanced_accuracy, part.balanced_accuracy_interval),
            "macro F1": (part.macro_f1, part.macro_f1_interval),
        }
        for name, (value, interval) in figures.items():
            table.add_row(f"{prefix}{name}", str(part.cells), _figure_text(value, interval))
    if report.classified:
        table.add_row("coverage", str(report.cells), _figure_text(report.coverage, report.coverage_interval))
    for name, part in report.groups.items():
        share = _figure_text(part.balanced_accuracy, part.balanced_accuracy_interval)
        table.add_row(Text(f"balanced accuracy, {name}"), str(part.cells), share)
    if report.groups:
        share = _figure_text(report.mean_balanced_accuracy, report.mean_balanced_accuracy_interval)
        table.add_row("mean over groups", str(report.cells), share)
    if report.calibration:
        table.add_row("calibration error", str(report.cells), _figure_text(report.calibration.expected_error))
    return table


def pipeline_tables(figures: dict[str, Any]) -> list[Table]:
    """The figures as tables for people: by class (starred: at the review threshold), and over all."""
    failed = f", {len(figures['failures'])} more not read" if figures["failures"] else ""
    title = f"{figures['fields']} fields of {figures['photos']} photographs{failed}"
    modes = [figures[mode] for mode in MODES if figures[mode]]
    names = ("recall", "precision", "F1", *("recall*", "precision*", "F1*") * (len(modes) - 1))
    by_class = plain_table(title, "class", "cells", *names, "% annotated", "% pipeline")
    columns = ("", "cells", "share (95% interval)", "* at the review threshold")
    over_all = plain_table("", *columns[: 2 + len(modes)])
    for name, row in figures["forced"]["classes"].items():
        shares = figures["differential"]["classes"].get(name, {})
        parts = [
            _figure_text(mode["classes"][name][key])
            for mode in modes
            for key in ("recall", "precision", "f1")
        ]
        percents = (_figure_text(shares.get(side), digits=1) for side in ("annotated", "pipeline"))
        by_class.add_row(Text(name), str(row["cells"]), *parts, *percents)
    found = figures["detection"]
    for label, cells, key, parts_of in (
        ("leukocytes found", found["annotated"], "recall", [found]),
        ("detections right", found["found"] + found["false"], "precision", [found]),
        ("balanced recall, end to end", figures["cells"], "balanced_recall", modes),
        ("accuracy of the found", figures["cells_found"], "accuracy", modes),
    ):
        shown = (_figure_text(part[key], part[f"{key}_interval"]) for part in parts_of)
        over_all.add_row(label, str(cells), *shown)
    differs = figures["differential"]["mean_difference"]
    over_all.add_row("mean difference of the percentages", "", _figure_text(differs, digits=1))
    return [by_class, over_all]


def comparison_table(rows: Sequence[MethodRow], test: str) -> Table:
    """One test for a terminal."""
    figures = rows[0].tests[test]
    title = f"{test}: {figures.fields} fields of {figures.photos} photographs, {figures.cells} leukocytes"
    columns = ("method", "found", "precise", "balanced", "95% interval", "- baseline", "p")
    table = plain_table(title, *columns)
    for row in rows:
        own = row.tests[test]
        shares = [number_text(share.value, 3) for share in (own.found, own.precise, own.balanced)]
        interval = NO_VALUE if own.balanced.low is None else f"{own.balanced.low:.3f}-{own.balanced.high:.3f}"
        apart = NO_VALUE if own.difference.value is None else f"{own.difference.value:+.3f}"
        table.add_row(Text(row.name), *shares, interval, apart, number_text(own.p, 3))
    return table


def _figure_text(value: float | None, interval: Sequence[float] | None = None, digits: int = 3) -> str:
    if value is None:
        return NO_VALUE
    return f"{value:.{digits}f}" + (f" ({interval[0]:.3f}-{interval[1]:.3f})" if interval else "")
