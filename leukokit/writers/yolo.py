"""Writer ``yolo``: label files as YOLO trains on them."""

from __future__ import annotations

from leukokit.results import SmearResult
from leukokit.taxonomy import KINDS
from leukokit.writers.base import Writer


class YoloWriter(Writer):
    """``STEM.txt`` for every image, one line per cell, and ``classes.txt``.

    A line is the kind's number and the box's centre, width and height as fractions of the image. An
    image without a cell gets an empty file: it was processed.
    """

    name = "yolo"
    version = "1.0"
    summary = "one text file per image: kind, centre and size of each box, as fractions of the image"

    shared_files = ("classes.txt",)

    def write(self, result: SmearResult) -> None:
        """Save one result."""
        width, height = result.smear.width, result.smear.height
        lines = []
        for kind, (x1, y1, x2, y2) in zip(result.cells.kinds, result.cells.boxes.tolist(), strict=True):
            centre = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height)
            size = ((x2 - x1) / width, (y2 - y1) / height)
            lines.append(" ".join([str(kind), *(f"{value:.6f}" for value in (*centre, *size))]) + "\n")
        self.save(self.path_for(result, ".txt"), "".join(lines))

    def close(self) -> None:
        """Write the names of the kinds."""
        self.save(self.out / "classes.txt", "\n".join(KINDS) + "\n")
