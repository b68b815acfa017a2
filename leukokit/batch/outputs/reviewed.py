"""Labels that people gave to leukocytes of a batch, in place of the classifier's."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from leukokit._text import escape_formula, printable
from leukokit.batch.decisions import NOT_LEUKOCYTES, CellKey, Verdict
from leukokit.batch.records import Entry, Thumbnail
from leukokit.differential import differential
from leukokit.taxonomy import KINDS, LEUKOCYTE, UNCLASSIFIED, UNKNOWN
from leukokit.writers.tables import cell_columns, class_counts, column_classes

CELL_COLUMNS: Final = ("reviewed", "reviewed_by")
"""Columns that the table of cells of a reviewed batch has beside its others."""


class ReviewedLabels:
    """Applies the decisions in force to what a manifest stores.

    Args:
        verdicts: the decisions.
        classes: the classifier's; empty without one.

    Attributes:
        classes: those that are counted: the classifier's, then what people gave beside them.
    """

    def __init__(self, verdicts: Mapping[CellKey, Verdict], classes: Sequence[str]) -> None:
        self._verdicts = verdicts
        given = sorted({verdict.label for verdict in verdicts.values()} - NOT_LEUKOCYTES)
        named = (*classes, *(label for label in given if label not in (UNCLASSIFIED, UNKNOWN)))
        self.classes = tuple(dict.fromkeys(named))
        self._machine_classes = tuple(classes)
        self._columns = cell_columns(column_classes(classes))

    @property
    def note(self) -> str:
        """One sentence about who reviewed how many leukocytes."""
        by = Counter(verdict.reviewer for verdict in self._verdicts.values())
        names = ", ".join(f"{printable(name)} {number:,}" for name, number in sorted(by.items()))
        return f"{by.total():,} leukocytes have the label that a person gave them ({names})"

    def entries(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the entries with people's labels in their counts, and two more columns per cell."""
        for entry in entries:
            yield entry if entry.document is None else self._entry(entry, entry.document)

    def thumbnails(self, thumbnails: Iterable[Thumbnail]) -> Iterator[Thumbnail]:
        """Yield the thumbnails with people's labels."""
        for thumbnail in thumbnails:
            verdict = self._verdicts.get(CellKey(thumbnail.name.as_posix(), thumbnail.cell))
            yield thumbnail if verdict is None else replace(thumbnail, label=verdict.label)

    def _entry(self, entry: Entry, document: Mapping[str, Any]) -> Entry:
        name, reviewed = entry.name.as_posix(), 0
        counts: Counter[str] = Counter(dict.fromkeys((*self._machine_classes, UNCLASSIFIED), 0))
        leukocytes, stream = 0, io.StringIO(newline="")
        table = csv.writer(stream)
        kind, number, label = (self._columns.index(column) for column in ("kind", "id", "label"))
        for row in csv.reader(io.StringIO(entry.cells, newline="")):
            verdict = None
            if row[kind] == KINDS[LEUKOCYTE]:
                verdict = self._verdicts.get(CellKey(name, int(row[number])))
                final = verdict.label if verdict else row[label] or UNCLASSIFIED
                reviewed += verdict is not None
                if final not in NOT_LEUKOCYTES:
                    leukocytes += 1
                    counts[final] += 1
            given = (verdict.label, verdict.reviewer) if verdict else ("", "")
            table.writerow([*row, *map(escape_formula, given)])
        changed = {
            **document,
            "counts": {**document["counts"], KINDS[LEUKOCYTE]: leukocytes},
            "differential": differential(counts).to_json(),
            "machine_classes": class_counts(document),
            "reviewed": reviewed,
        }
        return replace(entry, document=changed, cells=stream.getvalue())
