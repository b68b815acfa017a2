"""Leukocytes that lie on two fields of a group, and are counted on both."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from leukokit._text import printable
from leukokit.batch.outputs.grouping import NO_GROUP
from leukokit.batch.records import Entry
from leukokit.cells import Cells
from leukokit.overlap import Constellation, find_overlap
from leukokit.taxonomy import KINDS

FIELDS_COMPARED: Final = 100
"""Fields of a group, before a field in the order of names, that it is compared with."""


@dataclass(slots=True)
class Overlaps:
    """The fields of a batch that show cells of another field of their group.

    Attributes:
        leukocytes: number of leukocytes that are counted on two fields.
        fields: names of the two fields of each overlap.
    """

    leukocytes: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    _recent: dict[str, deque[tuple[str, Constellation]]] = field(default_factory=dict)

    def watch(self, entries: Iterable[tuple[Entry, str]]) -> Iterator[tuple[Entry, str]]:
        """Yield entries with their groups as they are, and compare the fields of each group on the way."""
        for entry, group in entries:
            self._compare(entry, group)
            yield entry, group

    @property
    def attention(self) -> str:
        """One sentence where there are any, else empty."""
        if not self.fields:
            return ""
        name, other = map(printable, self.fields[0])
        pairs = (
            "2 fields overlap" if len(self.fields) == 1 else f"{len(self.fields):,} pairs of fields overlap"
        )
        cells = "1 leukocyte is" if self.leukocytes == 1 else f"{self.leukocytes:,} leukocytes are"
        return f"{pairs}, e.g. {other} and {name}: {cells} counted twice; leave out one of the two"

    def _compare(self, entry: Entry, group: str) -> None:
        if entry.document is None or not entry.document["counts"][KINDS[0]]:
            return
        size = entry.document["image"]["width"], entry.document["image"]["height"]
        constellation, name = Constellation(_cells_of(entry.cells), size), entry.name.as_posix()
        recent = self._recent.setdefault(group or NO_GROUP, deque(maxlen=FIELDS_COMPARED))
        for other, earlier in recent:
            overlap = find_overlap(earlier, constellation)
            if overlap is not None and len(overlap.leukocytes):
                self.fields.append((name, other))
                self.leukocytes += len(overlap.leukocytes)
        if constellation.is_comparable:
            recent.append((name, constellation))


def _cells_of(rows: str) -> Cells:
    """Return the cells in rows of the table of cells."""
    found = [(row[2], *map(float, row[3:8])) for row in csv.reader(io.StringIO(rows, newline=""))]
    numbers = np.array([row[1:] for row in found], float).reshape(-1, 5)
    kinds = np.array([KINDS.index(str(row[0])) for row in found], np.int64)
    return Cells(numbers[:, 1:], kinds, numbers[:, 0])
