"""The tables of a batch, written from its manifest: counts, cells, failures, differential counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from leukokit._files import write_atomically, write_error
from leukokit.batch.outputs.parquet import ParquetTable
from leukokit.batch.outputs.reviewed import CELL_COLUMNS, ReviewedLabels
from leukokit.batch.outputs.totals import GroupCounts, Totals, named_groups, still_needed
from leukokit.batch.records import Entry
from leukokit.writers.tables import (
    Table,
    cell_columns,
    class_counts,
    column_classes,
    count_columns,
    count_row,
)

FILES: Final = ("report.html", "counts.csv", "cells.csv", "differential.csv", "failures.csv", "run.json")
"""What a batch writes over all its images."""
PARQUET: Final = "cells.parquet"
DONE, FAILED, WAITING = "done", "failed", "waiting"


def write_tables(
    out: Path,
    entries: Iterable[tuple[Entry, str]],
    classes: Sequence[str],
    target: int | None,
    parquet: bool = False,
    review: ReviewedLabels | None = None,
    *,
    bom: bool = False,
) -> Totals:
    """Write ``counts.csv``, ``cells.csv``, ``failures.csv`` and ``differential.csv``.

    Args:
        out: folder to write to.
        entries: every image in its order with its group, read once; one at a time is in memory.
        classes: the classifier's, empty without one.
        target: leukocytes that a differential count should have, if the user said.
        parquet: also write ``cells.parquet``; else one that exists is removed.
        review: labels that people gave, which the entries already have.
        bom: start CSV files with a byte order mark.

    Raises:
        OutputError: a table cannot be written.
    """
    tables = _Tables(out, classes, parquet, review, bom)
    totals = Totals()
    for entry, group in entries:
        totals.add(entry, group)
        tables.add(entry, group)
    tables.finish(totals, target)
    return totals


class _Tables:
    """The tables while they are written."""

    def __init__(
        self, out: Path, classes: Sequence[str], parquet: bool, review: ReviewedLabels | None, bom: bool
    ) -> None:
        counted = classes if review is None else review.classes
        self._is_classified, self._is_reviewed = bool(counted), review is not None
        self._classes = column_classes(counted)
        self._count_columns = count_columns(self._classes)
        columns = [*cell_columns(column_classes(classes)), *(CELL_COLUMNS if review else ())]
        extra = ["reviewed"] if review else []
        self._counts = Table(out / "counts.csv", [*self._count_columns, *extra, "group", "status"], bom=bom)
        self._cells = Table(out / "cells.csv", columns, bom=bom)
        self._parquet = _parquet_table(out / PARQUET, columns, parquet)
        self._failures = Table(out / "failures.csv", ["image", "cause"], bom=bom)
        self._shares = Table(
            out / "differential.csv",
            [
                *("scope", "name", "class", "count", "percent", "low_95", "high_95"),
                *("withheld", "least_percent", "most_percent", "n", "below_minimum"),
                *("unclassified", "unknown", "erythroblasts_per_100", "still_needed"),
                *(("machine_count", "reviewed") if review else ()),
            ],
            bom=bom,
        )

    def add(self, entry: Entry, group: str) -> None:
        """Write an image's rows."""
        name, document = entry.name.as_posix(), entry.document
        if document is None:
            blank = [None] * (len(self._count_columns) - 1 + self._is_reviewed)
            self._counts.row([name, *blank, group, FAILED if entry.error else WAITING])
            if entry.error:
                self._failures.row([name, entry.error])
            return
        extra = [document["reviewed"]] if self._is_reviewed else []
        self._counts.row([*count_row(name, document, self._classes), *extra, group, DONE])
        self._cells.write(entry.cells)
        if self._parquet is not None:
            self._parquet.write(name, entry.cells)
        if self._is_classified:
            machine = Counter(document.get("machine_classes", {}))
            reviewed = document.get("reviewed", 0)
            counts = GroupCounts(Counter(class_counts(document)), machine=machine, reviewed=reviewed)
            self._write_shares("image", name, counts, None)

    def finish(self, totals: Totals, target: int | None) -> None:
        """Write the rows of groups and of all images, and give the files their names."""
        if self._is_classified:
            for name, group in named_groups(totals):
                self._write_shares("group", name, group, target)
            self._write_shares("all", "", totals.whole, target)
        for table in (self._counts, self._cells, self._failures, self._shares):
            table.finish()
        if self._parquet is not None:
            self._parquet.finish()

    def _write_shares(self, scope: str, name: str, group: GroupCounts, target: int | None) -> None:
        count = group.differential
        per_100 = count.erythroblasts_per_100
        needed = "" if target is None else still_needed(count, target)
        for label, share in count.shares.items():
            percent = None if count.is_withheld else share.percent
            interval = ("", "") if count.is_withheld else (f"{share.low:.2f}", f"{share.high:.2f}")
            self._shares.row(
                [
                    *(scope, name, label, share.count),
                    *("" if percent is None else f"{percent:.2f}", *interval, count.is_withheld),
                    *(f"{bound:.2f}" for bound in count.bounds(label)),
                    *(count.n, count.below_minimum, count.unclassified),
                    "" if count.unknown is None else count.unknown,
                    "" if per_100 is None else f"{per_100:.2f}",
                    needed,
                    *((group.machine[label], group.reviewed) if self._is_reviewed else ()),
                ]
            )


def _parquet_table(path: Path, columns: Sequence[str], wanted: bool) -> ParquetTable | None:
    """The table as Parquet; unwanted, an earlier run's goes, which may contradict the others."""
    if wanted:
        return ParquetTable(path, columns)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    return None


def write_run(out: Path, document: Mapping[str, Any]) -> None:
    """Write ``run.json``: what was run, on what, with what."""
    text = json.dumps(document, indent=1, ensure_ascii=False, default=str)
    write_atomically(out / "run.json", text + "\n")
