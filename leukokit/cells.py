"""The cells of one field of view, as arrays with one row per cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leukokit.taxonomy import ERYTHROCYTE, KINDS, LEUKOCYTE, UNCLASSIFIED, UNKNOWN

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

MIN_ERYTHROCYTES = 3
"""Smallest number of erythrocytes whose median diameter, or colour, stands for the field's."""

LEUKOCYTE_TO_ERYTHROCYTE = 1.95
"""Usual ratio of a leukocyte's to an erythrocyte's box side: the ruler of a field without erythrocytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelling:
    """Class probabilities of the cells of a field; checked when made.

    Attributes:
        probabilities: (N, C) float32; a leukocyte's row sums to one, any other cell's is all zero.
        classes: the C class names; one may be ``unknown``.
        review_threshold: a leukocyte whose largest probability is below it is ``unclassified`` and needs
            review.

    Raises:
        ValueError: shapes do not match, or a row is not a distribution.

    Examples:
        >>> import numpy as np
        >>> labelling = Labelling(np.array([[0.9, 0.1], [0.6, 0.4]]), ("neutrophil", "lymphocyte"), 0.7)
        >>> labelling.labels
        ['neutrophil', 'unclassified']
    """

    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    review_threshold: float = 0.0

    def __post_init__(self) -> None:
        values = np.asarray(self.probabilities, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != len(self.classes) or not self.classes:
            raise ValueError(f"probabilities must be (N, {len(self.classes)}), not {values.shape}")
        if not np.isfinite(values).all() or (values < 0).any():
            raise ValueError("probabilities must be finite and not negative")
        sums = values.sum(axis=1)
        if not np.all((np.abs(sums - 1) < 1e-3) | (sums == 0)):
            raise ValueError("a row of probabilities must sum to one, or be all zero")
        object.__setattr__(self, "probabilities", values)

    def __getitem__(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> Labelling:
        """The rows at a boolean mask, an array of positions, or a slice."""
        return Labelling(self.probabilities[index], self.classes, self.review_threshold)

    @property
    def review(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: leukocytes that are unclassified or ``unknown``; at a threshold of 1, all."""
        best, threshold = self.best, self.review_threshold
        below = (best > 0) & ((best < threshold) | (threshold >= 1))
        return np.asarray(below | self._unknown, dtype=bool)

    @property
    def _unknown(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: leukocytes whose most probable class is ``unknown``."""
        if UNKNOWN not in self.classes:
            return np.zeros(len(self.probabilities), dtype=bool)
        most_probable = self.probabilities.argmax(axis=1) == self.classes.index(UNKNOWN)
        return np.asarray((self.best > 0) & most_probable, dtype=bool)

    @property
    def best(self) -> npt.NDArray[np.float32]:
        """(N,) float32: the largest probability of each leukocyte; 0 for any other cell."""
        return np.asarray(self.probabilities.max(axis=1, initial=0.0), dtype=np.float32)

    @property
    def labels(self) -> list[str]:
        """N names: a class, ``unclassified``, or empty for a cell that is not a leukocyte.

        A cell whose most probable class is ``unknown`` has that label at any threshold.
        """
        return [
            "" if not probability else UNCLASSIFIED if in_review and not unknown else self.classes[number]
            for number, probability, in_review, unknown in zip(
                self.probabilities.argmax(axis=1), self.best, self.review, self._unknown, strict=True
            )
        ]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cells:
    """The cells of one field of view, as arrays with one row per cell; checked when made. N may be 0.

    Attributes:
        boxes: (N, 4) float32, xyxy pixels of the original image, ``x1 <= x2`` and ``y1 <= y2``.
        kinds: (N,) int64, positions in ``taxonomy.KINDS``.
        scores: (N,) float32 in 0..1, the detector's confidence.
        notes: sentences for the user about how these cells were found.
        labelling: the classes of the leukocytes, once a classifier has named them.

    Raises:
        ValueError: shapes do not match, or a value is out of range or not finite.

    Examples:
        >>> import numpy as np
        >>> boxes = np.array([[10, 10, 50, 50], [60, 10, 80, 30], [90, 40, 111, 60]])
        >>> cells = Cells(boxes, np.array([LEUKOCYTE, ERYTHROCYTE, ERYTHROCYTE]), np.array([0.9, 0.8, 0.7]))
        >>> cells
        <Cells: 1 leukocyte, 2 erythrocyte>
        >>> cells[cells.scores > 0.75].counts
        {'leukocyte': 1, 'erythrocyte': 1, 'platelet': 0}
    """

    boxes: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    notes: tuple[str, ...] = ()
    labelling: Labelling | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float32)
        kinds = np.asarray(self.kinds)
        scores = np.asarray(self.scores, dtype=np.float32)
        if boxes.shape == (0,):
            boxes = boxes.reshape(0, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes must have the shape (N, 4), not {boxes.shape}")
        count = len(boxes)
        if kinds.shape != (count,) or scores.shape != (count,):
            raise ValueError(f"{count} boxes, but kinds {kinds.shape} and scores {scores.shape}")
        if count:
            if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
                raise ValueError("boxes must be finite, with x1 <= x2 and y1 <= y2")
            if kinds.dtype.kind not in "iu" or kinds.min() < 0 or kinds.max() >= len(KINDS):
                raise ValueError(f"kinds must be whole numbers from 0 to {len(KINDS) - 1}")
            if not (scores >= 0).all() or not (scores <= 1).all():
                raise ValueError("scores must lie between 0 and 1")
        if self.labelling is not None and len(self.labelling.probabilities) != count:
            raise ValueError(f"{count} cells, but probabilities of {len(self.labelling.probabilities)}")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "kinds", kinds.astype(np.int64))
        object.__setattr__(self, "scores", scores)

    @classmethod
    def empty(cls, notes: tuple[str, ...] = ()) -> Cells:
        """A field without cells."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32), notes)

    @classmethod
    def concatenate(cls, parts: Sequence[Cells]) -> Cells:
        """Join the cells of several parts in their order, without classes; equal notes are kept once."""
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.kinds for part in parts]),
            np.concatenate([part.scores for part in parts]),
            tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        )

    def with_labelling(self, labelling: Labelling, notes: tuple[str, ...] = ()) -> Cells:
        """Return the same cells with classes, and with further notes after their own."""
        return replace(self, labelling=labelling, notes=self.notes + notes)

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        counted = {name: count for name, count in (self.counts | self.class_counts).items() if count}
        return f"<Cells: {', '.join(f'{count} {name}' for name, count in counted.items()) or 'none'}>"

    def __getitem__(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> Cells:
        """The cells at a boolean mask, an array of positions, or a slice."""
        labelling = None if self.labelling is None else self.labelling[index]
        return Cells(self.boxes[index], self.kinds[index], self.scores[index], self.notes, labelling)

    @property
    def diameters(self) -> npt.NDArray[np.float32]:
        """(N,) float32: geometric mean of each box's sides, in pixels."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.sqrt(sides[:, 0] * sides[:, 1]).astype(np.float32)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """(N, 2) float64: x and y of the middle of each box, in pixels."""
        boxes = self.boxes.astype(np.float64)
        return (boxes[:, :2] + boxes[:, 2:]) / 2

    @property
    def erythrocyte_diameter_px(self) -> float | None:
        """The ruler: median erythrocyte diameter in pixels; None with fewer than three erythrocytes."""
        erythrocytes = self.diameters[self.kinds == ERYTHROCYTE]
        return float(np.median(erythrocytes)) if len(erythrocytes) >= MIN_ERYTHROCYTES else None

    @property
    def ruler_px(self) -> float | None:
        """Erythrocyte diameter in pixels, measured or estimated; None where no cell has a size.

        With fewer than three erythrocytes it is estimated from the leukocytes, by the usual ratio of the two
        diameters, or else it is the median diameter of all cells.
        """
        if measured := self.erythrocyte_diameter_px:
            return measured
        diameters = self.diameters
        sized = diameters > 0
        leukocytes = diameters[sized & (self.kinds == LEUKOCYTE)]
        if len(leukocytes):
            return float(np.median(leukocytes)) / LEUKOCYTE_TO_ERYTHROCYTE
        return float(np.median(diameters[sized])) if sized.any() else None

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells per kind, zeros included."""
        return {kind: int((self.kinds == number).sum()) for number, kind in enumerate(KINDS)}

    @property
    def class_counts(self) -> dict[str, int]:
        """Number of leukocytes per class, and of unclassified ones; empty without a labelling."""
        if self.labelling is None:
            return {}
        labels = self.labelling.labels
        return {name: labels.count(name) for name in (*self.labelling.classes, UNCLASSIFIED)}

    def to_dataframe(self) -> pd.DataFrame:
        """A table with one row per cell.

        Columns: ``id`` (the cell's number), ``kind``, ``score``, ``x1``, ``y1``, ``x2``, ``y2`` (pixels).
        With a labelling also ``label``, ``probability`` (of the best class), ``review`` and ``p_CLASS`` for
        each class; these are missing values for a cell that is not a leukocyte.

        Examples:
            >>> import numpy as np
            >>> cells = Cells(np.array([[0, 0, 8, 8]]), np.array([2]), np.array([0.5]))
            >>> cells.to_dataframe()[["id", "kind", "x2"]].to_dict("records")
            [{'id': 0, 'kind': 'platelet', 'x2': 8.0}]
        """
        import pandas as pd

        kinds = pd.Series([KINDS[kind] for kind in self.kinds], dtype=str)
        table = pd.DataFrame({"id": np.arange(len(self)), "kind": kinds, "score": self.scores})
        table[["x1", "y1", "x2", "y2"]] = self.boxes
        if self.labelling is not None:
            best = self.labelling.best
            without_class = best == 0
            probabilities = np.where(without_class[:, None], np.nan, self.labelling.probabilities)
            table["label"] = pd.Series([label or None for label in self.labelling.labels], dtype="string")
            table["probability"] = np.where(without_class, np.nan, best)
            table["review"] = pd.Series(self.labelling.review, dtype="boolean").mask(without_class)
            table[[f"p_{name}" for name in self.labelling.classes]] = probabilities
        return table

    def to_supervision(self) -> sv.Detections:
        """Return ``supervision.Detections``; ``class_id`` is the kind's number, ``class_name`` its name."""
        import supervision as sv

        return sv.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.kinds.astype(int),
            data={"class_name": np.array([KINDS[kind] for kind in self.kinds], dtype=str)},
        )

    @classmethod
    def from_supervision(cls, detections: sv.Detections) -> Cells:
        """Read ``supervision.Detections`` whose ``class_id`` are kinds; a missing confidence counts as 1.

        Raises:
            ValueError: there are detections, but no ``class_id``.
        """
        count = len(detections)
        kinds, scores = detections.class_id, detections.confidence
        if kinds is None and count:
            raise ValueError("detections without class_id: the kinds of the cells are not known")
        return cls(
            np.asarray(detections.xyxy, dtype=np.float32),
            np.zeros(0, np.int64) if kinds is None else np.asarray(kinds, dtype=np.int64),
            np.ones(count, np.float32) if scores is None else scores,
        )
