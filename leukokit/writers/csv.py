"""Writer ``csv``: every cell, and the counts of every image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from leukokit.errors import OutputError
from leukokit.plugin import PluginParams
from leukokit.results import SmearResult
from leukokit.taxonomy import UNCLASSIFIED
from leukokit.writers.base import Writer
from leukokit.writers.tables import (
    DELIMITERS,
    Table,
    cell_columns,
    cell_row,
    column_classes,
    count_columns,
    count_row,
)


class CsvParams(PluginParams):
    """Parameters of the writer ``csv``."""

    delimiter: Literal["comma", "semicolon", "tab"] = Field(
        "comma",
        description="what separates columns; Excel expects semicolons where the comma is the decimal sign",
    )
    bom: bool = Field(
        False, description="begin with a byte order mark, without which Excel on Windows garbles names"
    )


class CsvWriter(Writer[CsvParams]):
    """``cells.csv``, with one row per cell, and ``counts.csv``, with one row per image.

    The columns are those of a batch's tables, with a classifier and without: the five classes of a
    differential count, then others that the first image's classifier knows. What is not known is blank.
    """

    name = "csv"
    version = "1.3"
    summary = "cells.csv with one row per cell, counts.csv with one row per image"
    file_per_image = False

    shared_files = ("cells.csv", "counts.csv")

    def __init__(self, out: Path, params: CsvParams | None = None) -> None:
        super().__init__(out, params)
        self._classes: tuple[str, ...] = ()
        self._tables: tuple[Table, Table] | None = None

    def write(self, result: SmearResult) -> None:
        """Save one result.

        Raises:
            OutputError: the disk is full, ...; or a class was not known when the tables were begun.
        """
        labelling = result.cells.labelling
        self._tables = self._tables or self._begin(labelling.classes if labelling else ())
        cells, counts = self._tables
        known = {*self._classes, UNCLASSIFIED}
        if added := [name for name in result.cells.class_counts if name not in known]:
            raise OutputError(
                f"{counts.path}: has no column for class '{added[0]}'; "
                "save the results of each classifier to an --out of their own"
            )
        document, image = result.to_json(), str(result.smear.path or result.output_stem)
        for cell in document["cells"]:
            cells.row(cell_row(image, cell, self._classes))
        counts.row(count_row(image, document, self._classes))

    def close(self) -> None:
        """Give the two tables their names."""
        cells, counts = self._tables or self._begin(())
        try:
            self.files.append(counts.finish())
        finally:
            self.files.append(cells.finish())

    def _begin(self, classes: Sequence[str]) -> tuple[Table, Table]:
        self._classes = column_classes(classes)
        for name in self.shared_files:
            self.require_free(self.out / name)
        delimiter, bom = DELIMITERS[self.params.delimiter], self.params.bom
        return (
            Table(self.out / "cells.csv", cell_columns(self._classes), delimiter=delimiter, bom=bom),
            Table(self.out / "counts.csv", count_columns(self._classes), delimiter=delimiter, bom=bom),
        )
