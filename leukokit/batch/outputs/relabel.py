"""Labels at another review threshold, from the probabilities that a manifest stores."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from leukokit.batch.records import Entry, Thumbnail
from leukokit.differential import differential
from leukokit.taxonomy import UNCLASSIFIED, UNKNOWN
from leukokit.writers.tables import cell_columns, column_classes


class Relabelling:
    """Gives the leukocytes of a batch the labels of another review threshold.

    Probabilities are stored with four decimals: a cell within 0.00005 of the threshold may have another label
    than a new run gives it.

    Args:
        threshold: probability under which a leukocyte is unclassified; at 1 all are.
        classes: the classifier's.
    """

    def __init__(self, threshold: float, classes: Sequence[str]) -> None:
        self.threshold, self._classes = threshold, tuple(classes)
        self._columns = cell_columns(column_classes(classes))
        self._most_probable: dict[tuple[str, int], str] = {}

    def entries(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the entries with other labels."""
        for entry in entries:
            yield entry if entry.document is None else self._entry(entry)

    def thumbnails(self, thumbnails: Iterable[Thumbnail]) -> Iterator[Thumbnail]:
        """Yield the thumbnails with other labels; to be read after the entries."""
        for thumbnail in thumbnails:
            label = self._most_probable.get((thumbnail.name.as_posix(), thumbnail.cell), thumbnail.label)
            yield replace(thumbnail, label=self._label(label, thumbnail.probability))

    def _entry(self, entry: Entry) -> Entry:
        counts = dict.fromkeys((*self._classes, UNCLASSIFIED), 0)
        rows = list(csv.reader(io.StringIO(entry.cells, newline="")))
        label, probability, review, number = (
            self._columns.index(name) for name in ("label", "probability", "review", "id")
        )
        for row in rows:
            if not row[label]:
                continue
            most_probable = self._most_probable_class(row)
            if row[label] == UNCLASSIFIED:
                # Of these a thumbnail does not know the class.
                self._most_probable[entry.name.as_posix(), int(row[number])] = most_probable
            row[label] = self._label(most_probable, float(row[probability]))
            row[review] = str(row[label] in (UNCLASSIFIED, UNKNOWN)).lower()
            counts[row[label]] += 1
        stream = io.StringIO(newline="")
        csv.writer(stream).writerows(rows)
        document = {**(entry.document or {}), "differential": differential(counts).to_json()}
        return replace(entry, document=document, cells=stream.getvalue())

    def _most_probable_class(self, row: Sequence[str]) -> str:
        chances = {name: float(row[self._columns.index(f"p_{name}")] or 0) for name in self._classes}
        return max(chances, key=chances.__getitem__)

    def _label(self, label: str, probability: float) -> str:
        if label == UNKNOWN:
            return label
        is_below = probability < self.threshold or self.threshold >= 1
        return UNCLASSIFIED if is_below else label
