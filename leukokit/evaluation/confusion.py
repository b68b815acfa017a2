"""A confusion matrix: its counts, a table of it for the terminal, a picture of it for a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from leukokit._files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table
    from rich.text import Text

LONGEST_NAME = 24
"""Characters of a class name that a picture has room for."""


class ConfusionMatrix(BaseModel):
    """Counts of cells by true class (rows) and answer (columns).

    Raises:
        ValueError: the counts do not fit the names, or are negative.
    """

    model_config = ConfigDict(frozen=True)
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _fits(self) -> ConfusionMatrix:
        if len(self.counts) != len(self.rows) or {len(row) for row in self.counts} - {len(self.columns)}:
            raise ValueError(f"counts must be {len(self.rows)} rows of {len(self.columns)}")
        if any(count < 0 for row in self.counts for count in row):
            raise ValueError("counts must not be negative")
        return self

    def array(self) -> npt.NDArray[np.int64]:
        """The counts as int64 (rows, columns)."""
        return np.asarray(self.counts, dtype=np.int64).reshape(len(self.rows), len(self.columns))

    def shares(self) -> npt.NDArray[np.float64]:
        """Each count as a share of its row, float64 (rows, columns); 0 in a row without a cell."""
        counts = self.array()
        return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def plain_table(title: str, *columns: str | Text) -> Table:
    """A table for people: the first column to the left, figures to the right; folded, never cut."""
    from rich.table import Table

    table = Table(
        title=title or None,
        box=None,
        header_style="bold",
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
    )
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def confusion_table(matrix: ConfusionMatrix) -> Table:
    """The matrix as a table for people: count and row percent, right answers in bold."""
    from rich.text import Text

    # Names are text: a bracket in one is no markup.
    table = plain_table("", "true \\ answer", *map(Text, matrix.columns), "cells")
    for name, counts, shares in zip(matrix.rows, matrix.array(), matrix.shares(), strict=True):
        entries = [
            Text(_entry(int(count), float(share)), style="bold" if column == name else "")
            for column, count, share in zip(matrix.columns, counts, shares, strict=True)
        ]
        table.add_row(Text(name), *entries, str(counts.sum()))
    return table


def draw_confusion(matrix: ConfusionMatrix, title: str = "") -> bytes:
    """The matrix as a PNG: a square an entry with count and row percent, darker where the share is larger.

    Drawn without a display, and whatever matplotlib's own settings are.

    Raises:
        ValueError: a matrix without rows or columns.
    """
    import io
    import warnings

    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not matrix.rows or not matrix.columns:
        raise ValueError("a confusion matrix without a class cannot be drawn")
    with matplotlib.style.context("default"), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; the numbers are there all the same.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(1.5 + 0.95 * len(matrix.columns), 1.2 + 0.95 * len(matrix.rows)))
        FigureCanvasAgg(figure)
        _draw(figure.add_subplot(), matrix, title)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=120, bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()


def save_confusion(path: Path, matrix: ConfusionMatrix, title: str = "") -> None:
    """Write ``draw_confusion``'s PNG.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomically(path, draw_confusion(matrix, title))


def _draw(axes: Axes, matrix: ConfusionMatrix, title: str) -> None:
    counts, shares = matrix.array(), matrix.shares()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        share = float(shares[row, column])
        text = _entry(int(counts[row, column]), share).replace(" ", "\n")
        # White is read on the darker half of the blues only.
        axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.5 else "black")
    columns = [_short(name) for name in matrix.columns]
    rows = [f"{_short(name)} ({total})" for name, total in zip(matrix.rows, counts.sum(axis=1), strict=True)]
    # A dollar sign in a name opens no formula.
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class (cells)")
    axes.set_title(title)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title):
        label.set_parse_math(False)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)


def _entry(count: int, share: float) -> str:
    return f"{count} {100 * share:.1f}%" if count else "0"


def _short(name: str) -> str:
    plain = " ".join(name.split())
    return plain if len(plain) <= LONGEST_NAME else f"{plain[: LONGEST_NAME - 1]}…"
