"""Writer ``csv``: every cell, and the counts of every image."""

from __future__ import annotations

from pathlib import Path

from leukokit.plugin import PluginParams
from leukokit.results import SmearResult
from leukokit.taxonomy import KINDS
from leukokit.writers.base import Writer
from leukokit.writers.tables import Table


class CsvWriter(Writer):
    """``cells.csv``, a row a cell, and ``counts.csv``, a row an image, those without a cell included."""

    name = "csv"
    version = "1.0"
    summary = "cells.csv with a row a cell, counts.csv with a row an image"

    def __init__(self, out: Path, params: PluginParams | None = None) -> None:
        super().__init__(out, params)
        self._cells = Table(out / "cells.csv", ["image", "id", "kind", "score", "x1", "y1", "x2", "y2"])
        header = ["image", *KINDS, "cell_diameter_px", "width", "height", "seconds"]
        self._counts = Table(out / "counts.csv", header)

    def write(self, result: SmearResult) -> None:
        """Save one result."""
        cells, image = result.cells, str(result.smear.path or result.output_stem)
        for number, (kind, score, box) in enumerate(zip(cells.kinds, cells.scores, cells.boxes, strict=True)):
            self._cells.row(
                [image, number, KINDS[kind], f"{score:.4f}", *(round(float(side), 2) for side in box)]
            )
        diameter = cells.cell_diameter_px
        size = [result.smear.width, result.smear.height, f"{result.seconds:.3f}"]
        ruler = "" if diameter is None else f"{diameter:.2f}"
        self._counts.row([image, *cells.counts.values(), ruler, *size])

    def close(self) -> None:
        """Give the two tables their names."""
        try:
            self.files.append(self._counts.finish())
        finally:
            self.files.append(self._cells.finish())
