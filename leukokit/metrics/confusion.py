"""Counts of cells by true class and by prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator


class ConfusionMatrix(BaseModel):
    """Counts of cells by true class (rows) and prediction (columns).

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


def count_confusion(
    truth: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer],
    rows: Sequence[str],
    columns: Sequence[str],
) -> ConfusionMatrix:
    """Return the counts of cells (N,) by true class and prediction, positions in rows and columns."""
    counts = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return ConfusionMatrix(
        rows=tuple(rows), columns=tuple(columns), counts=tuple(map(tuple, counts.tolist()))
    )
