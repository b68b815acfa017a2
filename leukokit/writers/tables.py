"""Tables of cells and of counts: their columns, and rows written to a file named only when it is complete."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from leukokit._files import partial_path, write_error
from leukokit._text import escape_formula
from leukokit.errors import OutputError
from leukokit.taxonomy import ERYTHROBLAST, KINDS, LEUKOCYTE_CLASSES, UNCLASSIFIED, UNKNOWN

DELIMITERS: Final = {"comma": ",", "semicolon": ";", "tab": "\t"}
"""Characters between columns, by name."""


class GrowingFile:
    """A text file that is written under a temporary name and renamed by ``finish``.

    Args:
        path: the file.
        bom: start it with a byte order mark, by which Excel on Windows knows its encoding.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, bom: bool = False) -> None:
        self.path = path
        self._failure: OSError | None = None
        self._partial = partial_path(path)
        try:
            # A name on disk may hold bytes that are no text.
            self.stream: TextIO = self._partial.open(
                "w", encoding="utf-8-sig" if bom else "utf-8", errors="backslashreplace", newline=""
            )
        except OSError as error:
            raise self._failed(error) from error

    def write(self, text: str) -> None:
        """Append text."""
        try:
            self.stream.write(text)
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> Path:
        """Close the file and give it its name; where that fails, nothing of it is left."""
        try:
            self.stream.close()
            self._partial.replace(self.path)
        except OSError as error:
            raise self._failed(error) from error
        return self.path

    def _failed(self, error: OSError) -> OutputError:
        # Without its temporary file, what is incomplete can no longer be given its name.
        with contextlib.suppress(OSError):
            self._partial.unlink()
        self._failure = self._failure or error
        return write_error(self.path, self._failure)


class Table(GrowingFile):
    """A CSV file (RFC 4180); text that a spreadsheet would run as a formula is quoted with an apostrophe.

    Args:
        path: of the file.
        header: names of the columns.
        delimiter: what separates columns.
        bom: start it with a byte order mark.
    """

    def __init__(self, path: Path, header: Sequence[str], *, delimiter: str = ",", bom: bool = False) -> None:
        super().__init__(path, bom)
        self._delimiter = delimiter
        self.row(header)

    def row(self, values: Sequence[object]) -> None:
        """Append a row; None is blank, and truth is written as JSON writes it."""
        self.write(lines([values], self._delimiter))


def lines(rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """Rows as text, for ``Table.write``."""
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows([_as_text(value) for value in row] for row in rows)
    return stream.getvalue()


def column_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that have columns: the five of a differential count, whatever is known, then any others."""
    return (*LEUKOCYTE_CLASSES, *(name for name in classes if name not in LEUKOCYTE_CLASSES))


def cell_columns(classes: Sequence[str]) -> list[str]:
    """Columns of a table of cells; the last are the classes' probabilities."""
    return [
        *("image", "id", "kind", "score", "x1", "y1", "x2", "y2", "label", "probability", "review"),
        *(f"p_{name}" for name in classes),
    ]


def cell_row(image: str, cell: Mapping[str, Any], classes: Sequence[str]) -> list[object]:
    """A cell of an image's JSON document; ``probability`` is that of its most probable class."""
    chances = cell.get("probabilities", {})
    return [
        *(image, cell["id"], cell["kind"], cell["score"], *cell["box"]),
        *(cell.get("label"), max(chances.values(), default=None), cell.get("review")),
        *(chances.get(name) for name in classes),
    ]


def count_columns(classes: Sequence[str]) -> list[str]:
    """Columns of a table of images."""
    return [
        "image",
        *KINDS,
        *classes,
        UNCLASSIFIED,
        "erythrocyte_diameter_px",
        "width",
        "height",
        "seconds",
        "notes",
    ]


def count_row(image: str, document: Mapping[str, Any], classes: Sequence[str]) -> list[object]:
    """An image's JSON document, counted; a class that its classifier does not know is blank."""
    known, size = class_counts(document), document["image"]
    return [
        *(image, *document["counts"].values(), *map(known.get, (*classes, UNCLASSIFIED))),
        *(document["erythrocyte_diameter_px"], size["width"], size["height"], document["seconds"]),
        "; ".join(document["notes"]),
    ]


def class_counts(document: Mapping[str, Any]) -> dict[str, int]:
    """An image's leukocytes by class, the unclassified too; empty without a classifier."""
    count = document["differential"]
    if count is None:
        return {}
    known = {name: share["count"] for name, share in count["classes"].items()}
    known[UNCLASSIFIED] = count["unclassified"]
    if count["erythroblasts"] is not None:
        known[ERYTHROBLAST] = count["erythroblasts"]
    if count["unknown"] is not None:
        known[UNKNOWN] = count["unknown"]
    return known


def _as_text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else escape_formula(value) if isinstance(value, str) else value
