"""Writer ``csv``: every cell, and the counts of every image."""

from __future__ import annotations

from pathlib import Path

from leukokit.errors import OutputError
from leukokit.plugin import PluginParams
from leukokit.results import SmearResult
from leukokit.taxonomy import ERYTHROBLAST, IMMATURE_GRANULOCYTE, KINDS, LEUKOCYTE_CLASSES, UNCLASSIFIED
from leukokit.writers.base import Writer
from leukokit.writers.labels import CellLabel, cell_labels
from leukokit.writers.tables import Table

CLASSES: tuple[str, ...] = (*LEUKOCYTE_CLASSES, IMMATURE_GRANULOCYTE, ERYTHROBLAST, UNCLASSIFIED)
"""Classes that have a column in every table of counts."""


class CsvWriter(Writer):
    """``cells.csv``, a row a cell, and ``counts.csv``, a row an image, those without a cell included.

    A cell's ``probability`` is that of its most probable class. Columns are the same in every run: what is
    not known is blank. Only classes that the taxonomy does not know add columns to the counts, at their end.
    """

    name = "csv"
    version = "1.1"
    summary = "cells.csv with a row a cell, counts.csv with a row an image"
    file_an_image = False

    def __init__(self, out: Path, params: PluginParams | None = None) -> None:
        super().__init__(out, params)
        columns = ["id", "kind", "score", "x1", "y1", "x2", "y2", "label", "probability", "review"]
        self._cells = Table(out / "cells.csv", ["image", *columns])
        self._counts: Table | None = None
        self._classes = CLASSES

    def write(self, result: SmearResult) -> None:
        """Save one result.

        Raises:
            OutputError: the disk is full, ...; or a class was not known when the table of counts was begun.
        """
        cells, image = result.cells, str(result.smear.path or result.output_stem)
        rows = zip(cells.kinds, cells.scores, cells.boxes, cell_labels(cells), strict=True)
        for number, (kind, score, box, label) in enumerate(rows):
            sides = [round(float(side), 2) for side in box]
            self._cells.row([image, number, KINDS[kind], f"{score:.4f}", *sides, *_told(label)])
        classes = cells.class_counts
        if self._counts is None:
            self._classes = (*CLASSES, *(name for name in classes if name not in CLASSES))
            self._counts = self._begin_counts()
        if added := [name for name in classes if name not in self._classes]:
            raise OutputError(
                f"{self._counts.path}: has no column for class '{added[0]}'; "
                "save the results of each classifier to an --out of their own"
            )
        diameter = cells.cell_diameter_px
        size = [result.smear.width, result.smear.height, f"{result.seconds:.3f}"]
        ruler = "" if diameter is None else f"{diameter:.2f}"
        by_class = [classes.get(name, "") for name in self._classes]
        self._counts.row([image, *cells.counts.values(), ruler, *size, *by_class])

    def close(self) -> None:
        """Give the two tables their names."""
        try:
            self.files.append((self._counts or self._begin_counts()).finish())
        finally:
            self.files.append(self._cells.finish())

    def _begin_counts(self) -> Table:
        header = ["image", *KINDS, "cell_diameter_px", "width", "height", "seconds", *self._classes]
        return Table(self.out / "counts.csv", header)


def _told(label: CellLabel | None) -> list[str]:
    if label is None:
        return ["", "", ""]
    return [label.name, f"{label.probability:.4f}", "true" if label.review else "false"]
