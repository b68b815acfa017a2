"""Cells as Apache Parquet, a row group at a time; the package pyarrow is an extra."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from leukokit._files import partial_path, write_error
from leukokit._text import printable, unescape_formula
from leukokit.errors import ConfigError, OutputError

ROWS: Final = 20_000
"""Rows that are gathered before they are written."""
_COLUMN_TYPES: Final = {
    "image": "string",
    "id": "int32",
    "kind": "string",
    "label": "string",
    "review": "bool",
}
"""Of the columns that are not float32."""
_READERS: Final[dict[str, Callable[[str], object]]] = {
    "string": lambda text: printable(unescape_formula(text)),
    "int32": int,
    "float": float,
    "bool": "true".__eq__,
}


def require_pyarrow() -> None:
    """See that there is a pyarrow.

    Raises:
        ConfigError: there is none.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError("--parquet needs pyarrow: pip install 'leukokit[parquet]'") from error


class ParquetTable:
    """A Parquet file that takes its name when it is complete.

    Args:
        path: the file.
        columns: of a table of cells, the image's name first.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path, self._pa = path, pa
        self._partial = partial_path(path)
        self._schema = pa.schema([(name, _COLUMN_TYPES.get(name, "float32")) for name in columns])
        self._rows: list[Sequence[Any]] = []
        try:
            self._file = pq.ParquetWriter(self._partial, self._schema)
        except OSError as error:
            raise write_error(path, error) from error

    def write(self, image: str, cells: str) -> None:
        """Append an image's cells, rows as ``cells.csv`` has them.

        Raises:
            OutputError: the file cannot be written.
        """
        # A name on disk may hold bytes that are no text.
        name, readers = printable(image), [_READERS[str(field.type)] for field in self._schema][1:]
        for _, *values in csv.reader(io.StringIO(cells, newline="")):
            read = [read(value) if value else None for read, value in zip(readers, values, strict=True)]
            self._rows.append([name, *read])
        if len(self._rows) >= ROWS:
            self._flush()

    def finish(self) -> None:
        """Close the file and give it its name.

        Raises:
            OutputError: the file cannot be written.
        """
        self._flush()
        try:
            self._file.close()
            self._partial.replace(self.path)
        except OSError as error:
            raise self._failed(error) from error

    def _flush(self) -> None:
        columns = [list(column) for column in zip(*self._rows, strict=True)] or [[] for _ in self._schema]
        arrays = [
            self._pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)
        ]
        self._rows = []
        try:
            self._file.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        with contextlib.suppress(OSError):
            self._partial.unlink()
        return write_error(self.path, error)
