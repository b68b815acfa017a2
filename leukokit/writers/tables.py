"""Rows written one by one to a file that takes its name only when it is complete."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from leukokit.errors import OutputError
from leukokit.writers.base import cannot_write

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


class GrowingFile:
    """A text file that is written under a temporary name and renamed by ``finish``.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._failure: OSError | None = None
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            # A name on disk may hold bytes that are no text.
            self.stream: TextIO = self._partial.open(
                "w", encoding="utf-8", errors="backslashreplace", newline=""
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
        return cannot_write(self.path, self._failure)


class Table(GrowingFile):
    """A CSV file (RFC 4180); text that a spreadsheet would run as a formula is quoted with an apostrophe."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        super().__init__(path)
        self._rows = csv.writer(self.stream)
        self.row(header)

    def row(self, values: Sequence[object]) -> None:
        """Append a row."""
        try:
            self._rows.writerow([inert(value) if isinstance(value, str) else value for value in values])
        except OSError as error:
            raise self._failed(error) from error


def inert(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
