"""The picture of a confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leukokit._files import write_atomically
from leukokit.metrics.confusion import ConfusionMatrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST_LABEL = 24
"""Characters of a class name that a picture has room for."""


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
        text = share_text(int(counts[row, column]), share).replace(" ", "\n")
        # White is read on the darker half of the blues only.
        axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.5 else "black")
    columns = [_short_label(name) for name in matrix.columns]
    rows = [
        f"{_short_label(name)} ({total})" for name, total in zip(matrix.rows, counts.sum(axis=1), strict=True)
    ]
    # A dollar sign in a name opens no formula.
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (cells)")
    axes.set_title(title)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title):
        label.set_parse_math(False)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)


def share_text(count: int, share: float) -> str:
    """Return a count and its percentage of a row, or 0 alone."""
    return f"{count} {100 * share:.1f}%" if count else "0"


def _short_label(name: str) -> str:
    plain = " ".join(name.split())
    return plain if len(plain) <= LONGEST_LABEL else f"{plain[: LONGEST_LABEL - 1]}…"
