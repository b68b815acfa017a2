"""The cells of one field of view, as a struct of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leukokit.taxonomy import ERYTHROCYTE, KINDS

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

FEWEST_FOR_RULER = 3
"""Fewest erythrocytes whose median diameter is taken for the field's ruler."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Detected cells; checked when made, so that whoever holds one may trust it. N may be 0.

    Attributes:
        boxes: (N, 4) float32, xyxy pixels of the original image, ``x1 <= x2`` and ``y1 <= y2``.
        kinds: (N,) int64, positions in ``taxonomy.KINDS``.
        scores: (N,) float32 in 0..1, the detector's confidence.
        notes: what a user should be told of how these cells were found.

    Raises:
        ValueError: shapes do not fit, or a value is out of range or not finite.
    """

    boxes: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    notes: tuple[str, ...] = ()

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
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "kinds", kinds.astype(np.int64))
        object.__setattr__(self, "scores", scores)

    @classmethod
    def empty(cls, notes: tuple[str, ...] = ()) -> Cells:
        """No cell at all."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32), notes)

    @classmethod
    def concatenate(cls, parts: Sequence[Cells]) -> Cells:
        """Cells of several parts in their order; equal notes are kept once."""
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.kinds for part in parts]),
            np.concatenate([part.scores for part in parts]),
            tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> Cells:
        """The cells at a boolean mask, an array of positions, or a slice."""
        return Cells(self.boxes[index], self.kinds[index], self.scores[index], self.notes)

    @property
    def diameters(self) -> npt.NDArray[np.float32]:
        """(N,) float32: the geometric mean of each box's sides, in pixels."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.sqrt(sides[:, 0] * sides[:, 1]).astype(np.float32)

    @property
    def cell_diameter_px(self) -> float | None:
        """Median erythrocyte diameter in pixels, the field's own ruler; None with fewer than three."""
        erythrocytes = self.diameters[self.kinds == ERYTHROCYTE]
        return float(np.median(erythrocytes)) if len(erythrocytes) >= FEWEST_FOR_RULER else None

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells of each kind, those with none included."""
        return {kind: int((self.kinds == number).sum()) for number, kind in enumerate(KINDS)}

    def to_dataframe(self) -> pd.DataFrame:
        """One row a cell: kind, score, x1, y1, x2, y2 (pixels)."""
        import pandas as pd

        kinds = pd.Series([KINDS[kind] for kind in self.kinds], dtype=str)
        table = pd.DataFrame({"kind": kinds, "score": self.scores})
        table[["x1", "y1", "x2", "y2"]] = self.boxes
        return table

    def to_supervision(self) -> sv.Detections:
        """As ``supervision.Detections``; ``class_id`` is the kind's number, ``class_name`` its name."""
        import supervision as sv

        return sv.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.kinds.astype(int),
            data={"class_name": np.array([KINDS[kind] for kind in self.kinds], dtype=str)},
        )

    @classmethod
    def from_supervision(cls, detections: sv.Detections) -> Cells:
        """From ``supervision.Detections`` whose ``class_id`` are kinds; a missing confidence counts as 1."""
        count = len(detections)
        kinds, scores = detections.class_id, detections.confidence
        if kinds is None and count:
            raise ValueError("detections without class_id: the kind of the cells is not known")
        return cls(
            np.asarray(detections.xyxy, dtype=np.float32),
            np.zeros(0, np.int64) if kinds is None else np.asarray(kinds, dtype=np.int64),
            np.ones(count, np.float32) if scores is None else scores,
        )
