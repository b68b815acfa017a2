"""Predictions for cells whose class is known, and the table they are kept in."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leukokit._text import FORMULA_STARTS
from leukokit.errors import DataError
from leukokit.metrics.bootstrap import photo_codes
from leukokit.taxonomy import UNCLASSIFIED, UNKNOWN
from leukokit.writers.tables import Table

OTHER = "none of these"
"""The true class of a cell that is of none of the model's classes."""

COLUMNS = ("cell", "photo", "group", "label", "review_threshold")
SLACK = 1e-3
"""How far the probabilities of a cell may sum from one, for tables of rounded numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Answers on N cells; checked when made. N may be 0.

    Attributes:
        labels: (N,) int64, true classes as positions in ``classes``; -1 where the true class is none of
            them, which counts as wrong whatever the prediction.
        probabilities: (N, C) float32, rows that sum to one.
        classes: the C class names.
        photos: (N,) str, the photograph of each cell: cells of one are not independent.
        groups: (N,) str, such as laboratories, or None. Equal photographs in two groups are two.
        review_threshold: cells whose top probability is below it are unclassified; 0 for none.
        cells: (N,) str, what each cell is found by, or None; a table then holds their positions.

    Raises:
        ValueError: shapes do not fit, a value is out of range, or a name is missing or reserved.
    """

    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    photos: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_] | None = None
    review_threshold: float = 0.0
    cells: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        labels, classes = np.asarray(self.labels), tuple(self.classes)
        probabilities = np.asarray(self.probabilities, dtype=np.float32)
        count = len(labels)
        if not classes or len(set(classes)) < len(classes) or {"", UNCLASSIFIED, OTHER} & set(classes):
            raise ValueError(
                f"classes must be different names, none of them empty, {UNCLASSIFIED!r}, {OTHER!r}"
            )
        if labels.shape != (count,) or probabilities.shape != (count, len(classes)):
            shapes = f"labels {labels.shape} and probabilities {probabilities.shape}"
            raise ValueError(f"{shapes} must be (N,) and (N, {len(classes)})")
        if count and (labels.dtype.kind not in "iu" or labels.min() < -1 or labels.max() >= len(classes)):
            raise ValueError(f"labels must be whole numbers from -1 to {len(classes) - 1}")
        if not ((probabilities >= 0) & (probabilities <= 1 + SLACK)).all():
            raise ValueError("probabilities must lie between 0 and 1")
        if (np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1) > SLACK).any():
            raise ValueError("the probabilities of a cell must sum to one")
        if not 0 <= self.review_threshold <= 1:
            raise ValueError("review_threshold must lie between 0 and 1")
        names = {
            "photos": np.asarray(self.photos, dtype=str),
            "groups": None if self.groups is None else np.asarray(self.groups, dtype=str),
            "cells": None if self.cells is None else np.asarray(self.cells, dtype=str),
        }
        for name, column in names.items():
            if column is not None and column.shape != (count,):
                raise ValueError(f"{name} {column.shape} must be ({count},), as labels")
            if column is not None and (column == "").any():
                raise ValueError(f"{name} must not be empty")
            # Of no cell there is no group, and a table of none could not tell.
            object.__setattr__(self, name, column if count or name != "groups" else None)
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "probabilities", probabilities)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "review_threshold", float(self.review_threshold))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """(N,) int64, the most probable class of each cell; of equals the first."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, whether the most probable class is the true one."""
        return np.asarray(self.predicted == self.labels)

    @property
    def classified(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, whether the top probability reaches the review threshold and is not of ``unknown``."""
        # In double precision: a review threshold between two float32 must not be rounded onto one.
        reached = self.probabilities.max(axis=1).astype(np.float64) >= self.review_threshold
        return np.asarray(reached & ~self.unknown)

    @property
    def unknown(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, whether the prediction is ``unknown``."""
        if UNKNOWN not in self.classes:
            return np.zeros(len(self), dtype=bool)
        return np.asarray(self.predicted == self.classes.index(UNKNOWN))

    @property
    def photo_codes(self) -> npt.NDArray[np.int64]:
        """(N,) int64, one number per photograph."""
        return photo_codes(self.photos, self.groups)

    def save(self, path: Path) -> None:
        """Write a CSV with one row per cell.

        Columns: cell, photo, group, label, review_threshold, then one probability per class.

        The label is the class's name, empty where the cell is of none of the classes; the group is empty
        without groups; numbers are exact. Names that a spreadsheet would run as a formula are quoted.

        Raises:
            OutputError: the file cannot be written.
        """
        table = Table(path, [*COLUMNS, *(_quoted(name) for name in self.classes)])
        cells = np.arange(len(self)).astype(str) if self.cells is None else self.cells
        groups = np.full(len(self), "") if self.groups is None else self.groups
        names = (*self.classes, "")
        for cell, photo, group, label, row in zip(
            cells, self.photos, groups, self.labels, self.probabilities, strict=True
        ):
            texts = [_quoted(str(text)) for text in (cell, photo, group, names[label])]
            table.row([*texts, self.review_threshold, *(str(value) for value in row)])
        table.finish()

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what ``save`` wrote.

        Raises:
            DataError: the file cannot be read, or is no such table; names the line where it can.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                rows = list(csv.reader(stream))
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); choose a table of predictions"
            ) from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not a CSV file ({error}); choose a table of predictions") from error
        if not rows or tuple(rows[0][: len(COLUMNS)]) != COLUMNS:
            raise DataError(f"{path}: not a table of predictions; its columns start with {','.join(COLUMNS)}")
        classes = tuple(_unquoted(name) for name in rows[0][len(COLUMNS) :])
        try:
            return cls._from_rows(rows[1:], classes)
        except ValueError as error:
            message = " ".join(str(error).split())
            raise DataError(f"{path}: {message}; write the table of predictions again") from error

    @classmethod
    def _from_rows(cls, rows: list[list[str]], classes: tuple[str, ...]) -> Predictions:
        numbers = {name: number for number, name in enumerate((*classes, ""))}
        numbers[""] = -1
        texts: list[list[str]] = []
        values: list[list[float]] = []
        for number, row in enumerate(rows, 2):
            if not row:
                continue
            try:
                texts.append([_unquoted(text) for text in row[:4]])
                values.append([float(text) for text in row[4:]])
                known = len(row) == len(COLUMNS) + len(classes) and texts[-1][3] in numbers
            except ValueError:
                known = False
            if not known:
                raise ValueError(f"row {number} is not that of a cell")
        limits = {row[0] for row in values}
        if len(limits) > 1:
            raise ValueError("the review threshold differs between rows")
        cells, photos, groups, labels = (
            (list(column) for column in zip(*texts, strict=True)) if texts else [[]] * 4
        )
        return cls(
            labels=np.array([numbers[label] for label in labels], dtype=np.int64),
            probabilities=np.array([row[1:] for row in values], np.float32).reshape(
                len(values), len(classes)
            ),
            classes=classes,
            photos=np.array(photos, dtype=str),
            groups=np.array(groups, dtype=str) if any(groups) else None,
            review_threshold=limits.pop() if limits else 0.0,
            cells=np.array(cells, dtype=str),
        )


def _quoted(text: str) -> str:
    # One apostrophe more than a name has by itself, so that reading may take one away.
    return f"'{text}" if text.lstrip("'").startswith(FORMULA_STARTS) else text


def _unquoted(text: str) -> str:
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA_STARTS) else text
